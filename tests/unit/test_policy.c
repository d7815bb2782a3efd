/* SPDX-License-Identifier: MIT
 *
 * test_policy.c - the pool's arithmetic (supervisor/policy.c).
 */
#include "supervisor/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SEC 1000000000ull

/* A pool that wants one idle VM and has room for everything. */
static struct policy_in
usual(void)
{
	return (struct policy_in){
	    .min_idle = 1,
	    .max_idle = 16,
	    .max_total = 32,
	    .ramp = 100,
	    .now_ns = 1000 * SEC,
	};
}

static void
test_keeps_the_minimum(void **state)
{
	struct policy_in in = usual();

	(void)state;
	assert_int_equal(policy_start(&in), 1);
	in.starting = in.total = 1;
	assert_int_equal(policy_start(&in), 0);
	in.starting = 0;
	in.idle = 1;
	assert_int_equal(policy_start(&in), 0);
	in.min_idle = 5;
	assert_int_equal(policy_start(&in), 4);
}

static void
test_misses_raise_the_target_and_it_decays(void **state)
{
	struct policy_burst b = {0};
	struct policy_in in = usual();

	(void)state;
	assert_int_equal(policy_burst(&b, 3, 16, SEC), 3);
	assert_int_equal(policy_burst(&b, 2, 16, SEC), 5);
	assert_int_equal(policy_burst(&b, 100, 16, SEC), 16);
	assert_int_equal(policy_burst(&b, 0, 16, POLICY_BURST_NS - 1), 16);
	assert_int_equal(policy_burst(&b, 0, 16, 1), 12);
	assert_int_equal(policy_burst(&b, 0, 16, 2 * POLICY_BURST_NS), 6);
	assert_int_equal(policy_burst(&b, 0, 2, 1), 2);
	assert_int_equal(policy_burst(&b, 0, 16, 100 * POLICY_BURST_NS), 0);
	/* A long quiet time does not eat the next burst. */
	assert_int_equal(policy_burst(&b, 4, 16, SEC), 4);
	assert_int_equal(policy_burst(&b, 0, 16, SEC), 4);
	in.burst = 4;
	assert_int_equal(policy_start(&in), 4);
	in.burst = 100;
	assert_int_equal(policy_keep(&in), 16);
}

static void
test_kept_vms_are_renewed_replacement_first(void **state)
{
	struct policy_vm vm[] = {{.slot = 7, .order = 1, .expires_ns = 10 * SEC},
				 {.slot = 8, .order = 2, .expires_ns = 20 * SEC}};
	struct policy_in in = usual();

	(void)state;
	in.min_idle = in.idle = in.total = 2;
	assert_false(policy_renew(vm, 2, 10 * SEC - 1));
	assert_true(policy_renew(vm, 2, 10 * SEC));
	/* One successor, whatever has expired; the old one stays until it is there. */
	in.renew = true;
	assert_int_equal(policy_start(&in), 1);
	assert_int_equal(policy_expire(vm, 2, policy_keep(&in), 0, 30 * SEC), 0);
	in.starting = 1;
	in.total = 3;
	assert_int_equal(policy_start(&in), 0);
	/* No room: it goes on as it is. */
	in.starting = 0;
	in.max_total = in.total = 2;
	assert_int_equal(policy_start(&in), 0);
}

static void
test_starts_for_those_who_wait(void **state)
{
	struct policy_in in = usual();

	(void)state;
	in.waiting = 3;
	assert_int_equal(policy_start(&in), 4);
	in.starting = in.total = 2;
	assert_int_equal(policy_start(&in), 2);
	in.min_idle = 0;
	in.starting = in.total = 3;
	assert_int_equal(policy_start(&in), 0);
}

static void
test_total_bounds_all(void **state)
{
	struct policy_in in = usual();

	(void)state;
	in.waiting = 1000;
	assert_int_equal(policy_start(&in), 32);
	in.total = 30;
	assert_int_equal(policy_start(&in), 2);
	in.total = 32;
	assert_int_equal(policy_start(&in), 0);
	in.total = 33; /* max_total was lowered */
	assert_int_equal(policy_start(&in), 0);
}

static void
test_warm_target_is_held_up_to_max_idle(void **state)
{
	struct policy_in in = usual();

	(void)state;
	in.warm_target = 4;
	assert_int_equal(policy_keep(&in), 4);
	assert_int_equal(policy_start(&in), 4);
	in.warm_target = UINT32_MAX;
	assert_int_equal(policy_keep(&in), 16);
	in.warm_target = 0;
	assert_int_equal(policy_keep(&in), 1);
}

