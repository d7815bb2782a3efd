/* SPDX-License-Identifier: MIT
 *
 * test_lease.c - borrowing and giving back, as long as nobody has to wait.
 */
#include "shm/lifeline.h"
#include "tests/lib/leasetest.h"
#include "tests/lib/testproc.h"
#include <poll.h>
#include <string.h>

static const struct testpool_policy policy = {
    .nslots = 6, .min_idle = 1, .max_idle = 4, .max_total = 6};

static int
give(struct seg *seg, const struct lease *lease)
{
	int r = lease_release(seg, lease, kick_fd);

	good(seg);
	return r;
}

static void
newest_first(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot[3];

	for (unsigned i = 0; i < 3; i++)
		slot[i] = testpool_ready(seg);
	for (unsigned i = 3; i-- > 0;) {
		struct lease lease = hit(seg, client);

		assert_int_equal(lease.slot, slot[i]);
		assert_int_equal(slot_client(lease.word), client);
	}
	assert_int_equal(testpool_stat(seg, C_hit_count), 3);
	assert_int_equal(testpool_stat(seg, C_miss_count), 0);
	assert_int_equal(testpool_count(seg, SLOT_IN_USE), 3);
	assert_false(kicked());
}

static void
untouched_comes_back(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg);
	struct lease a, b, c;

	(void)testpool_ready(seg);
	(void)testpool_ready(seg);
	a = hit(seg, client);
	b = hit(seg, client);
	/* The one given back last is the newest. */
	assert_int_equal(give(seg, &b), 0);
	assert_int_equal(give(seg, &a), 0);
	c = hit(seg, client);
	assert_int_equal(c.slot, a.slot);
	assert_true(slot_generation(c.word) == slot_generation(a.word) + 1);
	assert_int_equal(testpool_stat(seg, C_release_count), 2);
	assert_int_equal(testpool_stat(seg, C_recycle_count), 2);
	assert_int_equal(testpool_stat(seg, C_discard_count), 0);
	assert_false(kicked());
}

static void
touched_is_not_handed_on(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot = testpool_ready(seg);
	struct lease lease = hit(seg, client), other;

	testpool_touch(seg, slot);
	assert_int_equal(give(seg, &lease), 0);
	assert_true(kicked());
	assert_int_equal(testpool_state(seg, slot), SLOT_RESETTING);
	assert_int_equal(lease_acquire(seg, client, kick_fd, now_ns(), LOCK_TRY, &other), -EAGAIN);
	assert_int_equal(sup_worker_gone(seg, slot, NULL), 0);
	good(seg);
	assert_int_equal(testpool_state(seg, slot), SLOT_EMPTY);
	assert_int_equal(testpool_stat(seg, C_discard_count), 1);
	assert_int_equal(testpool_stat(seg, C_recycle_count), 0);
}

static void
reset_vm_is_untouched_again(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot = testpool_ready(seg);
	struct lease lease = hit(seg, client);

	testpool_touch(seg, slot);
	assert_int_equal(give(seg, &lease), 0);
	assert_int_equal(sup_reset_done(seg, slot, 9), 0);
	good(seg);
	assert_int_equal(testpool_state(seg, slot), SLOT_IDLE);
	assert_int_equal(testpool_stat(seg, C_reset_count), 1);
	assert_int_equal(testpool_stat(seg, C_reset_page_count), 9);
	assert_int_equal(testpool_stat(seg, C_recycle_count), 1);
	assert_int_equal(testpool_stat(seg, C_spawn_count), 1);
	lease = hit(seg, client);
	assert_int_equal(give(seg, &lease), 0);
	assert_int_equal(testpool_state(seg, slot), SLOT_IDLE);
}

