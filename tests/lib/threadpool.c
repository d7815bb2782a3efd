/* SPDX-License-Identifier: MIT
 *
 * threadpool.c - supervisor and workers as threads of a test program. Only the
 * supervisor's thread changes the pool's workers and connections.
 */
#include "tests/lib/threadpool.h"
#include "shm/lease.h"
#include "shm/lifeline.h"
#include "shm/slot.h"
#include "tests/lib/testpool.h"
#include "worker/worker.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

/* --- workers -------------------------------------------------------------------------- */

static void *
be_worker(void *arg)
{
	struct threadpool_worker *w = arg;
	const struct worker_config cfg = {
	    .seg = w->pool->seg,
	    .ops = &machine_null,
	    .machine = {.kernel = "", .image = "", .mem_mib = 64, .vcpus = 1, .mem_fd = -1},
	};
	const struct worker_place place = {
	    .slot = w->slot,
	    .control = w->theirs,
	    .request = w->request,
	    .response = w->response,
	};

	(void)worker_run(&cfg, &place);
	return NULL;
}

static bool
start_one(struct threadpool *tp)
{
	uint64_t generation;
	uint32_t slot;
	int r = testpool_sup(sup_start(tp->seg, &slot, &generation)), pair[2];
	struct threadpool_worker *w;

	if (r == -ENOSPC)
		return false;
	AZ(r);
	w = &tp->worker[slot];
	AZ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	w->control = pair[0];
	w->theirs = pair[1];
	AZ(testpool_sup(sup_set_worker(tp->seg, slot, 4000000 + slot)));
	AZ(pthread_create(&w->thread, NULL, be_worker, w));
	return true;
}

/* End it if it runs, whatever its slot's state. */
static void
end_one(struct threadpool *tp, struct threadpool_worker *w)
{
	if (w->control < 0)
		return;
	closep(&w->control);
	AZ(pthread_join(w->thread, NULL));
	closep(&w->theirs);
	AZ(testpool_sup(sup_worker_gone(tp->seg, w->slot, NULL)));
	AZ(eventfd_write(w->response, 1));
}

static void
hear_worker(struct threadpool *tp, struct threadpool_worker *w)
{
	struct worker_msg msg;
	int r = ctl_recv(w->control, &msg, sizeof(msg), NULL, 0);

	if (r == -EAGAIN)
		return;
	if (r == 0 && msg.kind == WORKER_READY)
		AZ(testpool_sup(sup_ready(tp->seg, w->slot, msg.took_ns)));
	else
		end_one(tp, w);
}

/* What policy would do: end what is nobody's, start what is missing. */
static void
look_around(struct threadpool *tp)
{
	uint32_t missing;

	for (uint32_t i = 0; i < THREADPOOL_SLOTS; i++)
		if (testpool_state(tp->seg, i) == SLOT_RESETTING)
			end_one(tp, &tp->worker[i]);
	missing = tp->min_idle + atomic_load(&tp->seg->head->waiting);
	missing -= MIN(missing,
		       testpool_count(tp->seg, SLOT_IDLE) + testpool_count(tp->seg, SLOT_STARTING));
	while (missing-- > 0 && start_one(tp))
		continue;
}

/* --- clients ---------------------------------------------------------------------------- */

static void
answer(struct threadpool *tp, struct threadpool_conn *c, const struct ctl_request *req)
{
	struct ctl_reply reply = {
	    .magic = CTL_MAGIC, .kind = CTL_ATTACHED, .generation = tp->seg->head->generation};
	int fds[2] = {tp->seg->fd, tp->door};

	if (req->kind == CTL_ATTACH) {
		AZ(testpool_sup(sup_client_new(tp->seg, (uint32_t)getpid(), &c->id)));
		reply.client = c->id;
		c->client = true;
	} else {
		AZ(req->kind != CTL_DOORBELLS || req->slot >= THREADPOOL_SLOTS);
		reply.kind = CTL_DOORBELLS;
		fds[0] = tp->worker[req->slot].request;
		fds[1] = tp->worker[req->slot].response;
	}
	/* A client that is gone already says so by its socket. */
	(void)!ctl_send(c->fd, &reply, sizeof(reply), fds, 2);
}

static void
hear_client(struct threadpool *tp, struct threadpool_conn *c)
{
	struct ctl_request req;
	int r = ctl_recv(c->fd, &req, sizeof(req), NULL, 0);

	if (r == 0) {
		answer(tp, c, &req);
		return;
	}
	closep(&c->fd);
	if (c->client)
		AZ(testpool_sup(sup_client_gone(tp->seg, c->id)));
	c->client = false;
}

