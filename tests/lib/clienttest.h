/* SPDX-License-Identifier: MIT
 *
 * clienttest.h - what the tests of libvmpool share: a fake pool with one
 * attached handle and one lease per test, and a few shorthands.
 */
#ifndef VMPOOL_TESTS_CLIENTTEST_H
#define VMPOOL_TESTS_CLIENTTEST_H

#include "shm/vmpool.h"
#include "tests/lib/fakepool.h"

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#define FOREVER_MS 20000 /* nothing in these tests takes that long */

struct fixture {
	struct fakepool fp;
	struct vmpool *pool;
	struct vmpool_vm *vm;
};

/* setup_pool: 3 idle VMs, attached; setup_vm: one of them leased; setup_agent: the
 * same, and it is the real agent on this host. The teardown gives back what is still
 * held. */
int setup_pool(void **state);
int setup_vm(void **state);
int setup_agent(void **state);
int teardown(void **state);

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A statistic's value, by name; fails if there is none of that name. */
uint64_t stat_value(struct vmpool *pool, const char *name);

#endif