static void
stale_leases(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg);
	struct lease old, new, bad;

	(void)testpool_ready(seg);
	old = hit(seg, client);
	assert_int_equal(lease_check(seg, &old), 0);
	assert_int_equal(give(seg, &old), 0);
	assert_int_equal(lease_check(seg, &old), -ESTALE);
	assert_int_equal(give(seg, &old), -ESTALE);
	new = hit(seg, client);
	assert_int_equal(new.slot, old.slot);
	/* The same slot, the same client, another lease. */
	assert_int_equal(lease_check(seg, &old), -ESTALE);
	assert_int_equal(give(seg, &old), -ESTALE);
	assert_int_equal(lease_check(seg, &new), 0);
	bad = new;
	bad.slot = seg->nslots;
	assert_int_equal(lease_check(seg, &bad), -ESTALE);
	assert_int_equal(give(seg, &bad), -EINVAL);
	/* A word that names no lease must not let a slot go. */
	bad.slot = 5;
	bad.word = atomic_load(&seg->slot[5].word);
	assert_int_equal(give(seg, &bad), -EINVAL);
	assert_int_equal(testpool_stat(seg, C_release_count), 1);
	assert_int_equal(give(seg, &new), 0);
}

static void
over_max_idle_the_oldest_goes(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), first;
	struct lease lease[5];

	first = testpool_ready(seg);
	(void)testpool_ready(seg);
	lease[0] = hit(seg, client);
	lease[1] = hit(seg, client);
	assert_int_equal(lease[1].slot, first);
	for (unsigned i = 2; i < 5; i++) {
		(void)testpool_ready(seg);
		lease[i] = hit(seg, client);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(give(seg, &lease[i]), 0);
	assert_false(kicked());
	assert_int_equal(testpool_count(seg, SLOT_IDLE), 4);
	/* The fifth: the one given back first makes room. */
	assert_int_equal(give(seg, &lease[4]), 0);
	assert_true(kicked());
	assert_int_equal(testpool_count(seg, SLOT_IDLE), 4);
	assert_int_equal(testpool_state(seg, lease[0].slot), SLOT_RESETTING);
	assert_int_equal(testpool_stat(seg, C_evict_count), 1);
	/* It was idle, not given back: not a discard when its worker is gone. */
	assert_int_equal(sup_worker_gone(seg, lease[0].slot, NULL), 0);
	assert_int_equal(testpool_stat(seg, C_discard_count), 0);
	good(seg);
}

static void
died_under_its_lease(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot = testpool_ready(seg);
	struct lease lease = hit(seg, client);
	uint32_t seq = atomic_load(&seg->chan[slot].rsp_seq);
	enum slot_state was;

	assert_int_equal(sup_worker_gone(seg, slot, &was), 0);
	good(seg);
	assert_int_equal(was, SLOT_IN_USE);
	assert_true(atomic_load(&seg->chan[slot].rsp_seq) != seq);
	assert_int_equal(lease_check(seg, &lease), -EOWNERDEAD);
	/* The slot is not reused before the client lets go. */
	assert_int_equal(testpool_start(seg) != slot, 1);
	assert_int_equal(sup_worker_gone(seg, slot, NULL), -ESTALE);
	assert_int_equal(give(seg, &lease), -EOWNERDEAD);
	assert_true(kicked());
	assert_int_equal(lease_check(seg, &lease), -ESTALE);
	assert_int_equal(give(seg, &lease), -ESTALE);
	assert_int_equal(testpool_state(seg, slot), SLOT_EMPTY);
	assert_int_equal(testpool_stat(seg, C_vm_died_count), 1);
	assert_int_equal(testpool_stat(seg, C_release_count), 1);
}

/* The client sleeps for a response that will not come. */
static int
await_response(void *arg)
{
	struct seg *seg = arg;

	return lifeline_wait(seg, &seg->chan[0].rsp_seq, 0, now_ns() + PATIENCE_NS) != 0;
}

