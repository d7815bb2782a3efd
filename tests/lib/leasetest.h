/* SPDX-License-Identifier: MIT
 *
 * leasetest.h - what the tests of lock and leases share: a pool per test, as the
 * test's state, with a doorbell, and a few shorthands.
 */
#ifndef VMPOOL_TESTS_LEASETEST_H
#define VMPOOL_TESTS_LEASETEST_H

#include "tests/lib/testpool.h"

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

/* A test whose state is a fresh pool (struct seg *) of this policy. */
#define POOL_TEST(name, policy) \
	cmocka_unit_test_prestate_setup_teardown(name, pool_setup, pool_teardown, \
						 (void *)(uintptr_t)(policy))
int pool_setup(void **state);
int pool_teardown(void **state);

/* The doorbell of the pool in the test; has it been rung since the last look? */
extern int kick_fd;
bool kicked(void);

/* Every invariant holds (checkpool), or the test fails. */
void good(struct seg *seg);
/* Borrow an idle VM, which must be there. */
struct lease hit(struct seg *seg, uint32_t client);

#endif
