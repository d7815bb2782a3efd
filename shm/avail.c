/* SPDX-License-Identifier: MIT
 *
 * avail.c - what happens to a VM that becomes available, or whose lease ends.
 *
 * Runs under the pool lock, in clients, in the supervisor and in the repair.
 * Owns nothing of its own: it moves slots (slot.h), the idle ring (idle.h) and
 * waiters (waiter.h) in one transaction each.
 */
#include "shm/avail.h"
#include "shm/crash.h"
#include "shm/futex.h"
#include "shm/stat.h"
#include "shm/waiter.h"
#include <limits.h>

static bool
pool_running(const struct seg *seg)
{
	/* Set under the lock (sup_drain). */
	return atomic_load_explicit(&seg->head->state, memory_order_relaxed) == POOL_RUNNING;
}

/* The slot becomes the first waiter's: entry i. */
static uint64_t
give_waiter(struct txn *txn, uint32_t slot, uint64_t word, uint32_t i)
{
	struct seg *seg = txn->seg;
	struct shm_waiter *w = &seg->waiter[i];
	uint32_t client = atomic_load_explicit(&w->client, memory_order_relaxed);
	uint64_t lease = avail_leased(word, client);

	avail_stage(txn, slot, lease, now_ns());
	avail_count(txn, C_miss_count);
	txn_set64(txn, &w->lease, lease);
	txn_set32(txn, &w->slot, slot);
	txn_set32(txn, &w->state, WAITER_GRANTED);
	CRASH_POINT("grant_before_commit");
	txn_commit(txn);
	CRASH_POINT("grant_committed");
	idle_moved(seg, slot, slot_state(word), SLOT_IN_USE);
	waiter_left(seg);
	CRASH_POINT("grant_before_wake");
	(void)futex_wake(&w->state, INT_MAX);
	CRASH_POINT("grant_woken");
	return lease;
}

/* The slot becomes the newest idle one; over max-idle the oldest makes room. */
static bool
give_idle(struct txn *txn, uint32_t slot, uint64_t word)
{
	struct seg *seg = txn->seg;
	uint32_t max = atomic_load_explicit(&seg->head->policy.max_idle, memory_order_relaxed);
	uint64_t seq = atomic_load_explicit(&seg->head->seq, memory_order_relaxed) + 1;
	uint64_t now = avail_now_coarse(), oldest_word = 0;
	uint32_t oldest = IDLE_NONE;

	if (slot_state(word) != SLOT_IDLE && idle_count(seg) >= MAX(max, 1u)) {
		oldest = idle_oldest(seg);
		if (oldest != IDLE_NONE)
			oldest_word = avail_word(seg, oldest);
	}
	avail_stage(txn, slot, avail_unleased(SLOT_IDLE, word), now);
	txn_set64(txn, &seg->slot[slot].idle_seq, seq);
	txn_set64(txn, &seg->head->seq, seq);
	if (oldest != IDLE_NONE) {
		avail_stage(txn, oldest, avail_unleased(SLOT_RESETTING, oldest_word), now_ns());
		txn_set32(txn, &seg->slot[oldest].resetting, RESETTING_EVICTED);
		avail_count(txn, C_evict_count);
	}
	CRASH_POINT("idle_before_commit");
	txn_commit(txn);
	CRASH_POINT("idle_committed");
	if (oldest != IDLE_NONE)
		idle_moved(seg, oldest, SLOT_IDLE, SLOT_RESETTING);
	idle_moved(seg, slot, slot_state(word), SLOT_IDLE);
	return oldest != IDLE_NONE;
}

bool
avail_give(struct txn *txn, uint32_t slot, uint64_t word)
{
	struct seg *seg = txn->seg;

	/* Each round frees a waiter; more rounds than there are is somebody's mischief. */
	for (uint32_t round = 0;; round++) {
		uint32_t i = WAITER_NONE;

		if (round < seg->nwaiters && pool_running(seg))
			i = waiter_first(seg);
		if (i == WAITER_NONE)
			return give_idle(txn, slot, word);
		word = give_waiter(txn, slot, word, i);
		if (!waiter_revoke(seg, i))
			return false;
		avail_lost(seg, slot, word);
		txn_begin(txn, seg);
		waiter_free(txn, i);
		avail_count(txn, C_wait_timeout_count);
		avail_count(txn, C_reclaim_count);
		avail_count(txn, C_recycle_count);
	}
}