static void
death_wakes_its_client(void **state)
{
	struct seg *seg = *state;
	struct lease lease;
	pid_t pid;

	assert_int_equal(testpool_ready(seg), 0);
	lease = hit(seg, testpool_client(seg));
	pid = testproc_start(await_response, seg);
	assert_true(testproc_asleep(pid));
	assert_int_equal(sup_worker_gone(seg, 0, NULL), 0);
	assert_int_equal(testproc_wait(pid), 0);
	assert_int_equal(give(seg, &lease), -EOWNERDEAD);
}

static void
age(struct seg *seg, uint32_t slot, unsigned secs)
{
	atomic_fetch_sub(&seg->slot[slot].since_ns, secs * SECOND_NS);
}

static void
expired_beyond_the_minimum_never_go_out(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot[3];
	struct lease lease;

	atomic_store(&seg->head->policy.max_idle_time, 30);
	for (unsigned i = 0; i < 3; i++) {
		slot[i] = testpool_ready(seg);
		age(seg, slot[i], 31);
	}
	/* One is kept by min-idle = 1: the newest, and that one goes out. */
	lease = hit(seg, client);
	assert_int_equal(lease.slot, slot[2]);
	assert_int_equal(testpool_state(seg, slot[0]), SLOT_RESETTING);
	assert_int_equal(testpool_state(seg, slot[1]), SLOT_RESETTING);
	assert_int_equal(testpool_stat(seg, C_evict_count), 2);
	assert_true(kicked());
}

/* Its worker has died, and the supervisor does not know yet. */
static int
tie_and_end(void *arg)
{
	return lifeline_tie(arg) != 0;
}

static void
died_while_idle_is_passed_over(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot[3];
	struct lease lease;

	for (unsigned i = 0; i < 3; i++)
		slot[i] = testpool_ready(seg);
	atomic_store(&seg->slot[slot[0]].life, (uint32_t)getpid());
	assert_false(lifeline_severed(&seg->slot[slot[0]].life));
	assert_int_equal(testproc_wait(testproc_start(tie_and_end, &seg->slot[slot[1]].life)), 0);
	assert_int_equal(testproc_wait(testproc_start(tie_and_end, &seg->slot[slot[2]].life)), 0);
	assert_true(lifeline_severed(&seg->slot[slot[2]].life));
	lease = hit(seg, client);
	assert_int_equal(lease.slot, slot[0]);
	assert_true(kicked());
	assert_int_equal(testpool_state(seg, slot[1]), SLOT_RESETTING);
	assert_int_equal(testpool_state(seg, slot[2]), SLOT_RESETTING);
	assert_int_equal(testpool_stat(seg, C_vm_died_count), 2);
	/* Counted once: the supervisor finds them RESETTING. */
	assert_int_equal(sup_worker_gone(seg, slot[1], NULL), 0);
	assert_int_equal(testpool_stat(seg, C_vm_died_count), 2);
	/* Given back with a dead worker, it is nobody's next VM. */
	atomic_store(&seg->slot[slot[0]].life, 0x40000000);
	assert_int_equal(give(seg, &lease), 0);
	assert_int_equal(testpool_state(seg, slot[0]), SLOT_RESETTING);
	/* A new VM in that slot starts with a clean slate. */
	assert_int_equal(sup_worker_gone(seg, slot[0], NULL), 0);
	assert_int_equal(testpool_ready(seg), slot[0]);
	lease = hit(seg, client);
	assert_int_equal(lease.slot, slot[0]);
}

static void
expired_without_minimum(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot = testpool_ready(seg);
	struct lease lease;

	atomic_store(&seg->head->policy.max_idle_time, 30);
	atomic_store(&seg->head->policy.min_idle, 0);
	age(seg, slot, 29);
	lease = hit(seg, client);
	assert_int_equal(give(seg, &lease), 0);
	age(seg, slot, 31);
	assert_int_equal(lease_acquire(seg, client, kick_fd, now_ns(), LOCK_TRY, &lease), -EAGAIN);
	assert_int_equal(testpool_state(seg, slot), SLOT_RESETTING);
	good(seg);
	/* max_idle_time 0: they keep. */
	atomic_store(&seg->head->policy.max_idle_time, 0);
	slot = testpool_ready(seg);
	age(seg, slot, 3000);
	lease = hit(seg, client);
}

