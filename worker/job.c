/* SPDX-License-Identifier: MIT
 *
 * job.c - requests from ring to guest, answers from guest to ring (see job.h).
 * Runs in a worker; owns the consumer side of the slot's request ring, the
 * producer side of its response ring, and the slot's statistics.
 */
#include "worker/job.h"
#include "shm/lifeline.h"
#include "shm/slot.h"
#include "shm/stat.h"

#include <limits.h>
#include <string.h>

#define JOB_MAGIC 0x0a0b1e55u
#define JOB_BATCH 32		  /* frames moved each way before the loop looks around */
#define JOB_WINDOW_MAX (1u << 30) /* credit beyond this is not counted */

_Static_assert(RING_PAYLOAD_MAX == PROTO_PAYLOAD_MAX, "a record carries a frame");

void
job_init(struct job *job, struct seg *seg, uint32_t slot, int response_fd,
	 const struct machine_ops *ops, struct machine *machine)
{
	memset(job, 0, sizeof(*job));
	job->magic = JOB_MAGIC;
	job->seg = seg;
	job->slot = slot;
	job->shm = &seg->chan[slot];
	job->response_fd = response_fd;
	chan_init(&job->chan, ops, machine);
	ring_init_consumer(&job->req, &job->shm->req, job->shm->req_data);
	ring_init_producer(&job->rsp, &job->shm->rsp, job->shm->rsp_data);
}

static void printf_like(2, 3) job_fail(struct job *job, const char *fmt, ...)
{
	va_list ap;

	if (job->failure[0] != '\0')
		return;
	va_start(ap, fmt);
	(void)vsnprintf(job->failure, sizeof(job->failure), fmt, ap);
	va_end(ap);
}

static struct job_stream *
stream_find(struct job *job, uint32_t id)
{
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		if (job->stream[i].id == id)
			return &job->stream[i];
	return NULL;
}

