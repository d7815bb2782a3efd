/* SPDX-License-Identifier: MIT
 *
 * avail.h - steps of a slot that both clients and the supervisor take.
 *
 * Internal to shm/; everything here runs under the pool lock.
 */
#ifndef VMPOOL_AVAIL_H
#define VMPOOL_AVAIL_H

#include "shm/idle.h"
#include "shm/lease.h"
#include "shm/lifeline.h"

/* CLOCK_MONOTONIC as of the last tick: cheap, late by at most 10 ms. */
static inline uint64_t
avail_now_coarse(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t
avail_word(const struct seg *seg, uint32_t slot)
{
	/* Changed under the lock only; its holder needs no ordering. */
	return atomic_load_explicit(&seg->slot[slot].word, memory_order_relaxed);
}

static inline uint64_t
avail_age(uint64_t now, uint64_t since)
{
	return now > since ? now - since : 0;
}

/* Has nobody used the VM (its request ring was not written since it became
 * ready), and is its worker not known to be dead? */
static inline bool
avail_untouched(const struct seg *seg, uint32_t slot)
{
	/* Relaxed: the releasing client wrote it itself, or is dead. */
	return !lifeline_severed(&seg->slot[slot].life) &&
	       atomic_load_explicit(&seg->chan[slot].req.tail, memory_order_relaxed) ==
		   atomic_load_explicit(&seg->slot[slot].req_mark, memory_order_relaxed);
}

/* Under the lock: have others joined the lease of this slot? */
static inline bool
avail_joined(const struct seg *seg, uint32_t slot)
{
	/* Changed under the lock only (sup_join). */
	return atomic_load_explicit(&seg->slot[slot].req_mark, memory_order_relaxed) ==
	       SHM_MARK_TOUCHED;
}

/* Stage a slot's new word, and the time of the change. */
static inline void
avail_stage(struct txn *txn, uint32_t slot, uint64_t word, uint64_t now)
{
	txn_set64(txn, &txn->seg->slot[slot].word, word);
	txn_set64(txn, &txn->seg->slot[slot].since_ns, now);
}

/* Stage one event of a pool counter. */
static inline void
avail_count(struct txn *txn, enum pool_counter counter)
{
	txn_add64(txn, &txn->seg->head->counter[counter], 1);
}

/* An event that repair can tell from the tables: one plain store under the lock. */
static inline void
avail_tally(struct seg *seg, enum pool_counter counter)
{
	_Atomic uint64_t *c = &seg->head->counter[counter];

	CRASH_POINT("tally");
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* Ring the supervisor's doorbell, if there is one. Not under the lock. */
static inline void
avail_kick(int kick_fd)
{
	uint64_t one = 1;

	/* It fails only when the counter is full: then it is readable already. */
	if (kick_fd >= 0 && write(kick_fd, &one, sizeof(one)) < 0)
		return;
}

/* The word of a new lease of the slot: its generation is one more than before. */
static inline uint64_t
avail_leased(uint64_t word, uint32_t client)
{
	return slot_word(SLOT_IN_USE, client, (slot_generation(word) + 1) & SLOT_GENERATION_MAX);
}

/* The word of a slot that has left its lease behind. */
static inline uint64_t
avail_unleased(enum slot_state state, uint64_t word)
{
	return slot_word(state, SHM_NO_CLIENT, slot_generation(word));
}

/* The slot, in the state of word, has an untouched VM: give it to the first
 * waiter, or make it idle; over max-idle the oldest idle one goes to RESETTING.
 * Commits txn, with whatever the caller staged in it. True in the last case. */
bool avail_give(struct txn *txn, uint32_t slot, uint64_t word);

/* A lease ends (the slot is IN_USE): untouched, avail_give; touched, RESETTING.
 * Commits txn. True when a slot went to RESETTING. */
bool avail_end_lease(struct txn *txn, uint32_t slot, uint64_t word);

/* The holder of a lease is gone; it may have had no time to count its acquire. */
void avail_lost(struct seg *seg, uint32_t slot, uint64_t word);

/* IDLE -> RESETTING, counted by counter. Commits txn. */
void avail_evict(struct seg *seg, uint32_t slot, uint64_t word, enum pool_counter counter);

/* Part of the repair: finish what a dead holder left between two transactions:
 * abandoned entries and grants, idle VMs beside waiters. */
void avail_settle(struct seg *seg);

/* change_seq grows and its sleepers are woken; only_expected: just if somebody
 * announced a sleep (lease_change_expect). No lock needed. */
void avail_changed(struct seg *seg, bool only_expected);

#endif