static void
accept_client(struct threadpool *tp)
{
	for (unsigned i = 0; i < THREADPOOL_CONNS; i++) {
		if (tp->conn[i].fd >= 0)
			continue;
		tp->conn[i].fd = accept4(tp->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		return;
	}
}

/* --- the supervisor ------------------------------------------------------------------------ */

static void *
supervise(void *arg)
{
	struct pollfd p[2 + THREADPOOL_SLOTS + THREADPOOL_CONNS];
	struct threadpool *tp = arg;
	eventfd_t rings;

	AZ(lifeline_hold(tp->seg));
	while (!atomic_load(&tp->stop)) {
		look_around(tp);
		p[0] = (struct pollfd){.fd = tp->listen_fd, .events = POLLIN};
		p[1] = (struct pollfd){.fd = tp->door, .events = POLLIN};
		for (unsigned i = 0; i < THREADPOOL_SLOTS; i++)
			p[2 + i] = (struct pollfd){.fd = tp->worker[i].control, .events = POLLIN};
		for (unsigned i = 0; i < THREADPOOL_CONNS; i++)
			p[2 + THREADPOOL_SLOTS + i] =
			    (struct pollfd){.fd = tp->conn[i].fd, .events = POLLIN};
		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			continue;
		(void)eventfd_read(tp->door, &rings);
		for (unsigned i = 0; i < THREADPOOL_SLOTS; i++)
			if (p[2 + i].revents != 0)
				hear_worker(tp, &tp->worker[i]);
		for (unsigned i = 0; i < THREADPOOL_CONNS; i++)
			if (p[2 + THREADPOOL_SLOTS + i].revents != 0)
				hear_client(tp, &tp->conn[i]);
		if (p[0].revents != 0)
			accept_client(tp);
	}
	for (unsigned i = 0; i < THREADPOOL_SLOTS; i++)
		end_one(tp, &tp->worker[i]);
	return NULL;
}

static void
open_socket(struct threadpool *tp)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)strcpy(tp->dir, "/tmp/threadpool.XXXXXX");
	AN(mkdtemp(tp->dir));
	AZ(setenv("VMPOOL_RUNDIR", tp->dir, 1));
	AZ(ctl_path(tp->path, sizeof(tp->path), "default", ".sock", NULL, 0));
	memcpy(addr.sun_path, tp->path, sizeof(addr.sun_path));
	tp->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	AZ(bind(tp->listen_fd, (struct sockaddr *)&addr, sizeof(addr)));
	AZ(listen(tp->listen_fd, 64));
}

void
threadpool_open(struct threadpool *tp, uint32_t min_idle, uint32_t max_total)
{
	const struct seg_params params = {.name = "default",
					  .accel = "null",
					  .why = "threads",
					  .nslots = THREADPOOL_SLOTS,
					  .memory_mib = 64,
					  .vcpus = 1};
	struct shm_policy *policy;
	char err[256];

	memset(tp, 0, sizeof(*tp));
	AZ(seg_create(&tp->seg, &params, err, sizeof(err)));
	policy = &tp->seg->head->policy;
	tp->min_idle = min_idle;
	atomic_store(&policy->min_idle, min_idle);
	atomic_store(&policy->max_idle, max_total);
	atomic_store(&policy->max_total, max_total);
	atomic_store(&policy->max_idle_time, 3600);
	tp->door = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	for (unsigned i = 0; i < THREADPOOL_SLOTS; i++)
		tp->worker[i] =
		    (struct threadpool_worker){.pool = tp,
					       .slot = i,
					       .control = -1,
					       .theirs = -1,
					       .request = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
					       .response = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	for (unsigned i = 0; i < THREADPOOL_CONNS; i++)
		tp->conn[i].fd = -1;
	open_socket(tp);
	AZ(pthread_create(&tp->thread, NULL, supervise, tp));
}

void
threadpool_stop(struct threadpool *tp)
{
	atomic_store(&tp->stop, true);
	AZ(eventfd_write(tp->door, 1));
	AZ(pthread_join(tp->thread, NULL));
}

void
threadpool_close(struct threadpool *tp)
{
	for (unsigned i = 0; i < THREADPOOL_CONNS; i++)
		closep(&tp->conn[i].fd);
	for (unsigned i = 0; i < THREADPOOL_SLOTS; i++) {
		closep(&tp->worker[i].request);
		closep(&tp->worker[i].response);
	}
	closep(&tp->listen_fd);
	closep(&tp->door);
	seg_close(tp->seg);
	(void)unlink(tp->path);
	(void)rmdir(tp->dir);
}
