/* SPDX-License-Identifier: MIT
 *
 * fakepool.c - the supervisor of a pool without machines (see fakepool.h).
 */
#include "tests/lib/fakepool.h"

#include "shm/ctl.h"
#include "shm/joined.h"
#include "shm/lease.h"
#include "shm/lifeline.h"
#include "shm/lock.h"
#include "shm/slot.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CONNS 64

/* Supervisor calls never wait for the lock; a test may. */
#define UNTIL_NOT_BUSY(r, call) \
	do { \
		while (((r) = (call)) == -EBUSY) \
			(void)sched_yield(); \
	} while (0)

struct conn {
	int fd;
	bool client;
	uint32_t id;
};

/* --- workers ---------------------------------------------------------------------- */

static void
worker_serve(struct fake_worker *w, struct fakepool *fp, uint32_t slot, struct shm_chan *chan,
	     int req_fd, int rsp_fd)
{
	memset(w, 0, sizeof(*w));
	w->pool = fp;
	w->slot = slot;
	w->chan = chan;
	w->req_fd = req_fd;
	w->rsp_fd = rsp_fd;
	w->running = true;
	ring_init_consumer(&w->req, &w->chan->req, w->chan->req_data);
	ring_init_producer(&w->rsp, &w->chan->rsp, w->chan->rsp_data);
	AZ(pthread_create(&w->thread, NULL, fp->body, w));
}

static void
worker_start(struct fakepool *fp, uint32_t slot)
{
	worker_serve(&fp->worker[slot], fp, slot, &fp->seg->chan[slot], fp->bells[slot].req,
		     fp->bells[slot].rsp);
}

static void
worker_end(struct fake_worker *w)
{
	if (!w->running)
		return;
	atomic_store(&w->stop, true);
	AZ(eventfd_write(w->req_fd, 1));
	AZ(pthread_join(w->thread, NULL));
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		free(w->stream[i].req);
	w->running = false;
}

/* The worker of a client that has joined is no more; closed: it says so. */
static void
joined_end(struct fake_joined *j, bool closed)
{
	struct shm_chan *chan = j->worker.chan;

	if (!j->worker.running)
		return;
	worker_end(&j->worker);
	if (closed) {
		atomic_store(&chan->worker_asleep, SHM_CHAN_CLOSED);
		(void)atomic_fetch_add(&chan->rsp_seq, 1);
		lifeline_wake(&chan->rsp_seq, INT_MAX);
	}
	closep(&j->life);
	(void)close(j->worker.req_fd);
	(void)close(j->worker.rsp_fd);
	joined_unmap(j->worker.chan);
}

void
fakepool_sever(struct fakepool *fp, uint32_t slot)
{
	atomic_store(&fp->seg->slot[slot].life, FUTEX_OWNER_DIED);
	lifeline_wake(&fp->seg->slot[slot].life, 1);
}

static void
worker_stop(struct fakepool *fp, uint32_t slot)
{
	for (unsigned i = 0; i < fp->njoined; i++)
		if (fp->joined[i].worker.running && fp->joined[i].worker.slot == slot) {
			fakepool_sever(fp, slot);
			joined_end(&fp->joined[i], false);
		}
	worker_end(&fp->worker[slot]);
	atomic_store(&fp->wants_death[slot], false);
}

void
fakepool_add_vm(struct fakepool *fp)
{
	uint64_t generation;
	uint32_t slot;
	int r;

	AZ(pthread_mutex_lock(&fp->lock));
	UNTIL_NOT_BUSY(r, sup_start(fp->seg, &slot, &generation));
	AZ(r);
	UNTIL_NOT_BUSY(r, sup_set_worker(fp->seg, slot, 4000000 + slot));
	AZ(r);
	worker_start(fp, slot);
	UNTIL_NOT_BUSY(r, sup_ready(fp->seg, slot, 1000000));
	AZ(r);
	AZ(pthread_mutex_unlock(&fp->lock));
}

void
fakepool_kill_vm(struct fakepool *fp, uint32_t slot)
{
	int r;

	AZ(pthread_mutex_lock(&fp->lock));
	worker_stop(fp, slot);
	UNTIL_NOT_BUSY(r, sup_worker_gone(fp->seg, slot, NULL));
	AZ(r);
	AZ(eventfd_write(fp->bells[slot].rsp, 1));
	AZ(pthread_mutex_unlock(&fp->lock));
}

void
fakepool_pause(struct fakepool *fp, uint32_t slot, bool paused)
{
	struct fake_worker *w = &fp->worker[slot];

	atomic_store(&w->paused, paused);
	AZ(eventfd_write(fp->bells[slot].req, 1));
	while (atomic_load(&w->parked) != paused)
		(void)sched_yield();
}

void
fakepool_cut_off(struct fakepool *fp, unsigned n)
{
	AZ(pthread_mutex_lock(&fp->lock));
	joined_end(&fp->joined[n], true);
	AZ(pthread_mutex_unlock(&fp->lock));
}

