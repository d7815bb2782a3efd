/* SPDX-License-Identifier: MIT
 *
 * borrow.c - a client that runs the same commands in one VM after the other, each
 * given back at once. For tests/e2e/isolation.sh, where a process of its own for
 * each would take longer than all the rest.
 *
 * usage: borrow POOL COUNT COMMAND [ARG]... [-- COMMAND [ARG]...]...
 *
 * A line for each VM; in it for each command: nanoseconds of the clock before and
 * after (the first one's: before the lease), and the line that it has printed. Ends
 * with status 1 at the first that fails.
 */
#include "shm/vmpool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long long
wall_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static int
run(struct vmpool_vm *vm, const char *const *argv, long long start)
{
	struct vmpool_result result;
	int r = vmpool_exec(vm, argv, NULL, &result);

	if (r == 0)
		(void)printf("%lld %lld %.*s ", start, wall_ns(), (int)strcspn(result.out, "\n"),
			     result.out);
	if (r == 0 && result.exit_code != 0)
		r = -1;
	vmpool_result_fini(&result);
	return r;
}

/* argv: commands, each ended by a NULL; a NULL more ends them. */
static int
borrow(struct vmpool *pool, const char *const *argv)
{
	const struct vmpool_acquire_opts wait = {.timeout_ms = 180000};
	long long start = wall_ns();
	struct vmpool_vm *vm;
	int r = vmpool_acquire(pool, &wait, &vm);

	if (r != 0)
		return r;
	for (; *argv != NULL && r == 0; start = wall_ns()) {
		r = run(vm, argv, start);
		while (*argv++ != NULL)
			;
	}
	(void)printf("\n");
	(void)vmpool_release(vm);
	return r;
}

int
main(int argc, char **argv)
{
	const char **commands = calloc((size_t)argc + 2, sizeof(*commands));
	struct vmpool *pool;
	int r = 0;

	if (argc < 4 || commands == NULL || vmpool_attach(&pool, argv[1]) != 0)
		return 2;
	for (int i = 3; i < argc; i++)
		commands[i - 3] = strcmp(argv[i], "--") == 0 ? NULL : argv[i];
	for (long n = strtol(argv[2], NULL, 10); n > 0 && r == 0; n--)
		r = borrow(pool, commands);
	if (r != 0)
		(void)fprintf(stderr, "borrow: %s\n", vmpool_error(pool));
	vmpool_detach(pool);
	free(commands);
	return r == 0 ? 0 : 1;
}
