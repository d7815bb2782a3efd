/* SPDX-License-Identifier: MIT
 *
 * test_lease_wait.c - waiting for a VM: order, deadlines, signals and deaths.
 */
#include "shm/lifeline.h"
#include "shm/waiter.h"
#include "tests/lib/leasetest.h"
#include "tests/lib/testwait.h"
#include <signal.h>
#include <sys/wait.h>

#define N 5

static const struct testpool_policy policy = {
    .nslots = 4, .min_idle = 0, .max_idle = 4, .max_total = 4};

struct fixture {
	struct seg *seg;
	struct testwait *w;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->seg = testpool_new(&policy);
	f->w = testwait_new(f->seg, N);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	testwait_free(f->w, N);
	testpool_free(f->seg);
	free(f);
	return 0;
}

static uint32_t
waiting(const struct fixture *f)
{
	return atomic_load(&f->seg->head->waiting);
}

static void
served_in_order(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < N; i++) {
		f->w[i].give_back = true;
		testwait_queue(&f->w[i]);
	}
	assert_int_equal(waiting(f), N);
	good(f->seg);
	/* One VM goes from hand to hand. */
	(void)testpool_ready(f->seg);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(testwait_end(&f->w[i]), 0);
		assert_int_equal(f->w[i].order, i + 1);
	}
	good(f->seg);
	assert_int_equal(testpool_stat(f->seg, C_miss_count), N);
	assert_int_equal(testpool_stat(f->seg, C_hit_count), 0);
	assert_int_equal(testpool_stat(f->seg, C_wait_count), 0);
	assert_int_equal(testpool_count(f->seg, SLOT_IDLE), 1);
}

/* Arrival order is by ticket, not by place in the table. */
static void
order_survives_reuse_of_entries(void **state)
{
	struct fixture *f = *state;
	uint32_t slot[2] = {testpool_start(f->seg), testpool_start(f->seg)};

	testwait_queue(&f->w[0]);
	testwait_queue(&f->w[1]);
	assert_int_equal(sup_ready(f->seg, slot[0], 1), 0);
	assert_int_equal(testwait_end(&f->w[0]), 0);
	testwait_queue(&f->w[2]); /* takes the first entry */
	assert_int_equal(WAITER_STATE(atomic_load(&f->seg->waiter[0].state)), WAITER_WAITING);
	assert_int_equal(sup_ready(f->seg, slot[1], 1), 0);
	assert_int_equal(testwait_end(&f->w[1]), 0);
	assert_int_equal(lease_release(f->seg, &f->w[1].lease, -1), 0);
	assert_int_equal(testwait_end(&f->w[2]), 0);
	good(f->seg);
}

static void
waits_are_counted_when_full(void **state)
{
	struct fixture *f = *state;
	uint32_t slot = 0;

	for (unsigned i = 0; i < 4; i++)
		slot = testpool_start(f->seg);
	testwait_queue(&f->w[0]);
	assert_int_equal(testpool_stat(f->seg, C_wait_count), 1);
	assert_int_equal(sup_ready(f->seg, slot, 1), 0);
	assert_int_equal(testwait_end(&f->w[0]), 0);
	good(f->seg);
}

static void
deadline_leaves_the_queue_whole(void **state)
{
	struct fixture *f = *state;

	testwait_queue(&f->w[0]);
	f->w[1].deadline_ns = now_ns() + SECOND_NS / 5;
	testwait_start(&f->w[1]);
	assert_int_equal(testwait_end(&f->w[1]), -ETIMEDOUT);
	assert_true(now_ns() >= f->w[1].deadline_ns);
	assert_true(now_ns() < f->w[1].deadline_ns + 10 * SECOND_NS);
	good(f->seg);
	assert_int_equal(waiting(f), 1);
	assert_int_equal(testpool_stat(f->seg, C_wait_timeout_count), 1);
	(void)testpool_ready(f->seg);
	assert_int_equal(testwait_end(&f->w[0]), 0);
	good(f->seg);
}

static void
on_signal(int sig)
{
	(void)sig;
}

static void
signal_leaves_the_queue_whole(void **state)
{
	struct fixture *f = *state;
	struct sigaction sa = {.sa_handler = on_signal}, old;

	assert_int_equal(sigaction(SIGUSR1, &sa, &old), 0);
	for (unsigned i = 0; i < 3; i++)
		testwait_queue(&f->w[i]);
	assert_int_equal(kill(f->w[0].pid, SIGUSR1), 0);
	assert_int_equal(testwait_end(&f->w[0]), -EINTR);
	good(f->seg);
	assert_int_equal(waiting(f), 2);
	(void)testpool_ready(f->seg);
	assert_int_equal(testwait_end(&f->w[1]), 0);
	(void)testpool_ready(f->seg);
	assert_int_equal(testwait_end(&f->w[2]), 0);
	good(f->seg);
	assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
}

