/* SPDX-License-Identifier: MIT
 *
 * test_lease_sup.c - the supervisor's calls: every one in every state of a slot.
 */
#include "shm/hist.h"
#include "tests/lib/crash_point.h"
#include "tests/lib/leasetest.h"
#include <string.h>

static const struct testpool_policy policy = {
    .nslots = 4, .min_idle = 1, .max_idle = 3, .max_total = 4};

/* Bring slot 0 of a fresh pool into a state; the lease if it has one. */
static struct lease
put_into(struct seg *seg, enum slot_state state)
{
	struct lease lease = {0};

	if (state == SLOT_EMPTY)
		return lease;
	assert_int_equal(testpool_start(seg), 0);
	if (state == SLOT_STARTING)
		return lease;
	assert_int_equal(sup_ready(seg, 0, 1), 0);
	if (state == SLOT_IDLE)
		return lease;
	lease = hit(seg, testpool_client(seg));
	if (state == SLOT_IN_USE)
		return lease;
	if (state == SLOT_DEAD) {
		assert_int_equal(sup_worker_gone(seg, 0, NULL), 0);
		return lease;
	}
	testpool_touch(seg, 0);
	assert_int_equal(lease_release(seg, &lease, -1), 0);
	return lease;
}

enum op {
	OP_WORKER,
	OP_READY,
	OP_LEND,
	OP_RESET,
	OP_CHECK_BEGIN,
	OP_CHECK_END,
	OP_EVICT,
	OP_GONE,
	OP_CLIENT_GONE,
	OP_JOIN,
	OP_RELEASE,
	OPS
};
#define REFUSED (-1)

/* What each call makes of each state; REFUSED: nothing, with -ESTALE. */
static const int outcome[OPS][SLOT_STATES] = {
    /*            EMPTY    STARTING        IDLE            IN_USE          RESETTING DEAD */
    [OP_WORKER] = {REFUSED, SLOT_STARTING, REFUSED, REFUSED, REFUSED, REFUSED},
    [OP_READY] = {REFUSED, SLOT_IDLE, REFUSED, REFUSED, REFUSED, REFUSED},
    [OP_LEND] = {REFUSED, SLOT_IN_USE, REFUSED, REFUSED, REFUSED, REFUSED},
    [OP_RESET] = {REFUSED, REFUSED, REFUSED, REFUSED, SLOT_IDLE, REFUSED},
    [OP_CHECK_BEGIN] = {REFUSED, REFUSED, SLOT_RESETTING, REFUSED, REFUSED, REFUSED},
    [OP_CHECK_END] = {REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED},
    [OP_EVICT] = {REFUSED, REFUSED, SLOT_RESETTING, REFUSED, REFUSED, REFUSED},
    [OP_GONE] = {REFUSED, SLOT_EMPTY, SLOT_EMPTY, SLOT_DEAD, SLOT_EMPTY, REFUSED},
    [OP_CLIENT_GONE] = {SLOT_EMPTY, SLOT_STARTING, SLOT_IDLE, SLOT_IDLE, SLOT_RESETTING,
			SLOT_EMPTY},
    [OP_JOIN] = {REFUSED, REFUSED, REFUSED, SLOT_IN_USE, REFUSED, REFUSED},
    [OP_RELEASE] = {REFUSED, REFUSED, REFUSED, SLOT_IDLE, REFUSED, SLOT_EMPTY},
};

static int
run_op(struct seg *seg, enum op op, const struct lease *lease)
{
	struct lease l = *lease;
	uint64_t word;
	uint32_t slot;
	int r;

	switch (op) {
	case OP_WORKER: return sup_set_worker(seg, 0, 4711);
	case OP_READY: return sup_ready(seg, 0, 1);
	case OP_LEND: (void)testpool_client(seg); return sup_lend(seg, 0, 0, 1, &word);
	case OP_RESET: return sup_reset_done(seg, 0, 5);
	case OP_CHECK_BEGIN: r = sup_check_begin(seg, &slot); return r == -ENOENT ? -ESTALE : r;
	case OP_CHECK_END: return sup_check_end(seg, 0, true);
	case OP_EVICT: return sup_evict(seg, 0);
	case OP_GONE: return sup_worker_gone(seg, 0, NULL);
	case OP_CLIENT_GONE: return sup_client_gone(seg, 0);
	case OP_JOIN: return sup_join(seg, 0, 1);
	default: break;
	}
	if (l.word == 0)
		l.word = slot_word(SLOT_IN_USE, 0, 1);
	r = lease_release(seg, &l, -1);
	return r == -EOWNERDEAD ? 0 : r;
}

