/* SPDX-License-Identifier: MIT
 *
 * forker.c - starts, feeds and restarts the fork server. Runs in vmpoold; owns
 * the fork server's process and the supervisor's end of its control socket.
 */
#include "supervisor/forker.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "shm/ctl.h"
#include "supervisor/errpipe.h"
#include "supervisor/launch.h"
#include "supervisor/policy.h"
#include "supervisor/suplog.h"

#define FORKER_MAGIC 0x4f2b90d1u
#define FORKER_END_MS 2000

struct forker {
	unsigned magic;
	struct evloop *loop;
	const struct config *cfg;
	const struct parts *parts;
	const struct rundir *dir;
	int segment_fd;
	struct forker_ops ops;
	pid_t pid; /* 0 = not running */
	int pidfd, sock;
	struct errpipe err;
	bool broken; /* killed, or its socket has closed: spawn no more */
	struct ev_source src;
	struct ev_timer restart;
	uint32_t failing; /* ends since it last made a worker */
};

static int
forker_exec(struct forker *fk, int theirs)
{
	char control[48], segment[48], parent[48], accel[48], memory[48], vcpus[48], lock[48];
	char snapshot[48];
	char kernel[PATH_MAX + 16], image[PATH_MAX + 16], files[2 * PATH_MAX + 16];
	char warmup[sizeof(fk->cfg->warmup) + 16];
	const char *argv[] = {fk->parts->worker,
			      "fork-server",
			      control,
			      segment,
			      parent,
			      accel,
			      memory,
			      vcpus,
			      kernel,
			      image,
			      files,
			      lock,
			      fk->parts->snapshot_fd >= 0  ? snapshot
			      : fk->cfg->warmup[0] != '\0' ? warmup
							   : NULL,
			      NULL};
	struct launch what = {
	    .argv = argv,
	    .out = -1,
	    .err = fk->err.write_fd,
	    .quiet = fk->cfg->daemonize,
	    .keep = {theirs, fk->segment_fd, fk->dir->lock_fd, fk->parts->snapshot_fd},
	    .nkeep = fk->parts->snapshot_fd >= 0 ? 4 : 3,
	};

	(void)snprintf(control, sizeof(control), "--control-fd=%d", theirs);
	(void)snprintf(segment, sizeof(segment), "--segment-fd=%d", fk->segment_fd);
	(void)snprintf(parent, sizeof(parent), "--supervisor-pid=%d", (int)getpid());
	(void)snprintf(accel, sizeof(accel), "--accel=%s", fk->parts->accel);
	(void)snprintf(memory, sizeof(memory), "--memory=%u", fk->parts->memory_mib);
	(void)snprintf(vcpus, sizeof(vcpus), "--vcpus=%u", fk->parts->vcpus);
	(void)snprintf(kernel, sizeof(kernel), "--kernel=%s", fk->parts->kernel);
	(void)snprintf(image, sizeof(image), "--image=%s", fk->parts->image);
	(void)snprintf(files, sizeof(files), "--remove=%s:%s", fk->dir->sock, fk->dir->pid);
	(void)snprintf(lock, sizeof(lock), "--lock-fd=%d", fk->dir->lock_fd);
	(void)snprintf(snapshot, sizeof(snapshot), "--snapshot-fd=%d", fk->parts->snapshot_fd);
	(void)snprintf(warmup, sizeof(warmup), "--warmup=%s", fk->cfg->warmup);
	return launch(&what, &fk->pid);
}

static int
forker_start(struct forker *fk)
{
	_cleanup_(closep) int theirs = -1;
	int r = ctl_pair(&fk->sock, &theirs);

	if (r == 0)
		r = forker_exec(fk, theirs);
	if (r == 0) {
		fk->pidfd = pidfd_open(fk->pid, 0);
		r = fk->pidfd < 0 ? -errno : 0;
	}
	if (r == 0) {
		fk->src.fd = fk->sock;
		r = evloop_add(fk->loop, &fk->src, EPOLLIN);
	}
	if (r < 0) {
		if (fk->pid > 0) {
			(void)kill(fk->pid, SIGKILL);
			(void)waitpid(fk->pid, NULL, 0);
		}
		fk->pid = 0;
		closep(&fk->pidfd);
		closep(&fk->sock);
		return r;
	}
	fk->broken = false;
	return 0;
}

/* One answer. 0, -EAGAIN: no more now; else the socket is of no more use. */
static int
forker_answer(struct forker *fk)
{
	struct fsrv_spawned msg;
	int pidfd = -1, r;

	r = ctl_recv(fk->sock, &msg, sizeof(msg), &pidfd, 1);
	if (r < 0)
		return r;
	if (msg.magic != CTL_MAGIC || msg.pid < 0 || (msg.pid > 0) != (pidfd >= 0) ||
	    (msg.pid == 0 && msg.error >= 0)) {
		closep(&pidfd);
		return -EPROTO;
	}
	if (msg.pid > 0)
		fk->failing = 0;
	fk->ops.spawned(fk->ops.arg, msg.slot, msg.generation, msg.pid, pidfd, msg.error);
	return 0;
}

static void
forker_readable(void *arg, uint32_t events)
{
	struct forker *fk = arg;
	int r;

	CHECK_OBJ(fk, FORKER_MAGIC);
	(void)events;
	r = forker_answer(fk);
	if (r == 0 || r == -EAGAIN)
		return;
	evloop_del(fk->loop, &fk->src);
	if (r != -EPIPE)
		suplog(LOG_ERR, "the fork server sent something unknown");
	forker_kill(fk);
}

