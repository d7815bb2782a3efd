/* SPDX-License-Identifier: MIT
 *
 * repair.c - making the pool whole after a lock holder died.
 *
 * Runs inside lock_acquire, under the lock, in whichever process comes next.
 * Every step can be interrupted by another death and is then done again from
 * the start by the next one: replaying is idempotent, rebuilding starts from
 * the tables, and everything else is a transaction.
 */
#include "shm/avail.h"
#include "shm/crash.h"
#include "shm/lock.h"
#include "shm/waiter.h"

/* A slot word that cannot be: unknown state, or a lease of nobody. It becomes
 * RESETTING, so that the supervisor ends its worker, if any. */
static enum slot_state
slot_sane(struct seg *seg, uint32_t slot)
{
	uint64_t word = avail_word(seg, slot);
	enum slot_state state = slot_state(word);
	uint32_t client = slot_client(word);
	bool leased = state == SLOT_IN_USE || state == SLOT_DEAD;

	if (state < SLOT_STATES && (!leased || (client < seg->nclients &&
						atomic_load_explicit(&seg->client[client].pid,
								     memory_order_relaxed) != 0)))
		return state;
	/* Pairs with the acquire load in lease_check. */
	atomic_store_explicit(&seg->slot[slot].word, avail_unleased(SLOT_RESETTING, word),
			      memory_order_release);
	return SLOT_RESETTING;
}

static int
by_seq(const void *va, const void *vb)
{
	const struct seg_scratch *a = va, *b = vb;

	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

static uint64_t
minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* The counters that claim and release do not journal follow from the others:
 * a slot's generation counts its leases. */
static void
rebuild_counters(struct seg *seg, const uint32_t count[SLOT_STATES])
{
	struct shm_head *head = seg->head;
	_Atomic uint64_t *counter = head->counter;
	uint64_t leases = 0, ended;

	for (uint32_t i = 0; i < seg->nslots; i++)
		leases += slot_generation(avail_word(seg, i));
	ended = minus(leases, (uint64_t)count[SLOT_IN_USE] + count[SLOT_DEAD]);
	atomic_store_explicit(
	    &counter[C_hit_count],
	    minus(leases, atomic_load_explicit(&counter[C_miss_count], memory_order_relaxed)),
	    memory_order_relaxed);
	CRASH_POINT("rebuild_hits");
	atomic_store_explicit(
	    &counter[C_release_count],
	    minus(ended, atomic_load_explicit(&counter[C_reclaim_count], memory_order_relaxed)),
	    memory_order_relaxed);
	CRASH_POINT("rebuild_releases");
	ended = minus(ended, atomic_load_explicit(&head->ended_used, memory_order_relaxed));
	ended = minus(ended, atomic_load_explicit(&head->ended_dead, memory_order_relaxed));
	ended += atomic_load_explicit(&head->reset_leased, memory_order_relaxed);
	atomic_store_explicit(&counter[C_recycle_count], ended, memory_order_relaxed);
}

void
repair_rebuild(struct seg *seg)
{
	struct shm_head *head = seg->head;
	uint32_t count[SLOT_STATES] = {0}, waiting = 0, n;

	for (uint32_t i = 0; i < seg->nslots; i++) {
		enum slot_state state = slot_sane(seg, i);

		if (state == SLOT_IDLE) {
			n = count[SLOT_IDLE];
			seg->scratch[n].slot = i;
			seg->scratch[n].seq =
			    atomic_load_explicit(&seg->slot[i].idle_seq, memory_order_relaxed);
		}
		count[state]++;
	}
	qsort(seg->scratch, count[SLOT_IDLE], sizeof(*seg->scratch), by_seq);
	CRASH_POINT("rebuild_sorted");
	atomic_store_explicit(&head->idle_head, 0, memory_order_relaxed);
	for (uint32_t i = 0; i < count[SLOT_IDLE]; i++) {
		CRASH_POINT("rebuild_idle");
		atomic_store_explicit(&seg->idle[i], seg->scratch[i].slot, memory_order_relaxed);
	}
	for (unsigned s = 0; s < SLOT_STATES; s++) {
		CRASH_POINT("rebuild_count");
		atomic_store_explicit(&head->count[s], count[s], memory_order_relaxed);
	}
	for (uint32_t i = 0; i < seg->nwaiters; i++)
		waiting += WAITER_STATE(waiter_look(seg, i)) == WAITER_WAITING;
	atomic_store_explicit(&head->waiting, waiting, memory_order_relaxed);
	rebuild_counters(seg, count);
	CRASH_POINT("rebuilt");
}

void
repair_run(struct seg *seg)
{
	struct txn txn;

	CRASH_POINT("repair_begin");
	(void)txn_replay(seg);
	repair_rebuild(seg);
	avail_settle(seg);
	CRASH_POINT("repair_settled");
	/* A wake-up may have died with the holder: everybody looks again. */
	waiter_nudge_all(seg);
	avail_changed(seg, false);
	txn_begin(&txn, seg);
	avail_count(&txn, C_lock_recovery_count);
	txn_commit(&txn);
	CRASH_POINT("repair_end");
}
