/* SPDX-License-Identifier: MIT
 *
 * bench_pool_wake.c - what it costs when one process must wake another:
 *   handover_vs_futex_rtt      from a release to the return of the waiter's
 *                              vmpool_acquire, against a futex round trip
 *   worker_ping_vs_eventfd_rtt a request to the worker and back, without a guest,
 *                              against an eventfd round trip
 *
 * Usage: bench_pool_wake
 *
 * What a wake-up costs depends above all on where the woken process runs: on the
 * same processor microseconds, on another one, which may be idle and asleep, ten
 * times that. So all contestants are pinned alike, once to one processor and once
 * to two; the figure is the worse of the two ratios. The contestants take turns.
 */
#include "shm/futex.h"
#include "tests/bench/benchpool.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#define ROUNDS 2000
#define WARM_UP 100
#define GOAL 3
#define PATIENCE_NS 30000000000u

enum command { ANSWER, HANDOVER, END };

/* Shared with the other process. */
struct pair {
	_Atomic uint32_t asked __attribute__((aligned(64)));	/* futex: grows with each command */
	_Atomic uint32_t answered __attribute__((aligned(64))); /* futex */
	_Atomic uint32_t command;
	_Atomic uint64_t returned_ns; /* HANDOVER: when the waiter's acquire returned */
};

/* Two contestants, and the processes that this one wakes. */
struct duel {
	const char *figure, *ours, *other; /* names */
	void (*round)(struct duel *duel, double *ours_ns, double *other_ns);
	pid_t peer[2];
	unsigned peers;
	struct vmpool *pool;
	struct vmpool_vm *vm;
	struct pair *pair;
	int stat_fd; /* /proc/PID/stat of the waiter */
	int fds[2];  /* eventfds to and from the echo */
};

static void
pin(pid_t pid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(pid, sizeof(set), &set) < 0)
		bench_die("sched_setaffinity: %m");
}

/* The first processor that we may use, or the second; -1: there is none. */
static int
processor(const cpu_set_t *allowed, unsigned which)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, allowed) && which-- == 0)
			return cpu;
	return -1;
}

/* Both contestants with the peers on this processor. */
static double
fight_on(struct duel *duel, int cpu, const char *where, struct samples *ours, struct samples *other)
{
	double a, b;

	for (unsigned i = 0; i < duel->peers; i++)
		pin(duel->peer[i], cpu);
	for (int i = 0; i < ROUNDS + WARM_UP; i++) {
		duel->round(duel, &a, &b);
		if (i < WARM_UP)
			continue;
		samples_add(ours, a);
		samples_add(other, b);
	}
	a = samples_percentile(ours, 50);
	b = samples_percentile(other, 50);
	(void)printf("  on %s: %s %.1f us, %s %.1f us\n", where, duel->other, b / 1e3, duel->ours,
		     a / 1e3);
	return a / b;
}

static int
fight(struct duel *duel)
{
	struct samples ours[2] = {{0}}, other[2] = {{0}};
	double ratio[2] = {0};
	cpu_set_t allowed;
	int r, worse;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		bench_die("sched_getaffinity: %m");
	pin(0, processor(&allowed, 0));
	ratio[0] = fight_on(duel, processor(&allowed, 0), "one processor", &ours[0], &other[0]);
	if (processor(&allowed, 1) >= 0)
		ratio[1] =
		    fight_on(duel, processor(&allowed, 1), "two processors", &ours[1], &other[1]);
	worse = ratio[1] > ratio[0];
	r = report_ratio(duel->figure, GOAL, &ours[worse], &other[worse]);
	for (int i = 0; i < 2; i++) {
		samples_fini(&ours[i]);
		samples_fini(&other[i]);
	}
	if (sched_setaffinity(0, sizeof(allowed), &allowed) < 0)
		bench_die("sched_setaffinity: %m");
	return r;
}

/* --- hand-over --------------------------------------------------------------------------- */

static void
answer(struct pair *p, uint32_t n)
{
	atomic_store(&p->answered, n);
	(void)futex_wake(&p->answered, 1);
}

static void
borrow(struct pair *p, struct vmpool *pool)
{
	struct vmpool_vm *vm;

	if (vmpool_acquire(pool, NULL, &vm) != 0)
		bench_die("acquire: %s", vmpool_error(pool));
	atomic_store(&p->returned_ns, now_ns());
	if (vmpool_release(vm) != 0)
		bench_die("release: %s", vmpool_error(pool));
}

static void __attribute__((noreturn)) waiter(struct pair *p, const struct benchpool *bp)
{
	struct vmpool *pool = benchpool_attach(bp);

	for (uint32_t n = 0;; n++) {
		while (atomic_load(&p->asked) == n)
			(void)futex_wait(&p->asked, n, UINT64_MAX);
		if (atomic_load(&p->command) == HANDOVER)
			borrow(p, pool);
		else if (atomic_load(&p->command) == END)
			break;
		answer(p, n + 1);
	}
	vmpool_detach(pool);
	_exit(0);
}

static uint32_t
ask(struct pair *p, enum command command)
{
	uint32_t n;

	atomic_store(&p->command, command);
	n = atomic_fetch_add(&p->asked, 1) + 1;
	(void)futex_wake(&p->asked, 1);
	return n;
}

