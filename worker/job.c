/* SPDX-License-Identifier: MIT
 *
 * job.c - requests from rings to the guest, answers from the guest to rings (see
 * job.h). Runs in a worker; owns what the guest and its clients are agreed on, and the
 * slot's statistics.
 */
#include "shm/slot.h"
#include "worker/job_impl.h"

#include <string.h>
#include <sys/mman.h>

#define JOB_MAGIC 0x0a0b1e55u
#define JOB_BATCH 32 /* frames taken from the guest before the loop looks around */

/* Zero private memory; whole pages go back to the kernel, as most of them will not be
 * needed while the VM is idle. */
static void
forget(void *at, size_t len)
{
	uintptr_t first = ((uintptr_t)at + SHM_PAGE - 1) & ~(uintptr_t)(SHM_PAGE - 1);
	uintptr_t start = (uintptr_t)at, end = start + len, last = end & ~(uintptr_t)(SHM_PAGE - 1);

	if (first >= last || madvise((void *)first, last - first, MADV_DONTNEED) < 0) {
		memset(at, 0, len);
		return;
	}
	memset(at, 0, first - start);
	memset((void *)last, 0, end - last);
}

void
job_init(struct job *job, struct seg *seg, uint32_t slot, int response_fd,
	 const struct machine_ops *ops, struct machine *machine)
{
	forget(job, sizeof(*job));
	job->magic = JOB_MAGIC;
	job->seg = seg;
	job->slot = slot;
	job->shm = &seg->chan[slot];
	chan_init(&job->chan, ops, machine);
	port_init(&job->holder, 0, job->shm, response_fd);
	job->port[0] = &job->holder;
	job->nports = 1;
}

void
job_fini(struct job *job)
{
	CHECK_OBJ(job, JOB_MAGIC);
	for (unsigned i = 1; i < job->nports; i++) {
		if (job->port[i] == NULL)
			continue;
		if (job->port[i]->state == PORT_OPEN)
			port_close(job->port[i]);
		job->port[i]->state = PORT_GONE;
	}
	port_fini(&job->holder);
	job->nports = 0;
	job->magic = 0;
}

int
job_join(struct job *job, struct port *port, struct shm_chan *shm, int response_fd)
{
	CHECK_OBJ(job, JOB_MAGIC);
	for (unsigned i = 1; i < PORTS_MAX; i++) {
		if (job->port[i] != NULL)
			continue;
		port_init(port, i, shm, response_fd);
		job->port[i] = port;
		job->nports = MAX(job->nports, i + 1);
		return 0;
	}
	return -EUSERS;
}

void
job_fail(struct job *job, const char *fmt, ...)
{
	va_list ap;

	if (job->failure[0] != '\0')
		return;
	va_start(ap, fmt);
	(void)vsnprintf(job->failure, sizeof(job->failure), fmt, ap);
	va_end(ap);
}

void
job_client_broke(struct job *job, struct port *port, const char *fmt, ...)
{
	char why[sizeof(job->failure)];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	if (port == &job->holder)
		job_fail(job, "client %s", why);
	else
		job_leave(job, port);
}

bool
job_serves(const struct job *job, const struct port *port)
{
	return job->failure[0] == '\0' && port->state == PORT_OPEN;
}

