/* SPDX-License-Identifier: MIT
 *
 * txn.c - the journal: a handful of words changed as one, whoever dies.
 *
 * Runs wherever the pool lock is held. Owns head.journal.
 *
 * A death is a SIGKILL of the writing process: what it had stored, in program
 * order, is what the next holder of the lock sees (each store below is a
 * release, so neither the compiler nor the machine may move an earlier one
 * behind it). The orders that matter, and the acquire loads in txn_replay that
 * they pair with:
 *   entries before n      whoever sees n sees all entries
 *   n before the words    whoever sees a changed word finds the whole change
 *   words before n = 0    whoever finds no journal finds all words changed
 *   n = 0 before entries  the next transaction's entries are not taken for these
 */
#include "shm/crash.h"
#include "shm/lock.h"

void
txn_add64(struct txn *txn, _Atomic uint64_t *word, uint64_t delta)
{
	for (uint32_t i = txn->n; i-- > 0;)
		if (txn->e[i].word == (void *)word) {
			txn->e[i].value += delta;
			return;
		}
	txn_stage(txn, word, 8, atomic_load_explicit(word, memory_order_relaxed) + delta);
}

void
txn_add32(struct txn *txn, _Atomic uint32_t *word, uint32_t delta)
{
	for (uint32_t i = txn->n; i-- > 0;)
		if (txn->e[i].word == (void *)word) {
			txn->e[i].value += delta;
			return;
		}
	txn_stage(txn, word, 4, atomic_load_explicit(word, memory_order_relaxed) + delta);
}

static inline void
word_store(void *word, uint32_t size, uint64_t value)
{
	if (size == 8)
		atomic_store_explicit((_Atomic uint64_t *)word, value, memory_order_release);
	else
		atomic_store_explicit((_Atomic uint32_t *)word, (uint32_t)value,
				      memory_order_release);
}

void
txn_commit(struct txn *txn)
{
	struct shm_journal *j = &txn->seg->head->journal;
	uintptr_t base = (uintptr_t)txn->seg->head;

	for (uint32_t i = 0; i < txn->n; i++) {
		uint64_t place = (uintptr_t)txn->e[i].word - base;

		CRASH_POINT("txn_entry");
		atomic_store_explicit(&j->e[i].place, place | (uint64_t)txn->e[i].size << 32,
				      memory_order_release);
		atomic_store_explicit(&j->e[i].value, txn->e[i].value, memory_order_release);
	}
	CRASH_POINT("txn_before_commit");
	atomic_store_explicit(&j->n, txn->n, memory_order_release);
	CRASH_POINT("txn_committed");
	/* From the private copy: the journal in the segment is for the repair only. */
	for (uint32_t i = 0; i < txn->n; i++) {
		CRASH_POINT("txn_apply");
		word_store(txn->e[i].word, txn->e[i].size, txn->e[i].value);
	}
	CRASH_POINT("txn_applied");
	atomic_store_explicit(&j->n, 0, memory_order_release);
	CRASH_POINT("txn_cleared");
	txn->n = 0;
}

uint32_t
txn_replay(struct seg *seg)
{
	struct shm_journal *j = &seg->head->journal;
	char *base = (char *)seg->head;
	const uint64_t low = offsetof(struct shm_head, seq);
	const uint64_t high = (uint64_t)((char *)seg->chan - base);
	uint64_t n = atomic_load_explicit(&j->n, memory_order_acquire);
	uint32_t done = 0;

	if (n > JOURNAL_MAX)
		n = 0;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t place = atomic_load_explicit(&j->e[i].place, memory_order_acquire);
		uint64_t value = atomic_load_explicit(&j->e[i].value, memory_order_acquire);
		uint64_t off = place & UINT32_MAX, size = place >> 32;

		CRASH_POINT("txn_replay_entry");
		if ((size != 4 && size != 8) || off % size != 0 || off < low || off + size > high)
			continue;
		word_store(base + off, (uint32_t)size, value);
		done++;
	}
	CRASH_POINT("txn_replayed");
	atomic_store_explicit(&j->n, 0, memory_order_release);
	CRASH_POINT("txn_replay_cleared");
	return done;
}
