/* SPDX-License-Identifier: MIT
 *
 * slot.c - the table of a slot's legal transitions and who makes them.
 *
 * Runs in every process that attaches. Pure functions, owns nothing.
 */
#include "shm/slot.h"

/* EMPTY -> STARTING -> IDLE <-> IN_USE -> RESETTING -> IDLE or EMPTY; a VM that
 * ends by itself goes to EMPTY, or under a lease to DEAD until the client lets go. */
static const uint8_t legal[SLOT_STATES][SLOT_STATES] = {
    [SLOT_EMPTY] = {[SLOT_STARTING] = ACTOR_SUPERVISOR},
    [SLOT_STARTING] =
	{
	    [SLOT_IDLE] = ACTOR_SUPERVISOR,
	    /* ready, and given to the first waiter, or to whom it was made for */
	    [SLOT_IN_USE] = ACTOR_SUPERVISOR,
	    [SLOT_EMPTY] = ACTOR_SUPERVISOR,
	},
    [SLOT_IDLE] =
	{
	    [SLOT_IN_USE] = ACTOR_CLIENT,
	    /* expired, doomed; by a client: over max-idle, or expired when it looked */
	    [SLOT_RESETTING] = ACTOR_SUPERVISOR | ACTOR_CLIENT,
	    [SLOT_EMPTY] = ACTOR_SUPERVISOR,
	},
    [SLOT_IN_USE] =
	{
	    /* by the supervisor: the leases of a dead client, and waiters that gave up */
	    [SLOT_IN_USE] = ACTOR_SUPERVISOR | ACTOR_CLIENT, /* straight to the first waiter */
	    [SLOT_IDLE] = ACTOR_SUPERVISOR | ACTOR_CLIENT,
	    [SLOT_RESETTING] = ACTOR_SUPERVISOR | ACTOR_CLIENT,
	    [SLOT_DEAD] = ACTOR_SUPERVISOR,
	},
    [SLOT_RESETTING] =
	{
	    [SLOT_IDLE] = ACTOR_SUPERVISOR,
	    [SLOT_IN_USE] = ACTOR_SUPERVISOR,
	    [SLOT_EMPTY] = ACTOR_SUPERVISOR,
	},
    [SLOT_DEAD] = {[SLOT_EMPTY] = ACTOR_SUPERVISOR | ACTOR_CLIENT},
};

bool
slot_legal(enum slot_state from, enum slot_state to, enum slot_actor actor)
{
	if ((unsigned)from >= SLOT_STATES || (unsigned)to >= SLOT_STATES)
		return false;
	return (legal[from][to] & (unsigned)actor) != 0;
}

const char *
slot_state_name(enum slot_state state)
{
	static const char *const names[SLOT_STATES] = {
	    [SLOT_EMPTY] = "empty",   [SLOT_STARTING] = "starting",   [SLOT_IDLE] = "idle",
	    [SLOT_IN_USE] = "in_use", [SLOT_RESETTING] = "resetting", [SLOT_DEAD] = "dead",
	};

	return (unsigned)state < SLOT_STATES ? names[state] : "corrupt";
}