void
job_count(struct job *job, enum slot_counter counter)
{
	/* This worker is the only writer; readers sum over slots (stat.c). */
	_Atomic uint64_t *word = &job->shm->counter[counter];

	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

uint64_t
job_lease(const struct job *job)
{
	/* Pairs with the claim's store in lease.c (txn_commit). */
	uint64_t word = atomic_load_explicit(&job->seg->slot[job->slot].word, memory_order_acquire);

	return slot_state(word) == SLOT_IN_USE ? slot_generation(word) : 0;
}

void
job_respond(struct job *job, struct port *port, const struct proto_hdr *hdr, const void *payload)
{
	const struct ring_rec rec = {
	    .length = hdr->length,
	    .type = hdr->type,
	    .flags = hdr->flags,
	    .stream = hdr->stream,
	    .lease = (uint32_t)job_lease(job),
	};

	if (port->state == PORT_OPEN && port_respond(port, &rec, payload) < 0)
		job_client_broke(job, port, "broke its response ring, or does not read it");
}

/* --- moving ------------------------------------------------------------------------ */

/* May the guest be listened to? Not while its answers to the holder have no room. */
static bool
answer_room(struct job *job)
{
	const struct port *holder = &job->holder;
	int r;

	/* What is none of the holder's goes on, however full the holder's ring is. */
	if (job->nports > 1 && holder->streams.n == 0 && holder->pings == 0)
		return true;
	r = port_room(&job->holder);
	if (r < 0)
		job_fail(job, "client broke its response ring");
	return r > 0;
}

static bool
pump_answers(struct job *job)
{
	bool moved = false;

	for (int i = 0; i < JOB_BATCH && job->failure[0] == '\0'; i++) {
		const uint8_t *payload = NULL;
		struct proto_hdr hdr;
		int r;

		if (!answer_room(job))
			break;
		r = chan_recv(&job->chan, &hdr, &payload);
		if (r < 0)
			job_fail(job, "guest broke the channel's framing");
		if (r <= 0)
			break;
		job_guest_frame(job, &hdr, payload);
		moved = true;
	}
	return moved;
}

static void
publish(struct job *job)
{
	for (unsigned i = 0; i < job->nports; i++)
		if (job->port[i] != NULL && job->port[i]->published)
			port_publish(job->port[i]);
}

/* What waited for room in a response ring. */
static bool
flush_late(struct job *job, struct port *port)
{
	int r = port->late_len == 0 ? 0 : port_flush(port);

	if (r < 0)
		job_client_broke(job, port, "broke its response ring");
	return r > 0;
}

/* The i-th port, if it is served; else NULL. */
static inline struct port *
open_port(const struct job *job, unsigned i)
{
	struct port *port = job->port[i];

	return port != NULL && port->state == PORT_OPEN ? port : NULL;
}

/* The requests of all ports, each in its turn the first: the way to the guest is narrow. */
static bool
pump_ports(struct job *job)
{
	unsigned n = job->nports, at = n > 1 ? job->turn++ % n : 0;
	bool moved = false;

	for (unsigned i = 0; i < n; i++, at = at + 1 == n ? 0 : at + 1) {
		struct port *port = open_port(job, at);

		if (port == NULL)
			continue;
		moved |= flush_late(job, port);
		moved |= job_take_requests(job, port);
	}
	return moved;
}

bool
job_pump(struct job *job)
{
	int err;
	bool moved;

	CHECK_OBJ(job, JOB_MAGIC);
	moved = pump_answers(job);
	publish(job);
	if (job->quiet == QUIET_NO)
		moved |= pump_ports(job);
	if (job->leaving > 0)
		job_tend_leavers(job);
	moved |= chan_flush(&job->chan, &err);
	if (err < 0)
		job_fail(job, "guest broke the channel's queue");
	publish(job);
	return moved;
}

bool
job_sleep(struct job *job)
{
	struct port *port;

	CHECK_OBJ(job, JOB_MAGIC);
	for (unsigned i = 0; i < job->nports; i++)
		if ((port = open_port(job, i)) != NULL)
			port_sleep(port);
	atomic_thread_fence(memory_order_seq_cst);
	if (!job_pump(job))
		return true;
	job_awake(job);
	return false;
}

void
job_awake(struct job *job)
{
	struct port *port;

	for (unsigned i = 0; i < job->nports; i++)
		if ((port = open_port(job, i)) != NULL)
			port_awake(port);
}

void
job_renew(struct job *job)
{
	struct proto_hdr hdr = {.length = sizeof(struct proto_renew), .type = PROTO_RENEW};
	struct proto_renew renew;
	int r = chan_renewal(&renew);

	CHECK_OBJ(job, JOB_MAGIC);
	share_init(&job->share, job->chan.ops, job->chan.machine);
	hdr.flags = job->share.offered ? PROTO_F_SHARE : 0;
	job->renewing = true;
	job->renewals++;
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
	} request_true = {{.size = sizeof(struct proto_exec) + sizeof("/bin/true") + 2,
			   .argc = 1,
			   .timeout_ms = JOB_CHECK_MS},
			  "/bin/true"};
	struct proto_hdr hdr = {.length = request_true.exec.size, .type = PROTO_EXEC};
	struct stream *s;

	CHECK_OBJ(job, JOB_MAGIC);
	if (!job->ready || job->open > 0 || !chan_room(&job->chan))
		return -EBUSY;
	s = streams_take(&job->holder.streams, job->uses++, 0, 0);
	AN(s);
	s->start_ns = now_ns();
	s->deadline_ns = s->start_ns + JOB_CHECK_MS * 1000000ull + JOB_GRACE_NS;
	job->open++;
	job->check = CHECK_RUNNING;
	hdr.stream = s->id;
	chan_send(&job->chan, &hdr, &request_true);
	return 0;
}

int
job_quiet(struct job *job, uint64_t generation)
{
	const struct proto_hdr ping = {.type = PROTO_PING};

	CHECK_OBJ(job, JOB_MAGIC);
	if (generation == 0 || job_lease(job) != generation)
		return -ESTALE;
	if (!job->ready || job->open > 0 || job->pings.n > 0 || job->quiet != QUIET_NO ||
	    !chan_room(&job->chan))
		return -EBUSY;
	job->quiet = QUIET_ASKED;
	job->pings = (struct job_pings){.n = 1, .port = {PORTS_MAX}};
	chan_send(&job->chan, &ping, "");
	return 0;
}

void
job_unquiet(struct job *job)
{
	CHECK_OBJ(job, JOB_MAGIC);
	job->quiet = QUIET_NO;
}

/* The earlier of two deadlines, of which 0 is none. */
static uint64_t
earlier(uint64_t a, uint64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

uint64_t
job_deadline(const struct job *job)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < job->nports && job->open + job->leaving > 0; i++) {
		const struct port *port = job->port[i];

		if (port == NULL)
			continue;
		first = earlier(first, streams_deadline(&port->streams));
		if (port->state == PORT_LEAVING)
			first = earlier(first, port->leave_ns);
	}
	return first;
}

void
job_expire(struct job *job, uint64_t now)
{
	for (unsigned i = 0; i < job->nports; i++) {
		const struct port *port = job->port[i];
		uint64_t due = port != NULL ? streams_deadline(&port->streams) : 0;

		if (due != 0 && due <= now)
			job_fail(job, "guest did not kill a command at its time-out");
		if (port != NULL && port->state == PORT_LEAVING && port->leave_ns <= now)
			job_fail(job, "guest did not end the commands of a client that has left");
	}
}
