/* SPDX-License-Identifier: MIT
 *
 * lease.h - what can happen to the VMs of a pool, each as one critical section.
 *
 * Client calls may wait until their deadline. Supervisor calls (sup_*) never
 * wait: -EBUSY means that the lock is held now; the supervisor tries again
 * from its event loop. Every call checks the state it finds and refuses with
 * -ESTALE (someone else was first) rather than making an illegal transition.
 */
#ifndef VMPOOL_LEASE_H
#define VMPOOL_LEASE_H

#include "shm/segment.h"

/* A claim: which slot, and its state word then (state, client, generation). */
struct lease {
	uint32_t slot;
	uint64_t word;
};

/* --- clients ---------------------------------------------------------------- */

/* The fast half of borrowing: the newest idle VM, if the lock is free and nothing else
 * has to be done on the way. 0 with *out; -EAGAIN: call lease_acquire, which knows
 * why. Its time is measured now and then, and counted in acquire_ns each time. */
int lease_try(struct seg *seg, uint32_t client, struct lease *out) must_check;

/* Borrow: the newest idle VM (hit), else queue in arrival order until granted
 * (miss), at most until deadline_ns (LOCK_TRY: only an idle VM; LOCK_FOREVER).
 * kick_fd is the supervisor's doorbell eventfd (-1: none), rung once when queueing
 * so that a VM is started, and when expired or dead VMs had to make way. start_ns:
 * when the caller's call began (now_ns), for acquire_ns and the VM's age.
 * 0 with *out; -ETIMEDOUT; -EINTR (signal; no longer queued); -EAGAIN (too many
 * waiters, or LOCK_TRY and none idle); -ENOTCONN (supervisor dead); -ESHUTDOWN
 * (draining); -EIO (starts keep failing: head.failing reached LEASE_FAILING
 * while waiting and nothing was in use). */
int lease_acquire(struct seg *seg, uint32_t client, int kick_fd, uint64_t start_ns,
		  uint64_t deadline_ns, struct lease *out) must_check;
#define LEASE_FAILING 3u

/* Give back. An untouched VM (its request ring was never written) is idle
 * again, or goes to the first waiter; a touched one goes to RESETTING and the
 * supervisor is rung; over max-idle the oldest idle one goes to RESETTING; a
 * DEAD slot becomes EMPTY. 0; -EOWNERDEAD if the VM had died; -ESTALE if the
 * lease has ended already; -ETIMEDOUT if the lock cannot be had in 5 s; -ENOTCONN
 * if it cannot because the supervisor is dead. */
int lease_release(struct seg *seg, const struct lease *lease, int kick_fd) must_check;

/* 0 while the lease holds; -EOWNERDEAD: the VM died; -ESTALE: ended; -ENOTCONN:
 * supervisor dead. No lock, one load or two. */
int lease_check(const struct seg *seg, const struct lease *lease) must_check;

/* Set warm_target to count and ring the supervisor. 0 or -ETIMEDOUT. */
int lease_set_warm(struct seg *seg, uint32_t count, int kick_fd) must_check;

/* To sleep until a VM becomes idle or a start fails: take the expected value,
 * look at the counts, then lifeline_wait on head.change_seq with that value. */
uint32_t lease_change_expect(struct seg *seg) must_check;

/* --- the supervisor ---------------------------------------------------------- */

/* EMPTY -> STARTING, if the total allows; *slot is the lowest empty one. The
 * slot's channel page and ring positions are reset. -ENOSPC: max-total reached. */
int sup_start(struct seg *seg, uint32_t *slot, uint64_t *generation) must_check;

/* The worker of a STARTING slot is pid. */
int sup_set_worker(struct seg *seg, uint32_t slot, uint32_t pid) must_check;

/* STARTING -> IDLE, or straight IN_USE of the first waiter, which is woken. Counts
 * spawn_count, spawn_ns and boot_ns (the worker's figure). Over max-idle the oldest
 * idle VM goes to RESETTING: look at the slots afterwards. */
int sup_ready(struct seg *seg, uint32_t slot, uint64_t boot_ns) must_check;

/* STARTING -> IN_USE of this client, for a VM that was made for it alone: a copy of
 * one that somebody has used, so that it counts as touched. Counts as sup_ready, and as a miss.
 * *word: the lease. -ESRCH: there is no such client. */
int sup_lend(struct seg *seg, uint32_t slot, uint32_t client, uint64_t boot_ns,
	     uint64_t *word) must_check;

/* The same for a VM that was put back to the template after a lease (RESETTING).
 * Counts recycle_count, reset_count, reset_ns and the memory pages it had written. */
int sup_reset_done(struct seg *seg, uint32_t slot, uint64_t pages) must_check;

/* IDLE -> RESETTING because it expired. Counts evict_count. */
int sup_evict(struct seg *seg, uint32_t slot) must_check;

/* The newest idle VM -> RESETTING, to be health-checked; -ENOENT: none is idle. And
 * back: healthy, like sup_reset_done; else it stays RESETTING, to be ended. Counts
 * health_check_count and health_fail_count; so does sup_worker_gone in between. */
int sup_check_begin(struct seg *seg, uint32_t *slot) must_check;
int sup_check_end(struct seg *seg, uint32_t slot, bool ok) must_check;

/* The worker of the slot is gone (reaped). STARTING, IDLE, RESETTING -> EMPTY;
 * IN_USE -> DEAD, its client is woken. Counts spawn_fail_count, vm_died_count,
 * discard_count or a failed check according to the state. *was (may be NULL): the state found. */
int sup_worker_gone(struct seg *seg, uint32_t slot, enum slot_state *was) must_check;

/* A client has attached or left. Leaving takes all its leases back (IN_USE ->
 * RESETTING, or IDLE when untouched; DEAD -> EMPTY), its waiters out of the
 * queue, and frees its id; counts reclaim_count. */
int sup_client_new(struct seg *seg, uint32_t pid, uint32_t *client) must_check;
int sup_client_gone(struct seg *seg, uint32_t client) must_check;

/* Others join the lease of this generation: from now on its VM counts as touched, though
 * its holder's ring may never be written. -ESTALE: the lease has ended. */
int sup_join(struct seg *seg, uint32_t slot, uint64_t generation) must_check;

/* POOL_DRAINING: no new claims; every waiter is woken with -ESHUTDOWN. */
int sup_drain(struct seg *seg) must_check;

/* Starts have failed `failing` times in a row, for this reason ("" and 0 when
 * one succeeded); wakes the waiters so that they can give up. */
void sup_failing(struct seg *seg, uint32_t failing, const char *why);

#endif
