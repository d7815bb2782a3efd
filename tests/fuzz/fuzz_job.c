/* SPDX-License-Identifier: MIT
 *
 * fuzz_job.c - the worker's job between clients, who join and leave, and a guest, who
 * all say anything: rubbish bytes, and frames that are almost right. What it passes on
 * must be legal, whoever said what; and nobody who has joined can end the machine.
 */
#include "kvm/proto.h"
#include "shm/joined.h"
#include "shm/slot.h"
#include "tests/lib/fuzz.h"
#include "worker/job.h"

#include <string.h>

#define GENERATION 7u
#define STEPS 2000u

#define PEERS 5u /* the holder is the first */

static struct fuzz *dice;
static struct job *job;
/* In this case: the holder says nothing; commands hardly ever end, and clients hardly
 * ever read, so that limits are reached. */
static bool holder_silent, lazy;

/* A client, and whether its channel has not been scribbled on. */
static struct peer {
	bool there, honest;
	struct shm_chan *chan;
	struct port port;
	struct ring req, rsp;
} peers[PEERS];

/* The guest: bytes for it are checked as they come. */
static struct {
	uint8_t out[4 * CHAN_FRAME];
	size_t out_len, out_off;
	uint8_t in[2 * CHAN_FRAME];
	size_t in_len;
	/* Streams that it has begun to hear of, and not ended. */
	uint32_t stream[PROTO_STREAMS_MAX];
	unsigned streams;
	unsigned pings; /* not answered */
} guest;

static void
guest_begins(uint32_t id)
{
	for (unsigned i = 0; i < guest.streams; i++)
		if (guest.stream[i] == id)
			return;
	/* A real one ends itself otherwise. */
	assert(guest.streams < PROTO_STREAMS_MAX);
	guest.stream[guest.streams++] = id;
}

static void
guest_ends(uint32_t id)
{
	for (unsigned i = 0; i < guest.streams; i++)
		if (guest.stream[i] == id)
			guest.stream[i] = guest.stream[--guest.streams];
}

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
		if (hdr.type == PROTO_EXEC)
			guest_begins(hdr.stream);
		guest.pings += hdr.type == PROTO_PING;
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
	static const uint8_t types[] = {PROTO_PING,
					PROTO_EXEC,
					PROTO_STDIN,
					PROTO_KILL,
					PROTO_CREDIT,
					PROTO_READY,
					PROTO_PONG,
					PROTO_STDOUT,
					PROTO_STDERR,
					PROTO_EXIT,
					PROTO_ERROR,
					RING_WORKER_PING,
					RING_WORKER_PONG,
					PROTO_WINSIZE,
					PROTO_VMSTAT,
					PROTO_VMSTATS,
					PROTO_FILE,
					PROTO_FILE_DONE,
					0,
					255};

	return types[fuzz_below(dice, ARRAY_SIZE(types))];
}

static uint32_t
any_length(uint8_t type)
{
	static const uint32_t right[256] = {[PROTO_KILL] = 4,
					    [PROTO_CREDIT] = 4,
					    [PROTO_EXIT] = sizeof(struct proto_exit),
					    [PROTO_WINSIZE] = 4,
					    [PROTO_VMSTATS] = sizeof(struct proto_vmstats),
					    [PROTO_EXEC] = 60,
					    [PROTO_PING] = 8,
					    [PROTO_READY] = sizeof(struct proto_ready),
					    [PROTO_ERROR] = 20,
					    [PROTO_PONG] = 8,
					    [PROTO_FILE] = sizeof(struct proto_file) + 8,
					    [PROTO_FILE_DONE] = sizeof(struct proto_file_done)};

	if (right[type] != 0 && !fuzz_one_in(dice, 1000))
		return right[type];
	if (fuzz_one_in(dice, 1000))
		return (uint32_t)fuzz_value(dice);
	return fuzz_below(dice, fuzz_one_in(dice, 10) ? PROTO_PAYLOAD_MAX + 1 : 200);
}

