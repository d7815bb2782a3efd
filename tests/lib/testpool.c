/* SPDX-License-Identifier: MIT
 *
 * testpool.c - a segment with VMs that exist in its tables only.
 *
 * Runs in test programs. Owns the segment it makes, and plays the supervisor.
 */
#include "tests/lib/testpool.h"
#include "shm/lifeline.h"
#include <sched.h>

struct seg *
testpool_new(const struct testpool_policy *policy)
{
	struct seg_params params = {.name = "test",
				    .accel = "tcg",
				    .why = "a test",
				    .nslots = policy->nslots,
				    .memory_mib = 128,
				    .vcpus = 1};
	struct shm_policy *p;
	struct seg *seg;
	char err[256];

	AZ(seg_create(&seg, &params, err, sizeof(err)));
	p = &seg->head->policy;
	atomic_store(&p->min_idle, policy->min_idle);
	atomic_store(&p->max_idle, policy->max_idle);
	atomic_store(&p->max_total, policy->max_total);
	atomic_store(&p->max_idle_time, policy->max_idle_time);
	AZ(lifeline_hold(seg));
	return seg;
}

void
testpool_free(struct seg *seg)
{
	seg_close(seg);
}

void
testpool_yield(void)
{
	(void)sched_yield();
}

uint32_t
testpool_client(struct seg *seg)
{
	uint32_t client;

	AZ(testpool_sup(sup_client_new(seg, (uint32_t)getpid(), &client)));
	return client;
}

uint32_t
testpool_start(struct seg *seg)
{
	uint64_t generation;
	uint32_t slot;

	AZ(testpool_sup(sup_start(seg, &slot, &generation)));
	AZ(testpool_sup(sup_set_worker(seg, slot, 1000 + slot)));
	return slot;
}

uint32_t
testpool_ready(struct seg *seg)
{
	uint32_t slot = testpool_start(seg);

	AZ(testpool_sup(sup_ready(seg, slot, 1000000)));
	return slot;
}

void
testpool_touch(struct seg *seg, uint32_t slot)
{
	atomic_fetch_add(&seg->chan[slot].req.tail, 16);
}

enum slot_state
testpool_state(const struct seg *seg, uint32_t slot)
{
	return slot_state(atomic_load(&seg->slot[slot].word));
}

uint32_t
testpool_count(const struct seg *seg, enum slot_state state)
{
	return atomic_load(&seg->head->count[state]);
}

uint64_t
testpool_stat(const struct seg *seg, enum pool_counter counter)
{
	return atomic_load(&seg->head->counter[counter]);
}
