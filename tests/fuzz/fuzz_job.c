/* SPDX-License-Identifier: MIT
 *
 * fuzz_job.c - the worker's job between a client and a guest that both say
 * anything: rubbish bytes, and frames that are almost right. What it passes on
 * must be legal, whoever said what.
 */
#include "kvm/proto.h"
#include "shm/slot.h"
#include "tests/lib/fuzz.h"
#include "worker/job.h"

#include <string.h>

#define GENERATION 7u
#define STEPS 300u

static struct fuzz *dice;

/* The guest: bytes for it are checked as they come. */
static struct {
	uint8_t out[4 * CHAN_FRAME];
	size_t out_len, out_off;
	uint8_t in[2 * CHAN_FRAME];
	size_t in_len;
} guest;

static ssize_t
fake_recv(struct machine *m, void *buf, size_t len)
{
	size_t n = MIN(len, guest.out_len - guest.out_off);

	(void)m;
	if (fuzz_one_in(dice, 3000))
		return -EPROTO;
	if (n > 1 && fuzz_one_in(dice, 3))
		n = 1 + fuzz_below(dice, (uint32_t)n);
	memcpy(buf, guest.out + guest.out_off, n);
	guest.out_off += n;
	return (ssize_t)n;
}

static void
hear(void)
{
	struct proto_hdr hdr;

	while (guest.in_len >= sizeof(hdr)) {
		memcpy(&hdr, guest.in, sizeof(hdr));
		assert(proto_check(&hdr, false));
		if (guest.in_len < sizeof(hdr) + hdr.length)
			return;
		guest.in_len -= sizeof(hdr) + hdr.length;
		memmove(guest.in, guest.in + sizeof(hdr) + hdr.length, guest.in_len);
	}
}

static ssize_t
fake_send(struct machine *m, const void *buf, size_t len)
{
	size_t n = MIN(len, sizeof(guest.in) - guest.in_len);

	(void)m;
	if (fuzz_one_in(dice, 4))
		n = n > 0 ? fuzz_below(dice, (uint32_t)n + 1) : 0;
	memcpy(guest.in + guest.in_len, buf, n);
	guest.in_len += n;
	hear();
	return (ssize_t)n;
}

static const struct machine_ops fake_ops = {.name = "fuzz", .recv = fake_recv, .send = fake_send};

/* --- what they say ------------------------------------------------------------------------ */

static uint8_t
any_type(void)
{
	static const uint8_t types[] = {
	    PROTO_PING,	      PROTO_EXEC,  PROTO_STDIN, PROTO_KILL,
	    PROTO_CREDIT,     PROTO_READY, PROTO_PONG,	PROTO_STDOUT,
	    PROTO_STDERR,     PROTO_EXIT,  PROTO_ERROR, RING_WORKER_PING,
	    RING_WORKER_PONG, 0,	   255};

	return types[fuzz_below(dice, ARRAY_SIZE(types))];
}

static uint32_t
any_length(uint8_t type)
{
	static const uint32_t right[256] = {
	    [PROTO_KILL] = 4,  [PROTO_CREDIT] = 4, [PROTO_EXIT] = sizeof(struct proto_exit),
	    [PROTO_EXEC] = 40, [PROTO_PING] = 8,   [PROTO_READY] = sizeof(struct proto_ready),
	    [PROTO_ERROR] = 20};

	if (right[type] != 0 && !fuzz_one_in(dice, 30))
		return right[type];
	if (fuzz_one_in(dice, 100))
		return (uint32_t)fuzz_value(dice);
	return fuzz_below(dice, fuzz_one_in(dice, 10) ? PROTO_PAYLOAD_MAX + 1 : 200);
}

static uint32_t
any_stream(uint8_t type)
{
	bool machine = type == PROTO_PING || type == PROTO_PONG || type == PROTO_READY;

	if (machine && !fuzz_one_in(dice, 50))
		return 0;
	return fuzz_one_in(dice, 50) ? (uint32_t)fuzz_value(dice) : 1 + fuzz_below(dice, 5);
}

