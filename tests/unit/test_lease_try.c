/* SPDX-License-Identifier: MIT
 *
 * test_lease_try.c - the fast half of borrowing: what it takes, what it leaves to
 * lease_acquire, and how it is timed.
 */
#include "shm/hist.h"
#include "shm/lifeline.h"
#include "tests/lib/crash_point.h"
#include "tests/lib/leasetest.h"
#include <pthread.h>

#define EACH 16 /* tries of which one is timed */
#define LONG_NS 10000000u

static const struct testpool_policy policy = {
    .nslots = 6, .min_idle = 1, .max_idle = 4, .max_total = 6};

/* The try takes its time, so that it can be told whether it was timed. */
static void
dawdle(void *arg)
{
	uint64_t end = now_ns() + LONG_NS;

	(void)arg;
	while (now_ns() < end)
		continue;
}

/* What acquire_ns has of slot 0 after some tries of a thread. */
struct tries {
	struct seg *seg;
	uint32_t client;
	uint64_t sum[2 * EACH]; /* after so many and one */
};

/* The second try of each lot is slow, and so is the first of the second lot. */
static void *
make_tries(void *arg)
{
	struct tries *t = arg;
	struct lease lease;

	for (unsigned i = 0; i < 2 * EACH; i++) {
		if (i % EACH == 1 || i == EACH)
			crash_call("claim_since", dawdle, NULL);
		if (lease_try(t->seg, t->client, &lease) != 0)
			return t;
		crash_call(NULL, NULL, NULL);
		if (lease_release(t->seg, &lease, -1) != 0)
			return t;
		t->sum[i] = atomic_load(&t->seg->chan[lease.slot].hist[H_acquire_ns].sum);
	}
	return NULL;
}

/* Of a thread's tries the first is timed, then every 16th; the others count like it. */
static void
tries_are_sampled(void **state)
{
	struct tries t = {.seg = *state, .client = testpool_client(*state)};
	uint32_t slot = testpool_ready(t.seg);
	pthread_t thread;
	uint64_t first, second;
	void *r;

	/* A new thread, which has timed nothing yet. */
	assert_int_equal(pthread_create(&thread, NULL, make_tries, &t), 0);
	assert_int_equal(pthread_join(thread, &r), 0);
	assert_null(r);
	first = t.sum[0];
	assert_true(first > 0);
	for (unsigned i = 0; i < EACH; i++)
		assert_true(t.sum[i] == (i + 1) * first);
	second = t.sum[EACH] - t.sum[EACH - 1];
	assert_true(second >= LONG_NS);
	for (unsigned i = 0; i < EACH; i++)
		assert_true(t.sum[EACH + i] == EACH * first + (i + 1) * second);
	assert_true(atomic_load(&t.seg->chan[slot].hist[H_acquire_ns].max) == MAX(first, second));
	assert_int_equal(testpool_stat(t.seg, C_hit_count), 2 * EACH);
	assert_int_equal(testpool_stat(t.seg, C_release_count), 2 * EACH);
	good(t.seg);
}

/* A try that fails uses up no sample: the next that succeeds is timed. */
static void *
fail_then_try(void *arg)
{
	struct tries *t = arg;
	struct lease lease;

	if (lease_try(t->seg, t->client, &lease) != -EAGAIN)
		return t;
	(void)testpool_ready(t->seg);
	crash_call("claim_since", dawdle, NULL);
	if (lease_try(t->seg, t->client, &lease) != 0)
		return t;
	crash_call(NULL, NULL, NULL);
	t->sum[0] = atomic_load(&t->seg->chan[lease.slot].hist[H_acquire_ns].sum);
	return NULL;
}

static void
failure_is_no_sample(void **state)
{
	struct tries t = {.seg = *state, .client = testpool_client(*state)};
	pthread_t thread;
	void *r;

	assert_int_equal(pthread_create(&thread, NULL, fail_then_try, &t), 0);
	assert_int_equal(pthread_join(thread, &r), 0);
	assert_null(r);
	assert_true(t.sum[0] >= LONG_NS);
	good(t.seg);
}

/* lease_try takes what is there for the taking, and leaves everything else, unchanged, to
 * lease_acquire. */
static void
refused(struct seg *seg, uint32_t client)
{
	struct lease lease;

	assert_int_equal(lease_try(seg, client, &lease), -EAGAIN);
	/* The lock is free again, and not said to be wanted. */
	assert_int_equal(lock_holder(seg), 0);
	good(seg);
}

static void
tries_are_refused(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot;
	struct lease lease;

	refused(seg, client);
	slot = testpool_ready(seg);
	refused(seg, seg->nclients);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	assert_int_equal(lease_try(seg, client, &lease), -EAGAIN);
	assert_int_equal(lock_holder(seg), gettid());
	lock_release(seg);
	atomic_store(&seg->slot[slot].life, 0x40000000);
	refused(seg, client);
	atomic_store(&seg->slot[slot].life, 0);
	atomic_store(&seg->head->policy.max_idle_time, 1);
	atomic_fetch_sub(&seg->slot[slot].since_ns, 2 * SECOND_NS);
	refused(seg, client);
	atomic_store(&seg->head->policy.max_idle_time, 3);
	assert_int_equal(lease_try(seg, client, &lease), 0);
	assert_int_equal(lease.slot, slot);
	assert_int_equal(lease_check(seg, &lease), 0);
	refused(seg, client);
	assert_int_equal(lease_release(seg, &lease, kick_fd), 0);
	assert_int_equal(sup_drain(seg), 0);
	refused(seg, client);
	assert_int_equal(testpool_state(seg, slot), SLOT_IDLE);
	assert_int_equal(testpool_stat(seg, C_hit_count), 1);
	assert_false(kicked());
}

static void
tries_without_supervisor(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg);

	(void)testpool_ready(seg);
	lifeline_drop(seg);
	refused(seg, client);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    POOL_TEST(tries_are_sampled, &policy),
	    POOL_TEST(failure_is_no_sample, &policy),
	    POOL_TEST(tries_are_refused, &policy),
	    POOL_TEST(tries_without_supervisor, &policy),
	};

	return cmocka_run_group_tests_name("lease_try", tests, NULL, NULL);
}