static void
stat_count(struct job *job, enum slot_counter counter)
{
	/* This worker is the only writer; readers sum over slots (stat.c). */
	_Atomic uint64_t *word = &job->shm->counter[counter];

	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* Window after a CREDIT; never so large that it could overflow. */
static uint64_t
window_add(uint64_t window, const uint8_t *payload)
{
	uint32_t more;

	memcpy(&more, payload, sizeof(more));
	return MIN(window + more, JOB_WINDOW_MAX);
}

/* --- from the client ------------------------------------------------------------ */

static struct job_stream *
stream_take(struct job *job, uint32_t id, uint32_t timeout_ms)
{
	struct job_stream *s = stream_find(job, 0);
	uint64_t now = now_ns();

	if (s == NULL)
		return NULL;
	*s = (struct job_stream){
	    .id = id,
	    .sending = true,
	    .start_ns = now,
	    .deadline_ns = timeout_ms == 0 ? 0 : now + timeout_ms * 1000000ull + JOB_GRACE_NS,
	    .out_window = PROTO_WINDOW,
	    .in_window = PROTO_WINDOW,
	};
	job->open++;
	return s;
}

/* The first piece of an EXEC opens its stream; its header holds the time-out. */
static struct job_stream *
stream_open(struct job *job, const struct proto_hdr *hdr)
{
	struct job_stream *s;
	struct proto_exec exec;

	if (hdr->stream == JOB_CHECK_STREAM)
		job_fail(job, "client used the reserved stream %u", hdr->stream);
	else if (hdr->length < sizeof(exec))
		job_fail(job, "client sent a command without a header");
	if (job->failure[0] != '\0')
		return NULL;
	memcpy(&exec, job->payload, sizeof(exec));
	s = stream_take(job, hdr->stream, exec.timeout_ms);
	if (s == NULL) {
		job_fail(job, "client opened more than %u streams", PROTO_STREAMS_MAX);
		return NULL;
	}
	stat_count(job, C_exec_count);
	return s;
}

static bool
client_exec(struct job *job, const struct proto_hdr *hdr, struct job_stream *s)
{
	if (s == NULL)
		s = stream_open(job, hdr);
	else if (!s->sending)
		job_fail(job, "client reused the open stream %u", hdr->stream);
	if (job->failure[0] != '\0')
		return false;
	s->request_size += hdr->length;
	s->sending = (hdr->flags & PROTO_F_MORE) != 0;
	if (s->request_size > PROTO_EXEC_MAX)
		job_fail(job, "client sent a command of more than %u bytes", PROTO_EXEC_MAX);
	return true;
}

/* May this frame go to the guest? What belongs to an ended stream is dropped:
 * the client could not know yet. */
static bool
client_frame(struct job *job, const struct proto_hdr *hdr)
{
	struct job_stream *s = hdr->stream == 0 ? NULL : stream_find(job, hdr->stream);

	switch (hdr->type) {
	case PROTO_PING: job->pings++; return true;
	case PROTO_EXEC: return client_exec(job, hdr, s);
	case PROTO_STDIN:
		if (s == NULL)
			return false;
		if (hdr->length > s->in_window) {
			job_fail(job, "client broke the input window of stream %u", hdr->stream);
			return false;
		}
		s->in_window -= hdr->length;
		return true;
	case PROTO_CREDIT:
		if (s != NULL)
			s->out_window = window_add(s->out_window, job->payload);
		return s != NULL;
	default: /* KILL: proto_check has let nothing else through */ return s != NULL;
	}
}

static void
respond(struct job *job, const struct proto_hdr *hdr, uint32_t lease, const void *payload)
{
	const struct ring_rec rec = {
	    .length = hdr->length,
	    .type = hdr->type,
	    .flags = hdr->flags,
	    .stream = hdr->stream,
	    .lease = lease,
	};
	int r = ring_write(&job->rsp, &rec, payload);

	if (r < 0)
		job_fail(job, "client broke its response ring");
	job->published = true;
}

static uint32_t
lease_now(const struct job *job)
{
	/* Pairs with the claim's store in lease.c (txn_commit). */
	uint64_t word = atomic_load_explicit(&job->seg->slot[job->slot].word, memory_order_acquire);

	return slot_state(word) == SLOT_IN_USE ? (uint32_t)slot_generation(word) : 0;
}

static void
request(struct job *job, const struct ring_rec *rec)
{
	const struct proto_hdr hdr = {
	    .length = rec->length,
	    .type = rec->type,
	    .flags = rec->flags,
	    .stream = rec->stream,
	};

	if (rec->lease != lease_now(job))
		return;
	if (rec->type == RING_WORKER_PING) {
		struct proto_hdr pong = {.length = rec->length, .type = RING_WORKER_PONG};

		respond(job, &pong, rec->lease, job->payload);
	} else if (rec->zero != 0 || !proto_check(&hdr, false)) {
		job_fail(job, "client sent a malformed request (type %u, %u bytes)", rec->type,
			 rec->length);
	} else if (client_frame(job, &hdr) && job->failure[0] == '\0') {
		chan_send(&job->chan, &hdr, job->payload);
	}
}

/* Is there room for an answer of any size? If not, ask the client to ring. */
static bool
response_room(struct job *job)
{
	for (int look = 0; look < 2; look++) {
		ssize_t space = ring_space(&job->rsp);

		if (space < 0)
			job_fail(job, "client broke its response ring");
		if (space < 0 || space >= (ssize_t)RING_PAYLOAD_MAX)
			return space > 0;
		/* Pairs with the exchange in the client after it has drained. */
		atomic_store_explicit(&job->shm->rsp_stalled, 1, memory_order_relaxed);
		atomic_thread_fence(memory_order_seq_cst);
	}
	return false;
}

static bool
pump_requests(struct job *job)
{
	bool moved = false;

	for (int i = 0; i < JOB_BATCH && job->failure[0] == '\0'; i++) {
		struct ring_rec rec;
		int r;

		if (!job->ready || job->quiet != QUIET_NO || !chan_room(&job->chan))
			break;
		r = ring_peek(&job->req, &rec);
		if (r == 1 && rec.type == RING_WORKER_PING && !response_room(job))
			break;
		if (r == 1)
			r = ring_read(&job->req, &rec, job->payload);
		if (r < 0)
			job_fail(job, "client broke its request ring");
		if (r <= 0)
			break;
		request(job, &rec);
		moved = true;
	}
	/* Pairs with the store in the client, which then waits on rsp_seq. */
	if (moved && atomic_exchange_explicit(&job->shm->req_stalled, 0, memory_order_seq_cst) != 0)
		job->published = true;
	return moved;
}

/* --- from the guest -------------------------------------------------------------- */

static void
stream_end(struct job *job, struct job_stream *s, const struct proto_hdr *hdr,
	   const uint8_t *payload)
{
	struct proto_exit ended = {.code = 1};

	if (hdr->type == PROTO_EXIT)
		memcpy(&ended, payload, sizeof(ended));
	if (s->id == JOB_CHECK_STREAM) {
		job->check = ended.code == 0 && ended.signal == 0 ? CHECK_PASSED : CHECK_FAILED;
	} else if (hdr->type == PROTO_EXIT) {
		if (ended.timed_out != 0)
			stat_count(job, C_exec_timeout_count);
		hist_add(&job->shm->hist[H_exec_ns], now_ns() - s->start_ns);
	}
	s->id = 0;
	job->open--;
}

/* Is this frame something the guest may say now? */
static bool
guest_stream_frame(struct job *job, const struct proto_hdr *hdr, const uint8_t *payload)
{
	struct job_stream *s = stream_find(job, hdr->stream);

	if (s == NULL)
		return false;
	switch (hdr->type) {
	case PROTO_STDOUT:
	case PROTO_STDERR:
		if (hdr->length > s->out_window)
			return false;
		s->out_window -= hdr->length;
		return true;
	case PROTO_CREDIT: s->in_window = window_add(s->in_window, payload); return true;
	default: /* EXIT, ERROR */ stream_end(job, s, hdr, payload); return true;
	}
}

/* READY comes from a machine that was booted for this job alone, RENEWED from one
 * that was started from a template. */
static void
guest_ready(struct job *job, const uint8_t *payload)
{
	struct proto_ready ready;

	memcpy(&ready, payload, sizeof(ready));
	if (job->ready || job->renewing)
		job_fail(job, "guest broke the protocol (READY a second time)");
	else if (ready.version != PROTO_VERSION)
		job_fail(job, "the image's agent speaks protocol %u, this worker %u", ready.version,
			 PROTO_VERSION);
	else
		job->ready = true;
}

static void
guest_renewed(struct job *job, const uint8_t *payload)
{
	struct proto_renewed renewed;

	memcpy(&renewed, payload, sizeof(renewed));
	if (!job->renewing)
		job_fail(job, "guest broke the protocol (RENEWED without RENEW)");
	else if (renewed.failed != 0)
		job_fail(job, "guest could not renew its identity (step %u: %s)", renewed.failed,
			 strerror((int)(renewed.err & INT_MAX)));
	else
		job->ready = true;
	job->renewing = false;
}

static void
guest_frame(struct job *job, const struct proto_hdr *hdr, const uint8_t *payload)
{
	bool legal;

	if (hdr->type == PROTO_READY || hdr->type == PROTO_RENEWED) {
		(hdr->type == PROTO_READY ? guest_ready : guest_renewed)(job, payload);
		return;
	}
	if (hdr->stream == 0) {
		legal = job->pings > 0;
		job->pings -= legal;
	} else {
		legal = guest_stream_frame(job, hdr, payload);
	}
	if (legal && hdr->stream == 0 && job->quiet == QUIET_ASKED) {
		job->quiet = QUIET_YES;
		return;
	}
	if (legal && hdr->stream == JOB_CHECK_STREAM)
		return;
	if (!legal)
		job_fail(job, "guest broke the protocol (type %u, %u bytes, stream %u)", hdr->type,
			 hdr->length, hdr->stream);
	else
		respond(job, hdr, lease_now(job), payload);
}

static bool
pump_answers(struct job *job)
{
	bool moved = false;

	for (int i = 0; i < JOB_BATCH && job->failure[0] == '\0'; i++) {
		const uint8_t *payload = NULL;
		struct proto_hdr hdr;
		int r;

		if (!response_room(job))
			break;
		r = chan_recv(&job->chan, &hdr, &payload);
		if (r < 0)
			job_fail(job, "guest broke the channel's framing");
		if (r <= 0)
			break;
		guest_frame(job, &hdr, payload);
		moved = true;
	}
	return moved;
}

/* --- both -------------------------------------------------------------------------- */

/* Wake the client if it sleeps. The fence pairs with the one in libvmpool
 * between announcing a sleeper and looking at the ring once more. */
static void
publish(struct job *job)
{
	static const uint64_t one = 1;

	if (!job->published)
		return;
	job->published = false;
	(void)atomic_fetch_add_explicit(&job->shm->rsp_seq, 1, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&job->shm->rsp_sleepers, memory_order_relaxed) != 0)
		lifeline_wake(&job->shm->rsp_seq, INT_MAX);
	if (atomic_load_explicit(&job->shm->rsp_pollers, memory_order_relaxed) != 0)
		(void)!write(job->response_fd, &one, sizeof(one));
}