bool
avail_end_lease(struct txn *txn, uint32_t slot, uint64_t word)
{
	struct seg *seg = txn->seg;

	if (avail_untouched(seg, slot)) {
		avail_count(txn, C_recycle_count);
		return avail_give(txn, slot, word);
	}
	avail_stage(txn, slot, avail_unleased(SLOT_RESETTING, word), now_ns());
	txn_set32(txn, &seg->slot[slot].resetting, RESETTING_USED);
	txn_add64(txn, &seg->head->ended_used, 1);
	CRASH_POINT("end_before_commit");
	txn_commit(txn);
	CRASH_POINT("end_committed");
	idle_moved(seg, slot, slot_state(word), SLOT_RESETTING);
	return true;
}

void
avail_lost(struct seg *seg, uint32_t slot, uint64_t word)
{
	CRASH_POINT("avail_lost");
	/* One value per generation; the holder is gone, so there is no other writer. */
	hist_fill(&seg->chan[slot].hist[H_acquire_ns], slot_generation(word));
}

void
avail_evict(struct seg *seg, uint32_t slot, uint64_t word, enum pool_counter counter)
{
	struct txn txn;

	txn_begin(&txn, seg);
	avail_stage(&txn, slot, avail_unleased(SLOT_RESETTING, word), now_ns());
	txn_set32(&txn, &seg->slot[slot].resetting, RESETTING_EVICTED);
	avail_count(&txn, counter);
	CRASH_POINT("evict_before_commit");
	txn_commit(&txn);
	CRASH_POINT("evict_committed");
	idle_moved(seg, slot, SLOT_IDLE, SLOT_RESETTING);
}

/* A grant whose caller gave up, of which the granter died before it could act. */
static void
settle_grant(struct seg *seg, uint32_t i)
{
	struct shm_waiter *w = &seg->waiter[i];
	uint32_t slot = atomic_load_explicit(&w->slot, memory_order_relaxed);
	uint64_t lease = atomic_load_explicit(&w->lease, memory_order_relaxed);
	struct txn txn;

	txn_begin(&txn, seg);
	waiter_free(&txn, i);
	CRASH_POINT("settle_grant");
	if (slot >= seg->nslots || slot_state(lease) != SLOT_IN_USE ||
	    avail_word(seg, slot) != lease) {
		txn_commit(&txn);
		return;
	}
	avail_count(&txn, C_wait_timeout_count);
	avail_count(&txn, C_reclaim_count);
	avail_lost(seg, slot, lease);
	(void)avail_end_lease(&txn, slot, lease);
}

void
avail_settle(struct seg *seg)
{
	for (uint32_t i = 0; i < seg->nwaiters; i++)
		if (WAITER_STATE(waiter_look(seg, i)) == WAITER_GRANTED && waiter_revoke(seg, i))
			settle_grant(seg, i);
	for (uint32_t i = 0; i < seg->nwaiters && pool_running(seg); i++) {
		uint32_t slot = idle_newest(seg);
		struct txn txn;

		if (slot == IDLE_NONE || waiter_first(seg) == WAITER_NONE)
			return;
		txn_begin(&txn, seg);
		(void)avail_give(&txn, slot, avail_word(seg, slot));
	}
}

void
avail_changed(struct seg *seg, bool only_expected)
{
	_Atomic uint32_t *seq = &seg->head->change_seq;
	uint32_t old = atomic_load_explicit(seq, memory_order_relaxed);

	/* Odd: somebody is about to sleep (lease_change_expect, its pair). The next
	 * even number says that nobody has announced it since. */
	do {
		if (only_expected && (old & 1u) == 0)
			return;
	} while (!atomic_compare_exchange_weak_explicit(
	    seq, &old, (old | 1u) + 1, memory_order_acq_rel, memory_order_relaxed));
	CRASH_POINT("change_before_wake");
	(void)futex_wake(seq, INT_MAX);
}
