/* SPDX-License-Identifier: MIT
 *
 * shell.c - workers that wait for a slot. Runs in the fork server, which owns the
 * table and the sockets; shell_wait, shell_work and shell_place run in the shells themselves.
 */
#include "worker/shell.h"
#include "shm/ctl.h"
#include "shm/lifeline.h"

#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* What a shell is told, with the slot's descriptors. */
struct shell_order {
	uint32_t magic, slot;
};

pid_t
shell_fork(int *pidfd)
{
	struct clone_args args = {
	    .flags = CLONE_PARENT | CLONE_PIDFD,
	    .pidfd = (uint64_t)(uintptr_t)pidfd,
	};
	long r = syscall(SYS_clone3, &args, sizeof(args));

	return r < 0 ? -errno : (pid_t)r;
}

/* --- in a shell -------------------------------------------------------------------- */

/* The slot is this process's: a claim can tell an idle VM whose worker is dead, before
 * it is reaped. */
static struct worker_place
shell_place(struct seg *seg, uint32_t slot, const int *fds)
{
	(void)prctl(PR_SET_NAME, "vmpool-vm");
	if (lifeline_tie(&seg->slot[slot].life) < 0)
		_exit(1);
	return (struct worker_place){
	    .slot = slot,
	    .control = fds[SHELL_CONTROL],
	    .request = fds[SHELL_REQUEST],
	    .response = fds[SHELL_RESPONSE],
	};
}

void
shell_work(const struct worker_config *cfg, uint32_t slot, const int *fds)
{
	const struct worker_place place = shell_place(cfg->seg, slot, fds);

	_exit(worker_run(cfg, &place));
}

static void __attribute__((noreturn)) shell_wait(const struct worker_config *cfg, int sock)
{
	struct shell_order order;
	struct worker_place place;
	int fds[SHELL_FDS];
	struct worker *w;

	(void)prctl(PR_SET_NAME, "vmpool-shell");
	/* Until there is work; the fork server's end closes this socket. */
	if (worker_prepare(&w, cfg) < 0 || worker_wait(w, sock) != 0)
		_exit(1);
	if (ctl_recv(sock, &order, sizeof(order), fds, SHELL_FDS) < 0 || order.magic != CTL_MAGIC ||
	    order.slot >= cfg->seg->nslots || fds[SHELL_FDS - 1] < 0)
		_exit(0);
	(void)close(sock);
	place = shell_place(cfg->seg, order.slot, fds);
	_exit(worker_serve(w, &place));
}

/* --- in the fork server --------------------------------------------------------------- */

static void
shell_close(struct shell *shell)
{
	closep(&shell->sock);
	closep(&shell->pidfd);
}

static int
shell_new(struct shells *shells, pid_t supervisor, const struct worker_config *cfg)
{
	struct shell *shell = &shells->shell[shells->n];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	*shell = (struct shell){.sock = pair[0], .pidfd = -1};
	shell->pid = shell_fork(&shell->pidfd);
	if (shell->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != supervisor)
			_exit(1);
		/* A shell that held its siblings' sockets would keep them alive. */
		(void)close(pair[0]);
		shells_drop(shells);
		shell_wait(cfg, pair[1]);
	}
	(void)close(pair[1]);
	if (shell->pid < 0) {
		shell_close(shell);
		return shell->pid;
	}
	shells->n++;
	return 0;
}

void
shells_fill(struct shells *shells, unsigned count, pid_t supervisor,
	    const struct worker_config *cfg)
{
	while (shells->n < MIN(count, SHELLS_MAX))
		if (shell_new(shells, supervisor, cfg) < 0)
			return;
}

pid_t
shells_use(struct shells *shells, uint32_t slot, const int *fds, int *pidfd)
{
	const struct shell_order order = {.magic = CTL_MAGIC, .slot = slot};

	/* The oldest first: it is the one that is prepared. */
	while (shells->n > 0) {
		struct shell shell = shells->shell[0];
		int r = ctl_send(shell.sock, &order, sizeof(order), fds, SHELL_FDS);

		shells->n--;
		memmove(&shells->shell[0], &shells->shell[1], shells->n * sizeof(shell));
		closep(&shell.sock);
		if (r == 0) {
			*pidfd = shell.pidfd;
			return shell.pid;
		}
		closep(&shell.pidfd);
	}
	return 0;
}

void
shells_drop(struct shells *shells)
{
	while (shells->n > 0)
		shell_close(&shells->shell[--shells->n]);
}