bool
job_pump(struct job *job)
{
	int err;
	bool moved;

	CHECK_OBJ(job, JOB_MAGIC);
	moved = pump_answers(job);
	publish(job);
	moved |= pump_requests(job);
	moved |= chan_flush(&job->chan, &err);
	if (err < 0)
		job_fail(job, "guest broke the channel's queue");
	publish(job);
	return moved;
}

bool
job_sleep(struct job *job)
{
	CHECK_OBJ(job, JOB_MAGIC);
	/* Pairs with the fence in libvmpool between the ring's tail and this word. */
	atomic_store_explicit(&job->shm->worker_asleep, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (!job_pump(job))
		return true;
	job_awake(job);
	return false;
}

void
job_awake(struct job *job)
{
	atomic_store_explicit(&job->shm->worker_asleep, 0, memory_order_relaxed);
}

void
job_renew(struct job *job)
{
	const struct proto_hdr hdr = {.length = sizeof(struct proto_renew), .type = PROTO_RENEW};
	struct proto_renew renew;
	int r = chan_renewal(&renew);

	CHECK_OBJ(job, JOB_MAGIC);
	job->renewing = true;
	job->ready = false;
	if (r < 0) {
		job_fail(job, "no random bytes for the guest: %s", strerror(-r));
		return;
	}
	chan_send(&job->chan, &hdr, &renew);
}

int
job_check(struct job *job)
{
	static const struct {
		struct proto_exec exec;
		char strings[sizeof("/bin/true") + 2]; /* argument, no directory, no user */
	} request = {{.size = sizeof(struct proto_exec) + sizeof("/bin/true") + 2,
		      .argc = 1,
		      .timeout_ms = JOB_CHECK_MS},
		     "/bin/true"};
	const struct proto_hdr hdr = {
	    .length = request.exec.size,
	    .type = PROTO_EXEC,
	    .stream = JOB_CHECK_STREAM,
	};
	struct job_stream *s;

	CHECK_OBJ(job, JOB_MAGIC);
	if (!job->ready || job->open > 0 || !chan_room(&job->chan))
		return -EBUSY;
	s = stream_take(job, JOB_CHECK_STREAM, JOB_CHECK_MS);
	AN(s);
	s->sending = false;
	job->check = CHECK_RUNNING;
	chan_send(&job->chan, &hdr, &request);
	return 0;
}

int
job_quiet(struct job *job, uint64_t generation)
{
	const struct proto_hdr ping = {.type = PROTO_PING};
	uint64_t word = atomic_load_explicit(&job->seg->slot[job->slot].word, memory_order_acquire);

	CHECK_OBJ(job, JOB_MAGIC);
	if (slot_state(word) != SLOT_IN_USE || slot_generation(word) != generation)
		return -ESTALE;
	if (!job->ready || job->open > 0 || job->pings > 0 || job->quiet != QUIET_NO ||
	    !chan_room(&job->chan))
		return -EBUSY;
	job->quiet = QUIET_ASKED;
	job->pings++;
	chan_send(&job->chan, &ping, "");
	return 0;
}

void
job_unquiet(struct job *job)
{
	CHECK_OBJ(job, JOB_MAGIC);
	job->quiet = QUIET_NO;
}

uint64_t
job_deadline(const struct job *job)
{
	uint64_t first = 0;

	for (size_t i = 0; i < PROTO_STREAMS_MAX && job->open > 0; i++) {
		const struct job_stream *s = &job->stream[i];

		if (s->id != 0 && s->deadline_ns != 0 && (first == 0 || s->deadline_ns < first))
			first = s->deadline_ns;
	}
	return first;
}

void
job_expire(struct job *job, uint64_t now)
{
	uint64_t due = job_deadline(job);

	if (due != 0 && due <= now)
		job_fail(job, "guest did not kill a command at its time-out");
}