static void
every_call_in_every_state(void **state)
{
	(void)state;
	for (unsigned op = 0; op < OPS; op++)
		for (unsigned s = 0; s < SLOT_STATES; s++) {
			struct seg *seg = testpool_new(&policy);
			struct lease lease = put_into(seg, s);
			uint64_t word = atomic_load(&seg->slot[0].word);
			int want = outcome[op][s], r, now;
			enum slot_actor actor = op == OP_RELEASE ? ACTOR_CLIENT : ACTOR_SUPERVISOR;

			assert_int_equal(testpool_state(seg, 0), s);
			good(seg);
			r = run_op(seg, op, &lease);
			now = (int)testpool_state(seg, 0);
			if (want == REFUSED
				? r != -ESTALE || atomic_load(&seg->slot[0].word) != word
				: r != 0 || now != want)
				fail_msg("call %u on %s: %d, then %s", op, slot_state_name(s), r,
					 slot_state_name((enum slot_state)now));
			if (now != (int)s && !slot_legal(s, (enum slot_state)now, actor))
				fail_msg("call %u: %s -> %s is not in the table", op,
					 slot_state_name(s), slot_state_name((enum slot_state)now));
			good(seg);
			testpool_free(seg);
		}
}

/* A copy of a used VM goes to whom it was made for, and to nobody after that. */
static void
lent_and_never_idle(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg), slot = testpool_start(seg);
	struct lease lease = {.slot = slot};

	assert_int_equal(sup_lend(seg, slot, client + 1, 1, &lease.word), -ESRCH);
	assert_int_equal(sup_lend(seg, slot, seg->nclients, 1, &lease.word), -ESRCH);
	assert_int_equal(testpool_state(seg, slot), SLOT_STARTING);
	assert_int_equal(sup_lend(seg, slot, client, 1, &lease.word), 0);
	assert_int_equal(lease_check(seg, &lease), 0);
	assert_int_equal(slot_client(lease.word), client);
	assert_int_equal(testpool_stat(seg, C_miss_count), 1);
	assert_int_equal(testpool_stat(seg, C_spawn_count), 1);
	good(seg);
	hist_add(&seg->chan[slot].hist[H_acquire_ns], 1);
	/* Nobody has used it through its ring, all the same it is used. */
	assert_int_equal(lease_release(seg, &lease, -1), 0);
	assert_int_equal(testpool_state(seg, slot), SLOT_RESETTING);
	assert_int_equal(atomic_load(&seg->slot[slot].resetting), RESETTING_USED);
	good(seg);
}

static void
start_is_bounded(void **state)
{
	struct seg *seg = *state;
	uint64_t generation;
	uint32_t slot;

	atomic_store(&seg->head->policy.max_total, 2);
	atomic_store(&seg->head->policy.max_idle, 2);
	assert_int_equal(testpool_start(seg), 0);
	assert_int_equal(testpool_ready(seg), 1);
	assert_int_equal(sup_start(seg, &slot, &generation), -ENOSPC);
	good(seg);
	/* One that is being ended counts too. */
	assert_int_equal(sup_evict(seg, 1), 0);
	assert_int_equal(sup_start(seg, &slot, &generation), -ENOSPC);
	assert_int_equal(sup_worker_gone(seg, 1, NULL), 0);
	assert_int_equal(testpool_start(seg), 1);
	/* More than there are slots. */
	atomic_store(&seg->head->policy.max_total, 100);
	assert_int_equal(testpool_start(seg), 2);
	assert_int_equal(testpool_start(seg), 3);
	assert_int_equal(sup_start(seg, &slot, &generation), -ENOSPC);
}

/* A dead VM takes a slot but is no VM: it does not count against the total. */
static void
dead_slots_are_no_vms(void **state)
{
	struct seg *seg = *state;

	atomic_store(&seg->head->policy.max_total, 1);
	atomic_store(&seg->head->policy.max_idle, 1);
	(void)put_into(seg, SLOT_DEAD);
	assert_int_equal(testpool_start(seg), 1);
	good(seg);
}

