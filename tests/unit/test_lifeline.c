/* SPDX-License-Identifier: MIT
 *
 * test_lifeline.c - sleeping until woken, until the deadline, or until the
 * supervisor is dead.
 */
#include "shm/futex.h"
#include "shm/lifeline.h"
#include "tests/lib/testpool.h"
#include "tests/lib/testproc.h"
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static const struct seg_params params = {.name = "life", .accel = "tcg", .why = "", .nslots = 1};

static struct seg *
create(void)
{
	struct seg *seg;

	assert_int_equal(seg_create(&seg, &params, NULL, 0), 0);
	return seg;
}

/* The supervisor is a child here, which holds the lifeline and sleeps. */
static int
supervise(void *arg)
{
	struct seg *seg = arg;

	if (lifeline_hold(seg) != 0)
		return 1;
	atomic_store(&seg->head->failing, 1);
	lifeline_wake(&seg->head->failing, 1);
	for (;;)
		(void)pause();
}

static pid_t
supervisor_start(struct seg *seg)
{
	pid_t pid = testproc_start(supervise, seg);

	while (atomic_load(&seg->head->failing) == 0)
		(void)futex_wait(&seg->head->failing, 0, now_ns() + PATIENCE_NS);
	assert_true(lifeline_alive(seg));
	return pid;
}

/* Sleepers on change_seq, in processes and threads. */
#define SLEEPERS 8
struct sleeper {
	struct seg *seg;
	uint64_t deadline_ns;
};

static int
sleep_on(void *arg)
{
	struct sleeper *s = arg;
	int r;

	do {
		r = lifeline_wait(s->seg, &s->seg->head->change_seq, 0, s->deadline_ns);
	} while (r == 0 && atomic_load(&s->seg->head->change_seq) == 0);
	return -r;
}

static void *
sleep_on_thread(void *arg)
{
	return (void *)(intptr_t)sleep_on(arg);
}

static void
not_held_is_dead(void **state)
{
	struct seg *seg = create();

	(void)state;
	assert_false(lifeline_alive(seg));
	assert_int_equal(lifeline_wait(seg, &seg->head->change_seq, 0, UINT64_MAX), -ENOTCONN);
	assert_int_equal(lifeline_hold(seg), 0);
	assert_true(lifeline_alive(seg));
	assert_int_equal(lifeline_wait(seg, &seg->head->change_seq, 1, UINT64_MAX), 0);
	lifeline_drop(seg);
	assert_false(lifeline_alive(seg));
	lifeline_drop(seg);
	seg_close(seg);
}

static void
deadline_passes(void **state)
{
	struct seg *seg = create();
	uint64_t t = now_ns();

	(void)state;
	assert_int_equal(lifeline_hold(seg), 0);
	assert_int_equal(lifeline_wait(seg, &seg->head->change_seq, 0, t + 50000000), -ETIMEDOUT);
	assert_true(now_ns() >= t + 50000000);
	assert_int_equal(lifeline_wait(seg, &seg->head->change_seq, 0, 1), -ETIMEDOUT);
	assert_true(now_ns() < t + 10 * SECOND_NS);
	seg_close(seg);
}

static void
wake_ends_the_wait(void **state)
{
	struct seg *seg = create();
	struct sleeper s = {.seg = seg, .deadline_ns = now_ns() + PATIENCE_NS};
	pid_t pid[SLEEPERS];

	(void)state;
	assert_int_equal(lifeline_hold(seg), 0);
	for (unsigned i = 0; i < SLEEPERS; i++)
		pid[i] = testproc_start(sleep_on, &s);
	for (unsigned i = 0; i < SLEEPERS; i++)
		assert_true(testproc_asleep(pid[i]));
	atomic_store(&seg->head->change_seq, 1);
	lifeline_wake(&seg->head->change_seq, SLEEPERS);
	for (unsigned i = 0; i < SLEEPERS; i++)
		assert_int_equal(testproc_wait(pid[i]), 0);
	seg_close(seg);
}

static void
on_signal(int sig)
{
	(void)sig;
}

static void
signal_ends_the_wait(void **state)
{
	struct sigaction sa = {.sa_handler = on_signal}, old;
	struct seg *seg = create();
	struct sleeper s = {.seg = seg, .deadline_ns = now_ns() + PATIENCE_NS};
	pid_t pid;

	(void)state;
	assert_int_equal(lifeline_hold(seg), 0);
	assert_int_equal(sigaction(SIGUSR1, &sa, &old), 0);
	pid = testproc_start(sleep_on, &s);
	assert_true(testproc_asleep(pid));
	assert_int_equal(kill(pid, SIGUSR1), 0);
	assert_int_equal(testproc_wait(pid), EINTR);
	assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
	seg_close(seg);
}

/* SIGKILL wakes eight sleepers in four processes, each long before it would
 * look again by itself (two seconds). */
static int
sleep_twice(void *arg)
{
	pthread_t thread;
	void *r;
	int mine;

	if (pthread_create(&thread, NULL, sleep_on_thread, arg) != 0)
		return 1;
	mine = sleep_on(arg);
	(void)pthread_join(thread, &r);
	return mine == (int)(intptr_t)r ? mine : 1;
}