static void
guest_says(void)
{
	uint8_t type = fuzz_one_in(dice, 40) ? any_type() : PROTO_PONG + fuzz_below(dice, 5);
	struct proto_hdr hdr = {
	    .type = type, .length = any_length(type), .stream = any_stream(type)};
	size_t payload = MIN(hdr.length, PROTO_PAYLOAD_MAX);

	if (guest.out_off == guest.out_len)
		guest.out_off = guest.out_len = 0;
	if (sizeof(guest.out) - guest.out_len < CHAN_FRAME)
		return;
	if (fuzz_one_in(dice, 200))
		fuzz_mutate(dice, (uint8_t *)&hdr, sizeof(hdr));
	memcpy(guest.out + guest.out_len, &hdr, sizeof(hdr));
	fuzz_fill(dice, guest.out + guest.out_len + sizeof(hdr), payload);
	guest.out_len += sizeof(hdr) + payload;
}

static void
client_says(struct ring *req)
{
	static uint8_t payload[RING_PAYLOAD_MAX];
	uint8_t type = fuzz_one_in(dice, 40) ? any_type() : PROTO_PING + fuzz_below(dice, 5);
	uint32_t any = any_length(type), length = MIN(any, RING_PAYLOAD_MAX);
	struct ring_rec rec = {
	    .type = type,
	    .length = length,
	    .flags = fuzz_one_in(dice, 5),
	    .stream = any_stream(type),
	    .lease = fuzz_one_in(dice, 20) ? fuzz_below(dice, 20) : GENERATION,
	};

	fuzz_fill(dice, payload, rec.length);
	if (ring_write(req, &rec, payload) == -EPROTO)
		ring_init_producer(req, req->pos, req->data);
}

/* What the client gets may be read by an honest one. */
static void
client_hears(struct ring *rsp)
{
	static uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	int r;

	while ((r = ring_read(rsp, &rec, payload)) == 1) {
		const struct proto_hdr hdr = {.length = rec.length,
					      .type = rec.type,
					      .flags = rec.flags,
					      .stream = rec.stream};

		assert(rec.type == RING_WORKER_PONG || proto_check(&hdr, true));
		assert(rec.type != PROTO_READY);
	}
	assert(r == 0);
}

/* The client may write all of its slot's channel. False: the rings are no use now. */
static bool
scribble(struct seg *seg)
{
	if (!fuzz_one_in(dice, 200))
		return true;
	if (fuzz_one_in(dice, 2))
		atomic_store(&seg->slot[1].word, slot_word(fuzz_below(dice, 8), 3, GENERATION));
	else
		fuzz_mutate(dice, (uint8_t *)&seg->chan[1], sizeof(seg->chan[1]));
	return false;
}

static void
one(struct fuzz *f)
{
	const struct seg_params params = {.name = "fuzz", .accel = "null", .why = "", .nslots = 2};
	const struct proto_ready ready = {.version = PROTO_VERSION};
	const struct proto_hdr hdr = {.type = PROTO_READY, .length = sizeof(ready)};
	struct job *job = calloc(1, sizeof(*job));
	struct ring req, rsp;
	struct seg *seg;
	bool honest = true;
	char err[256];

	dice = f;
	memset(&guest, 0, sizeof(guest));
	assert(job != NULL);
	AZ(seg_create(&seg, &params, err, sizeof(err)));
	atomic_store(&seg->slot[1].word, slot_word(SLOT_IN_USE, 3, GENERATION));
	job_init(job, seg, 1, -1, &fake_ops, NULL);
	ring_init_producer(&req, &seg->chan[1].req, seg->chan[1].req_data);
	ring_init_consumer(&rsp, &seg->chan[1].rsp, seg->chan[1].rsp_data);
	memcpy(guest.out, &hdr, sizeof(hdr));
	memcpy(guest.out + sizeof(hdr), &ready, sizeof(ready));
	guest.out_len = sizeof(hdr) + sizeof(ready);
	for (unsigned i = 0; i < STEPS && job->failure[0] == '\0'; i++) {
		if (fuzz_one_in(f, 3))
			guest_says();
		else if (fuzz_one_in(f, 2))
			client_says(&req);
		honest &= scribble(seg);
		if (fuzz_one_in(f, 2))
			(void)job_pump(job);
		if (fuzz_one_in(f, 8))
			(void)job_sleep(job);
		if (fuzz_one_in(f, 50))
			job_expire(job, job_deadline(job) - 1);
		if (honest && fuzz_one_in(f, 4))
			client_hears(&rsp);
		assert(job->open <= PROTO_STREAMS_MAX);
		assert(job->failure[0] == '\0' ||
		       strnlen(job->failure, sizeof(job->failure)) < sizeof(job->failure));
	}
	seg_close(seg);
	free(job);
}

int
main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_job", one);
}
