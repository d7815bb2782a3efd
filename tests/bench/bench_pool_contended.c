/* SPDX-License-Identifier: MIT
 *
 * bench_pool_contended.c - acquire_contended_2, _4, _8: how many times a second
 * that many processes together borrow and give back an idle VM, against how
 * many times they lock and unlock a bare robust mutex twice.
 *
 * Usage: bench_pool_contended
 *
 * The contestants take turns in slices that are long enough for the scheduler
 * to let every process run, and short enough that drift hits both; what is reported
 * is the median of the rounds' ratios, since how often two processes really meet
 * depends on what else the machine does just then. Nothing is pinned. A VM is idle
 * for every process, so that nobody ever queues.
 */
#include "shm/futex.h"
#include "tests/bench/benchpool.h"

#include <limits.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PROCESSES 8
#define SLOTS 16u
#define SLICE_NS 40000000
#define ROUNDS 40 /* slices of each contestant */
#define WARM_UP 2
#define PATIENCE_NS 30000000000u

enum contestant { PAIRS, LEASES, CALLS, CONTESTANTS, END };

/* Shared by the processes of one contest. */
struct arena {
	_Atomic uint32_t go;	 /* futex: number of the slice */
	_Atomic uint32_t joined; /* processes that have ended their slice */
	_Atomic uint32_t contestant;
	_Atomic uint32_t stop __attribute__((aligned(64))); /* read in every cycle */
	pthread_mutex_t mutex __attribute__((aligned(64)));
	struct {
		uint64_t cycles __attribute__((aligned(64)));
	} by[PROCESSES];
};

/* --- the processes ---------------------------------------------------------------------- */

static inline bool
stopped(const struct arena *a)
{
	return atomic_load_explicit(&a->stop, memory_order_relaxed) != 0;
}

static uint64_t
run_pairs(struct arena *a)
{
	uint64_t n = 0;

	for (; !stopped(a); n++)
		for (int i = 0; i < 2; i++)
			if (pthread_mutex_lock(&a->mutex) != 0 ||
			    pthread_mutex_unlock(&a->mutex) != 0)
				bench_die("lock");
	return n;
}

static uint64_t
run_leases(struct arena *a, struct vmpool *pool)
{
	uint64_t n = 0;

	for (; !stopped(a); n++) {
		struct lease lease;

		if (client_acquire(pool, 60000, &lease) != 0 ||
		    lease_release(pool->seg, &lease, pool->kick_fd) != 0)
			bench_die("no VM");
	}
	return n;
}

static uint64_t
run_calls(struct arena *a, struct vmpool *pool)
{
	uint64_t n = 0;

	for (; !stopped(a); n++) {
		struct vmpool_vm *vm;

		if (vmpool_acquire(pool, NULL, &vm) != 0 || vmpool_release(vm) != 0)
			bench_die("acquire: %s", vmpool_error(pool));
	}
	return n;
}

static void
join(struct arena *a)
{
	(void)atomic_fetch_add(&a->joined, 1);
	(void)futex_wake(&a->joined, 1);
}

static void __attribute__((noreturn))
contender(struct arena *a, const struct benchpool *bp, unsigned index)
{
	struct vmpool *pool = benchpool_attach(bp);
	uint64_t *cycles = &a->by[index].cycles;

	for (uint32_t slice = 0;; slice++) {
		join(a);
		while (atomic_load(&a->go) == slice)
			(void)futex_wait(&a->go, slice, UINT64_MAX);
		switch ((enum contestant)atomic_load(&a->contestant)) {
		case PAIRS: *cycles = run_pairs(a); break;
		case LEASES: *cycles = run_leases(a, pool); break;
		case CALLS: *cycles = run_calls(a, pool); break;
		default: vmpool_detach(pool); _exit(0);
		}
	}
}

/* --- the referee --------------------------------------------------------------------------- */

