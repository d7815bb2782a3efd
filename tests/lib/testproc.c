/* SPDX-License-Identifier: MIT
 *
 * testproc.c - child processes that play clients in tests.
 *
 * Runs in test programs. Owns nothing: the caller waits for what it starts.
 */
#include "tests/lib/testproc.h"
#include "shm/base.h"
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

pid_t
testproc_start(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid = fork();

	assert(pid >= 0);
	if (pid > 0)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(255);
	(void)alarm(120);
	_exit(fn(arg));
}

static int
reap(pid_t pid, int options)
{
	int status;
	pid_t r;

	do {
		r = waitpid(pid, &status, options);
	} while (r < 0 && errno == EINTR);
	assert(r == pid);
	return status;
}

int
testproc_wait(pid_t pid)
{
	int status = reap(pid, 0);

	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

bool
testproc_wait_stopped(pid_t pid)
{
	return WIFSTOPPED(reap(pid, WUNTRACED));
}

void
testproc_kill(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)testproc_wait(pid);
}

/* The state letter of a thread, '?' if it cannot be had. */
static char
state_of(pid_t tid)
{
	char path[64], line[512], *paren;
	FILE *f;
	size_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	f = fopen(path, "re");
	if (f == NULL)
		return '?';
	n = fread(line, 1, sizeof(line) - 1, f);
	(void)fclose(f);
	line[n] = '\0';
	paren = strrchr(line, ')');
	return paren != NULL && paren[1] == ' ' ? paren[2] : '?';
}

bool
testproc_asleep(pid_t tid)
{
	uint64_t deadline = now_ns() + 60 * 1000000000ull;

	while (now_ns() < deadline) {
		if (state_of(tid) == 'S')
			return true;
		(void)sched_yield();
	}
	return false;
}
