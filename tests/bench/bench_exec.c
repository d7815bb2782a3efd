/* SPDX-License-Identifier: MIT
 *
 * bench_exec.c - exec_vs_guest_spawn: acquire + `echo` + release of a warm VM as
 * a client sees it, against what the agent itself measures for fork + exec +
 * wait of the same command.
 *
 * Usage: bench_exec ACCEL [POOL]      the pool runs, with VMs to spare
 *
 * Released VMs are replaced in the background, which would compete for the
 * processors: so VMs are warmed first, and the target lowered before measuring.
 */
#include "shm/vmpool.h"
#include "tests/bench/report.h"

#define VMS 8
#define WAIT_MS 300000

static void
cycle(struct vmpool *pool, struct samples *ratio, struct samples *total, struct samples *guest)
{
	static const char *const argv[] = {"/bin/echo", "hello", NULL};
	const struct vmpool_acquire_opts now = {.timeout_ms = 0};
	struct vmpool_result result;
	struct vmpool_vm *vm;
	uint64_t start = now_ns(), ns;

	if (vmpool_acquire(pool, &now, &vm) != 0)
		bench_die("acquire: %s", vmpool_error(pool));
	if (vmpool_exec(vm, argv, NULL, &result) != 0)
		bench_die("exec: %s", vmpool_error(pool));
	(void)vmpool_release(vm);
	ns = now_ns() - start;
	if (result.exit_code != 0 || result.out_len != 6)
		bench_die("echo answered status %d, %zu bytes", result.exit_code, result.out_len);
	samples_add(ratio, (double)ns / (double)result.guest_ns);
	samples_add(total, (double)ns / 1e6);
	samples_add(guest, (double)result.guest_ns / 1e6);
	vmpool_result_fini(&result);
}

int
main(int argc, char **argv)
{
	struct samples ratio = {0}, total = {0}, guest = {0};
	struct vmpool *pool;
	int r;

	if (argc < 2)
		bench_die("usage: bench_exec ACCEL [POOL]");
	if (vmpool_attach(&pool, argc > 2 ? argv[2] : NULL) != 0)
		bench_die("attach: %s", vmpool_error(NULL));
	if (vmpool_warm(pool, VMS, WAIT_MS) < 0 || vmpool_warm(pool, 0, WAIT_MS) < 0)
		bench_die("warm: %s", vmpool_error(pool));
	for (int i = 0; i < VMS - 1; i++)
		cycle(pool, &ratio, &total, &guest);
	(void)printf(
	    "  acquire + echo + release: %.3f ms; fork + exec + wait in the guest: %.3f ms\n",
	    samples_percentile(&total, 50), samples_percentile(&guest, 50));
	r = report(&(struct figure){
	    .name = "exec_vs_guest_spawn",
	    .accel = argv[1],
	    .unit = "x",
	    .value = samples_percentile(&ratio, 50),
	    .goal = 1.25,
	    .lower_is_better = true,
	    .p50 = samples_percentile(&ratio, 50),
	    .p99 = samples_percentile(&ratio, 99),
	    .n = ratio.n,
	});
	vmpool_detach(pool);
	samples_fini(&ratio);
	samples_fini(&total);
	samples_fini(&guest);
	return r == 0 ? 0 : 1;
}
