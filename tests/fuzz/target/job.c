/* SPDX-License-Identifier: MIT
 *
 * job.c - the worker's job between clients, who join and leave, and a guest, who all
 * say what the input says: frames that are right, almost right, or rubbish. What it
 * passes on must be legal, whoever said what; and nobody who has joined can end the
 * machine.
 */
#include "worker/job.h"
#include "kvm/proto.h"
#include "shm/slot.h"
#include "tests/lib/fakememory.h"
#include "tests/lib/fuzz.h"

#include <string.h>

#define GENERATION 7u
#define SAYINGS_MAX 1500u /* records and frames of one input */
#define PEERS 5u	  /* the holder is the first */
#define HEARD 128u

static struct fuzz input;
static struct job *job;
static struct seg *seg;
static unsigned sayings;
static bool holder_silent; /* in this input */

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
	size_t bite, appetite; /* moved at once, from it and to it */
	bool broken;
	uint32_t heard[HEARD]; /* the streams that it has heard of last */
	unsigned nheard;
} guest;

static ssize_t
fake_recv(struct machine *m, void *buf, size_t len)
{
	size_t n = MIN(MIN(len, guest.bite), guest.out_len - guest.out_off);

	(void)m;
	if (guest.broken)
		return -EPROTO;
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
		if (hdr.type == PROTO_EXEC || hdr.type == PROTO_FILE || hdr.type == PROTO_VMSTAT)
			guest.heard[guest.nheard++ % HEARD] = hdr.stream;
		guest.in_len -= sizeof(hdr) + hdr.length;
		memmove(guest.in, guest.in + sizeof(hdr) + hdr.length, guest.in_len);
	}
}

static ssize_t
fake_send(struct machine *m, const void *buf, size_t len)
{
	size_t n = MIN(MIN(len, guest.appetite), sizeof(guest.in) - guest.in_len);

	(void)m;
	memcpy(guest.in + guest.in_len, buf, n);
	guest.in_len += n;
	hear();
	return (ssize_t)n;
}

/* Its memory is small: most of what it shares is not there. */
static uint8_t bytes_of_memory[32 * PROTO_PAGE];
static const struct fakememory memory = {bytes_of_memory, sizeof(bytes_of_memory)};

static int
fake_peek(struct machine *m, const struct machine_place *at, unsigned n, void *buf)
{
	(void)m;
	return fakememory_copy(&memory, at, n, buf, false);
}

static int
fake_poke(struct machine *m, const struct machine_place *at, unsigned n, const void *buf)
{
	(void)m;
	return fakememory_copy(&memory, at, n, (uint8_t *)(uintptr_t)buf, true);
}

static const struct machine_ops fake_ops = {
    .name = "fuzz", .recv = fake_recv, .send = fake_send, .peek = fake_peek, .poke = fake_poke};

/* --- what they say ------------------------------------------------------------------------ */

static const uint8_t guest_types[] = {PROTO_STDOUT,  PROTO_EXIT,      PROTO_CREDIT, PROTO_ERROR,
				      PROTO_STDERR,  PROTO_FILE_DONE, PROTO_PONG,   PROTO_VMSTATS,
				      PROTO_RENEWED, PROTO_READY,     PROTO_EXEC,   0};
static const uint8_t client_types[] = {
    PROTO_EXEC,	      PROTO_STDIN,	PROTO_FILE,   PROTO_CREDIT,  PROTO_KILL,  PROTO_PING,
    RING_WORKER_PING, RING_WORKER_PONG, PROTO_VMSTAT, PROTO_WINSIZE, PROTO_RENEW, PROTO_STDOUT};

