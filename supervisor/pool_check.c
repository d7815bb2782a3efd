/* SPDX-License-Identifier: MIT
 *
 * pool_check.c - health checks: on every Nth recycle a VM is taken out of the idle
 * ones, runs a command in its guest, and comes back; or is ended. Runs in vmpoold.
 *
 * One at a time: those that fall due during a check are covered by the next one, so
 * that a busy pool is not emptied by its checks. Who takes the VM out is a
 * transaction of shm/sup.c; that the guest answers in time is the worker's care, and
 * that the worker does, child.c's.
 */
#include "shm/lease.h"
#include "supervisor/pool_impl.h"
#include "supervisor/suplog.h"

/* VMs recycled so far: a plain figure of the segment, see pool_start_numbers. */
static uint64_t
pool_check_recycles(const struct pool *pool)
{
	return atomic_load_explicit(&pool->s.seg->head->counter[C_recycle_count],
				    memory_order_relaxed);
}

static bool
pool_check_wanted(const struct pool *pool)
{
	uint32_t interval = pool->s.cfg->health_interval;

	return interval != 0 && !pool->draining &&
	       pool_check_recycles(pool) - pool->recycles >= interval &&
	       children_in(pool->children, CHILD_CHECKING) == 0;
}

static int
pool_check_attempt(void *arg)
{
	struct pool *pool = arg;
	uint32_t slot;
	int r;

	if (!pool_check_wanted(pool))
		return 0;
	r = sup_check_begin(pool->s.seg, &slot);
	/* None is idle: the next look tries again. */
	if (r < 0)
		return r == -EBUSY ? r : 0;
	pool->recycles = pool_check_recycles(pool);
	/* Else the slot table is not what it was; pool_look puts it right. */
	if (slot < pool->s.seg->nslots && child_state(pool->children, slot) == CHILD_READY)
		child_check(pool->children, slot);
	return 0;
}

void
pool_check_due(struct pool *pool)
{
	if (pool_check_wanted(pool))
		retry_start(pool->s.retry, &pool->check);
}

void
pool_check_answer(void *arg, uint32_t slot, int error)
{
	struct pool *pool = arg;

	if (error != 0)
		suplog(LOG_WARNING, "slot %u: its VM failed a health check: /bin/true %s", slot,
		       error == -EBUSY ? "cannot be run" : "did not end with status 0");
	pool_slot_due(pool, slot, error == 0 ? DUE_HEALTHY : DUE_UNHEALTHY);
}

void
pool_check_init(struct pool *pool)
{
	pool->check.attempt = pool_check_attempt;
	pool->check.arg = pool;
}
