/* SPDX-License-Identifier: MIT
 *
 * lock.h - the pool lock, its repair, and the journal under it.
 *
 * A robust futex after the kernel's own protocol, rather than a pthread mutex:
 * a robust pthread mutex keeps list pointers inside itself, in the segment,
 * and glibc follows them at unlock; whoever scribbles there crashes the holder.
 * Here the thread's robust list (which glibc registered) only gets the lock's
 * address as its pending operation while the lock is wanted or held, so the
 * kernel finds a dead holder by private memory alone. A thread holds at most
 * one pool lock, and touches no robust pthread mutex meanwhile.
 *
 * A lock call that finds its holder dead repairs the pool before it returns: a
 * committed journal is applied, everything derived is rebuilt from the slot
 * and waiter tables, lock_recovery_count grows by one, and all waiters are
 * woken to look again. No caller can forget it.
 */
#ifndef VMPOOL_LOCK_H
#define VMPOOL_LOCK_H

#include "shm/segment.h"

#define LOCK_TRY 0ull /* deadline: do not wait at all */
#define LOCK_FOREVER UINT64_MAX

/* Take the pool lock, waiting until deadline_ns (CLOCK_MONOTONIC, now_ns()).
 * 0; -EBUSY (LOCK_TRY); -ETIMEDOUT; -EDEADLK: this thread has it already;
 * -ENOTCONN: it was not to be had for a while, and the supervisor is dead;
 * -ENOTSUP: a thread without a robust list (made by a bare clone). The
 * supervisor uses LOCK_TRY only: it never sleeps on a lock that a client may
 * hold. Every contender must live in one PID namespace. A child made by fork()
 * may take the lock too. */
int lock_acquire(struct seg *seg, uint64_t deadline_ns) must_check;
void lock_release(struct seg *seg);

/* Thread id of the present holder, 0 = free. A guess by the time it is read. */
int lock_holder(const struct seg *seg);

/* The lock is marked as left behind by a dead holder if it still names this thread,
 * so that the next to take it repairs. For a word that somebody scribbled on: a
 * living holder would lose the lock under its hands. */
void lock_break(struct seg *seg, int tid);

/* One journaled change of words between head.seq and chan_off. Stage with
 * txn_set and txn_add, then txn_commit applies all of it or, if this process
 * dies, the next lock call does, or none of it. The lock is held throughout. A
 * staged value is not visible to reads before the commit, except through
 * txn_add, which adds up. At most JOURNAL_MAX words; setting one twice counts
 * twice. Staging happens in private memory: nobody else can alter it. */
struct txn {
	struct seg *seg;
	uint32_t n;
	struct {
		void *word;
		uint64_t value;
		uint32_t size;
	} e[JOURNAL_MAX];
};

static inline void
txn_begin(struct txn *txn, struct seg *seg)
{
	txn->seg = seg;
	txn->n = 0;
}

static inline void
txn_stage(struct txn *txn, void *word, uint32_t size, uint64_t value)
{
	assert(txn->n < JOURNAL_MAX);
	txn->e[txn->n].word = word;
	txn->e[txn->n].size = size;
	txn->e[txn->n++].value = value;
}

static inline void
txn_set64(struct txn *txn, _Atomic uint64_t *word, uint64_t value)
{
	txn_stage(txn, word, 8, value);
}

static inline void
txn_set32(struct txn *txn, _Atomic uint32_t *word, uint32_t value)
{
	txn_stage(txn, word, 4, value);
}

void txn_add64(struct txn *txn, _Atomic uint64_t *word, uint64_t delta);
void txn_add32(struct txn *txn, _Atomic uint32_t *word, uint32_t delta);
void txn_commit(struct txn *txn);

/* Repair: apply a journal that a dead holder committed. Entries that are not
 * words of the guarded region are skipped. Returns how many were applied. */
uint32_t txn_replay(struct seg *seg);

/* Rebuild what is derived from the slot and waiter tables, under the lock (idle
 * ring, counts, waiting; hit_count, release_count, recycle_count); slots and waiters with
 * impossible contents are quarantined (RESETTING, FREE). Part of the repair; also called when a
 * lock holder finds the derived data contradicting the tables. */
void repair_rebuild(struct seg *seg);

/* The whole repair, as lock_acquire runs it. */
void repair_run(struct seg *seg);

#endif