static uint32_t
any_length(uint8_t type)
{
	static const uint32_t right[256] = {[PROTO_KILL] = 4,
					    [PROTO_CREDIT] = 4,
					    [PROTO_EXIT] = sizeof(struct proto_exit),
					    [PROTO_WINSIZE] = 4,
					    [PROTO_VMSTATS] = sizeof(struct proto_vmstats),
					    [PROTO_EXEC] = sizeof(struct proto_exec) + 8,
					    [PROTO_READY] = sizeof(struct proto_ready),
					    [PROTO_RENEWED] = sizeof(struct proto_renewed),
					    [PROTO_ERROR] = sizeof(struct proto_error) + 12,
					    [PROTO_PONG] = 8,
					    [PROTO_FILE] = sizeof(struct proto_file) + 8,
					    [PROTO_FILE_DONE] = sizeof(struct proto_file_done)};

	switch (fuzz_below(&input, 8)) {
	case 1: return fuzz_below(&input, PROTO_PAYLOAD_MAX + 2);
	case 2: return fuzz_below(&input, 256);
	case 3: return (uint32_t)fuzz_value(&input);
	default: return right[type];
	}
}

/* How often the same is said. */
static unsigned
any_times(void)
{
	unsigned n = fuzz_below(&input, 8) == 1 ? fuzz_below(&input, 256) : 1;

	n = MIN(n, SAYINGS_MAX - sayings);
	sayings += n;
	return n;
}

static uint32_t
guest_stream(unsigned how, unsigned at)
{
	if (how == 1)
		return (uint32_t)fuzz_value(&input);
	if (how == 2 || guest.nheard == 0)
		return 0;
	return guest.heard[at % MIN(guest.nheard, HEARD)];
}

static void
guest_sends(const struct proto_hdr *hdr, const uint8_t *payload, size_t len)
{
	if (sizeof(guest.out) - guest.out_len < CHAN_FRAME)
		(void)job_pump(job);
	if (guest.out_off == guest.out_len)
		guest.out_off = guest.out_len = 0;
	if (sizeof(guest.out) - guest.out_len < CHAN_FRAME)
		return;
	memcpy(guest.out + guest.out_len, hdr, sizeof(*hdr));
	memcpy(guest.out + guest.out_len + sizeof(*hdr), payload, len);
	guest.out_len += sizeof(*hdr) + len;
}

/* What is said becomes what is said with, or of, shared pages; more draws than before
 * would give the corpus another meaning. The length of its payload. */
static size_t
shared(struct proto_hdr *hdr, uint8_t *payload, size_t len)
{
	const uint32_t count = (payload[0] | (uint32_t)payload[1] << 8) % (PROTO_PAYLOAD_MAX + 2);
	const uint8_t mix = payload[2];
	uint64_t page;

	if (hdr->type == PROTO_STDOUT || hdr->type == PROTO_STDERR) {
		hdr->flags = PROTO_F_SHARED;
		hdr->length = sizeof(count);
		memcpy(payload, &count, sizeof(count));
		return sizeof(count);
	}
	if (hdr->type != 0)
		return len;
	hdr->type = PROTO_SHARE;
	hdr->length = PROTO_SHARE_PAGES * sizeof(page);
	for (unsigned i = 0; i < PROTO_SHARE_PAGES; i++) {
		page = (i * (mix | 1u) + count) % 40u * PROTO_PAGE + (mix == 255 ? i : 0);
		memcpy(payload + i * sizeof(page), &page, sizeof(page));
	}
	return hdr->length;
}

static void
guest_says(void)
{
	static uint8_t payload[PROTO_PAYLOAD_MAX];
	uint8_t type = guest_types[fuzz_below(&input, ARRAY_SIZE(guest_types))];
	bool machine = type == PROTO_PONG || type == PROTO_READY || type == PROTO_RENEWED;
	struct proto_hdr hdr = {.type = type, .length = any_length(type)};
	unsigned how = machine ? 2 : fuzz_below(&input, 8), at = fuzz_below(&input, HEARD);
	size_t len = MIN(hdr.length, sizeof(payload));

	fuzz_fill(&input, payload, len);
	if (at % 4 == 3)
		len = shared(&hdr, payload, len);
	for (unsigned i = any_times(); i > 0; i--, at++) {
		hdr.stream = hdr.type == PROTO_SHARE ? 0 : guest_stream(how, at);
		guest_sends(&hdr, payload, len);
	}
}

