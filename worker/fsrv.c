/* SPDX-License-Identifier: MIT
 *
 * fsrv.c - makes workers on demand, and cleans up behind a dead supervisor.
 * Runs in the fork server; owns the segment's mapping that workers inherit.
 */
#include "worker/fsrv.h"
#include "shm/ctl.h"
#include "shm/lifeline.h"

#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { FD_CONTROL, FD_REQUEST, FD_RESPONSE, FDS };

/* fork, but as our parent's child, and with a pidfd. */
static pid_t
clone_sibling(int *pidfd)
{
	struct clone_args args = {
	    .flags = CLONE_PARENT | CLONE_PIDFD,
	    .pidfd = (uint64_t)(uintptr_t)pidfd,
	};
	long r = syscall(SYS_clone3, &args, sizeof(args));

	return r < 0 ? -errno : (pid_t)r;
}

static void __attribute__((noreturn))
run_worker(const struct fsrv_config *cfg, uint32_t slot, const int *fds)
{
	struct worker_config wc = cfg->worker;
	int control = cfg->control, lock = cfg->lock;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* So that a claim can tell an idle VM whose worker is dead, before it is reaped. */
	if (getppid() != cfg->supervisor || lifeline_tie(&wc.seg->slot[slot].life) < 0)
		_exit(1);
	(void)prctl(PR_SET_NAME, "vmpool-vm");
	closep(&control);
	closep(&lock);
	wc.slot = slot;
	wc.control = fds[FD_CONTROL];
	wc.request = fds[FD_REQUEST];
	wc.response = fds[FD_RESPONSE];
	_exit(worker_run(&wc));
}

static int
spawn(const struct fsrv_config *cfg, const struct fsrv_spawn *req, const int *fds)
{
	struct fsrv_spawned answer = {
	    .magic = CTL_MAGIC,
	    .slot = req->slot,
	    .generation = req->generation,
	};
	_cleanup_(closep) int pidfd = -1;
	pid_t pid = clone_sibling(&pidfd);

	if (pid == 0)
		run_worker(cfg, req->slot, fds);
	if (pid > 0)
		answer.pid = pid;
	else
		answer.error = pid;
	return ctl_send(cfg->control, &answer, sizeof(answer), &pidfd, pid > 0 ? 1 : 0);
}

/* One message; 0, or an error that ends the server (-EPIPE: the supervisor is gone). */
static int
serve(const struct fsrv_config *cfg)
{
	struct pollfd pfd = {.fd = cfg->control, .events = POLLIN};
	struct fsrv_spawn req;
	int fds[FDS] = {-1, -1, -1}, r;

	if (poll(&pfd, 1, -1) < 0)
		return errno == EINTR ? 0 : -errno;
	r = ctl_recv(cfg->control, &req, sizeof(req), fds, FDS);
	if (r == 0) {
		if (req.magic != CTL_MAGIC || req.slot >= cfg->worker.seg->nslots ||
		    fds[FDS - 1] < 0)
			r = -EPROTO;
		else
			r = spawn(cfg, &req, fds);
	}
	for (int i = 0; i < FDS; i++)
		closep(&fds[i]);
	return r == -EAGAIN ? 0 : r;
}

static void
remove_files(const char *list)
{
	_cleanup_(freep) char *copy = list == NULL ? NULL : strdup(list);
	char *save = NULL;

	if (copy == NULL)
		return;
	for (char *path = strtok_r(copy, ":", &save); path != NULL;
	     path = strtok_r(NULL, ":", &save))
		(void)unlink(path);
}

int
fsrv_run(const struct fsrv_config *cfg)
{
	sigset_t none;
	int r;

	/* Signals of the supervisor's terminal are the supervisor's business. */
	(void)setsid();
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)prctl(PR_SET_NAME, "vmpool-fsrv");
	do {
		r = serve(cfg);
	} while (r == 0);
	remove_files(cfg->remove);
	if (r != -EPIPE)
		(void)fprintf(stderr, "vmpool-worker: fork server ends: %s\n", strerror(-r));
	return r == -EPIPE ? 0 : 1;
}