static void
death_wakes_everybody(void **state)
{
	uint64_t best = UINT64_MAX;

	(void)state;
	/* A busy machine may delay anything: one prompt round of five will do. */
	for (unsigned round = 0; round < 5 && best > SECOND_NS; round++) {
		struct seg *seg = create();
		pid_t supervisor = supervisor_start(seg), pid[SLEEPERS / 2];
		struct sleeper s = {.seg = seg, .deadline_ns = now_ns() + PATIENCE_NS};
		uint64_t t;

		for (unsigned i = 0; i < SLEEPERS / 2; i++)
			pid[i] = testproc_start(sleep_twice, &s);
		for (unsigned i = 0; i < SLEEPERS / 2; i++)
			assert_true(testproc_asleep(pid[i]));
		t = now_ns();
		testproc_kill(supervisor);
		for (unsigned i = 0; i < SLEEPERS / 2; i++)
			assert_int_equal(testproc_wait(pid[i]), ENOTCONN);
		best = MIN(best, now_ns() - t);
		assert_false(lifeline_alive(seg));
		seg_close(seg);
	}
	assert_true(best <= SECOND_NS);
}

/* A worker, tied to slot 0, and those that wait for something that it will not do. */
static int
work(void *arg)
{
	struct seg *seg = arg;

	if (lifeline_tie(&seg->slot[0].life) != 0)
		return 1;
	for (;;)
		(void)pause();
}

static int
sleep_with_worker(void *arg)
{
	struct sleeper *s = arg;
	int r;

	do {
		r = lifeline_wait_worker(s->seg, &s->seg->head->change_seq, 0,
					 &s->seg->slot[0].life, s->deadline_ns);
	} while (r == 0 && !lifeline_severed(&s->seg->slot[0].life));
	return -r;
}

static void
the_workers_death_wakes_everybody(void **state)
{
	struct seg *seg = create();
	struct sleeper s = {.seg = seg, .deadline_ns = now_ns() + PATIENCE_NS};
	pid_t worker = testproc_start(work, seg), pid[SLEEPERS];

	(void)state;
	assert_int_equal(lifeline_hold(seg), 0);
	while (atomic_load(&seg->slot[0].life) == 0)
		(void)sched_yield();
	for (unsigned i = 0; i < SLEEPERS; i++)
		pid[i] = testproc_start(sleep_with_worker, &s);
	for (unsigned i = 0; i < SLEEPERS; i++)
		assert_true(testproc_asleep(pid[i]));
	testproc_kill(worker);
	/* None of them before its deadline: no slice ends a sleep here. */
	for (unsigned i = 0; i < SLEEPERS; i++)
		assert_int_equal(testproc_wait(pid[i]), 0);
	/* Later ones do not even fall asleep. */
	assert_int_equal(sleep_with_worker(&s), 0);
	assert_true(now_ns() < s.deadline_ns);
	seg_close(seg);
}

static void
orderly_end_wakes_everybody(void **state)
{
	struct seg *seg = create();
	struct sleeper s = {.seg = seg, .deadline_ns = now_ns() + PATIENCE_NS};
	pid_t pid[SLEEPERS];

	(void)state;
	assert_int_equal(lifeline_hold(seg), 0);
	for (unsigned i = 0; i < SLEEPERS; i++)
		pid[i] = testproc_start(sleep_on, &s);
	for (unsigned i = 0; i < SLEEPERS; i++)
		assert_true(testproc_asleep(pid[i]));
	seg_close(seg);
	for (unsigned i = 0; i < SLEEPERS; i++)
		assert_int_equal(testproc_wait(pid[i]), ENOTCONN);
}

/* Another process, or a forked child, cannot drop it. */
static int
drop(void *arg)
{
	seg_close(arg);
	return 0;
}

static void
only_its_holder_drops_it(void **state)
{
	struct seg *seg = create();

	(void)state;
	assert_int_equal(lifeline_hold(seg), 0);
	assert_int_equal(testproc_wait(testproc_start(drop, seg)), 0);
	assert_true(lifeline_alive(seg));
	seg_close(seg);
}

/* Garbage over the mutex, list pointers included, does not take its holder along. */
static int
scribbled_holder(void *arg)
{
	struct seg *seg = arg;
	pthread_mutexattr_t attr;
	pthread_mutex_t other;
	uint32_t word;

	if (lifeline_hold(seg) != 0)
		return 1;
	word = *(uint32_t *)&seg->head->lifeline;
	memset(&seg->head->lifeline, 0x5a, sizeof(seg->head->lifeline));
	/* The holder's other robust mutexes and the pool lock go on working. */
	(void)pthread_mutexattr_init(&attr);
	(void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (pthread_mutex_init(&other, &attr) != 0 || pthread_mutex_lock(&other) != 0 ||
	    lock_acquire(seg, LOCK_TRY) != 0)
		return 2;
	lock_release(seg);
	if (pthread_mutex_unlock(&other) != 0)
		return 3;
	*(uint32_t *)&seg->head->lifeline = word;
	lifeline_drop(seg);
	return lifeline_alive(seg) ? 4 : 0;
}

static void
scribbled_lifeline(void **state)
{
	struct seg *seg = create();

	(void)state;
	assert_int_equal(testproc_wait(testproc_start(scribbled_holder, seg)), 0);
	seg_close(seg);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(not_held_is_dead),
	    cmocka_unit_test(deadline_passes),
	    cmocka_unit_test(wake_ends_the_wait),
	    cmocka_unit_test(signal_ends_the_wait),
	    cmocka_unit_test(death_wakes_everybody),
	    cmocka_unit_test(the_workers_death_wakes_everybody),
	    cmocka_unit_test(orderly_end_wakes_everybody),
	    cmocka_unit_test(only_its_holder_drops_it),
	    cmocka_unit_test(scribbled_lifeline),
	};

	return cmocka_run_group_tests_name("lifeline", tests, NULL, NULL);
}
