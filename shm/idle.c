/* SPDX-License-Identifier: MIT
 *
 * idle.c - the idle ring: slot numbers from the oldest to the newest.
 *
 * Runs under the pool lock. Owns the idle array, head.idle_head and
 * head.count[]. Every number read from there is checked: it is the segment's.
 */
#include "shm/idle.h"
#include "shm/crash.h"

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

uint32_t
idle_newest(struct seg *seg)
{
	uint32_t n = idle_count(seg), slot;

	if (n == 0)
		return IDLE_NONE;
	slot = idle_at(seg, n - 1);
	if (__builtin_expect(slot != IDLE_NONE, 1))
		return slot;
	repair_rebuild(seg);
	n = idle_count(seg);
	return n == 0 ? IDLE_NONE : idle_at(seg, n - 1);
}

uint32_t
idle_oldest(struct seg *seg)
{
	uint32_t slot;

	if (idle_count(seg) == 0)
		return IDLE_NONE;
	slot = idle_at(seg, 0);
	if (slot != IDLE_NONE)
		return slot;
	repair_rebuild(seg);
	return idle_count(seg) == 0 ? IDLE_NONE : idle_at(seg, 0);
}

void
idle_remove(struct seg *seg, uint32_t slot)
{
	uint32_t n = idle_count(seg), i, head;

	if (n == 0)
		return;
	/* The newest leaves by the smaller count alone. */
	if (atomic_load_explicit(idle_place(seg, n - 1), memory_order_relaxed) == slot)
		return;
	for (i = 0; i < n; i++)
		if (atomic_load_explicit(idle_place(seg, i), memory_order_relaxed) == slot)
			break;
	if (i == n)
		return;
	for (; i > 0; i--) {
		uint32_t older = atomic_load_explicit(idle_place(seg, i - 1), memory_order_relaxed);

		CRASH_POINT("idle_shift");
		atomic_store_explicit(idle_place(seg, i), older, memory_order_relaxed);
	}
	CRASH_POINT("idle_head");
	head = atomic_load_explicit(&seg->head->idle_head, memory_order_relaxed) + 1;
	atomic_store_explicit(&seg->head->idle_head, head >= seg->nslots ? 0 : head,
			      memory_order_relaxed);
}

void
idle_push(struct seg *seg, uint32_t slot)
{
	uint32_t n = idle_count(seg);

	CRASH_POINT("idle_push");
	if (n < seg->nslots)
		atomic_store_explicit(idle_place(seg, n), slot, memory_order_relaxed);
}

void
idle_moved(struct seg *seg, uint32_t slot, enum slot_state from, enum slot_state to)
{
	_Atomic uint32_t *count = seg->head->count;

	if ((unsigned)from >= SLOT_STATES || (unsigned)to >= SLOT_STATES)
		return;
	if (from == SLOT_IDLE)
		idle_remove(seg, slot);
	else if (to == SLOT_IDLE)
		idle_push(seg, slot);
	if (from == to)
		return;
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
