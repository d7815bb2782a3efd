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

#include "shm/crash.h"
#include "shm/futex.h"
#include "shm/segment.h"

#define LOCK_TRY 0ull /* deadline: do not wait at all */
#define LOCK_FOREVER UINT64_MAX

/* This thread as the kernel knows it: its robust list and its id. For the functions
 * below alone; lock_self_init fills it, once per thread. */
extern __thread struct lock_self {
	struct robust_list_head *list;
	uint32_t tid; /* 0: not known yet */
} lock_self __attribute__((tls_model("initial-exec"), visibility("hidden")));
int lock_self_init(void) must_check;

/* Tell the kernel which word this thread is busy with; NULL: none. The fences
 * keep the compiler from moving it over the atomic operations on the word: only
 * the kernel reads it, in the context of this thread. */
static inline void
lock_pending(const _Atomic uint32_t *word)
{
	struct robust_list_head *list = lock_self.list;
	struct robust_list *volatile *pending = &list->list_op_pending;

	atomic_signal_fence(memory_order_seq_cst);
	*pending = word == NULL
		       ? NULL
		       : (struct robust_list *)((uintptr_t)word - (uintptr_t)list->futex_offset);
	atomic_signal_fence(memory_order_seq_cst);
}

static inline bool
lock_swap(_Atomic uint32_t *word, uint32_t from, uint32_t to)
{
	/* Acquire: pairs with the exchange in lock_release. */
	return atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_acquire,
						       memory_order_relaxed);
}

/* Take the pool lock if nobody has it, waits for it or died with it: true. */
static inline bool
lock_try(struct seg *seg)
{
	_Atomic uint32_t *word = &seg->head->lock.word;

	if (__builtin_expect(lock_self.tid == 0, 0) && lock_self_init() < 0)
		return false;
	lock_pending(word);
	CRASH_POINT("lock_pending");
	if (__builtin_expect(lock_swap(word, 0, lock_self.tid), 1))
		return true;
	/* If this very thread has it, its death must still be noticed. */
	if ((atomic_load_explicit(word, memory_order_relaxed) & FUTEX_TID_MASK) != lock_self.tid)
		lock_pending(NULL);
	return false;
}

/* Take the pool lock, waiting until deadline_ns (CLOCK_MONOTONIC, now_ns()).
 * 0; -EBUSY (LOCK_TRY); -ETIMEDOUT; -EDEADLK: this thread has it already;
 * -ENOTCONN: it was not to be had for a while, and the supervisor is dead;
 * -ENOTSUP: a thread without a robust list (made by a bare clone). The
 * supervisor uses LOCK_TRY only: it never sleeps on a lock that a client may
 * hold. Every contender must live in one PID namespace. A child made by fork()
 * may take the lock too. lock_acquire_slowly is its other half, after lock_try. */
int lock_acquire_slowly(struct seg *seg, uint64_t deadline_ns) must_check;
static inline int must_check
lock_acquire(struct seg *seg, uint64_t deadline_ns)
{
	return __builtin_expect(lock_try(seg), 1) ? 0 : lock_acquire_slowly(seg, deadline_ns);
}

static inline void
lock_release(struct seg *seg)
{
	_Atomic uint32_t *word = &seg->head->lock.word;
	uint32_t old;

	CRASH_POINT("lock_before_release");
	/* Release: pairs with lock_swap of the next holder. */
	old = atomic_exchange_explicit(word, 0, memory_order_release);
	CRASH_POINT("lock_released");
	if (__builtin_expect((old & FUTEX_WAITERS) != 0, 0))
		(void)futex_wake(word, 1);
	CRASH_POINT("lock_woken");
	lock_pending(NULL);
}

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