static uint32_t
any_stream(uint8_t type)
{
	bool machine = type == PROTO_PING || type == PROTO_PONG || type == PROTO_READY;

	if (machine && !fuzz_one_in(dice, 1000))
		return 0;
	return fuzz_one_in(dice, 200) ? (uint32_t)fuzz_value(dice) : 1 + fuzz_below(dice, 5);
}

static void
guest_says(void)
{
	uint8_t type = fuzz_one_in(dice, 500) ? any_type() : PROTO_PONG + fuzz_below(dice, 7);
	struct proto_hdr hdr = {
	    .type = type, .length = any_length(type), .stream = any_stream(type)};
	size_t payload = MIN(hdr.length, PROTO_PAYLOAD_MAX);

	/* Of a stream that there is, mostly, and then within its window. */
	if (hdr.stream != 0 && guest.streams > 0 && !fuzz_one_in(dice, 2000))
		hdr.stream = guest.stream[fuzz_below(dice, guest.streams)];
	else if (type == PROTO_PONG && guest.pings > 0)
		guest.pings--;
	else if (!fuzz_one_in(dice, 500))
		return;
	if (lazy && (type == PROTO_EXIT || type == PROTO_ERROR) && !fuzz_one_in(dice, 50))
		type = hdr.type = PROTO_STDOUT;
	if ((type == PROTO_STDOUT || type == PROTO_STDERR) && !fuzz_one_in(dice, 50))
		payload = hdr.length = 1 + fuzz_below(dice, lazy ? 3000 : 100);

	if (guest.out_off == guest.out_len)
		guest.out_off = guest.out_len = 0;
	if (sizeof(guest.out) - guest.out_len < CHAN_FRAME)
		return;
	if (fuzz_one_in(dice, 2000))
		fuzz_mutate(dice, (uint8_t *)&hdr, sizeof(hdr));
	if (hdr.type == PROTO_EXIT || hdr.type == PROTO_ERROR)
		guest_ends(hdr.stream);
	memcpy(guest.out + guest.out_len, &hdr, sizeof(hdr));
	fuzz_fill(dice, guest.out + guest.out_len + sizeof(hdr), payload);
	guest.out_len += sizeof(hdr) + payload;
}

