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
 * Two processes each, nothing pinned; the contestants take turns.
 */
#include "shm/futex.h"
#include "tests/bench/benchpool.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#define ROUNDS 4000
#define WARM_UP 100
#define PATIENCE_NS 30000000000u

enum command { ANSWER, HANDOVER, END };

/* Shared with the other process. */
struct pair {
	_Atomic uint32_t asked __attribute__((aligned(64)));	/* futex: grows with each command */
	_Atomic uint32_t answered __attribute__((aligned(64))); /* futex */
	_Atomic uint32_t command;
	_Atomic uint64_t returned_ns; /* HANDOVER: when the waiter's acquire returned */
};

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

static int
bench_handover(void)
{
	struct samples ours = {0}, futex = {0};
	struct pair *p = bench_share(sizeof(*p));
	struct benchpool bp;
	struct vmpool *pool;
	char path[64];
	int stat_fd, r;
	pid_t pid;

	benchpool_open(&bp, "handover", 1, false);
	pid = bench_fork();
	if (pid == 0)
		waiter(p, &bp);
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	stat_fd = open(path, O_RDONLY | O_CLOEXEC);
	pool = benchpool_attach(&bp);
	for (int i = 0; i < ROUNDS + WARM_UP; i++) {
		double rtt = round_trip(p, stat_fd), over = hand_over(p, stat_fd, pool);

		if (i < WARM_UP)
			continue;
		samples_add(&futex, rtt);
		samples_add(&ours, over);
	}
	(void)ask(p, END);
	(void)waitpid(pid, NULL, 0);
	closep(&stat_fd);
	(void)printf("  futex round trip: %.1f us; release to the waiter's return: %.1f us\n",
		     samples_percentile(&futex, 50) / 1e3, samples_percentile(&ours, 50) / 1e3);
	r = report_ratio("handover_vs_futex_rtt", 3, &ours, &futex);
	vmpool_detach(pool);
	benchpool_close(&bp);
	samples_fini(&ours);
	samples_fini(&futex);
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

static int
bench_ping(void)
{
	const int fds[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
	struct samples ours = {0}, other = {0};
	struct benchpool bp;
	struct vmpool_vm *vm;
	struct vmpool *pool;
	pid_t echo;
	int r;

	benchpool_open(&bp, "ping", 1, true);
	pool = benchpool_attach(&bp);
	if (vmpool_acquire(pool, NULL, &vm) != 0)
		bench_die("acquire: %s", vmpool_error(pool));
	echo = start_echo(fds);
	for (int i = 0; i < ROUNDS + WARM_UP; i++) {
		double rtt = eventfd_round_trip(fds), pong = ping(pool, vm);

		if (i < WARM_UP)
			continue;
		samples_add(&other, rtt);
		samples_add(&ours, pong);
	}
	(void)eventfd_write(fds[0], 2);
	(void)waitpid(echo, NULL, 0);
	(void)printf("  eventfd round trip: %.1f us; ping of the worker: %.1f us\n",
		     samples_percentile(&other, 50) / 1e3, samples_percentile(&ours, 50) / 1e3);
	r = report_ratio("worker_ping_vs_eventfd_rtt", 3, &ours, &other);
	(void)vmpool_release(vm);
	vmpool_detach(pool);
	benchpool_close(&bp);
	samples_fini(&ours);
	samples_fini(&other);
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
