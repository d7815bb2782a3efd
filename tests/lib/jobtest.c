/* SPDX-License-Identifier: MIT
 *
 * jobtest.c - the fixture of the tests of the worker's job.
 */
#include "tests/lib/jobtest.h"

#include "shm/joined.h"
#include "shm/slot.h"

#include <string.h>

struct fake fake;

static ssize_t
fake_recv(struct machine *m, void *buf, size_t len)
{
	size_t n = MIN(len, fake.from_len - fake.from_off);

	(void)m;
	memcpy(buf, fake.from_guest + fake.from_off, n);
	fake.from_off += n;
	return (ssize_t)n;
}

static ssize_t
fake_send(struct machine *m, const void *buf, size_t len)
{
	size_t n = MIN(len, fake.accept);

	(void)m;
	AZ(n > sizeof(fake.to_guest) - fake.to_len);
	memcpy(fake.to_guest + fake.to_len, buf, n);
	fake.to_len += n;
	fake.accept -= n;
	return (ssize_t)n;
}

static int
fake_peek(struct machine *m, const struct machine_place *at, unsigned n, void *buf)
{
	(void)m;
	return fakememory_copy(&fake.memory, at, n, buf, false);
}

static int
fake_poke(struct machine *m, const struct machine_place *at, unsigned n, const void *buf)
{
	(void)m;
	return fakememory_copy(&fake.memory, at, n, (uint8_t *)(uintptr_t)buf, true);
}

static const struct machine_ops fake_ops = {
    .name = "fake", .recv = fake_recv, .send = fake_send, .peek = fake_peek, .poke = fake_poke};

void
guest_says(uint8_t type, uint32_t stream, const void *payload, uint32_t length)
{
	guest_says_so(type, 0, stream, payload, length);
}

void
guest_says_so(uint8_t type, uint8_t flags, uint32_t stream, const void *payload, uint32_t length)
{
	struct proto_hdr hdr = {.length = length, .type = type, .flags = flags, .stream = stream};

	if (fake.from_off == fake.from_len)
		fake.from_off = fake.from_len = 0;
	AZ(sizeof(hdr) + length > sizeof(fake.from_guest) - fake.from_len);
	memcpy(fake.from_guest + fake.from_len, &hdr, sizeof(hdr));
	memcpy(fake.from_guest + fake.from_len + sizeof(hdr), payload, length);
	fake.from_len += sizeof(hdr) + length;
}

bool
guest_hears(struct proto_hdr *hdr, uint8_t payload[PROTO_PAYLOAD_MAX])
{
	const uint8_t *from = fake.to_guest + fake.to_off;

	if (fake.to_len - fake.to_off < sizeof(*hdr))
		return false;
	memcpy(hdr, from, sizeof(*hdr));
	assert_true(proto_check(hdr, false));
	if (fake.to_len - fake.to_off < sizeof(*hdr) + hdr->length)
		return false;
	memcpy(payload, from + sizeof(*hdr), hdr->length);
	fake.to_off += sizeof(*hdr) + hdr->length;
	return true;
}

int
client_says(struct peer *peer, uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
	    uint32_t length)
{
	struct ring_rec rec = {
	    .length = length, .type = type, .flags = flags, .stream = stream, .lease = GENERATION};

	return ring_write(&peer->req, &rec, payload);
}

bool
client_hears(struct peer *peer, struct ring_rec *rec)
{
	return ring_read(&peer->rsp, rec, peer->payload) == 1;
}

void
pump_all(struct fixture *f)
{
	while (job_pump(f->job))
		continue;
}

static void
peer_init(struct peer *peer, struct shm_chan *chan)
{
	peer->chan = chan;
	ring_init_producer(&peer->req, &chan->req, chan->req_data);
	ring_init_consumer(&peer->rsp, &chan->rsp, chan->rsp_data);
}

struct peer *
jobtest_join(struct fixture *f)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	_cleanup_(closep) int fd = joined_create();
	struct shm_chan *chan;

	AN(peer);
	AZ(joined_map(&chan, fd));
	peer_init(peer, chan);
	AZ(job_join(f->job, &peer->port, chan, -1));
	return peer;
}

void
jobtest_leave(struct fixture *f, struct peer *peer)
{
	job_leave(f->job, &peer->port);
	if (peer->port.state != PORT_GONE)
		pump_all(f);
	assert_int_equal(peer->port.state, PORT_GONE);
	port_fini(&peer->port);
	joined_unmap(peer->chan);
	free(peer);
}

int
jobtest_setup(void **state)
{
	const struct seg_params params = {.name = "job", .accel = "tcg", .why = "", .nslots = 2};
	const struct proto_ready ready = {.version = PROTO_VERSION};
	struct fixture *f = calloc(1, sizeof(*f));
	char err[256];

	AN(f);
	memset(&fake, 0, sizeof(fake));
	fake.accept = sizeof(fake.to_guest);
	f->job = calloc(1, sizeof(*f->job));
	AN(f->job);
	if (seg_create(&f->seg, &params, err, sizeof(err)) < 0)
		return -1;
	atomic_store(&f->seg->slot[1].word, slot_word(SLOT_IN_USE, 3, GENERATION));
	job_init(f->job, f->seg, 1, -1, &fake_ops, NULL);
	peer_init(&f->holder, &f->seg->chan[1]);
	guest_says(PROTO_READY, 0, &ready, sizeof(ready));
	pump_all(f);
	*state = f;
	return f->job->ready ? 0 : -1;
}

uint8_t
jobtest_renew(struct fixture *f)
{
	const struct proto_renewed renewed = {.wall_ns = UINT64_MAX / 4};
	uint8_t payload[PROTO_PAYLOAD_MAX];
	struct proto_hdr hdr;

	job_renew(f->job);
	pump_all(f);
	assert_true(guest_hears(&hdr, payload));
	assert_int_equal(hdr.type, PROTO_RENEW);
	guest_says(PROTO_RENEWED, 0, &renewed, sizeof(renewed));
	pump_all(f);
	assert_true(f->job->ready);
	return hdr.flags;
}

int
jobtest_teardown(void **state)
{
	struct fixture *f = *state;

	free(fake.memory.bytes);
	fake.memory.bytes = NULL;
	job_fini(f->job);
	seg_close(f->seg);
	free(f->job);
	free(f);
	return 0;
}

uint32_t
start_file(struct fixture *f, struct peer *peer, uint32_t stream, uint32_t op)
{
	struct {
		struct proto_file file;
		char strings[8];
	} req = {{.op = op}, "/etc"};
	size_t off = fake.to_len;
	struct proto_hdr hdr;

	assert_int_equal(client_says(peer, PROTO_FILE, 0, stream, &req, sizeof(req.file) + 7), 0);
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	memcpy(&hdr, fake.to_guest + off, sizeof(hdr));
	assert_int_equal(hdr.type, PROTO_FILE);
	return hdr.stream;
}

uint32_t
start_command(struct fixture *f, struct peer *peer, uint32_t stream, uint32_t timeout_ms)
{
	struct {
		struct proto_exec exec;
		char strings[16];
	} req = {{.size = sizeof(req), .argc = 1, .timeout_ms = timeout_ms}, "true"};
	size_t off = fake.to_len;
	struct proto_hdr hdr;

	assert_int_equal(client_says(peer, PROTO_EXEC, 0, stream, &req, sizeof(req)), 0);
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	memcpy(&hdr, fake.to_guest + off, sizeof(hdr));
	assert_int_equal(hdr.type, PROTO_EXEC);
	return hdr.stream;
}
