/* SPDX-License-Identifier: MIT
 *
 * bench_pool.c - what the shared pool costs a client that has it for itself:
 *   acquire_vs_lock_pair      acquire + release of an idle VM that was not used,
 *                             against locking and unlocking a robust mutex
 *   acquire_4096_vs_16_slots  the same in a large pool against a small one
 *   attach_4096_vs_16_slots   attaching to a large pool against a small one
 *   segment_kib_per_slot      memory that one more slot takes
 *
 * Usage: bench_pool
 *
 * The contestants take turns in slices of a fraction of a millisecond, so that a
 * drifting machine slows all of them.
 */
#include "tests/bench/benchpool.h"

#include <sched.h>

#define SMALL 16u
#define LARGE 4096u
#define SLICES 3000
#define CYCLES 500 /* in a slice */
#define WARM_UP 200
#define ATTACHES 300

/* A pool of which half the VMs are in use. */
struct contest {
	struct benchpool bp;
	struct vmpool *pool;
	struct lease held[LARGE / 2];
	struct samples ns; /* per acquire + release */
};

static void
take(struct vmpool *pool, struct lease *lease)
{
	if (client_acquire(pool, 60000, lease) != 0)
		bench_die("no VM");
}

static void
contest_open(struct contest *c, const char *name, uint32_t nslots)
{
	benchpool_open(&c->bp, name, nslots, false);
	c->pool = benchpool_attach(&c->bp);
	for (uint32_t i = 0; i < nslots / 2; i++)
		take(c->pool, &c->held[i]);
}

static void
contest_close(struct contest *c)
{
	vmpool_detach(c->pool);
	benchpool_close(&c->bp);
	samples_fini(&c->ns);
	free(c);
}

static double
slice_leases(struct vmpool *pool)
{
	uint64_t start = now_ns();

	for (int i = 0; i < CYCLES; i++) {
		struct lease lease;

		take(pool, &lease);
		if (lease_release(pool->seg, &lease, pool->kick_fd) != 0)
			bench_die("the VM was not taken back");
	}
	return (double)(now_ns() - start) / CYCLES;
}

static double
slice_calls(struct vmpool *pool)
{
	uint64_t start = now_ns();

	for (int i = 0; i < CYCLES; i++) {
		struct vmpool_vm *vm;

		if (vmpool_acquire(pool, NULL, &vm) != 0 || vmpool_release(vm) != 0)
			bench_die("acquire: %s", vmpool_error(pool));
	}
	return (double)(now_ns() - start) / CYCLES;
}

static double
slice_pairs(pthread_mutex_t *mutex)
{
	uint64_t start = now_ns();

	for (int i = 0; i < CYCLES; i++)
		if (pthread_mutex_lock(mutex) != 0 || pthread_mutex_unlock(mutex) != 0)
			bench_die("lock");
	return (double)(now_ns() - start) / CYCLES;
}

static int
bench_acquire(struct contest *small, struct contest *large)
{
	pthread_mutex_t *mutex = bench_share(sizeof(*mutex));
	struct samples pairs = {0}, calls = {0};
	int r;

	bench_mutex_init(mutex);
	for (int i = 0; i < SLICES + WARM_UP; i++) {
		double ns[4];

		ns[0] = slice_pairs(mutex);
		ns[1] = slice_leases(small->pool);
		ns[2] = slice_leases(large->pool);
		ns[3] = slice_calls(small->pool);
		if (i < WARM_UP)
			continue;
		samples_add(&pairs, ns[0]);
		samples_add(&small->ns, ns[1]);
		samples_add(&large->ns, ns[2]);
		samples_add(&calls, ns[3]);
	}
	(void)printf("  lock pair: %.1f ns; acquire + release: %.1f ns, with %u slots %.1f ns; "
		     "vmpool_acquire + vmpool_release: %.1f ns\n",
		     samples_percentile(&pairs, 50), samples_percentile(&small->ns, 50), LARGE,
		     samples_percentile(&large->ns, 50), samples_percentile(&calls, 50));
	r = report_ratio("acquire_vs_lock_pair", 8, &small->ns, &pairs);
	if (r == 0)
		r = report_ratio("acquire_4096_vs_16_slots", 1.25, &large->ns, &small->ns);
	samples_fini(&pairs);
	samples_fini(&calls);
	return r;
}

static double
one_attach(const struct contest *c)
{
	uint64_t start = now_ns(), end;
	struct vmpool *pool = benchpool_attach(&c->bp);
	const _Atomic uint32_t *pid;

	end = now_ns();
	pid = &c->pool->seg->client[pool->client].pid;
	vmpool_detach(pool);
	/* The next contestant must not compete with this one's supervisor. */
	while (atomic_load(pid) != 0)
		(void)sched_yield();
	return (double)(end - start);
}

static int
bench_attach(const struct contest *small, const struct contest *large)
{
	struct samples s = {0}, l = {0};
	int r;

	for (int i = 0; i < ATTACHES; i++) {
		samples_add(&s, one_attach(small));
		samples_add(&l, one_attach(large));
	}
	(void)printf("  vmpool_attach, %u slots: %.1f us, %u slots: %.1f us\n", SMALL,
		     samples_percentile(&s, 50) / 1e3, LARGE, samples_percentile(&l, 50) / 1e3);
	r = report_ratio("attach_4096_vs_16_slots", 10, &l, &s);
	samples_fini(&s);
	samples_fini(&l);
	return r;
}

static int
bench_segment(void)
{
	double kib = (double)(seg_size(LARGE) - seg_size(SMALL)) / (LARGE - SMALL) / 1024;

	return report(&(struct figure){
	    .name = "segment_kib_per_slot",
	    .accel = "none",
	    .unit = "KiB",
	    .value = kib,
	    .goal = 160,
	    .lower_is_better = true,
	    .p50 = kib,
	    .p99 = kib,
	    .n = 1,
	});
}

int
main(void)
{
	struct contest *small = calloc(1, sizeof(*small)), *large = calloc(1, sizeof(*large));
	int r;

	if (small == NULL || large == NULL)
		bench_die("out of memory");
	contest_open(small, "small", SMALL);
	contest_open(large, "large", LARGE);
	r = bench_acquire(small, large);
	if (r == 0)
		r = bench_attach(small, large);
	if (r == 0)
		r = bench_segment();
	contest_close(small);
	contest_close(large);
	return r == 0 ? 0 : 1;
}
