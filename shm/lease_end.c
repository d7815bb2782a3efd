/* SPDX-License-Identifier: MIT
 *
 * lease_end.c - giving back, as clients do it, and the calls of lease.h beside a
 * lease: does it still hold, the warm target, sleeping until the pool changes.
 *
 * Runs in clients, in any thread. The happy path is release_to_idle: one lock, a few
 * stores, no system call. What can go wrong on the way: the lock is held for long, the
 * VM has died or was used, somebody waits for it, enough others are idle.
 */
#include "shm/avail.h"

#define RELEASE_NS 5000000000ull /* patience for the lock */

/* The word that the slot has when its VM dies under this lease. */
static inline uint64_t
dead_word(const struct lease *lease)
{
	return slot_word(SLOT_DEAD, slot_client(lease->word), slot_generation(lease->word));
}

/* The VM had died under this lease: let go of the slot. */
static int
release_dead(struct seg *seg, const struct lease *lease, uint64_t word)
{
	struct txn txn;

	txn_begin(&txn, seg);
	avail_stage(&txn, lease->slot, avail_unleased(SLOT_EMPTY, word), now_ns());
	avail_count(&txn, C_release_count);
	txn_add64(&txn, &seg->head->ended_dead, 1);
	CRASH_POINT("release_dead_before_commit");
	txn_commit(&txn);
	idle_moved(seg, lease->slot, SLOT_DEAD, SLOT_EMPTY);
	return -EOWNERDEAD;
}

/* Under the lock: an untouched VM becomes the newest idle one, if nobody waits
 * and there is room. As in claim, the store of the word is the change. */
static bool
release_to_idle(struct seg *seg, uint32_t slot, uint64_t word, uint64_t now)
{
	struct shm_head *head = seg->head;
	struct shm_slot *s = &seg->slot[slot];
	uint64_t seq = atomic_load_explicit(&head->seq, memory_order_relaxed) + 1;

	if (atomic_load_explicit(&head->waiting, memory_order_relaxed) != 0 ||
	    idle_count(seg) >= atomic_load_explicit(&head->policy.max_idle, memory_order_relaxed))
		return false;
	CRASH_POINT("release_seq");
	atomic_store_explicit(&head->seq, seq, memory_order_relaxed);
	CRASH_POINT("release_idle_seq");
	atomic_store_explicit(&s->idle_seq, seq, memory_order_relaxed);
	CRASH_POINT("release_since");
	atomic_store_explicit(&s->since_ns, now, memory_order_relaxed);
	CRASH_POINT("release_word");
	/* Pairs with the acquire loads of lease_check and of the worker. */
	atomic_store_explicit(&s->word, avail_unleased(SLOT_IDLE, word), memory_order_release);
	CRASH_POINT("released");
	avail_tally(seg, C_release_count);
	avail_tally(seg, C_recycle_count);
	idle_push(seg, slot);
	idle_count_moved(seg, SLOT_IN_USE, SLOT_IDLE);
	return true;
}

/* Under the lock: the lease ends in whatever way. *ring: the supervisor has work. */
static int
release_locked(struct seg *seg, const struct lease *lease, bool untouched, uint64_t now, bool *ring)
{
	uint64_t word = avail_word(seg, lease->slot);
	struct txn txn;

	if (__builtin_expect(word != lease->word, 0)) {
		*ring = word == dead_word(lease);
		return *ring ? release_dead(seg, lease, word) : -ESTALE;
	}
	/* That nobody else has touched it can only be seen here, under the lock. */
	if (__builtin_expect(untouched && !avail_joined(seg, lease->slot) &&
				 release_to_idle(seg, lease->slot, word, now),
			     1))
		return 0;
	txn_begin(&txn, seg);
	avail_count(&txn, C_release_count);
	*ring = avail_end_lease(&txn, lease->slot, word);
	return 0;
}

int
lease_release(struct seg *seg, const struct lease *lease, int kick_fd)
{
	uint64_t now = avail_now_coarse();
	bool ring = false, untouched;
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (lease->slot >= seg->nslots || slot_state(lease->word) != SLOT_IN_USE)
		return -EINVAL;
	untouched = avail_untouched(seg, lease->slot);
	CRASH_POINT("release_before_lock");
	r = lock_acquire(seg, now + RELEASE_NS);
	if (r < 0)
		return r;
	r = release_locked(seg, lease, untouched, now, &ring);
	lock_release(seg);
	avail_changed(seg, true);
	CRASH_POINT("release_before_kick");
	if (ring)
		avail_kick(kick_fd);
	return r;
}

int
lease_check(const struct seg *seg, const struct lease *lease)
{
	uint64_t word;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (lease->slot >= seg->nslots)
		return -ESTALE;
	if (!lifeline_alive(seg))
		return -ENOTCONN;
	/* Pairs with the release store of the word in txn_commit. */
	word = atomic_load_explicit(&seg->slot[lease->slot].word, memory_order_acquire);
	if (word == lease->word)
		return 0;
	return word == dead_word(lease) ? -EOWNERDEAD : -ESTALE;
}

int
lease_set_warm(struct seg *seg, uint32_t count, int kick_fd)
{
	struct txn txn;
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	r = lock_acquire(seg, now_ns() + RELEASE_NS);
	if (r < 0)
		return r;
	txn_begin(&txn, seg);
	txn_set32(&txn, &seg->head->warm_target, count);
	CRASH_POINT("warm_before_commit");
	txn_commit(&txn);
	lock_release(seg);
	avail_kick(kick_fd);
	return 0;
}

uint32_t
lease_change_expect(struct seg *seg)
{
	/* Sequentially consistent: the caller's look at the counts comes after it.
	 * Pairs with avail_changed, which a releaser calls after its unlock (a
	 * read-modify-write), hence after its counts. */
	return atomic_fetch_or_explicit(&seg->head->change_seq, 1u, memory_order_seq_cst) | 1u;
}
