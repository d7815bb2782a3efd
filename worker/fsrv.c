/* SPDX-License-Identifier: MIT
 *
 * fsrv.c - makes workers on demand, and cleans up behind a dead supervisor.
 * Runs in the fork server; owns the segment's mapping that workers inherit.
 */
#include "worker/fsrv.h"
#include "shm/ctl.h"
#include "worker/adopt.h"
#include "worker/builder.h"
#include "worker/shell.h"
#include "worker/template.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

/* A slot's descriptors, and a template's. */
#define FSRV_FDS (SHELL_FDS + TEMPLATE_FILES)

struct fsrv {
	const struct fsrv_config *cfg;
	struct machine_template tmpl; /* mem_fd -1: there is none yet */
	struct worker_config worker;  /* cfg's, with the template */
	struct shells shells;
};

/* In a new process: nothing of the fork server's own is left to it. */
static void
leave(struct fsrv *f)
{
	int control = f->cfg->control, lock = f->cfg->lock;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != f->cfg->supervisor)
		_exit(1);
	closep(&control);
	closep(&lock);
	shells_drop(&f->shells);
}

static struct machine_template
template_of(const struct ctl_template *tmpl, const int *fds)
{
	return (struct machine_template){
	    .mem_fd = fds[0],
	    .state_fd = fds[1],
	    .mem_off = tmpl->mem_off,
	    .state_off = tmpl->state_off,
	    .state_len = tmpl->state_len,
	    .origin = tmpl->origin,
	};
}

static int
answer(const struct fsrv *f, const struct fsrv_request *req, pid_t pid, int pidfd)
{
	const struct fsrv_spawned msg = {
	    .magic = CTL_MAGIC,
	    .slot = req->slot,
	    .generation = req->generation,
	    .pid = MAX(pid, 0),
	    .error = MIN(pid, 0),
	};

	return ctl_send(f->cfg->control, &msg, sizeof(msg), &pidfd, pid > 0 ? 1 : 0);
}

static int
spawn(struct fsrv *f, const struct fsrv_request *req, const int *fds)
{
	_cleanup_(closep) int pidfd = -1;
	pid_t pid = shells_use(&f->shells, req->slot, fds, &pidfd);
	int r;

	if (pid == 0)
		pid = shell_fork(&pidfd);
	if (pid == 0) {
		leave(f);
		shell_work(&f->worker, req->slot, fds);
	}
	r = answer(f, req, pid, pidfd);
	if (r == 0)
		shells_fill(&f->shells, f->cfg->worker.ops->shells, f->cfg->supervisor, &f->worker);
	return r;
}

/* A VM that goes on from a copy of another: not one that could wait ahead of demand. */
static int
spawn_copy(struct fsrv *f, const struct fsrv_request *req, const int *fds)
{
	const struct machine_template copy = template_of(&req->tmpl, fds + SHELL_FDS);
	struct worker_config cfg = f->worker;
	_cleanup_(closep) int pidfd = -1;
	pid_t pid = shell_fork(&pidfd);

	if (pid == 0) {
		leave(f);
		cfg.machine.tmpl = &copy;
		shell_work(&cfg, req->slot, fds);
	}
	return answer(f, req, pid, pidfd);
}

static int
build(struct fsrv *f, const struct fsrv_request *req, const int *fds)
{
	const struct builder_config bc = {
	    .control = fds[0],
	    .ops = f->cfg->worker.ops,
	    .machine = f->cfg->worker.machine,
	    .warmup = f->cfg->warmup,
	    .snapshot = f->cfg->snapshot,
	};
	_cleanup_(closep) int pidfd = -1;
	pid_t pid = shell_fork(&pidfd);

	if (pid == 0) {
		leave(f);
		(void)prctl(PR_SET_NAME, "vmpool-build");
		_exit(bc.snapshot >= 0 ? adopt_run(&bc) : builder_run(&bc));
	}
	return answer(f, req, pid, pidfd);
}

/* From now on VMs start from this template. */
static int
adopt(struct fsrv *f, const struct ctl_template *tmpl, int *fds)
{
	shells_drop(&f->shells);
	closep(&f->tmpl.mem_fd);
	closep(&f->tmpl.state_fd);
	f->tmpl = template_of(tmpl, fds);
	fds[0] = fds[1] = -1;
	f->worker.machine.tmpl = &f->tmpl;
	shells_fill(&f->shells, f->cfg->worker.ops->shells, f->cfg->supervisor, &f->worker);
	return 0;
}

static int
act(struct fsrv *f, const struct fsrv_request *req, int *fds)
{
	uint32_t nslots = f->cfg->worker.seg->nslots;

	if (req->magic != CTL_MAGIC || req->zero != 0)
		return -EPROTO;
	switch (req->kind) {
	case FSRV_BUILD: return fds[0] < 0 ? -EPROTO : build(f, req, fds);
	case FSRV_TEMPLATE: return fds[1] < 0 ? -EPROTO : adopt(f, &req->tmpl, fds);
	case FSRV_SPAWN:
		return req->slot >= nslots || f->tmpl.mem_fd < 0 || fds[SHELL_FDS - 1] < 0
			   ? -EPROTO
			   : spawn(f, req, fds);
	case FSRV_FORK:
		return req->slot >= nslots || fds[FSRV_FDS - 1] < 0 ? -EPROTO
								    : spawn_copy(f, req, fds);
	default: return -EPROTO;
	}
}

/* One message; 0, or an error that ends the server (-EPIPE: the supervisor is gone). */
static int
serve(struct fsrv *f)
{
	struct pollfd pfd = {.fd = f->cfg->control, .events = POLLIN};
	struct fsrv_request req;
	int fds[FSRV_FDS], r;

	if (poll(&pfd, 1, -1) < 0)
		return errno == EINTR ? 0 : -errno;
	r = ctl_recv(f->cfg->control, &req, sizeof(req), fds, FSRV_FDS);
	if (r == 0)
		r = act(f, &req, fds);
	for (int i = 0; i < FSRV_FDS; i++)
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
	struct fsrv f = {.cfg = cfg, .tmpl = {.mem_fd = -1, .state_fd = -1}, .worker = cfg->worker};
	sigset_t none;
	int r;

	/* Signals of the supervisor's terminal are the supervisor's business. */
	(void)setsid();
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)prctl(PR_SET_NAME, "vmpool-fsrv");
	do {
		r = serve(&f);
	} while (r == 0);
	shells_drop(&f.shells);
	remove_files(cfg->remove);
	if (r != -EPIPE)
		(void)fprintf(stderr, "vmpool-worker: fork server ends: %s\n", strerror(-r));
	return r == -EPIPE ? 0 : 1;
}
