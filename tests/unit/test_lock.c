/* SPDX-License-Identifier: MIT
 *
 * test_lock.c - the pool lock among threads and processes, live, dead and stopped.
 */
#include "shm/futex.h"
#include "shm/lock.h"
#include "tests/lib/crash_point.h"
#include "tests/lib/leasetest.h"
#include "tests/lib/testproc.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

static const struct testpool_policy policy = {
    .nslots = 4, .min_idle = 1, .max_idle = 4, .max_total = 4};

static uint64_t
soon(void)
{
	return now_ns() + PATIENCE_NS;
}

static void
take_and_give(void **state)
{
	struct seg *seg = *state;

	assert_int_equal(lock_holder(seg), 0);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	assert_int_equal(lock_holder(seg), gettid());
	assert_int_equal(lock_acquire(seg, LOCK_TRY), -EDEADLK);
	assert_int_equal(lock_acquire(seg, LOCK_FOREVER), -EDEADLK);
	assert_int_equal(lock_holder(seg), gettid());
	lock_release(seg);
	assert_int_equal(lock_holder(seg), 0);
	assert_int_equal(lock_acquire(seg, LOCK_FOREVER), 0);
	lock_release(seg);
}

/* lock_try neither waits nor repairs, and forgets that it wanted the lock. */
static void
try_only_what_is_free(void **state)
{
	struct seg *seg = *state;

	assert_true(lock_try(seg));
	assert_int_equal(lock_holder(seg), gettid());
	assert_false(lock_try(seg));
	assert_int_equal(lock_holder(seg), gettid());
	/* Still known to the kernel as the holder. */
	assert_non_null(lock_self.list->list_op_pending);
	lock_release(seg);
	assert_null(lock_self.list->list_op_pending);
	atomic_store(&seg->head->lock.word, FUTEX_OWNER_DIED);
	assert_false(lock_try(seg));
	assert_null(lock_self.list->list_op_pending);
	assert_int_equal(atomic_load(&seg->head->lock.word), FUTEX_OWNER_DIED);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	lock_release(seg);
	assert_int_equal(testpool_stat(seg, C_lock_recovery_count), 1);
}

/* A child that takes the lock and does what `how` says while it has it. */
struct holder {
	struct seg *seg;
	enum { HOLD_DIE, HOLD_STOP, HOLD_EXIT } how;
};

static int
hold(void *arg)
{
	struct holder *h = arg;

	if (lock_acquire(h->seg, soon()) != 0)
		return 1;
	if (h->how == HOLD_EXIT)
		return 0; /* leaves without a release */
	(void)raise(h->how == HOLD_DIE ? SIGKILL : SIGSTOP);
	lock_release(h->seg);
	return 0;
}

static void
dead_holder_is_repaired(void **state)
{
	struct seg *seg = *state;
	struct holder h = {.seg = seg, .how = HOLD_DIE};

	for (unsigned i = 1; i <= 5; i++) {
		h.how = i % 2 ? HOLD_DIE : HOLD_EXIT;
		(void)testproc_wait(testproc_start(hold, &h));
		assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
		lock_release(seg);
		/* Once, and not again by the next caller. */
		assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
		lock_release(seg);
		assert_int_equal(testpool_stat(seg, C_lock_recovery_count), i);
	}
}

static void
stopped_holder_times_out(void **state)
{
	struct seg *seg = *state;
	struct holder h = {.seg = seg, .how = HOLD_STOP};
	pid_t pid = testproc_start(hold, &h);
	uint64_t t;

	assert_true(testproc_wait_stopped(pid));
	assert_int_equal(lock_holder(seg), pid);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), -EBUSY);
	t = now_ns();
	assert_int_equal(lock_acquire(seg, t + 250000000), -ETIMEDOUT);
	assert_true(now_ns() - t >= 250000000);
	assert_true(now_ns() - t < 10 * SECOND_NS);
	/* A deadline in the past. */
	assert_int_equal(lock_acquire(seg, 1), -ETIMEDOUT);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(testproc_wait(pid), 0);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	lock_release(seg);
	assert_int_equal(testpool_stat(seg, C_lock_recovery_count), 0);
}

static int
wait_for_lock(void *arg)
{
	struct seg *seg = arg;

	if (lock_acquire(seg, soon()) != 0)
		return 1;
	lock_release(seg);
	return 0;
}

/* Eight sleepers in eight processes: the kernel wakes one, which repairs and
 * wakes the next on release. Far sooner than anybody looks by himself. */
static void
death_wakes_sleepers(void **state)
{
	struct seg *seg = *state;
	struct holder h = {.seg = seg, .how = HOLD_STOP};
	uint64_t best = UINT64_MAX;
	unsigned rounds = 0;

	/* A busy machine may delay anything: one prompt round of five will do. */
	for (; rounds < 5 && best > SECOND_NS; rounds++) {
		pid_t holder = testproc_start(hold, &h), sleeper[8];
		uint64_t t;

		assert_true(testproc_wait_stopped(holder));
		for (unsigned i = 0; i < 8; i++)
			sleeper[i] = testproc_start(wait_for_lock, seg);
		for (unsigned i = 0; i < 8; i++)
			assert_true(testproc_asleep(sleeper[i]));
		t = now_ns();
		testproc_kill(holder);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(testproc_wait(sleeper[i]), 0);
		best = MIN(best, now_ns() - t);
	}
	assert_true(best <= SECOND_NS);
	assert_int_equal(testpool_stat(seg, C_lock_recovery_count), rounds);
}

