/* SPDX-License-Identifier: MIT
 *
 * reap.c - waits for children. Runs in vmpoold, which is also the reaper of
 * what its descendants leave behind (PR_SET_CHILD_SUBREAPER).
 */
#include "supervisor/reap.h"

#include <signal.h>
#include <sys/wait.h>

#include "supervisor/suplog.h"

/* Ended children, one by one: seen first, so that the pid is still theirs, then
 * reaped. Those of nobody are children of ended workers. */
void
reap_ended(struct pool *pool)
{
	siginfo_t si;

	for (;;) {
		si.si_pid = 0;
		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 ||
		    si.si_pid == 0)
			return;
		(void)pool_child_ended(pool, &si);
		(void)waitid(P_PID, (id_t)si.si_pid, &si, WEXITED | WNOHANG | __WALL);
	}
}

void
reap_orphans(unsigned timeout_ms)
{
	uint64_t end = now_ns() + timeout_ms * 1000000ull, now;
	struct timespec left;
	sigset_t set;
	pid_t pid;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) >= 0) {
		now = now_ns();
		if (pid > 0)
			continue;
		if (now >= end) {
			suplog(LOG_WARNING, "some children of ended workers still run");
			return;
		}
		left.tv_sec = (time_t)((end - now) / 1000000000u);
		left.tv_nsec = (long)((end - now) % 1000000000u);
		(void)sigtimedwait(&set, NULL, &left);
	}
}
