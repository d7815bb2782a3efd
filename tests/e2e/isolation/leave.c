/* SPDX-License-Identifier: MIT
 *
 * leave.c - a client of the worst kind: opens streams until it may open no more,
 * writes how many to standard output, and is killed. For tests/e2e/isolation.sh.
 *
 * usage: leave POOL
 */
#include "shm/vmpool.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int
main(int argc, char **argv)
{
	static const char *const command[] = {"sh", "-c", "echo up; exec cat", NULL};
	const struct vmpool_acquire_opts wait = {.timeout_ms = 180000};
	const struct vmpool_exec_opts with_stdin = {.want_stdin = true};
	struct vmpool_proc *proc;
	struct vmpool *pool;
	struct vmpool_vm *vm;
	int n = 0;

	if (argc != 2 || vmpool_attach(&pool, argv[1]) != 0 ||
	    vmpool_acquire(pool, &wait, &vm) != 0)
		return 1;
	while (n < 1000 && vmpool_spawn(vm, command, &with_stdin, &proc) == 0)
		n++;
	(void)printf("%d\n", n);
	(void)fflush(stdout);
	(void)kill(getpid(), SIGKILL);
	return 1;
}
