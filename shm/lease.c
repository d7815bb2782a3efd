/* SPDX-License-Identifier: MIT
 *
 * lease.c - borrowing and giving back, as clients do it.
 *
 * Runs in clients, in any thread. The happy path is claim_idle and
 * lease_release: one lock, one transaction, no system call. What can go wrong
 * on the way: the lock is held (wait, at most until the deadline), the derived
 * data are wrong (rebuilt by idle.c), nothing is idle (wait_grant), the
 * supervisor dies or drains, the caller gives up.
 */
#include "shm/avail.h"
#include "shm/crash.h"
#include "shm/lifeline.h"
#include "shm/stat.h"
#include "shm/waiter.h"

#define MS 1000000ull
/* With LOCK_TRY no VM is waited for; the lock itself is, for a moment. */
#define TRY_NS (20 * MS)
/* A caller that gives up waits this long for the lock to leave the queue in order. */
#define CANCEL_NS (5 * MS)
#define RELEASE_NS (5000 * MS)

static inline uint64_t
lock_deadline(uint64_t deadline_ns)
{
	return deadline_ns == LOCK_TRY ? now_ns() + TRY_NS : deadline_ns;
}

static void
kick(int kick_fd)
{
	uint64_t one = 1;

	/* It fails only when the counter is full: then it is readable already. */
	if (kick_fd >= 0 && write(kick_fd, &one, sizeof(one)) < 0)
		return;
}

/* May anyone borrow from this pool at all? */
static int
pool_open(const struct seg *seg)
{
	/* Pairs with sup_drain, under the lock. */
	if (atomic_load_explicit(&seg->head->state, memory_order_relaxed) != POOL_RUNNING)
		return -ESHUTDOWN;
	return lifeline_alive(seg) ? 0 : -ENOTCONN;
}

/* The newest idle slot that may go out, IDLE_NONE if there is none. An expired
 * one goes out only if min-idle keeps it; others make way. (The newest has
 * expired: all have.) */
static uint32_t
idle_fit(struct seg *seg, uint64_t now, bool *evicted)
{
	const struct shm_policy *policy = &seg->head->policy;
	uint64_t life =
	    atomic_load_explicit(&policy->max_idle_time, memory_order_relaxed) * (1000 * MS);
	uint32_t slot = idle_newest(seg), min;

	if (slot == IDLE_NONE || life == 0 ||
	    avail_age(now, atomic_load_explicit(&seg->slot[slot].since_ns, memory_order_relaxed)) <=
		life)
		return slot;
	min = atomic_load_explicit(&policy->min_idle, memory_order_relaxed);
	for (uint32_t i = 0; i < seg->nslots && idle_count(seg) > min; i++) {
		uint32_t oldest = idle_oldest(seg);

		if (oldest == IDLE_NONE)
			break;
		avail_evict(seg, oldest, avail_word(seg, oldest), C_evict_count);
		*evicted = true;
	}
	return idle_newest(seg);
}

/* Under the lock: the newest idle VM becomes this client's. */
static int
claim_idle(struct seg *seg, uint32_t client, uint64_t start_ns, bool *evicted, struct lease *out)
{
	uint32_t slot = idle_fit(seg, start_ns, evicted);
	uint64_t word, now;
	struct txn txn;

	if (slot == IDLE_NONE)
		return -EAGAIN;
	word = avail_word(seg, slot);
	if (slot_state(word) != SLOT_IDLE)
		return -EAGAIN;
	now = now_ns();
	txn_begin(&txn, seg);
	out->slot = slot;
	out->word = avail_stage_lease(&txn, slot, word, client, now);
	avail_count(&txn, C_hit_count);
	hist_txn_add(&txn, &seg->head->hist[H_acquire_ns], avail_age(now, start_ns));
	CRASH_POINT("claim_before_commit");
	txn_commit(&txn);
	CRASH_POINT("claim_committed");
	idle_moved(seg, slot, SLOT_IDLE, SLOT_IN_USE);
	return 0;
}

