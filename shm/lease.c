/* SPDX-License-Identifier: MIT
 *
 * lease.c - borrowing, as clients do it.
 *
 * Runs in clients, in any thread. The happy path is lease_try: one lock, a few
 * stores, no system call. What can go wrong on the way, and is lease_acquire's: the
 * lock is held (wait, at most until the deadline), the derived data are wrong
 * (rebuilt by idle.c), idle VMs have expired or died, nothing is idle (wait_grant),
 * the supervisor dies or drains, the caller gives up.
 */
#include "shm/avail.h"
#include "shm/hist.h"
#include "shm/waiter.h"

#define MS 1000000ull
/* With LOCK_TRY no VM is waited for; the lock itself is, for a moment. */
#define TRY_NS (20 * MS)
/* A caller that gives up waits this long for the lock to leave the queue in order. */
#define CANCEL_NS (5 * MS)

/* A place in the queue: entry of the waiter table and ticket. */
struct place {
	uint32_t index;
	uint64_t ticket;
	bool evicted; /* expired VMs made way: the supervisor has work */
};

static inline uint64_t
lock_deadline(uint64_t deadline_ns)
{
	return deadline_ns == LOCK_TRY ? now_ns() + TRY_NS : deadline_ns;
}

/* May anyone borrow from this pool at all? */
static inline int
pool_open(const struct seg *seg)
{
	/* A supervisor that has ended in order has drained, too: that it is gone says more. */
	if (!lifeline_alive(seg))
		return -ENOTCONN;
	/* Pairs with sup_drain, under the lock. */
	return atomic_load_explicit(&seg->head->state, memory_order_relaxed) == POOL_RUNNING
		   ? 0
		   : -ESHUTDOWN;
}

/* Has this idle slot's VM been idle for longer than max-idle-time? */
static inline bool
expired(const struct seg *seg, uint32_t slot, uint64_t now)
{
	uint64_t life =
	    atomic_load_explicit(&seg->head->policy.max_idle_time, memory_order_relaxed) *
	    (1000 * MS);
	uint64_t since = atomic_load_explicit(&seg->slot[slot].since_ns, memory_order_relaxed);

	return life != 0 && avail_age(now, since) > life;
}

/* The newest idle slot whose worker is not dead, IDLE_NONE if there is none. */
static uint32_t
idle_alive(struct seg *seg, bool *evicted)
{
	for (uint32_t i = 0; i < seg->nslots; i++) {
		uint32_t slot = idle_newest(seg);

		if (slot == IDLE_NONE || !lifeline_severed(&seg->slot[slot].life))
			return slot;
		avail_evict(seg, slot, avail_word(seg, slot), C_vm_died_count);
		*evicted = true;
	}
	return IDLE_NONE;
}

/* The newest idle slot that may go out, IDLE_NONE if there is none. An expired
 * one goes out only if min-idle keeps it; others make way. (The newest has
 * expired: all have.) */
static uint32_t
idle_fit(struct seg *seg, uint64_t now, bool *evicted)
{
	uint32_t slot = idle_alive(seg, evicted), min;

	if (slot == IDLE_NONE || !expired(seg, slot, now))
		return slot;
	min = atomic_load_explicit(&seg->head->policy.min_idle, memory_order_relaxed);
	for (uint32_t i = 0; i < seg->nslots && idle_count(seg) > min; i++) {
		uint32_t oldest = idle_oldest(seg);

		if (oldest == IDLE_NONE)
			break;
		avail_evict(seg, oldest, avail_word(seg, oldest), C_evict_count);
		*evicted = true;
	}
	return idle_alive(seg, evicted);
}

/* Under the lock: the newest idle VM, whose word this is, becomes this client's. No
 * journal: the one store of the word is the change, since_ns before it does no harm
 * to an idle slot, and everything after it is derived (shm/README.md). */