/* A client joins a lease: it gets a worker, too. */
static int
join(struct fakepool *fp, const struct ctl_request *req, int fds[CTL_JOIN_FDS])
{
	struct fake_joined *j = &fp->joined[fp->njoined];
	struct ctl_joined msg = {.magic = CTL_MAGIC, .error = atomic_load(&fp->join_error)};
	struct shm_chan *chan;
	int pair[2], r;

	UNTIL_NOT_BUSY(r, sup_join(fp->seg, req->slot, req->lease));
	if (r < 0)
		return r;
	AZ(fp->njoined == FAKE_JOINED);
	fds[CTL_JOIN_CHAN] = joined_create();
	fds[CTL_JOIN_REQUEST] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	fds[CTL_JOIN_RESPONSE] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	AZ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	fds[CTL_JOIN_LIFE] = pair[0];
	if (msg.error == 0 || msg.error < 0)
		AZ(ctl_send(pair[1], &msg, sizeof(msg), NULL, 0));
	if (msg.error != 0) {
		(void)close(pair[1]);
		return 0;
	}
	AZ(joined_map(&chan, fds[CTL_JOIN_CHAN]));
	j->life = pair[1];
	fp->njoined++;
	worker_serve(&j->worker, fp, req->slot, chan, dup(fds[CTL_JOIN_REQUEST]),
		     dup(fds[CTL_JOIN_RESPONSE]));
	return 0;
}

/* Someone rang: used VMs are discarded, and some want to die. */
static void
look_around(struct fakepool *fp)
{
	for (uint32_t i = 0; i < FAKE_SLOTS; i++) {
		uint64_t word = atomic_load(&fp->seg->slot[i].word);

		if (slot_state(word) == SLOT_RESETTING || atomic_load(&fp->wants_death[i]))
			fakepool_kill_vm(fp, i);
	}
}

/* --- the socket --------------------------------------------------------------------- */

static void
answer(struct fakepool *fp, struct conn *c, const struct ctl_request *req)
{
	struct ctl_reply reply = {
	    .magic = CTL_MAGIC, .kind = CTL_ATTACHED, .generation = fp->seg->head->generation};
	int fds[CTL_JOIN_FDS] = {fp->seg->fd, fp->door}, r = 0;
	unsigned nfds = 2;

	switch (req->kind) {
	case CTL_ATTACH:
		UNTIL_NOT_BUSY(r, sup_client_new(fp->seg, (uint32_t)getpid(), &c->id));
		AZ(r);
		reply.client = c->id;
		c->client = true;
		break;
	case CTL_MONITOR:
		fds[0] = seg_read_only_fd(fp->seg);
		nfds = 1;
		break;
	case CTL_DOORBELLS:
		reply.kind = CTL_DOORBELLS;
		fds[0] = fp->bells[req->slot].req;
		fds[1] = fp->bells[req->slot].rsp;
		atomic_fetch_add(&fp->doorbell_requests, 1);
		break;
	case CTL_JOIN:
		reply.kind = CTL_JOIN;
		AZ(pthread_mutex_lock(&fp->lock));
		reply.error = join(fp, req, fds);
		AZ(pthread_mutex_unlock(&fp->lock));
		nfds = CTL_JOIN_FDS;
		if (reply.error < 0) {
			reply.kind = CTL_REFUSED;
			(void)strcpy(reply.text, "that lease has ended");
			nfds = 0;
		}
		break;
	default:
		reply.kind = CTL_OK;
		nfds = 0;
		atomic_store(&fp->stop_asked, true);
	}
	if (atomic_load(&fp->wrong_format) && req->kind != CTL_STOP) {
		reply.kind = CTL_REFUSED;
		reply.error = -EMEDIUMTYPE;
		(void)strcpy(reply.text, "another \033 layout");
		nfds = 0;
	}
	AZ(ctl_send(c->fd, &reply, sizeof(reply), fds, nfds));
	for (unsigned i = 0; i < nfds && (req->kind == CTL_MONITOR || req->kind == CTL_JOIN); i++)
		(void)close(fds[i]);
}

/* false: the peer has gone. */
static bool
serve(struct fakepool *fp, struct conn *c)
{
	struct ctl_request req;
	int r = ctl_recv(c->fd, &req, sizeof(req), NULL, 0);

	if (r == 0) {
		if (!atomic_load(&fp->silent_socket))
			answer(fp, c, &req);
		return true;
	}
	(void)close(c->fd);
	if (c->client) {
		UNTIL_NOT_BUSY(r, sup_client_gone(fp->seg, c->id));
		AZ(r);
		look_around(fp);
	}
	return false;
}

/* Asked to stop, and every client has left. */
static bool
stopped(struct fakepool *fp, const struct conn *conn, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (conn[i].client)
			return false;
	return atomic_load(&fp->stop_asked);
}