static void
client_says(struct ring *req)
{
	static uint8_t payload[RING_PAYLOAD_MAX];
	uint8_t type = fuzz_one_in(dice, 500) ? any_type() : PROTO_PING + fuzz_below(dice, 7);
	uint32_t any = any_length(type), length = MIN(any, RING_PAYLOAD_MAX);
	struct ring_rec rec = {
	    .type = type,
	    .length = length,
	    .flags = (type == PROTO_EXEC || type == PROTO_STDIN || fuzz_one_in(dice, 100)) &&
		     fuzz_one_in(dice, 5),
	    .stream = type == PROTO_EXEC && fuzz_one_in(dice, 2) ? 6 + fuzz_below(dice, 200)
								 : any_stream(type),
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

/* --- clients ------------------------------------------------------------------------------ */

static void
peer_init(struct peer *p, struct shm_chan *chan)
{
	p->there = p->honest = true;
	p->chan = chan;
	ring_init_producer(&p->req, &chan->req, chan->req_data);
	ring_init_consumer(&p->rsp, &chan->rsp, chan->rsp_data);
}

static void
peer_join(struct peer *p)
{
	_cleanup_(closep) int fd = joined_create();
	struct shm_chan *chan;

	AZ(joined_map(&chan, fd));
	peer_init(p, chan);
	AZ(job_join(job, &p->port, chan, -1));
}

/* Its port is done. */
static void
peer_free(struct peer *p)
{
	port_fini(&p->port);
	joined_unmap(p->chan);
	p->there = false;
}

/* Joining, leaving; what has ended is freed, as in joins.c. */
static void
come_and_go(void)
{
	struct peer *p = &peers[1 + fuzz_below(dice, PEERS - 1)];

	if (!p->there)
		peer_join(p);
	else if (p->port.state == PORT_GONE)
		peer_free(p);
	else if (fuzz_one_in(dice, lazy ? 40 : 4))
		job_leave(job, &p->port);
}

/* A client may write all of its channel. False: the rings are no use now. */
static bool
scribble(struct peer *p)
{
	if (!fuzz_one_in(dice, 200))
		return true;
	fuzz_mutate(dice, (uint8_t *)p->chan, sizeof(*p->chan));
	return false;
}

static void
peer_step(struct peer *p)
{
	if (!p->there || (p == &peers[0] && holder_silent))
		return;
	if (fuzz_one_in(dice, 2))
		client_says(&p->req);
	/* The holder's mischief ends the machine, which ends the test too soon. */
	if (p != &peers[0] || fuzz_one_in(dice, 10))
		p->honest &= scribble(p);
	if (p->honest && fuzz_one_in(dice, lazy ? 1000 : 2))
		client_hears(&p->rsp);
}

/* --- all of it ------------------------------------------------------------------------------ */

static void
check(void)
{
	unsigned open = 0, leaving = 0;

	for (unsigned i = 0; i < job->nports; i++) {
		const struct port *port = job->port[i];
		unsigned n = 0;

		if (port == NULL)
			continue;
		assert(port->index == i && port->state != PORT_GONE);
		leaving += port->state == PORT_LEAVING;
		for (unsigned k = 0; k < PROTO_STREAMS_MAX; k++) {
			n += port->streams.at[k].id != 0;
			open += port->streams.at[k].id != 0 && !port->streams.at[k].refused;
		}
		assert(n == port->streams.n);
		assert(port->late_len <= PORT_LATE_MAX);
	}
	assert(open == job->open && open <= PROTO_STREAMS_MAX);
	assert(leaving == job->leaving);
	assert(strnlen(job->failure, sizeof(job->failure)) < sizeof(job->failure));
	/* Nobody who has joined can be the reason. */
	assert(!holder_silent || strncmp(job->failure, "client", 6) != 0);
}

static void
step(void)
{
	if (fuzz_one_in(dice, 2))
		guest_says();
	if (fuzz_one_in(dice, 20))
		come_and_go();
	peer_step(&peers[fuzz_below(dice, PEERS)]);
	if (fuzz_one_in(dice, 2))
		(void)job_pump(job);
	if (fuzz_one_in(dice, 8))
		(void)job_sleep(job);
	if (fuzz_one_in(dice, 50))
		job_expire(job, job_deadline(job) - 1);
	check();
}

static void
one(struct fuzz *f)
{
	const struct seg_params params = {.name = "fuzz", .accel = "null", .why = "", .nslots = 2};
	const struct proto_ready ready = {.version = PROTO_VERSION};
	const struct proto_hdr hdr = {.type = PROTO_READY, .length = sizeof(ready)};
	struct seg *seg;
	char err[256];

	dice = f;
	memset(&guest, 0, sizeof(guest));
	job = calloc(1, sizeof(*job));
	assert(job != NULL);
	AZ(seg_create(&seg, &params, err, sizeof(err)));
	atomic_store(&seg->slot[1].word, slot_word(SLOT_IN_USE, 3, GENERATION));
	job_init(job, seg, 1, -1, &fake_ops, NULL);
	memset(peers, 0, sizeof(peers));
	holder_silent = fuzz_one_in(f, 2);
	lazy = fuzz_one_in(f, 3);
	peer_init(&peers[0], &seg->chan[1]);
	memcpy(guest.out, &hdr, sizeof(hdr));
	memcpy(guest.out + sizeof(hdr), &ready, sizeof(ready));
	guest.out_len = sizeof(hdr) + sizeof(ready);
	for (unsigned i = 0; i < STEPS && job->failure[0] == '\0'; i++) {
		step();
		if (fuzz_one_in(f, 2000))
			atomic_store(&seg->slot[1].word,
				     slot_word(fuzz_below(f, 8), 3, GENERATION));
	}
	job_fini(job);
	for (unsigned i = 1; i < PEERS; i++)
		if (peers[i].there)
			peer_free(&peers[i]);
	seg_close(seg);
	free(job);
}

int
main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_job", one);
}