/* Under the lock: join the queue. */
static int
enqueue(struct seg *seg, uint32_t client, uint64_t start_ns, uint32_t *index, uint64_t *ticket)
{
	const _Atomic uint32_t *count = seg->head->count;
	uint32_t vacant = atomic_load_explicit(&count[SLOT_EMPTY], memory_order_relaxed) +
			  atomic_load_explicit(&count[SLOT_DEAD], memory_order_relaxed);
	struct txn txn;

	txn_begin(&txn, seg);
	*index = waiter_enqueue(&txn, client, start_ns, ticket);
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

int
lease_acquire(struct seg *seg, uint32_t client, int kick_fd, uint64_t start_ns,
	      uint64_t deadline_ns, struct lease *out)
{
	bool evicted = false;
	uint64_t ticket = 0;
	uint32_t index = 0;
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (client >= seg->nclients)
		return -EINVAL;
	r = lock_acquire(seg, lock_deadline(deadline_ns));
	if (r < 0)
		return deadline_ns == LOCK_TRY && r == -ETIMEDOUT ? -EAGAIN : r;
	r = pool_open(seg);
	if (r == 0) {
		r = claim_idle(seg, client, start_ns, &evicted, out);
		if (r == -EAGAIN && deadline_ns != LOCK_TRY) {
			r = enqueue(seg, client, start_ns, &index, &ticket);
			r = r == 0 ? 1 : r;
		}
	}
	lock_release(seg);
	if (__builtin_expect(r == 0 && !evicted, 1))
		return 0;
	CRASH_POINT("acquire_before_kick");
	if (evicted || r == 1)
		kick(kick_fd);
	return r == 1 ? wait_grant(seg, index, ticket, deadline_ns, out) : r;
}

/* The VM had died under this lease: let go of the slot. */
static int
release_dead(struct seg *seg, const struct lease *lease, uint64_t word)
{
	struct txn txn;

	txn_begin(&txn, seg);
	avail_stage(&txn, lease->slot, avail_unleased(SLOT_EMPTY, word), now_ns());
	avail_count(&txn, C_release_count);
	CRASH_POINT("release_dead_before_commit");
	txn_commit(&txn);
	idle_moved(seg, lease->slot, SLOT_DEAD, SLOT_EMPTY);
	return -EOWNERDEAD;
}

/* The word that the slot has when its VM dies under this lease. */
static inline uint64_t
dead_word(const struct lease *lease)
{
	return slot_word(SLOT_DEAD, slot_client(lease->word), slot_generation(lease->word));
}

int
lease_release(struct seg *seg, const struct lease *lease, int kick_fd)
{
	bool ring = false;
	uint64_t word;
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (lease->slot >= seg->nslots || slot_state(lease->word) != SLOT_IN_USE)
		return -EINVAL;
	r = lock_acquire(seg, avail_now_coarse() + RELEASE_NS);
	if (r < 0)
		return r;
	word = avail_word(seg, lease->slot);
	if (__builtin_expect(word == lease->word, 1)) {
		struct txn txn;

		txn_begin(&txn, seg);
		avail_count(&txn, C_release_count);
		ring = avail_end_lease(&txn, lease->slot, word);
	} else {
		r = -ESTALE;
		if (word == dead_word(lease)) {
			r = release_dead(seg, lease, word);
			ring = true;
		}
	}
	lock_release(seg);
	avail_changed(seg, true);
	CRASH_POINT("release_before_kick");
	if (ring)
		kick(kick_fd);
	return r;
}

int
lease_check(const struct seg *seg, const struct lease *lease)
{
	uint64_t word;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (lease->slot >= seg->nslots)
		return -ESTALE;
	if (!lifeline_alive(seg))
		return -ENOTCONN;
	/* Pairs with the release store of the word in txn_commit. */
	word = atomic_load_explicit(&seg->slot[lease->slot].word, memory_order_acquire);
	if (word == lease->word)
		return 0;
	return word == dead_word(lease) ? -EOWNERDEAD : -ESTALE;
}

int
lease_set_warm(struct seg *seg, uint32_t count, int kick_fd)
{
	struct txn txn;
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	r = lock_acquire(seg, now_ns() + RELEASE_NS);
	if (r < 0)
		return r;
	txn_begin(&txn, seg);
	txn_set32(&txn, &seg->head->warm_target, count);
	CRASH_POINT("warm_before_commit");
	txn_commit(&txn);
	lock_release(seg);
	kick(kick_fd);
	return 0;
}

uint32_t
lease_change_expect(struct seg *seg)
{
	/* Sequentially consistent: the caller's look at the counts comes after it.
	 * Pairs with avail_changed, which a releaser calls after its unlock (a
	 * read-modify-write), hence after its counts. */
	return atomic_fetch_or_explicit(&seg->head->change_seq, 1u, memory_order_seq_cst) | 1u;
}
