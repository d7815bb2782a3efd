/* SPDX-License-Identifier: MIT
 *
 * idle.h - the idle ring and the counts per state: derived data, under the lock.
 *
 * Internal to shm/. None of it is journaled: after a death it is rebuilt from
 * the slot table (repair.c). Change it after the transaction that changes the
 * state words.
 */
#ifndef VMPOOL_IDLE_H
#define VMPOOL_IDLE_H

#include "shm/crash.h"
#include "shm/lock.h"
#include "shm/slot.h"

#define IDLE_NONE UINT32_MAX

/* How many slots are idle; at most nslots whatever the segment says. */
static inline uint32_t
idle_count(const struct seg *seg)
{
	uint32_t n = atomic_load_explicit(&seg->head->count[SLOT_IDLE], memory_order_relaxed);

	return MIN(n, seg->nslots);
}

/* Place i of the ring, counted from the oldest; i < nslots. */
static inline _Atomic uint32_t *
idle_place(struct seg *seg, uint32_t i)
{
	uint32_t p = atomic_load_explicit(&seg->head->idle_head, memory_order_relaxed);

	if (p >= seg->nslots)
		p = 0;
	p += i;
	if (p >= seg->nslots)
		p -= seg->nslots;
	return &seg->idle[p];
}

/* The slot at place i if it is a slot and idle, else IDLE_NONE. */
static inline uint32_t
idle_at(struct seg *seg, uint32_t i)
{
	uint32_t slot = atomic_load_explicit(idle_place(seg, i), memory_order_relaxed);

	if (slot >= seg->nslots || slot_state(atomic_load_explicit(
				       &seg->slot[slot].word, memory_order_relaxed)) != SLOT_IDLE)
		return IDLE_NONE;
	return slot;
}

/* The newest idle slot; IDLE_NONE if there is none, or the ring contradicts the
 * slot table: idle_newest knows what to do then. */
static inline uint32_t
idle_top(struct seg *seg)
{
	uint32_t n = idle_count(seg);

	return __builtin_expect(n == 0, 0) ? IDLE_NONE : idle_at(seg, n - 1);
}

/* The newest or oldest idle slot, IDLE_NONE if there is none. Its state word is
 * IDLE: a ring that contradicts the slot table is rebuilt first. */
uint32_t idle_newest(struct seg *seg);
uint32_t idle_oldest(struct seg *seg);

/* Take a slot out of the ring (any place; the ends are cheap), or append it as
 * the newest. Does not touch the counts. */
void idle_remove(struct seg *seg, uint32_t slot);
static inline void
idle_push(struct seg *seg, uint32_t slot)
{
	uint32_t n = idle_count(seg);

	CRASH_POINT("idle_push");
	/* One that comes and goes is there already: leave the cache line alone. */
	if (n < seg->nslots &&
	    atomic_load_explicit(idle_place(seg, n), memory_order_relaxed) != slot)
		atomic_store_explicit(idle_place(seg, n), slot, memory_order_relaxed);
}

/* A slot went from one state to the other: the counts alone. */
static inline void
idle_count_moved(struct seg *seg, enum slot_state from, enum slot_state to)
{
	_Atomic uint32_t *count = seg->head->count;

	CRASH_POINT("count_from");
	/* Plain load and store: only a holder of the lock writes them. Monitors
	 * read them alone; they pair with nothing. */
	atomic_store_explicit(&count[from],
			      atomic_load_explicit(&count[from], memory_order_relaxed) - 1,
			      memory_order_relaxed);
	CRASH_POINT("count_to");
	atomic_store_explicit(&count[to],
			      atomic_load_explicit(&count[to], memory_order_relaxed) + 1,
			      memory_order_relaxed);
	CRASH_POINT("counted");
}

/* The same with the ring, where IDLE is left or entered. */
void idle_moved(struct seg *seg, uint32_t slot, enum slot_state from, enum slot_state to);

#endif
