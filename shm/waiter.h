/* SPDX-License-Identifier: MIT
 *
 * waiter.h - the table of callers that wait for a VM.
 *
 * Internal to shm/. state, client, ticket, lease and slot of an entry
 * change under the pool lock only, through the journal; claim is the caller's,
 * and decides, without the lock, what became of the wait (see waiter.c).
 */
#ifndef VMPOOL_WAITER_H
#define VMPOOL_WAITER_H

#include "shm/lease.h"
#include "shm/lock.h"

#define WAITER_NONE UINT32_MAX

/* Under the lock: stage a new entry at the end of the queue. Its index and
 * *ticket, or WAITER_NONE when the table is full. waiter_enqueued follows the
 * commit. */
uint32_t waiter_enqueue(struct txn *txn, uint32_t client, uint64_t *ticket);
void waiter_enqueued(struct seg *seg);

/* Under the lock: the waiter that came first, WAITER_NONE if nobody waits.
 * Removes abandoned entries on the way. */
uint32_t waiter_first(struct seg *seg);

/* Under the lock: stage that entry i becomes FREE; waiter_left follows the
 * commit if it was WAITING. */
void waiter_free(struct txn *txn, uint32_t i);
void waiter_left(struct seg *seg);

/* Under the lock, after a grant to entry i was committed: did its caller give
 * up at the same moment? Then the grant is the lock holder's again. */
bool waiter_revoke(struct seg *seg, uint32_t i);

/* Make every caller that waits, or was granted a VM, look again. No lock. */
void waiter_nudge_all(struct seg *seg);

/* The caller, without the lock. Its entry's state word (acquire: GRANTED shows
 * lease and slot); is entry i still the wait numbered ticket; take a grant that
 * was seen (0, or -EIO when the segment has nonsense there); give up: true if a
 * grant came first and is now taken. */
uint32_t waiter_look(const struct seg *seg, uint32_t i);
bool waiter_is(const struct seg *seg, uint32_t i, uint64_t ticket);
int waiter_take(struct seg *seg, uint32_t i, struct lease *out);
bool waiter_abandon(struct seg *seg, uint32_t i, struct lease *out);

#endif