static void *
supervise(void *arg)
{
	struct fakepool *fp = arg;
	struct conn conn[CONNS];
	struct pollfd p[CONNS + 3];
	eventfd_t value;
	size_t n = 0;

	AZ(lifeline_hold(fp->seg));
	AZ(eventfd_write(fp->control, 1));
	while (!atomic_load(&fp->die) && !stopped(fp, conn, n)) {
		p[0] = (struct pollfd){.fd = fp->listen_fd, .events = POLLIN};
		p[1] = (struct pollfd){.fd = fp->door, .events = POLLIN};
		for (size_t i = 0; i < n; i++)
			p[2 + i] = (struct pollfd){.fd = conn[i].fd, .events = POLLIN};
		(void)poll(p, 2 + n, -1);
		if (p[1].revents != 0 && eventfd_read(fp->door, &value) == 0)
			look_around(fp);
		for (size_t i = n; i-- > 0;)
			if (p[2 + i].revents != 0 && !serve(fp, &conn[i]))
				conn[i] = conn[--n];
		if (p[0].revents != 0 && n < CONNS)
			conn[n++] =
			    (struct conn){.fd = accept4(fp->listen_fd, NULL, NULL, SOCK_CLOEXEC)};
	}
	(void)close(fp->listen_fd);
	for (size_t i = 0; i < n; i++)
		(void)close(conn[i].fd);
	return NULL; /* with the lifeline held: the kernel tells who waits */
}

/* --- the pool ------------------------------------------------------------------------- */

static void
open_socket(struct fakepool *fp)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)strcpy(fp->dir, "/tmp/fakepool.XXXXXX");
	AN(mkdtemp(fp->dir));
	AZ(setenv("VMPOOL_RUNDIR", fp->dir, 1));
	AZ(ctl_path(addr.sun_path, sizeof(addr.sun_path), fp->name, ".sock", NULL, 0));
	(void)snprintf(fp->path, sizeof(fp->path), "%s", addr.sun_path);
	fp->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	AZ(bind(fp->listen_fd, (struct sockaddr *)&addr, sizeof(addr)));
	AZ(listen(fp->listen_fd, 16));
}

static void
open_with(struct fakepool *fp, const char *name, unsigned idle, void *(*body)(void *))
{
	const struct seg_params params = {.name = name,
					  .accel = "tcg",
					  .why = "it is a test",
					  .nslots = FAKE_SLOTS,
					  .memory_mib = 64,
					  .vcpus = 1};
	struct shm_policy *policy;
	eventfd_t value;
	char err[256];

	memset(fp, 0, sizeof(*fp));
	fp->body = body;
	(void)snprintf(fp->name, sizeof(fp->name), "%s", name);
	AZ(pthread_mutex_init(&fp->lock, NULL));
	AZ(seg_create(&fp->seg, &params, err, sizeof(err)));
	policy = &fp->seg->head->policy;
	atomic_store(&policy->max_idle, FAKE_SLOTS);
	atomic_store(&policy->max_total, FAKE_SLOTS);
	atomic_store(&policy->max_idle_time, 3600);
	atomic_store(&fp->seg->head->state, POOL_RUNNING);
	fp->door = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	fp->control = eventfd(0, EFD_CLOEXEC);
	for (int i = 0; i < FAKE_SLOTS; i++) {
		fp->bells[i].req = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		fp->bells[i].rsp = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	}
	open_socket(fp);
	AZ(pthread_create(&fp->supervisor, NULL, supervise, fp));
	AZ(eventfd_read(fp->control, &value)); /* it holds the lifeline */
	for (unsigned i = 0; i < idle; i++)
		fakepool_add_vm(fp);
}

void
fakepool_open(struct fakepool *fp, const char *name, unsigned idle)
{
	open_with(fp, name, idle, fakeguest_run);
}

void
fakepool_open_agents(struct fakepool *fp, const char *name, unsigned idle)
{
	open_with(fp, name, idle, fakeagent_run);
}

static void
end_supervisor(struct fakepool *fp)
{
	if (fp->supervisor == 0)
		return;
	atomic_store(&fp->die, true);
	AZ(eventfd_write(fp->door, 1));
	AZ(pthread_join(fp->supervisor, NULL));
	fp->supervisor = 0;
}

void
fakepool_kill_supervisor(struct fakepool *fp)
{
	end_supervisor(fp);
	/* Workers do not outlive their supervisor. */
	for (uint32_t i = 0; i < FAKE_SLOTS; i++)
		worker_stop(fp, i);
}

void
fakepool_close(struct fakepool *fp)
{
	fakepool_kill_supervisor(fp);
	for (int i = 0; i < FAKE_SLOTS; i++) {
		(void)close(fp->bells[i].req);
		(void)close(fp->bells[i].rsp);
	}
	(void)close(fp->door);
	(void)close(fp->control);
	seg_close(fp->seg);
	(void)pthread_mutex_destroy(&fp->lock);
	(void)unlink(fp->path);
	(void)rmdir(fp->dir);
}
