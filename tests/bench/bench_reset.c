/* SPDX-License-Identifier: MIT
 *
 * bench_reset.c - exec_reset_vs_noreset: acquire + `echo` + release as a client
 * sees it, in a pool that resets every VM it gets back, against the same without
 * any reset.
 *
 * Usage: bench_reset ACCEL [POOL]      the pool runs, with room for 8 VMs
 *
 * A pool never hands a used VM on, so "without" is put together of a lease that is
 * kept, in which one echo follows another, and of acquire + release of a VM that
 * nobody has used, which goes back as it is. Both kinds take turns. A cycle begins
 * when all VMs are idle again: the reset of the last one then takes no processor
 * time from it. Back to back, where it does, is told as well. So is what acquire +
 * release take by themselves: nobody waits there for a reset. What remains is that
 * the first command in a VM copies pages that a second one has for itself already.
 */
#include "shm/vmpool.h"
#include "tests/bench/report.h"

#define VMS 8u
#define IDLE (VMS - 1) /* one lease is kept */
#define CYCLES 100
#define WAIT_MS 300000

static const struct vmpool_acquire_opts patience = {.timeout_ms = WAIT_MS};

static struct vmpool_vm *
acquire(struct vmpool *pool)
{
	struct vmpool_vm *vm;

	if (vmpool_acquire(pool, &patience, &vm) != 0)
		bench_die("acquire: %s", vmpool_error(pool));
	return vm;
}

static void
echo(struct vmpool *pool, struct vmpool_vm *vm)
{
	static const char *const argv[] = {"/bin/echo", "hello", NULL};
	struct vmpool_result result;

	if (vmpool_exec(vm, argv, NULL, &result) != 0)
		bench_die("exec: %s", vmpool_error(pool));
	if (result.exit_code != 0 || result.out_len != 6)
		bench_die("echo answered status %d, %zu bytes", result.exit_code, result.out_len);
	vmpool_result_fini(&result);
}

/* Until the last reset is done: all VMs but the kept one, and back, unused. */
static void
settle(struct vmpool *pool)
{
	struct vmpool_vm *vm[IDLE];

	for (unsigned i = 0; i < IDLE; i++)
		vm[i] = acquire(pool);
	for (unsigned i = 0; i < IDLE; i++)
		(void)vmpool_release(vm[i]);
}

/* One kind of cycle: milliseconds of all of it, and of acquire + release. */
struct cycle {
	struct samples whole, lease;
};

/* In a VM that is borrowed for it, or in the kept one beside it. */
static void
cycle(struct vmpool *pool, struct vmpool_vm *kept, struct cycle *c)
{
	uint64_t start = now_ns(), leased, done;
	struct vmpool_vm *vm = acquire(pool);

	leased = now_ns();
	echo(pool, kept != NULL ? kept : vm);
	done = now_ns();
	(void)vmpool_release(vm);
	samples_add(&c->whole, (double)(now_ns() - start) / 1e6);
	samples_add(&c->lease, (double)(now_ns() - done + leased - start) / 1e6);
}

static double
median(struct samples *s)
{
	return samples_percentile(s, 50);
}

static void
cycle_fini(struct cycle *c)
{
	samples_fini(&c->whole);
	samples_fini(&c->lease);
}

int
main(int argc, char **argv)
{
	struct cycle with = {0}, without = {0}, crowded = {0};
	struct vmpool_vm *kept;
	struct vmpool *pool;
	double unit, ratio;
	int r;

	if (argc < 2)
		bench_die("usage: bench_reset ACCEL [POOL]");
	if (vmpool_attach(&pool, argc > 2 ? argv[2] : NULL) != 0)
		bench_die("attach: %s", vmpool_error(NULL));
	if (vmpool_warm(pool, VMS, WAIT_MS) < 0)
		bench_die("warm: %s", vmpool_error(pool));
	kept = acquire(pool);
	echo(pool, kept);
	for (int i = 0; i < CYCLES; i++) {
		settle(pool);
		cycle(pool, NULL, &with);
		settle(pool);
		cycle(pool, kept, &without);
	}
	for (int i = 0; i < CYCLES; i++)
		cycle(pool, NULL, &crowded);
	unit = median(&without.whole);
	ratio = median(&with.whole) / unit;
	(void)printf("  acquire + echo + release: %.2f ms (%.3f ms without the echo), without "
		     "reset %.2f ms (%.3f ms); back to back, among resets, %.2f ms (%.3f ms)\n",
		     median(&with.whole), median(&with.lease), unit, median(&without.lease),
		     median(&crowded.whole), median(&crowded.lease));
	r = report(&(struct figure){
	    .name = "exec_reset_vs_noreset",
	    .accel = argv[1],
	    .unit = "x",
	    .value = ratio,
	    .goal = 1.25,
	    .lower_is_better = true,
	    .p50 = ratio,
	    .p99 = samples_percentile(&with.whole, 99) / unit,
	    .n = with.whole.n,
	});
	(void)vmpool_release(kept);
	vmpool_detach(pool);
	cycle_fini(&with);
	cycle_fini(&without);
	cycle_fini(&crowded);
	return r == 0 ? 0 : 1;
}