static void
await_answer(struct pair *p, uint32_t n)
{
	uint64_t deadline = now_ns() + PATIENCE_NS;
	uint32_t now;

	while ((now = atomic_load(&p->answered)) != n)
		if (futex_wait(&p->answered, now, deadline) == -ETIMEDOUT)
			bench_die("the other process does not answer");
}

/* Wait until the process of this /proc/PID/stat sleeps: both contestants wake one
 * that does. */
static void
await_sleep(int stat_fd)
{
	char buf[64];
	ssize_t n;

	do {
		const char *state;

		(void)sched_yield();
		n = pread(stat_fd, buf, sizeof(buf) - 1, 0);
		if (n <= 0)
			bench_die("/proc/PID/stat: %m");
		buf[n] = '\0';
		state = strrchr(buf, ')');
		if (state != NULL && state[1] == ' ' && state[2] == 'S')
			return;
	} while (true);
}

static double
round_trip(struct pair *p, int stat_fd)
{
	uint64_t start;

	await_sleep(stat_fd);
	start = now_ns();
	await_answer(p, ask(p, ANSWER));
	return (double)(now_ns() - start);
}

static double
hand_over(struct pair *p, int stat_fd, struct vmpool *pool)
{
	struct vmpool_vm *vm;
	uint64_t start;
	uint32_t n;

	if (vmpool_acquire(pool, NULL, &vm) != 0)
		bench_die("acquire: %s", vmpool_error(pool));
	n = ask(p, HANDOVER);
	while (atomic_load(&pool->seg->head->waiting) == 0)
		(void)sched_yield();
	await_sleep(stat_fd);
	start = now_ns();
	if (vmpool_release(vm) != 0)
		bench_die("release: %s", vmpool_error(pool));
	await_answer(p, n);
	return (double)(atomic_load(&p->returned_ns) - start);
}

static void
handover_round(struct duel *d, double *ours_ns, double *other_ns)
{
	*other_ns = round_trip(d->pair, d->stat_fd);
	*ours_ns = hand_over(d->pair, d->stat_fd, d->pool);
}

static int
bench_handover(void)
{
	struct duel duel = {.figure = "handover_vs_futex_rtt",
			    .ours = "release to the waiter's return",
			    .other = "futex round trip",
			    .round = handover_round,
			    .peers = 1};
	struct benchpool bp;
	char path[64];
	int r;

	benchpool_open(&bp, "handover", 1, false);
	duel.pair = bench_share(sizeof(*duel.pair));
	duel.peer[0] = bench_fork();
	if (duel.peer[0] == 0)
		waiter(duel.pair, &bp);
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)duel.peer[0]);
	duel.stat_fd = open(path, O_RDONLY | O_CLOEXEC);
	duel.pool = benchpool_attach(&bp);
	r = fight(&duel);
	(void)ask(duel.pair, END);
	(void)waitpid(duel.peer[0], NULL, 0);
	closep(&duel.stat_fd);
	vmpool_detach(duel.pool);
	benchpool_close(&bp);
	return r;
}

/* --- ping ------------------------------------------------------------------------------------ */

/* The other process: an eventfd's answer on another. */
static pid_t
start_echo(const int fds[2])
{
	pid_t pid = bench_fork();
	eventfd_t value;

	while (pid == 0)
		if (eventfd_read(fds[0], &value) < 0 || eventfd_write(fds[1], 1) < 0 || value > 1)
			_exit(0);
	return pid;
}

static double
eventfd_round_trip(const int fds[2])
{
	uint64_t start = now_ns();
	eventfd_t value;

	if (eventfd_write(fds[0], 1) < 0 || eventfd_read(fds[1], &value) < 0)
		bench_die("eventfd: %m");
	return (double)(now_ns() - start);
}

static double
ping(struct vmpool *pool, struct vmpool_vm *vm)
{
	uint64_t start = now_ns();

	if (vmpool_ping_worker(vm, 60000, NULL) != 0)
		bench_die("ping: %s", vmpool_error(pool));
	return (double)(now_ns() - start);
}

static void
ping_round(struct duel *d, double *ours_ns, double *other_ns)
{
	*other_ns = eventfd_round_trip(d->fds);
	*ours_ns = ping(d->pool, d->vm);
}

static int
bench_ping(void)
{
	struct duel duel = {.figure = "worker_ping_vs_eventfd_rtt",
			    .ours = "ping of the worker",
			    .other = "eventfd round trip",
			    .round = ping_round,
			    .peers = 2,
			    .fds = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)}};
	struct benchpool bp;
	int r;

	benchpool_open(&bp, "ping", 1, true);
	duel.pool = benchpool_attach(&bp);
	if (vmpool_acquire(duel.pool, NULL, &duel.vm) != 0)
		bench_die("acquire: %s", vmpool_error(duel.pool));
	duel.peer[0] = (pid_t)atomic_load(&duel.pool->seg->slot[0].worker_pid);
	duel.peer[1] = start_echo(duel.fds);
	r = fight(&duel);
	(void)eventfd_write(duel.fds[0], 2);
	(void)waitpid(duel.peer[1], NULL, 0);
	(void)vmpool_release(duel.vm);
	vmpool_detach(duel.pool);
	benchpool_close(&bp);
	return r;
}

int
main(void)
{
	int r = bench_handover();

	if (r == 0)
		r = bench_ping();
	return r == 0 ? 0 : 1;
}