static inline void
claim(struct seg *seg, uint32_t slot, uint64_t word, uint32_t client, uint64_t start_ns,
      struct lease *out)
{
	out->slot = slot;
	out->word = avail_leased(word, client);
	CRASH_POINT("claim_since");
	atomic_store_explicit(&seg->slot[slot].since_ns, start_ns, memory_order_relaxed);
	CRASH_POINT("claim_word");
	/* Pairs with the acquire loads of lease_check and of the worker. */
	atomic_store_explicit(&seg->slot[slot].word, out->word, memory_order_release);
	CRASH_POINT("claimed");
	avail_tally(seg, C_hit_count);
	/* The newest leaves the ring by the smaller count alone. */
	idle_count_moved(seg, SLOT_IDLE, SLOT_IN_USE);
}

/* Under the lock: the newest idle VM that may go out. */
static int
claim_idle(struct seg *seg, uint32_t client, uint64_t start_ns, bool *evicted, struct lease *out)
{
	uint32_t slot = idle_fit(seg, start_ns, evicted);
	uint64_t word;

	if (slot == IDLE_NONE)
		return -EAGAIN;
	word = avail_word(seg, slot);
	if (slot_state(word) != SLOT_IDLE)
		return -EAGAIN;
	claim(seg, slot, word, client, start_ns, out);
	return 0;
}

/* Under the lock: the same if there is nothing else to do. */
static inline int
claim_top(struct seg *seg, uint32_t client, uint64_t start_ns, struct lease *out)
{
	uint32_t slot = pool_open(seg) == 0 ? idle_top(seg) : IDLE_NONE;

	if (slot == IDLE_NONE || lifeline_severed(&seg->slot[slot].life) ||
	    expired(seg, slot, start_ns))
		return -EAGAIN;
	claim(seg, slot, avail_word(seg, slot), client, start_ns, out);
	return 0;
}

/* Of the claims that meet no obstacle, this thread times every TIMED_EACH-th, and
 * counts it for the others too: reading a clock twice costs as much as the claim. */
#define TIMED_EACH 16u
static __thread struct {
	uint32_t left; /* claims to come that count as `ns` */
	uint64_t ns;
} timed __attribute__((tls_model("initial-exec")));

int
lease_try(struct seg *seg, uint32_t client, struct lease *out)
{
	bool timing = timed.left == 0;
	uint64_t start = timing ? now_ns() : avail_now_coarse();
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (client >= seg->nclients || !lock_try(seg))
		return -EAGAIN;
	r = claim_top(seg, client, start, out);
	lock_release(seg);
	if (r < 0)
		return r;
	if (timing) {
		timed.ns = avail_age(now_ns(), start);
		timed.left = TIMED_EACH;
	}
	timed.left--;
	CRASH_POINT("try_before_hist");
	/* Outside the lock, as in lease_acquire. */
	hist_add(&seg->chan[out->slot].hist[H_acquire_ns], timed.ns);
	return 0;
}

/* Under the lock: join the queue. */
static int
enqueue(struct seg *seg, uint32_t client, uint32_t *index, uint64_t *ticket)
{
	const _Atomic uint32_t *count = seg->head->count;
	uint32_t vacant = atomic_load_explicit(&count[SLOT_EMPTY], memory_order_relaxed) +
			  atomic_load_explicit(&count[SLOT_DEAD], memory_order_relaxed);
	struct txn txn;

	txn_begin(&txn, seg);
	*index = waiter_enqueue(&txn, client, ticket);
	if (*index == WAITER_NONE)
		return -EAGAIN;
	if (seg->nslots - MIN(vacant, seg->nslots) >=
	    atomic_load_explicit(&seg->head->policy.max_total, memory_order_relaxed))
		avail_count(&txn, C_wait_count);
	CRASH_POINT("enqueue_before_commit");
	txn_commit(&txn);
	CRASH_POINT("enqueue_committed");
	waiter_enqueued(seg);
	return 0;
}