static void
forker_restart(void *arg)
{
	struct forker *fk = arg;
	int r;

	CHECK_OBJ(fk, FORKER_MAGIC);
	r = forker_start(fk);
	if (r < 0) {
		suplog(LOG_ERR, "fork server: cannot start %s: %s", fk->parts->worker,
		       strerror(-r));
		fk->failing++;
		ev_timer_by(&fk->restart, now_ns() + policy_backoff_ns(fk->failing));
		return;
	}
	fk->ops.up(fk->ops.arg);
}

int
forker_open(struct forker **out, struct evloop *loop, const struct config *cfg,
	    const struct parts *parts, const struct rundir *dir, int segment_fd,
	    const struct forker_ops *ops, char *err, size_t errlen)
{
	struct forker *fk = calloc(1, sizeof(*fk));
	int r;

	*out = NULL;
	if (fk == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	fk->magic = FORKER_MAGIC;
	fk->loop = loop;
	fk->cfg = cfg;
	fk->parts = parts;
	fk->dir = dir;
	fk->segment_fd = segment_fd;
	fk->ops = *ops;
	fk->pidfd = fk->sock = -1;
	fk->src.ready = forker_readable;
	fk->src.arg = fk;
	fk->restart.fire = forker_restart;
	fk->restart.arg = fk;
	r = errpipe_open(&fk->err, loop);
	if (r == 0)
		r = forker_start(fk);
	if (r < 0) {
		errpipe_close(&fk->err);
		free(fk);
		return fail(-r, err, errlen, "cannot start %s: %s", parts->worker, strerror(-r));
	}
	evloop_timer(loop, &fk->restart);
	*out = fk;
	return 0;
}

static int
forker_ask(struct forker *fk, struct fsrv_request *req, const int *fds, unsigned nfds)
{
	int r;

	CHECK_OBJ(fk, FORKER_MAGIC);
	if (fk->pid == 0 || fk->broken)
		return -ENOTCONN;
	req->magic = CTL_MAGIC;
	r = ctl_send(fk->sock, req, sizeof(*req), fds, nfds);
	return r == -EPIPE ? -ENOTCONN : r;
}

int
forker_spawn(struct forker *fk, uint32_t slot, uint64_t generation, int sock,
	     const struct bell_pair *bells)
{
	struct fsrv_request req = {.kind = FSRV_SPAWN, .slot = slot, .generation = generation};
	const int fds[] = {sock, bells->request, bells->response};

	return forker_ask(fk, &req, fds, ARRAY_SIZE(fds));
}

int
forker_fork(struct forker *fk, uint32_t slot, uint64_t generation, int sock,
	    const struct bell_pair *bells, const struct ctl_template *tmpl, const int *files)
{
	struct fsrv_request req = {
	    .kind = FSRV_FORK, .slot = slot, .generation = generation, .tmpl = *tmpl};
	const int fds[] = {sock, bells->request, bells->response, files[0], files[1]};

	return forker_ask(fk, &req, fds, ARRAY_SIZE(fds));
}

int
forker_build(struct forker *fk, int sock)
{
	struct fsrv_request req = {.kind = FSRV_BUILD, .slot = FSRV_BUILDER};

	return forker_ask(fk, &req, &sock, 1);
}

int
forker_template(struct forker *fk, const struct ctl_template *tmpl, const int *fds)
{
	struct fsrv_request req = {.kind = FSRV_TEMPLATE, .tmpl = *tmpl};

	return forker_ask(fk, &req, fds, 2);
}

void
forker_answers(struct forker *fk)
{
	CHECK_OBJ(fk, FORKER_MAGIC);
	while (fk->pid > 0 && !fk->broken && forker_answer(fk) == 0)
		continue;
}

bool
forker_ended(struct forker *fk, const siginfo_t *si)
{
	char why[400];

	CHECK_OBJ(fk, FORKER_MAGIC);
	if (si->si_pid != fk->pid)
		return false;
	/* What it answered before it ended counts: those workers exist. */
	forker_answers(fk);
	evloop_del(fk->loop, &fk->src);
	fk->pid = 0;
	closep(&fk->pidfd);
	closep(&fk->sock);
	fk->failing++;
	errpipe_drain(&fk->err);
	(void)snprintf(why, sizeof(why), "the fork server ended (%s %d)%s%s",
		       si->si_code == CLD_EXITED ? "status" : "signal", si->si_status,
		       si->si_code == CLD_EXITED && fk->err.last[0] != '\0' ? ": " : "",
		       si->si_code == CLD_EXITED ? fk->err.last : "");
	fk->err.last[0] = '\0';
	ev_timer_by(&fk->restart, now_ns() + policy_backoff_ns(fk->failing));
	fk->ops.down(fk->ops.arg, fk->failing, why);
	return true;
}

void
forker_kill(struct forker *fk)
{
	CHECK_OBJ(fk, FORKER_MAGIC);
	fk->broken = true;
	if (fk->pid > 0)
		(void)pidfd_send_signal(fk->pidfd, SIGKILL, NULL, 0);
}

void
forker_close(struct forker *fk)
{
	struct pollfd p;

	if (fk == NULL)
		return;
	CHECK_OBJ(fk, FORKER_MAGIC);
	if (fk->pid > 0) {
		evloop_del(fk->loop, &fk->src);
		closep(&fk->sock);
		p = (struct pollfd){.fd = fk->pidfd, .events = POLLIN};
		if (poll(&p, 1, FORKER_END_MS) <= 0)
			(void)pidfd_send_signal(fk->pidfd, SIGKILL, NULL, 0);
		(void)waitpid(fk->pid, NULL, 0);
	}
	closep(&fk->pidfd);
	errpipe_close(&fk->err);
	fk->magic = 0;
	free(fk);
}