static void
test_ramp_bounds_starts_at_once(void **state)
{
	struct policy_in in = usual();

	(void)state;
	in.min_idle = 10;
	in.ramp = 1;
	assert_int_equal(policy_start(&in), 1);
	in.starting = in.total = 1;
	assert_int_equal(policy_start(&in), 0);
	in.starting = in.total = 3; /* a failure has set the ramp back */
	assert_int_equal(policy_start(&in), 0);
	in.starting = in.total = 1;
	in.ramp = 4;
	assert_int_equal(policy_start(&in), 3);
	assert_int_equal(policy_ramp(1, true, 4), 2);
	assert_int_equal(policy_ramp(2, true, 4), 4);
	assert_int_equal(policy_ramp(4, true, 4), 4);
	assert_int_equal(policy_ramp(4, false, 4), 1);
}

static void
test_nothing_starts_while_backing_off_or_draining(void **state)
{
	struct policy_in in = usual();

	(void)state;
	in.backoff_until_ns = in.now_ns + 1;
	assert_int_equal(policy_start(&in), 0);
	in.backoff_until_ns = in.now_ns;
	assert_int_equal(policy_start(&in), 1);
	in.draining = true;
	assert_int_equal(policy_start(&in), 0);
}

static void
test_backoff_doubles_to_its_limit(void **state)
{
	(void)state;
	assert_int_equal(policy_backoff_ns(0), 0);
	assert_int_equal(policy_backoff_ns(1), SEC / 10);
	assert_int_equal(policy_backoff_ns(2), SEC / 5);
	assert_int_equal(policy_backoff_ns(7), 64 * SEC / 10);
	assert_int_equal(policy_backoff_ns(8), 10 * SEC);
	assert_int_equal(policy_backoff_ns(UINT32_MAX), 10 * SEC);
}

static void
test_lifetimes_are_spread(void **state)
{
	uint64_t ns, least = UINT64_MAX, most = 0;

	(void)state;
	for (uint32_t slot = 0; slot < 100; slot++) {
		ns = policy_lifetime_ns(30, slot, 12345 * SEC);
		assert_int_equal(ns, policy_lifetime_ns(30, slot, 12345 * SEC));
		assert_true(ns <= 30 * SEC && ns >= 27 * SEC);
		least = MIN(least, ns);
		most = MAX(most, ns);
	}
	assert_true(most - least > 2 * SEC);
}

static void
test_expiry_takes_the_oldest_and_keeps_the_minimum(void **state)
{
	struct policy_vm vm[] = {{3, 40, 10}, {1, 10, 10}, {2, 30, 10}, {0, 20, 99}};

	(void)state;
	assert_int_equal(policy_expire(vm, 4, 2, 0, 50), 2);
	assert_int_equal(vm[0].slot, 1);
	assert_int_equal(vm[1].slot, 2); /* slot 0 is older, but its time has not come */
	assert_int_equal(policy_expire(vm, 4, 4, 0, 50), 0);
	assert_int_equal(policy_expire(vm, 4, 9, 0, 50), 0);
	assert_int_equal(policy_expire(vm, 4, 0, 0, 9), 0);
	assert_int_equal(policy_expire(vm, 4, 0, 0, 50), 3);
	assert_int_equal(policy_expire(vm, 0, 0, 0, 50), 0);
}

static void
test_excess_goes_oldest_first_whether_expired_or_not(void **state)
{
	struct policy_vm vm[] = {{0, 30, 99}, {1, 10, 99}, {2, 20, 99}};
	struct policy_in in = usual();

	(void)state;
	in.idle = 17;
	assert_int_equal(policy_excess(&in), 1);
	in.idle = 16;
	assert_int_equal(policy_excess(&in), 0);
	assert_int_equal(policy_expire(vm, 3, 1, 2, 50), 2);
	assert_int_equal(vm[0].slot, 1);
	assert_int_equal(vm[1].slot, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_keeps_the_minimum),
	    cmocka_unit_test(test_misses_raise_the_target_and_it_decays),
	    cmocka_unit_test(test_kept_vms_are_renewed_replacement_first),
	    cmocka_unit_test(test_starts_for_those_who_wait),
	    cmocka_unit_test(test_total_bounds_all),
	    cmocka_unit_test(test_warm_target_is_held_up_to_max_idle),
	    cmocka_unit_test(test_ramp_bounds_starts_at_once),
	    cmocka_unit_test(test_nothing_starts_while_backing_off_or_draining),
	    cmocka_unit_test(test_backoff_doubles_to_its_limit),
	    cmocka_unit_test(test_lifetimes_are_spread),
	    cmocka_unit_test(test_expiry_takes_the_oldest_and_keeps_the_minimum),
	    cmocka_unit_test(test_excess_goes_oldest_first_whether_expired_or_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