/* Leave the queue because of `why`; a grant that came first is taken: 0. */
static int
cancel(struct seg *seg, uint32_t index, uint64_t ticket, int why, struct lease *out)
{
	enum waiter_state state;
	struct txn txn;
	int r = why;

	CRASH_POINT("cancel_begin");
	if (lock_acquire(seg, now_ns() + CANCEL_NS) < 0)
		return waiter_is(seg, index, ticket) && waiter_abandon(seg, index, out) ? 0 : why;
	state = waiter_is(seg, index, ticket) ? WAITER_STATE(waiter_look(seg, index)) : WAITER_FREE;
	if (state == WAITER_GRANTED) {
		r = waiter_take(seg, index, out);
	} else if (state == WAITER_WAITING) {
		txn_begin(&txn, seg);
		waiter_free(&txn, index);
		avail_count(&txn, C_wait_timeout_count);
		CRASH_POINT("cancel_before_commit");
		txn_commit(&txn);
		CRASH_POINT("cancel_committed");
		waiter_left(seg);
	}
	lock_release(seg);
	return r;
}

/* Is there no use in waiting longer? */
static int
hopeless(const struct seg *seg)
{
	const struct shm_head *head = seg->head;

	/* Pairs with sup_failing: it counts first, then nudges. */
	if (atomic_load_explicit(&head->failing, memory_order_acquire) >= LEASE_FAILING &&
	    atomic_load_explicit(&head->count[SLOT_IN_USE], memory_order_relaxed) == 0)
		return -EIO;
	return pool_open(seg);
}

/* In the queue: sleep until the entry is granted, or there is no point. */
static int
wait_grant(struct seg *seg, uint32_t index, uint64_t ticket, uint64_t deadline_ns,
	   struct lease *out)
{
	for (;;) {
		uint32_t state = waiter_look(seg, index);
		int r;

		/* The supervisor took this client for dead and cleared its entries. */
		if (!waiter_is(seg, index, ticket) || WAITER_STATE(state) == WAITER_FREE)
			return -ENOTCONN;
		if (WAITER_STATE(state) == WAITER_GRANTED) {
			CRASH_POINT("grant_seen");
			r = waiter_take(seg, index, out);
			CRASH_POINT("grant_taken");
			return r;
		}
		r = hopeless(seg);
		CRASH_POINT("wait_before_sleep");
		if (r == 0)
			r = lifeline_wait(seg, &seg->waiter[index].state, state, deadline_ns);
		if (r < 0)
			return cancel(seg, index, ticket, r, out);
	}
}

/* Under the lock: a VM at once (0), a place in the queue (1), or an error. */
static int
claim_or_queue(struct seg *seg, uint32_t client, uint64_t start_ns, uint64_t deadline_ns,
	       struct place *place, struct lease *out)
{
	int r = pool_open(seg);

	if (r < 0)
		return r;
	r = claim_idle(seg, client, start_ns, &place->evicted, out);
	if (r == 0 || deadline_ns == LOCK_TRY)
		return r;
	r = enqueue(seg, client, &place->index, &place->ticket);
	return r == 0 ? 1 : r;
}

int
lease_acquire(struct seg *seg, uint32_t client, int kick_fd, uint64_t start_ns,
	      uint64_t deadline_ns, struct lease *out)
{
	struct place place = {0};
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (client >= seg->nclients)
		return -EINVAL;
	r = lock_acquire(seg, lock_deadline(deadline_ns));
	if (r < 0)
		return deadline_ns == LOCK_TRY && r == -ETIMEDOUT ? -EAGAIN : r;
	r = claim_or_queue(seg, client, start_ns, deadline_ns, &place, out);
	lock_release(seg);
	CRASH_POINT("acquire_before_kick");
	if (__builtin_expect(r == 1 || place.evicted, 0))
		avail_kick(kick_fd);
	if (r == 1)
		r = wait_grant(seg, place.index, place.ticket, deadline_ns, out);
	if (r < 0)
		return r;
	CRASH_POINT("acquire_before_hist");
	/* Outside the lock: while the lease holds, only its holder writes there. */
	hist_add(&seg->chan[out->slot].hist[H_acquire_ns], avail_age(now_ns(), start_ns));
	return 0;
}