/* A sleeper that is killed just when it was woken hands the wake-up on. */
static int
wait_and_die(void *arg)
{
	crash_arm("lock_after_sleep", 1, SIGKILL);
	return wait_for_lock(arg);
}

static void
killed_sleeper_hands_on(void **state)
{
	struct seg *seg = *state;
	pid_t doomed, other;

	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	doomed = testproc_start(wait_and_die, seg);
	other = testproc_start(wait_for_lock, seg);
	lock_release(seg);
	assert_int_equal(testproc_wait(other), 0);
	(void)testproc_wait(doomed);
}

/* After release at any point of it: dead, but nothing was left behind. */
static int
release_and_die(void *arg)
{
	struct seg *seg = arg;

	if (lock_acquire(seg, soon()) != 0)
		return 1;
	crash_arm("lock_released", 1, SIGKILL);
	lock_release(seg);
	return 0;
}

static void
death_after_release_needs_no_repair(void **state)
{
	struct seg *seg = *state;

	assert_int_equal(testproc_wait(testproc_start(release_and_die, seg)), 1000 + SIGKILL);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	lock_release(seg);
	assert_int_equal(testpool_stat(seg, C_lock_recovery_count), 0);
}

/* The thread that holds the lock ends, its process lives on. */
static void *
end_with_lock(void *arg)
{
	return (void *)(intptr_t)lock_acquire(arg, LOCK_TRY);
}

static void
dead_thread_is_repaired(void **state)
{
	struct seg *seg = *state;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, end_with_lock, seg), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(lock_acquire(seg, soon()), 0);
	lock_release(seg);
	assert_int_equal(testpool_stat(seg, C_lock_recovery_count), 1);
}

/* The same body in threads and processes: a plain number under the lock. */
#define ROUNDS 20000
struct counting {
	struct seg *seg;
	uint64_t *number;
};

static int
count_up(void *arg)
{
	struct counting *c = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		if (lock_acquire(c->seg, soon()) != 0)
			return 1;
		(*c->number)++;
		lock_release(c->seg);
	}
	return 0;
}

static void *
count_up_thread(void *arg)
{
	return (void *)(intptr_t)count_up(arg);
}

static void
threads_exclude_each_other(void **state)
{
	uint64_t number = 0;
	struct counting c = {.seg = *state, .number = &number};
	pthread_t thread[4];
	void *r;

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count_up_thread, &c), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(thread[i], &r), 0);
		assert_null(r);
	}
	assert_int_equal(number, 4 * ROUNDS);
}

static void
processes_exclude_each_other(void **state)
{
	struct counting c = {.seg = *state};
	pid_t pid[4];

	c.number = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(c.number, MAP_FAILED);
	for (unsigned i = 0; i < 4; i++)
		pid[i] = testproc_start(count_up, &c);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(testproc_wait(pid[i]), 0);
	assert_int_equal(*c.number, 4 * ROUNDS);
	(void)munmap(c.number, 4096);
}

/* Garbage in the lock's own line: refused or waited for in vain, never a crash. */
static void
scribbled_lock(void **state)
{
	static const uint32_t garbage[] = {1, 0x3fffffff, 0xffffffff, 0x80000001, 0xbfffffff};
	struct seg *seg = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(garbage); i++) {
		memset(&seg->head->lock, 0xa5, sizeof(seg->head->lock));
		atomic_store(&seg->head->lock.word, garbage[i]);
		assert_int_equal(lock_acquire(seg, LOCK_TRY), -EBUSY);
		assert_int_equal(lock_acquire(seg, now_ns() + 1000000), -ETIMEDOUT);
	}
	atomic_store(&seg->head->lock.word, 0);
	/* Scribbled on while it is held: the release survives it. */
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	memset(&seg->head->lock, 0xff, sizeof(seg->head->lock));
	lock_release(seg);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	lock_release(seg);
}

/* Nobody will ever unlock it, and there is no supervisor to see to that. */
static void
stuck_lock_without_supervisor(void **state)
{
	struct seg *seg = *state;

	atomic_store(&seg->head->lock.word, 0x3fffffff);
	*(_Atomic uint32_t *)&seg->head->lifeline = FUTEX_OWNER_DIED;
	assert_int_equal(lock_acquire(seg, LOCK_FOREVER), -ENOTCONN);
	atomic_store(&seg->head->lock.word, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) POOL_TEST(name, &policy)
	    TEST(take_and_give),
	    TEST(try_only_what_is_free),
	    TEST(dead_holder_is_repaired),
	    TEST(stopped_holder_times_out),
	    TEST(death_wakes_sleepers),
	    TEST(killed_sleeper_hands_on),
	    TEST(death_after_release_needs_no_repair),
	    TEST(dead_thread_is_repaired),
	    TEST(threads_exclude_each_other),
	    TEST(processes_exclude_each_other),
	    TEST(scribbled_lock),
	    TEST(stuck_lock_without_supervisor),
	};

	return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