static void
death_leaves_the_queue_whole(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++)
		testwait_queue(&f->w[i]);
	testproc_kill(f->w[1].pid);
	assert_int_equal(sup_client_gone(f->seg, f->w[1].client), 0);
	assert_int_equal(waiting(f), 2);
	good(f->seg);
	(void)testpool_ready(f->seg);
	(void)testpool_ready(f->seg);
	assert_int_equal(testwait_end(&f->w[0]), 0);
	assert_int_equal(testwait_end(&f->w[2]), 0);
	assert_int_equal(testpool_stat(f->seg, C_miss_count), 2);
	good(f->seg);
}

/* It dies between the grant and taking it: the VM goes to the next one. */
static void
death_with_a_grant(void **state)
{
	struct fixture *f = *state;

	f->w[0].point = "grant_seen";
	f->w[0].sig = SIGKILL;
	testwait_queue(&f->w[0]);
	testwait_queue(&f->w[1]);
	(void)testpool_ready(f->seg);
	assert_int_equal(testwait_end(&f->w[0]), 1000 + SIGKILL);
	good(f->seg);
	assert_int_equal(sup_client_gone(f->seg, f->w[0].client), 0);
	assert_int_equal(testwait_end(&f->w[1]), 0);
	good(f->seg);
	assert_int_equal(testpool_stat(f->seg, C_miss_count), 2);
	assert_int_equal(testpool_stat(f->seg, C_reclaim_count), 1);
}

static void
drain_wakes_all(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < N; i++)
		testwait_queue(&f->w[i]);
	assert_int_equal(sup_drain(f->seg), 0);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(testwait_end(&f->w[i]), -ESHUTDOWN);
	good(f->seg);
	assert_int_equal(waiting(f), 0);
}

static void
failing_starts_end_the_wait(void **state)
{
	struct fixture *f = *state;
	struct lease lease;

	testwait_queue(&f->w[0]);
	sup_failing(f->seg, LEASE_FAILING - 1, "not yet");
	(void)testpool_ready(f->seg);
	assert_int_equal(testwait_end(&f->w[0]), 0);
	lease = f->w[0].lease;
	/* Something is in use, so there is hope. */
	testwait_queue(&f->w[1]);
	sup_failing(f->seg, LEASE_FAILING, "no kernel");
	assert_true(testproc_asleep(f->w[1].pid));
	assert_int_equal(lease_release(f->seg, &lease, -1), 0);
	assert_int_equal(testwait_end(&f->w[1]), 0);
	testpool_touch(f->seg, f->w[1].lease.slot);
	assert_int_equal(lease_release(f->seg, &f->w[1].lease, -1), 0);
	/* Now nothing is. */
	testwait_start(&f->w[2]);
	assert_int_equal(testwait_end(&f->w[2]), -EIO);
	sup_failing(f->seg, 0, "");
	testwait_queue(&f->w[3]);
	sup_failing(f->seg, LEASE_FAILING, "no kernel");
	assert_int_equal(testwait_end(&f->w[3]), -EIO);
	good(f->seg);
}

static void
supervisor_end_wakes_all(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < N; i++)
		testwait_queue(&f->w[i]);
	lifeline_drop(f->seg);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(testwait_end(&f->w[i]), -ENOTCONN);
}

static void
full_table(void **state)
{
	struct fixture *f = *state;
	struct lease lease;

	for (uint32_t i = 0; i < f->seg->nwaiters; i++)
		atomic_store(&f->seg->waiter[i].state, WAITER_WAITING);
	assert_int_equal(lease_acquire(f->seg, 0, -1, now_ns(), LOCK_FOREVER, &lease), -EAGAIN);
	/* Dropped connections empty it again. */
	repair_rebuild(f->seg);
	assert_int_equal(waiting(f), f->seg->nwaiters);
	assert_int_equal(sup_client_gone(f->seg, 0), 0);
	assert_int_equal(waiting(f), 0);
}

/* The lock cannot be had: the caller leaves in time all the same, and the next
 * lock holder clears up after it. */
