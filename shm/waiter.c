/* SPDX-License-Identifier: MIT
 *
 * waiter.c - the table of callers that wait for a VM, in arrival order.
 *
 * Runs in clients (their own entry) and under the pool lock in whoever makes a
 * VM available. Owns the waiter table and head.waiting.
 *
 * How a wait ends. A lock holder commits state = GRANTED together with the
 * slot's word. The caller sees it and stores claim = TAKEN, no lock needed; it
 * never writes state, so a repair that applies the journal a second time does
 * no harm. A caller that gives up takes the lock and leaves the queue. Only if
 * the lock cannot be had (its holder is stopped) does it store claim =
 * ABANDONED and go; a later lock holder frees the entry. Should a grant and an
 * ABANDONED cross, both sides try to move claim on from ABANDONED, to TAKEN or
 * to REVOKED, and the one that succeeds has the VM.
 *
 * Ordering: all read-modify-writes of one claim word are totally ordered, and
 * both sides use them after their own store (state by the holder, claim by the
 * caller): waiter_revoke pairs with waiter_abandon, so at least one of the two
 * sees the other's.
 */
#include "shm/waiter.h"
#include "shm/crash.h"
#include "shm/futex.h"
#include "shm/slot.h"
#include <limits.h>

static inline uint32_t
load32(const _Atomic uint32_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

/* FREE, or granted, taken and thereby done with. */
static bool
waiter_is_free(const struct shm_waiter *w)
{
	/* Pairs with the release store of TAKEN in waiter_take. */
	enum waiter_state state = WAITER_STATE(load32(&w->state));

	return state == WAITER_FREE || state > WAITER_GRANTED ||
	       (state == WAITER_GRANTED &&
		atomic_load_explicit(&w->claim, memory_order_acquire) == CLAIM_TAKEN);
}

uint32_t
waiter_enqueue(struct txn *txn, uint32_t client, uint64_t *ticket)
{
	struct seg *seg = txn->seg;
	struct shm_waiter *w = NULL;
	uint64_t seq = atomic_load_explicit(&seg->head->seq, memory_order_relaxed) + 1;
	uint32_t i;

	for (i = 0; i < seg->nwaiters; i++)
		if (waiter_is_free(w = &seg->waiter[i]))
			break;
	if (i == seg->nwaiters)
		return WAITER_NONE;
	txn_set64(txn, &seg->head->seq, seq);
	txn_set32(txn, &w->client, client);
	txn_set64(txn, &w->ticket, seq);
	txn_set32(txn, &w->claim, CLAIM_OPEN);
	txn_set32(txn, &w->state, WAITER_WAITING);
	*ticket = seq;
	return i;
}

void
waiter_enqueued(struct seg *seg)
{
	/* Only a holder of the lock writes it; monitors read it alone. */
	atomic_store_explicit(&seg->head->waiting, load32(&seg->head->waiting) + 1,
			      memory_order_relaxed);
}

void
waiter_left(struct seg *seg)
{
	uint32_t n = load32(&seg->head->waiting);

	atomic_store_explicit(&seg->head->waiting, n > 0 ? n - 1 : 0, memory_order_relaxed);
}

void
waiter_free(struct txn *txn, uint32_t i)
{
	txn_set32(txn, &txn->seg->waiter[i].state, WAITER_FREE);
}

/* An entry that nobody will ever look at again: its caller gave up, or it names
 * an impossible client. */
static void
waiter_sweep(struct seg *seg, uint32_t i)
{
	struct txn txn;

	txn_begin(&txn, seg);
	waiter_free(&txn, i);
	txn_add64(&txn, &seg->head->counter[C_wait_timeout_count], 1);
	txn_commit(&txn);
	CRASH_POINT("waiter_swept");
	waiter_left(seg);
}

uint32_t
waiter_first(struct seg *seg)
{
	uint32_t waiting = load32(&seg->head->waiting), first = WAITER_NONE;
	uint64_t lowest = UINT64_MAX;

	/* Entries are filled from the front: stop when all that wait were seen. */
	for (uint32_t i = 0; i < seg->nwaiters && waiting > 0; i++) {
		struct shm_waiter *w = &seg->waiter[i];
		uint64_t ticket;

		if (WAITER_STATE(load32(&w->state)) != WAITER_WAITING)
			continue;
		waiting--;
		if (load32(&w->claim) == CLAIM_ABANDONED || load32(&w->client) >= seg->nclients) {
			waiter_sweep(seg, i);
			continue;
		}
		ticket = atomic_load_explicit(&w->ticket, memory_order_relaxed);
		if (ticket < lowest) {
			lowest = ticket;
			first = i;
		}
	}
	return first;
}

bool
waiter_revoke(struct seg *seg, uint32_t i)
{
	uint32_t claim = atomic_fetch_or_explicit(&seg->waiter[i].claim, 0, memory_order_acq_rel);

	CRASH_POINT("waiter_revoke");
	return claim == CLAIM_REVOKED ||
	       (claim == CLAIM_ABANDONED && atomic_compare_exchange_strong_explicit(
						&seg->waiter[i].claim, &claim, CLAIM_REVOKED,
						memory_order_acq_rel, memory_order_acquire));
}

void
waiter_nudge_all(struct seg *seg)
{
	for (uint32_t i = 0; i < seg->nwaiters; i++) {
		struct shm_waiter *w = &seg->waiter[i];

		if (waiter_is_free(w))
			continue;
		/* The word differs from what the sleeper saw, so it cannot miss it.
		 * Release: pairs with the acquire load in waiter_look. */
		(void)atomic_fetch_add_explicit(&w->state, WAITER_NUDGE, memory_order_release);
		CRASH_POINT("waiter_nudge");
		(void)futex_wake(&w->state, INT_MAX);
	}
}

uint32_t
waiter_look(const struct seg *seg, uint32_t i)
{
	/* Pairs with the release stores of txn_commit and waiter_nudge_all. */
	return atomic_load_explicit(&seg->waiter[i].state, memory_order_acquire);
}

bool
waiter_is(const struct seg *seg, uint32_t i, uint64_t ticket)
{
	return atomic_load_explicit(&seg->waiter[i].ticket, memory_order_relaxed) == ticket;
}

/* The lease of a granted entry, which the entry's reuse must not overtake. */
static struct lease
waiter_lease(const struct shm_waiter *w)
{
	return (struct lease){
	    .slot = atomic_load_explicit(&w->slot, memory_order_relaxed),
	    .word = atomic_load_explicit(&w->lease, memory_order_relaxed),
	};
}

int
waiter_take(struct seg *seg, uint32_t i, struct lease *out)
{
	struct shm_waiter *w = &seg->waiter[i];

	*out = waiter_lease(w);
	CRASH_POINT("waiter_take");
	/* Pairs with waiter_is_free: the entry is not reused before this. */
	atomic_store_explicit(&w->claim, CLAIM_TAKEN, memory_order_release);
	return out->slot < seg->nslots && slot_state(out->word) == SLOT_IN_USE ? 0 : -EIO;
}

bool
waiter_abandon(struct seg *seg, uint32_t i, struct lease *out)
{
	struct shm_waiter *w = &seg->waiter[i];
	uint32_t claim = CLAIM_ABANDONED;

	(void)atomic_exchange_explicit(&w->claim, CLAIM_ABANDONED, memory_order_acq_rel);
	CRASH_POINT("waiter_abandoned");
	if (WAITER_STATE(waiter_look(seg, i)) != WAITER_GRANTED)
		return false;
	*out = waiter_lease(w);
	return out->slot < seg->nslots && slot_state(out->word) == SLOT_IN_USE &&
	       atomic_compare_exchange_strong_explicit(&w->claim, &claim, CLAIM_TAKEN,
						       memory_order_acq_rel, memory_order_acquire);
}