static void
start_resets_the_channel(void **state)
{
	struct seg *seg = *state;
	struct shm_chan *chan = &seg->chan[0];

	(void)put_into(seg, SLOT_RESETTING);
	atomic_store(&chan->rsp.tail, 5);
	atomic_store(&chan->rsp.head, 9);
	atomic_store(&chan->req.head, 7);
	atomic_store(&chan->rsp_sleepers, 3);
	atomic_store(&chan->worker_asleep, 1);
	atomic_store(&chan->counter[C_exec_count], 12);
	assert_int_equal(sup_worker_gone(seg, 0, NULL), 0);
	assert_int_equal(testpool_start(seg), 0);
	assert_int_equal(atomic_load(&chan->req.tail), 0);
	assert_int_equal(atomic_load(&chan->req.head), 0);
	assert_int_equal(atomic_load(&chan->rsp.tail), 0);
	assert_int_equal(atomic_load(&chan->rsp.head), 0);
	assert_int_equal(atomic_load(&chan->rsp_sleepers), 0);
	assert_int_equal(atomic_load(&chan->worker_asleep), 0);
	/* What was counted stays counted. */
	assert_int_equal(atomic_load(&chan->counter[C_exec_count]), 12);
}

static void
slots_out_of_range(void **state)
{
	struct seg *seg = *state;

	assert_int_equal(sup_set_worker(seg, 4, 1), -EINVAL);
	assert_int_equal(sup_ready(seg, 4, 1), -EINVAL);
	assert_int_equal(sup_evict(seg, UINT32_MAX), -EINVAL);
	assert_int_equal(sup_worker_gone(seg, 4, NULL), -EINVAL);
	assert_int_equal(sup_client_gone(seg, seg->nclients), -EINVAL);
}

static void
never_blocks(void **state)
{
	struct seg *seg = *state;
	uint64_t generation;
	uint32_t n;

	atomic_store(&seg->head->lock.word, 0x3fffffff);
	assert_int_equal(sup_start(seg, &n, &generation), -EBUSY);
	assert_int_equal(sup_set_worker(seg, 0, 1), -EBUSY);
	assert_int_equal(sup_ready(seg, 0, 1), -EBUSY);
	assert_int_equal(sup_evict(seg, 0), -EBUSY);
	assert_int_equal(sup_worker_gone(seg, 0, NULL), -EBUSY);
	assert_int_equal(sup_client_new(seg, 1, &n), -EBUSY);
	assert_int_equal(sup_client_gone(seg, 0), -EBUSY);
	assert_int_equal(sup_check_begin(seg, &n), -EBUSY);
	assert_int_equal(sup_check_end(seg, 0, true), -EBUSY);
	assert_int_equal(sup_reset_done(seg, 0, 1), -EBUSY);
	assert_int_equal(sup_drain(seg), -EBUSY);
	sup_failing(seg, 1, "this one takes no lock");
	atomic_store(&seg->head->lock.word, 0);
}

static void
clients_come_and_go(void **state)
{
	struct seg *seg = *state;
	uint32_t a = testpool_client(seg), b = testpool_client(seg), c;
	struct lease mine, theirs, dirty;

	assert_true(a != b);
	for (unsigned i = 0; i < 3; i++)
		(void)testpool_ready(seg);
	dirty = hit(seg, a);
	theirs = hit(seg, b);
	mine = hit(seg, a);
	testpool_touch(seg, dirty.slot);
	assert_int_equal(sup_client_gone(seg, a), 0);
	good(seg);
	assert_int_equal(testpool_state(seg, mine.slot), SLOT_IDLE);
	assert_int_equal(testpool_state(seg, dirty.slot), SLOT_RESETTING);
	assert_int_equal(lease_check(seg, &theirs), 0);
	assert_int_equal(lease_check(seg, &mine), -ESTALE);
	assert_int_equal(testpool_stat(seg, C_reclaim_count), 2);
	assert_int_equal(testpool_stat(seg, C_release_count), 0);
	/* Its id is free again, the other one is not. */
	c = testpool_client(seg);
	assert_int_equal(c, a);
	assert_int_equal(sup_client_gone(seg, c), 0);
	for (unsigned i = 1; i < seg->nclients; i++)
		(void)testpool_client(seg);
	assert_int_equal(sup_client_new(seg, 1, &c), -ENOSPC);
}