static void
stuck_lock(void **state)
{
	struct fixture *f = *state;

	f->w[0].deadline_ns = now_ns() + 3 * SECOND_NS;
	testwait_queue(&f->w[0]);
	testwait_queue(&f->w[1]);
	assert_int_equal(lock_acquire(f->seg, LOCK_TRY), 0);
	assert_int_equal(testwait_end(&f->w[0]), -ETIMEDOUT);
	assert_true(now_ns() < f->w[0].deadline_ns + 10 * SECOND_NS);
	lock_release(f->seg);
	assert_int_equal(atomic_load(&f->seg->waiter[0].claim), CLAIM_ABANDONED);
	(void)testpool_ready(f->seg);
	assert_int_equal(testwait_end(&f->w[1]), 0);
	assert_int_equal(testpool_stat(f->seg, C_wait_timeout_count), 1);
	good(f->seg);
}

/* A grant and a caller's giving up cross, in every order of their steps. */
struct granter {
	struct seg *seg;
	uint32_t slot;
	const char *point;
};

static int
grant_stopping(void *arg)
{
	struct granter *g = arg;

	crash_arm(g->point, 1, SIGSTOP);
	return sup_ready(g->seg, g->slot, 1) == 0 ? 0 : 1;
}

static pid_t
granter_stopped_at(struct fixture *f, const char *point)
{
	struct granter g = {.seg = f->seg, .slot = testpool_start(f->seg), .point = point};
	pid_t pid;

	/* Not before the caller sleeps, and not long before it gives up. */
	f->w[0].deadline_ns = now_ns() + 3 * SECOND_NS;
	testwait_queue(&f->w[0]);
	pid = testproc_start(grant_stopping, &g);
	assert_true(testproc_wait_stopped(pid));
	return pid;
}

static void
revoked_once(struct fixture *f)
{
	good(f->seg);
	assert_int_equal(testpool_count(f->seg, SLOT_IDLE), 1);
	assert_int_equal(testpool_stat(f->seg, C_miss_count), 1);
	assert_int_equal(testpool_stat(f->seg, C_reclaim_count), 1);
	assert_int_equal(testpool_stat(f->seg, C_wait_timeout_count), 1);
}

static void
gave_up_before_the_grant(void **state)
{
	struct fixture *f = *state;
	pid_t pid = granter_stopped_at(f, "grant_before_commit");

	assert_int_equal(testwait_end(&f->w[0]), -ETIMEDOUT);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(testproc_wait(pid), 0);
	revoked_once(f);
}

static void
gave_up_after_the_grant(void **state)
{
	struct fixture *f = *state;
	pid_t pid = granter_stopped_at(f, "grant_committed");

	/* It finds the grant after all. */
	assert_int_equal(testwait_end(&f->w[0]), 0);
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(testproc_wait(pid), 0);
	good(f->seg);
	assert_int_equal(lease_check(f->seg, &f->w[0].lease), 0);
	assert_int_equal(testpool_stat(f->seg, C_wait_timeout_count), 0);
}

static void
granter_was_faster(void **state)
{
	struct fixture *f = *state;
	pid_t pid;

	f->w[0].point = "waiter_abandoned";
	f->w[0].sig = SIGSTOP;
	pid = granter_stopped_at(f, "grant_before_commit");
	assert_true(testproc_wait_stopped(f->w[0].pid));
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(testproc_wait(pid), 0);
	revoked_once(f);
	assert_int_equal(kill(f->w[0].pid, SIGCONT), 0);
	assert_int_equal(testwait_end(&f->w[0]), -ETIMEDOUT);
	revoked_once(f);
}

static void
granter_died(void **state)
{
	struct fixture *f = *state;
	pid_t pid;

	f->w[0].point = "waiter_abandoned";
	f->w[0].sig = SIGSTOP;
	pid = granter_stopped_at(f, "grant_committed");
	assert_true(testproc_wait_stopped(f->w[0].pid));
	testproc_kill(pid);
	revoked_once(f);
	assert_int_equal(kill(f->w[0].pid, SIGCONT), 0);
	assert_int_equal(testwait_end(&f->w[0]), -ETIMEDOUT);
	revoked_once(f);
	assert_int_equal(testpool_stat(f->seg, C_lock_recovery_count), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    TEST(served_in_order),
	    TEST(order_survives_reuse_of_entries),
	    TEST(waits_are_counted_when_full),
	    TEST(deadline_leaves_the_queue_whole),
	    TEST(signal_leaves_the_queue_whole),
	    TEST(death_leaves_the_queue_whole),
	    TEST(death_with_a_grant),
	    TEST(drain_wakes_all),
	    TEST(failing_starts_end_the_wait),
	    TEST(supervisor_end_wakes_all),
	    TEST(full_table),
	    TEST(stuck_lock),
	    TEST(gave_up_before_the_grant),
	    TEST(gave_up_after_the_grant),
	    TEST(granter_was_faster),
	    TEST(granter_died),
	};

	return cmocka_run_group_tests_name("lease_wait", tests, NULL, NULL);
}