static void
guest_rubbish(void)
{
	struct proto_hdr rubbish;
	uint8_t more[32];

	fuzz_fill(&input, &rubbish, sizeof(rubbish));
	fuzz_fill(&input, more, sizeof(more));
	guest_sends(&rubbish, more, fuzz_below(&input, sizeof(more) + 1));
}

static void
client_sends(struct peer *p, const struct ring_rec *rec, const uint8_t *payload)
{
	int r = ring_write(&p->req, rec, payload);

	if (r == -EAGAIN) {
		(void)job_pump(job);
		r = ring_write(&p->req, rec, payload);
	}
	if (r == -EPROTO)
		ring_init_producer(&p->req, p->req.pos, p->req.data);
}

static void
client_says(struct peer *p)
{
	static uint8_t payload[RING_PAYLOAD_MAX];
	uint8_t type = client_types[fuzz_below(&input, ARRAY_SIZE(client_types))];
	uint32_t length = any_length(type);
	unsigned odd = fuzz_below(&input, 16), step = fuzz_below(&input, 2);
	struct ring_rec rec = {
	    .type = type,
	    .length = MIN(length, RING_PAYLOAD_MAX),
	    .flags = odd == 1 ? (uint8_t)fuzz_below(&input, 256) : odd == 2,
	    .stream = odd == 3 ? (uint32_t)fuzz_value(&input) : fuzz_below(&input, 256),
	    .zero = odd == 4,
	    .lease = odd == 5 ? fuzz_below(&input, 256) : GENERATION,
	};

	if (type == PROTO_PING || type == PROTO_RENEW)
		rec.stream = 0;
	fuzz_fill(&input, payload, rec.length);
	for (unsigned i = any_times(); i > 0; i--, rec.stream += step)
		client_sends(p, &rec, payload);
}

/* What the client gets may be read by an honest one. */
static void
client_hears(struct peer *p)
{
	static uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	int r;

	if (!p->honest)
		return;
	while ((r = ring_read(&p->rsp, &rec, payload)) == 1) {
		const struct proto_hdr hdr = {.length = rec.length,
					      .type = rec.type,
					      .flags = rec.flags,
					      .stream = rec.stream};

		assert(rec.type == RING_WORKER_PONG || proto_check(&hdr, true));
		assert(rec.type != PROTO_READY && rec.type != PROTO_RENEWED);
	}
	assert(r == 0);
}

/* --- clients ------------------------------------------------------------------------------ */

static void
peer_init(struct peer *p)
{
	p->there = p->honest = true;
	memset(p->chan, 0, sizeof(*p->chan));
	ring_init_producer(&p->req, &p->chan->req, p->chan->req_data);
	ring_init_consumer(&p->rsp, &p->chan->rsp, p->chan->rsp_data);
}

/* Its port is done. */
static void
peer_free(struct peer *p)
{
	port_fini(&p->port);
	p->there = false;
}

/* Joining, leaving; what has ended is freed, as in joins.c. */
static void
come_and_go(struct peer *p)
{
	if (p == &peers[0])
		return;
	if (!p->there) {
		peer_init(p);
		AZ(job_join(job, &p->port, p->chan, -1));
	} else if (p->port.state == PORT_GONE) {
		peer_free(p);
	} else {
		job_leave(job, &p->port);
	}
}

/* A client may write all of its channel: the positions most of all. */
static void
scribble(struct peer *p)
{
	uint8_t *at = (uint8_t *)p->chan;

	if (fuzz_below(&input, 2) == 0)
		fuzz_mutate(&input, at, SHM_PAGE);
	else
		fuzz_mutate(&input, at + SHM_PAGE, sizeof(*p->chan) - SHM_PAGE);
	p->honest = false;
}

