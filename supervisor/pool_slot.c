/* SPDX-License-Identifier: MIT
 *
 * pool_slot.c - a slot's changes in the segment, made when the pool lock allows.
 * Runs in vmpoold.
 *
 * What happens to a process (child.c) and what happens to its slot (lease.h) are
 * two things: the second needs the pool lock, which the supervisor never waits
 * for. Each slot therefore has a set of changes that are still to be made, done
 * in the order in which they must happen.
 */
#include <string.h>

#include "shm/lease.h"
#include "shm/slot.h"
#include "supervisor/pool_impl.h"
#include "supervisor/suplog.h"

uint64_t
pool_slot_word(const struct pool *pool, uint32_t slot)
{
	/* Pairs with the commits in shm/lease.c. A word read a moment too early is
	 * looked at again: every change that matters rings the doorbell. */
	return atomic_load_explicit(&pool->s.seg->slot[slot].word, memory_order_acquire);
}

static int
pool_slot_do(struct pool_slot *ps, unsigned what)
{
	struct pool *pool = ps->pool;
	struct seg *seg = pool->s.seg;
	uint32_t slot = (uint32_t)(ps - pool->slot);

	switch (what) {
	case DUE_WORKER: return sup_set_worker(seg, slot, (uint32_t)ps->pid);
	case DUE_READY:
		return ps->made_for != NULL ? pool_copy_lend(pool, slot, ps->boot_ns)
					    : sup_ready(seg, slot, ps->boot_ns);
	case DUE_RESET: return sup_reset_done(seg, slot, ps->pages);
	case DUE_EVICT: return sup_evict(seg, slot);
	case DUE_HEALTHY: return sup_check_end(seg, slot, true);
	case DUE_UNHEALTHY: return sup_check_end(seg, slot, false);
	default: return sup_worker_gone(seg, slot, NULL);
	}
}

static void
pool_slot_did(struct pool_slot *ps, unsigned what, int r)
{
	struct pool *pool = ps->pool;
	uint32_t slot = (uint32_t)(ps - pool->slot);

	if (what == DUE_READY && r == 0) {
		pool_start_ok(pool, slot, ps->boot_ns);
		/* Over max-idle the oldest idle VM has made room: end it now. */
		pool_look(pool);
	}
	if (what == DUE_UNHEALTHY && r == 0)
		child_kill(pool->children, slot, "its health check failed");
	if ((what == DUE_HEALTHY || what == DUE_RESET) && r == 0)
		pool_look(pool);
	if (what == DUE_EVICT && r == 0)
		child_kill(pool->children, slot, "it was idle for too long");
	/* lease.h has woken who sleeps in the segment; who polls is woken here. */
	if (what == DUE_GONE && r == 0)
		bells_ring_client(pool->s.bells, slot);
	/* For DUE_EVICT -ESTALE is no fault: a client has just taken the VM. */
	if (r < 0 && what != DUE_EVICT) {
		suplog(LOG_WARNING, "slot %u: its state in the segment is not what it was (%s)",
		       slot, slot_state_name(slot_state(pool_slot_word(pool, slot))));
		child_kill(pool->children, slot, "its slot was changed by others");
	}
}

static int
pool_slot_attempt(void *arg)
{
	struct pool_slot *ps = arg;
	unsigned what;
	int r;

	while (ps->due != 0) {
		what = ps->due & -ps->due;
		r = pool_slot_do(ps, what);
		if (r == -EBUSY)
			return r;
		ps->due &= ~what;
		pool_slot_did(ps, what, r);
	}
	pool_start_more(ps->pool);
	return 0;
}

void
pool_slot_init(struct pool *pool)
{
	for (uint32_t i = 0; i < pool->s.seg->nslots; i++) {
		pool->slot[i].pool = pool;
		pool->slot[i].op.attempt = pool_slot_attempt;
		pool->slot[i].op.arg = &pool->slot[i];
	}
}

void
pool_slot_due(struct pool *pool, uint32_t slot, unsigned what)
{
	struct pool_slot *ps = &pool->slot[slot];

	ps->due |= what;
	retry_start(pool->s.retry, &ps->op);
}
