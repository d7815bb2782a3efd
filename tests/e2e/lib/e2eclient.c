/* SPDX-License-Identifier: MIT
 *
 * e2eclient.c - see e2eclient.h.
 */
#include "tests/e2e/lib/e2eclient.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vmpool *pool;
struct vmpool_vm *vm;
static unsigned count;

bool
e2e_begin(const char *name)
{
	const struct vmpool_acquire_opts wait = {.timeout_ms = 180000};

	if (vmpool_attach(&pool, name) == 0 && vmpool_acquire(pool, &wait, &vm) == 0)
		return true;
	fprintf(stderr, "no VM: %s\n", vmpool_error(pool));
	return false;
}

int
e2e_end(void)
{
	printf("1..%u\n", count);
	(void)vmpool_release(vm);
	vmpool_detach(pool);
	return 0;
}

void
result(bool ok, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %u - ", ok ? "" : "not ", ++count);
	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (!ok)
		printf("# %s\n", vmpool_error(pool));
	(void)fflush(stdout);
}

bool
sh(const char *script, const char *want)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct vmpool_result r;
	bool ok = vmpool_exec(vm, argv, NULL, &r) == 0 && strcmp(r.out, want) == 0;

	if (!ok)
		printf("# \"%s\" printed \"%s\"\n", script, r.out != NULL ? r.out : "");
	vmpool_result_fini(&r);
	return ok;
}

long long
e2e_say(const char *script)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct vmpool_result r;
	long long n = -1;

	if (vmpool_exec(vm, argv, NULL, &r) == 0 && r.out_len > 0)
		n = atoll(r.out);
	vmpool_result_fini(&r);
	return n;
}

double
seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

bool
e2e_until(bool (*is_so)(void *arg), void *arg)
{
	const double end = seconds() + 20;

	while (!is_so(arg)) {
		if (seconds() > end)
			return false;
		(void)poll(NULL, 0, 50);
	}
	return true;
}
