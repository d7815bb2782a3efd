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

/* The newest or oldest idle slot, IDLE_NONE if there is none. Its state word is
 * IDLE: a ring that contradicts the slot table is rebuilt first. */
uint32_t idle_newest(struct seg *seg);
uint32_t idle_oldest(struct seg *seg);

/* Take a slot out of the ring (any place; the ends are cheap), or append it as
 * the newest. Does not touch the counts. */
void idle_remove(struct seg *seg, uint32_t slot);
void idle_push(struct seg *seg, uint32_t slot);

/* A slot went from one state to another: adjust the counts, and the ring where
 * IDLE is left or entered. */
void idle_moved(struct seg *seg, uint32_t slot, enum slot_state from, enum slot_state to);

#endif