static void
closed_pools(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg);
	struct lease lease, none;

	(void)testpool_ready(seg);
	(void)testpool_ready(seg);
	assert_int_equal(lease_acquire(seg, seg->nclients, -1, 0, LOCK_TRY, &none), -EINVAL);
	lease = hit(seg, client);
	assert_int_equal(sup_drain(seg), 0);
	assert_int_equal(lease_acquire(seg, client, -1, 0, LOCK_TRY, &none), -ESHUTDOWN);
	assert_int_equal(lease_acquire(seg, client, -1, 0, LOCK_FOREVER, &none), -ESHUTDOWN);
	assert_int_equal(lease_check(seg, &lease), 0);
	assert_int_equal(give(seg, &lease), 0);
	lifeline_drop(seg);
	assert_int_equal(lease_acquire(seg, client, -1, 0, LOCK_FOREVER, &none), -ENOTCONN);
	assert_int_equal(lease_check(seg, &lease), -ENOTCONN);
}

static void
acquire_is_timed(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg);
	const struct shm_hist *hist;
	struct lease lease;
	uint64_t sum;

	(void)testpool_ready(seg);
	assert_int_equal(lease_acquire(seg, client, -1, now_ns() - SECOND_NS, LOCK_TRY, &lease), 0);
	hist = &seg->chan[lease.slot].hist[H_acquire_ns];
	sum = atomic_load(&hist->sum);
	assert_true(sum >= SECOND_NS && sum < 60 * SECOND_NS);
	assert_true(atomic_load(&hist->max) == sum);
	assert_int_equal(give(seg, &lease), 0);
	/* A start in the future counts as no time at all. */
	assert_int_equal(lease_acquire(seg, client, -1, UINT64_MAX, LOCK_TRY, &lease), 0);
	assert_true(atomic_load(&hist->sum) == sum);
	good(seg);
}

static void
warm_target(void **state)
{
	struct seg *seg = *state;
	uint32_t expected;

	assert_int_equal(lease_set_warm(seg, 3, kick_fd), 0);
	assert_int_equal(atomic_load(&seg->head->warm_target), 3);
	assert_true(kicked());
	/* Whoever announced a sleep is woken by a release, others are not paid for. */
	expected = lease_change_expect(seg);
	assert_int_equal(expected & 1, 1);
	assert_int_equal(atomic_load(&seg->head->change_seq), expected);
	(void)testpool_ready(seg);
	assert_true(atomic_load(&seg->head->change_seq) != expected);
	struct lease lease = hit(seg, testpool_client(seg));

	expected = atomic_load(&seg->head->change_seq);
	assert_int_equal(give(seg, &lease), 0);
	assert_int_equal(atomic_load(&seg->head->change_seq), expected);
	lease = hit(seg, slot_client(lease.word));
	expected = lease_change_expect(seg);
	assert_int_equal(give(seg, &lease), 0);
	assert_true(atomic_load(&seg->head->change_seq) != expected);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) POOL_TEST(name, &policy)
	    TEST(newest_first),
	    TEST(untouched_comes_back),
	    TEST(touched_is_not_handed_on),
	    TEST(reset_vm_is_untouched_again),
	    TEST(stale_leases),
	    TEST(over_max_idle_the_oldest_goes),
	    TEST(died_under_its_lease),
	    TEST(death_wakes_its_client),
	    TEST(expired_beyond_the_minimum_never_go_out),
	    TEST(died_while_idle_is_passed_over),
	    TEST(expired_without_minimum),
	    TEST(closed_pools),
	    TEST(acquire_is_timed),
	    TEST(warm_target),
	};

	return cmocka_run_group_tests_name("lease", tests, NULL, NULL);
}
