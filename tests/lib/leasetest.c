/* SPDX-License-Identifier: MIT
 *
 * leasetest.c - a pool per test of lock and leases. Runs in test programs.
 */
#include "tests/lib/leasetest.h"
#include <sys/eventfd.h>

int kick_fd = -1;

int
pool_setup(void **state)
{
	*state = testpool_new(*state);
	kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return kick_fd < 0;
}

int
pool_teardown(void **state)
{
	testpool_free(*state);
	closep(&kick_fd);
	return 0;
}

bool
kicked(void)
{
	uint64_t n;

	return read(kick_fd, &n, sizeof(n)) == (ssize_t)sizeof(n);
}

void
good(struct seg *seg)
{
	const char *bad = checkpool(seg);

	if (bad != NULL)
		fail_msg("%s", bad);
}

struct lease
hit(struct seg *seg, uint32_t client)
{
	struct lease lease;

	assert_int_equal(lease_acquire(seg, client, kick_fd, now_ns(), LOCK_TRY, &lease), 0);
	assert_int_equal(testpool_state(seg, lease.slot), SLOT_IN_USE);
	good(seg);
	return lease;
}