static void
client_acts(void)
{
	struct peer *p = &peers[fuzz_below(&input, PEERS)];
	unsigned what = fuzz_below(&input, 16);

	if (what == 0)
		come_and_go(p);
	if (!p->there || (p == &peers[0] && holder_silent))
		return;
	if (what == 1)
		scribble(p);
	else if (what < 5)
		client_hears(p);
	else
		client_says(p);
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
		for (unsigned k = 0; k < port->streams.end; k++) {
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

/* What the worker does beside pumping. */
static void
worker_acts(void)
{
	switch (fuzz_below(&input, 8)) {
	case 0: (void)!job_check(job); break;
	case 1: (void)!job_quiet(job, GENERATION); break;
	case 2: job_unquiet(job); break;
	case 3: job_expire(job, job_deadline(job) - 1); break;
	case 4: job_expire(job, job_deadline(job)); break;
	case 5:
		atomic_store(&seg->slot[1].word,
			     slot_word(fuzz_below(&input, SLOT_STATES), 3, GENERATION));
		break;
	default: (void)job_sleep(job);
	}
}

static void
step(void)
{
	switch (fuzz_below(&input, 16)) {
	case 0: worker_acts(); break;
	case 1: guest.bite = 1 + fuzz_below(&input, 1u << 15); break;
	case 2: guest.appetite = fuzz_below(&input, 1u << 15); break;
	case 3: guest_rubbish(); break;
	case 4: guest.broken = fuzz_below(&input, 8) == 1; break;
	case 5:
	case 6:
	case 7:
	case 8: guest_says(); break;
	case 9:
	case 10:
	case 11:
	case 12: client_acts(); break;
	default: (void)job_pump(job);
	}
	check();
}

static void
make_world(void)
{
	const struct seg_params params = {.name = "fuzz", .accel = "null", .why = "", .nslots = 2};
	char err[256];

	job = calloc(1, sizeof(*job));
	AN(job);
	AZ(seg_create(&seg, &params, err, sizeof(err)));
	peers[0].chan = &seg->chan[1];
	for (unsigned i = 1; i < PEERS; i++) {
		peers[i].chan = aligned_alloc(SHM_PAGE, sizeof(struct shm_chan));
		AN(peers[i].chan);
	}
}

/* The machine was booted, or runs from its template; mostly the agent says so. */
static void
start_machine(void)
{
	const struct proto_ready ready = {.version = PROTO_VERSION};
	const struct proto_renewed renewed = {.wall_ns = INT64_MAX};
	struct proto_hdr hdr = {.type = PROTO_READY, .length = sizeof(ready)};
	unsigned how = fuzz_below(&input, 8);

	if (how == 1 || how == 2) {
		job_renew(job);
		hdr = (struct proto_hdr){.type = PROTO_RENEWED, .length = sizeof(renewed)};
	}
	if (how != 2 && how != 3)
		guest_sends(&hdr, how == 1 ? (const void *)&renewed : (const void *)&ready,
			    hdr.length);
	(void)job_pump(job);
}

static void
begin(void)
{
	if (job == NULL)
		make_world();
	atomic_store(&seg->slot[1].word, slot_word(SLOT_IN_USE, 3, GENERATION));
	peer_init(&peers[0]);
	job_init(job, seg, 1, -1, &fake_ops, NULL);
	sayings = 0;
	guest.out_len = guest.out_off = guest.in_len = guest.nheard = 0;
	guest.bite = guest.appetite = SIZE_MAX;
	guest.broken = false;
	holder_silent = fuzz_below(&input, 2) != 0;
	start_machine();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = fuzz_input(data, size);
	begin();
	while (fuzz_left(&input) > 0 && job->failure[0] == '\0')
		step();
	for (unsigned i = 0; i < 4 && job->failure[0] == '\0' && job_pump(job); i++)
		check();
	job_fini(job);
	for (unsigned i = 1; i < PEERS; i++)
		if (peers[i].there)
			peer_free(&peers[i]);
	return 0;
}
