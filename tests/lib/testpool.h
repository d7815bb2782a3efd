/* SPDX-License-Identifier: MIT
 *
 * testpool.h - a segment with VMs that exist in its tables only, for tests.
 */
#ifndef VMPOOL_TESTS_TESTPOOL_H
#define VMPOOL_TESTS_TESTPOOL_H

#include "shm/avail.h"
#include "shm/lease.h"
#include "shm/segment.h"

#define SECOND_NS 1000000000ull
/* Longer than anything that works ever takes, on the slowest machine. */
#define PATIENCE_NS (60 * SECOND_NS)

struct testpool_policy {
	uint32_t nslots, min_idle, max_idle, max_total, max_idle_time;
};

/* A new segment whose lifeline this thread holds; asserts on failure. */
struct seg *testpool_new(const struct testpool_policy *policy);
void testpool_free(struct seg *seg);

/* A registered client of this process; its id. */
uint32_t testpool_client(struct seg *seg);

/* Start a VM and make it ready; its slot. */
uint32_t testpool_ready(struct seg *seg);
/* Start a VM; its slot. */
uint32_t testpool_start(struct seg *seg);

/* What a request does to a VM: its request ring is written. */
void testpool_touch(struct seg *seg, uint32_t slot);

enum slot_state testpool_state(const struct seg *seg, uint32_t slot);
uint32_t testpool_count(const struct seg *seg, enum slot_state state);
uint64_t testpool_stat(const struct seg *seg, enum pool_counter counter);

/* The supervisor's calls with a patient hand: again while -EBUSY. */
#define testpool_sup(call) \
	({ \
		int testpool_sup_r; \
		while ((testpool_sup_r = (call)) == -EBUSY) \
			testpool_yield(); \
		testpool_sup_r; \
	})
void testpool_yield(void);

/* Takes the lock (repairing if need be) and checks every invariant of the
 * tables, the derived data and the counters. NULL, or a line that says what is
 * wrong, in static memory. max_total may be exceeded by nothing. */
const char *checkpool(struct seg *seg);

#endif