static void
statistics_of_starts(void **state)
{
	struct seg *seg = *state;
	const struct shm_hist *boot = &seg->head->hist[H_boot_ns];

	assert_int_equal(testpool_start(seg), 0);
	assert_int_equal(sup_worker_gone(seg, 0, NULL), 0);
	assert_int_equal(testpool_stat(seg, C_spawn_fail_count), 1);
	assert_int_equal(testpool_start(seg), 0);
	assert_int_equal(sup_ready(seg, 0, 123456), 0);
	assert_int_equal(testpool_stat(seg, C_spawn_count), 1);
	assert_int_equal(atomic_load(&boot->sum), 123456);
	assert_true(atomic_load(&seg->slot[0].born_ns) != 0);
	assert_int_equal(sup_worker_gone(seg, 0, NULL), 0);
	assert_int_equal(testpool_stat(seg, C_vm_died_count), 1);
	assert_int_equal(atomic_load(&seg->slot[0].worker_pid), 0);
	good(seg);
}

/* The newest idle VM is taken out, and comes back; or does not. */
static void
health_checks(void **state)
{
	struct seg *seg = *state;
	uint32_t slot;

	assert_int_equal(sup_check_begin(seg, &slot), -ENOENT);
	assert_int_equal(testpool_ready(seg), 0);
	assert_int_equal(testpool_ready(seg), 1);
	assert_int_equal(sup_check_begin(seg, &slot), 0);
	assert_int_equal(slot, 1);
	assert_int_equal(testpool_state(seg, 1), SLOT_RESETTING);
	good(seg);
	/* It was not used, hence there is nothing to reset. */
	assert_int_equal(sup_reset_done(seg, 1, 1), -ESTALE);
	assert_int_equal(sup_check_end(seg, 1, true), 0);
	assert_int_equal(testpool_state(seg, 1), SLOT_IDLE);
	assert_int_equal(sup_check_end(seg, 1, true), -ESTALE);
	good(seg);
	assert_int_equal(sup_check_begin(seg, &slot), 0);
	assert_int_equal(slot, 1);
	assert_int_equal(sup_check_end(seg, 1, false), 0);
	assert_int_equal(testpool_state(seg, 1), SLOT_RESETTING);
	assert_int_equal(sup_check_end(seg, 1, true), -ESTALE);
	assert_int_equal(sup_worker_gone(seg, 1, NULL), 0);
	good(seg);
	/* Silence is failure. */
	assert_int_equal(sup_check_begin(seg, &slot), 0);
	assert_int_equal(slot, 0);
	assert_int_equal(sup_worker_gone(seg, 0, NULL), 0);
	assert_int_equal(testpool_stat(seg, C_health_check_count), 3);
	assert_int_equal(testpool_stat(seg, C_health_fail_count), 2);
	assert_int_equal(testpool_stat(seg, C_evict_count), 0);
	assert_int_equal(testpool_stat(seg, C_discard_count), 0);
	assert_int_equal(testpool_stat(seg, C_recycle_count), 0);
	good(seg);
}

static void
ready_over_max_idle(void **state)
{
	struct seg *seg = *state;

	atomic_store(&seg->head->policy.max_idle, 1);
	assert_int_equal(testpool_ready(seg), 0);
	assert_int_equal(testpool_ready(seg), 1);
	assert_int_equal(testpool_state(seg, 0), SLOT_RESETTING);
	assert_int_equal(testpool_stat(seg, C_evict_count), 1);
	good(seg);
}

/* Evicting from the middle of the ring leaves the others in order. */
static void
evict_any_place(void **state)
{
	(void)state;
	for (uint32_t gone = 0; gone < 3; gone++)
		for (uint32_t turn = 0; turn < 4; turn++) {
			struct seg *seg = testpool_new(&policy);
			uint32_t client = testpool_client(seg), left = 2;

			/* Turn the ring, so that every wrap-around is met. */
			for (uint32_t i = 0; i < turn; i++) {
				assert_int_equal(testpool_ready(seg), 0);
				assert_int_equal(testpool_ready(seg), 1);
				assert_int_equal(sup_worker_gone(seg, 0, NULL), 0);
				assert_int_equal(sup_worker_gone(seg, 1, NULL), 0);
			}
			assert_int_equal(atomic_load(&seg->head->idle_head), turn);
			for (uint32_t i = 0; i < 3; i++)
				assert_int_equal(testpool_ready(seg), i);
			assert_int_equal(sup_evict(seg, gone), 0);
			good(seg);
			for (uint32_t slot = 3; slot-- > 0;) {
				if (slot == gone)
					continue;
				assert_int_equal(hit(seg, client).slot, slot);
				left--;
			}
			assert_int_equal(left, 0);
			good(seg);
			testpool_free(seg);
		}
}