static void
await_all(struct arena *a, unsigned processes)
{
	uint64_t deadline = now_ns() + PATIENCE_NS;
	uint32_t n;

	while ((n = atomic_load(&a->joined)) < processes)
		if (futex_wait(&a->joined, n, deadline) == -ETIMEDOUT)
			bench_die("a process does not come back");
	atomic_store(&a->joined, 0);
}

static void
start(struct arena *a, enum contestant contestant)
{
	atomic_store(&a->contestant, contestant);
	atomic_store(&a->stop, 0);
	(void)atomic_fetch_add(&a->go, 1);
	(void)futex_wake(&a->go, INT_MAX);
}

/* Cycles per second of all processes together. */
static double
slice(struct arena *a, unsigned processes, enum contestant contestant)
{
	const struct timespec length = {.tv_nsec = SLICE_NS};
	uint64_t began = now_ns(), sum = 0, took;

	start(a, contestant);
	(void)nanosleep(&length, NULL);
	atomic_store(&a->stop, 1);
	took = now_ns() - began;
	await_all(a, processes);
	for (unsigned i = 0; i < processes; i++)
		sum += a->by[i].cycles;
	return (double)sum * 1e9 / (double)took;
}

/* One contest's samples: rates per second, and each round's in pairs of that round. */
struct result {
	struct samples rate[CONTESTANTS], ratio[CONTESTANTS];
};

static void
round_of_all(struct arena *a, unsigned processes, struct result *res)
{
	double rate[CONTESTANTS];

	for (enum contestant c = 0; c < CONTESTANTS; c++) {
		rate[c] = slice(a, processes, c);
		samples_add(&res->rate[c], rate[c]);
		samples_add(&res->ratio[c], rate[c] / rate[PAIRS]);
	}
}

static int
report_result(unsigned processes, struct result *res)
{
	struct samples *ratio = &res->ratio[LEASES];
	char name[32];

	(void)snprintf(name, sizeof(name), "acquire_contended_%u", processes);
	(void)printf("  %u processes, millions per second: %.2f times two lock pairs; %.2f times "
		     "acquire + release; as vmpool_* calls %.2f, which is %.2f x\n",
		     processes, samples_percentile(&res->rate[PAIRS], 50) / 1e6,
		     samples_percentile(&res->rate[LEASES], 50) / 1e6,
		     samples_percentile(&res->rate[CALLS], 50) / 1e6,
		     samples_percentile(&res->ratio[CALLS], 50));
	return report(&(struct figure){
	    .name = name,
	    .accel = "none",
	    .unit = "x",
	    .value = samples_percentile(ratio, 50),
	    .goal = 0.7,
	    .p50 = samples_percentile(ratio, 50),
	    /* Of rates the low ones are the bad ones. */
	    .p99 = samples_percentile(ratio, 1),
	    .n = ratio->n,
	});
}

static void
result_fini(struct result *res)
{
	for (int c = 0; c < CONTESTANTS; c++) {
		samples_fini(&res->rate[c]);
		samples_fini(&res->ratio[c]);
	}
}

static int
contest(const struct benchpool *bp, unsigned processes)
{
	struct result res = {0};
	struct arena *a = bench_share(sizeof(*a));
	int r;

	bench_mutex_init(&a->mutex);
	for (unsigned i = 0; i < processes; i++)
		if (bench_fork() == 0)
			contender(a, bp, i);
	await_all(a, processes);
	for (int i = 0; i < ROUNDS + WARM_UP; i++) {
		if (i == WARM_UP)
			result_fini(&res);
		round_of_all(a, processes, &res);
	}
	start(a, END);
	for (unsigned i = 0; i < processes; i++)
		(void)wait(NULL);
	r = report_result(processes, &res);
	result_fini(&res);
	(void)munmap(a, sizeof(*a));
	return r;
}

int
main(void)
{
	struct benchpool bp;
	int r = 0;

	benchpool_open(&bp, "contended", SLOTS, false);
	for (unsigned n = 2; n <= PROCESSES && r == 0; n *= 2)
		r = contest(&bp, n);
	benchpool_close(&bp);
	return r == 0 ? 0 : 1;
}
