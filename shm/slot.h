/* SPDX-License-Identifier: MIT
 *
 * slot.h - the state word of a slot and its legal transitions.
 */
#ifndef VMPOOL_SLOT_H
#define VMPOOL_SLOT_H

#include "shm/base.h"
#include "shm/layout.h"

#define SLOT_GENERATION_MAX ((1ull << 40) - 1)

/* Who may make a transition. */
enum slot_actor {
	ACTOR_SUPERVISOR = 1,
	ACTOR_CLIENT = 2,
};

static inline uint64_t
slot_word(enum slot_state state, uint32_t client, uint64_t generation)
{
	return (uint64_t)state | (uint64_t)(client & 0xffffu) << 8 | generation << 24;
}
static inline enum slot_state
slot_state(uint64_t word)
{
	return (enum slot_state)(word & 0xffu);
}
static inline uint32_t
slot_client(uint64_t word)
{
	return (uint32_t)(word >> 8) & 0xffffu;
}
static inline uint64_t
slot_generation(uint64_t word)
{
	return word >> 24;
}

/* May this actor move a slot from one state to the other? The one table. Any
 * value of from and to is fine (false for unknown ones). */
bool slot_legal(enum slot_state from, enum slot_state to, enum slot_actor actor);

/* "empty", "starting", "idle", "in_use", "resetting", "dead"; "corrupt" otherwise. */
const char *slot_state_name(enum slot_state state);

#endif