static void
failure_text(void **state)
{
	struct seg *seg = *state;
	char longest[1000];

	sup_failing(seg, 2, "no kernel");
	assert_string_equal(seg->head->last_failure, "no kernel");
	assert_int_equal(atomic_load(&seg->head->failing), 2);
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	sup_failing(seg, 3, longest);
	assert_int_equal(strlen(seg->head->last_failure), sizeof(seg->head->last_failure) - 1);
	sup_failing(seg, 0, "");
	assert_string_equal(seg->head->last_failure, "");
	assert_int_equal(atomic_load(&seg->head->failing), 0);
}

/* Whoever held it, and though the holder never wrote to its ring. */
static void
a_joined_lease_is_touched(void **state)
{
	struct seg *seg = *state;
	uint32_t client = testpool_client(seg);
	struct lease lease;

	assert_int_equal(testpool_ready(seg), 0);
	lease = hit(seg, client);
	assert_int_equal(sup_join(seg, 0, 0), -ESTALE);
	assert_int_equal(sup_join(seg, 0, 2), -ESTALE);
	assert_int_equal(sup_join(seg, 4, 1), -EINVAL);
	assert_int_equal(sup_join(seg, 0, 1), 0);
	assert_int_equal(sup_join(seg, 0, 1), 0);
	good(seg);
	assert_int_equal(lease_check(seg, &lease), 0);
	assert_int_equal(lease_release(seg, &lease, kick_fd), 0);
	assert_int_equal(testpool_state(seg, 0), SLOT_RESETTING);
	assert_true(kicked());
	/* Put back to the template, it is like any other. */
	assert_int_equal(sup_reset_done(seg, 0, 1), 0);
	lease = hit(seg, client);
	assert_int_equal(sup_join(seg, 0, 1), -ESTALE);
	assert_int_equal(lease_release(seg, &lease, kick_fd), 0);
	assert_int_equal(testpool_state(seg, 0), SLOT_IDLE);
	(void)hit(seg, client);
	assert_int_equal(sup_join(seg, 0, 3), 0);
	assert_int_equal(sup_client_gone(seg, client), 0);
	assert_int_equal(testpool_state(seg, 0), SLOT_RESETTING);
	good(seg);
}

static void
join_now(void *arg)
{
	AZ(sup_join(arg, 0, 1));
	crash_call(NULL, NULL, NULL);
}

/* The holder has looked, and found it untouched, when another joins. */
static void
a_join_crosses_the_release(void **state)
{
	struct seg *seg = *state;
	struct lease lease;

	assert_int_equal(testpool_ready(seg), 0);
	lease = hit(seg, testpool_client(seg));
	crash_call("release_before_lock", join_now, seg);
	assert_int_equal(lease_release(seg, &lease, -1), 0);
	assert_int_equal(testpool_state(seg, 0), SLOT_RESETTING);
	good(seg);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) POOL_TEST(name, &policy)
	    cmocka_unit_test(every_call_in_every_state),
	    TEST(lent_and_never_idle),
	    TEST(start_is_bounded),
	    TEST(dead_slots_are_no_vms),
	    TEST(start_resets_the_channel),
	    TEST(slots_out_of_range),
	    TEST(never_blocks),
	    TEST(clients_come_and_go),
	    TEST(statistics_of_starts),
	    TEST(health_checks),
	    TEST(a_joined_lease_is_touched),
	    TEST(a_join_crosses_the_release),
	    TEST(ready_over_max_idle),
	    cmocka_unit_test(evict_any_place),
	    TEST(failure_text),
	};

	return cmocka_run_group_tests_name("lease_sup", tests, NULL, NULL);
}
