/* SPDX-License-Identifier: MIT
 *
 * idle.c - the idle ring: slot numbers from the oldest to the newest.
 *
 * Runs under the pool lock. Owns the idle array, head.idle_head and
 * head.count[]. Every number read from there is checked: it is the segment's.
 */
#include "shm/idle.h"

uint32_t
idle_newest(struct seg *seg)
{
	uint32_t slot = idle_top(seg);

	if (__builtin_expect(slot != IDLE_NONE, 1) || idle_count(seg) == 0)
		return slot;
	repair_rebuild(seg);
	return idle_top(seg);
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
idle_moved(struct seg *seg, uint32_t slot, enum slot_state from, enum slot_state to)
{
	if ((unsigned)from >= SLOT_STATES || (unsigned)to >= SLOT_STATES)
		return;
	if (from == SLOT_IDLE)
		idle_remove(seg, slot);
	else if (to == SLOT_IDLE)
		idle_push(seg, slot);
	if (from != to)
		idle_count_moved(seg, from, to);
}
