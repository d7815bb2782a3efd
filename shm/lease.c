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
	const struct shm_policy *policy = &seg->head->policy;
	uint64_t life =
	    atomic_load_explicit(&policy->max_idle_time, memory_order_relaxed) * (1000 * MS);
	uint32_t slot = idle_alive(seg, evicted), min;

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
	return idle_alive(seg, evicted);
}

/* An event that repair can tell from the tables: one plain store under the lock. */
static inline void
tally(struct seg *seg, enum pool_counter counter)
{
	_Atomic uint64_t *c = &seg->head->counter[counter];

	CRASH_POINT("tally");
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* Under the lock: the newest idle VM becomes this client's. No journal: the one
 * store of the word is the change, since_ns before it does no harm to an idle
 * slot, and everything after it is derived (shm/README.md). */
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
	out->slot = slot;
	out->word = avail_leased(word, client);
	CRASH_POINT("claim_since");
	atomic_store_explicit(&seg->slot[slot].since_ns, start_ns, memory_order_relaxed);
	CRASH_POINT("claim_word");
	/* Pairs with the acquire loads of lease_check and of the worker. */
	atomic_store_explicit(&seg->slot[slot].word, out->word, memory_order_release);
	CRASH_POINT("claimed");
	tally(seg, C_hit_count);
	idle_moved(seg, slot, SLOT_IDLE, SLOT_IN_USE);
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
		kick(kick_fd);
	if (r == 1)
		r = wait_grant(seg, place.index, place.ticket, deadline_ns, out);
	if (r < 0)
		return r;
	CRASH_POINT("acquire_before_hist");
	/* Outside the lock: while the lease holds, only its holder writes there. */
	hist_add(&seg->chan[out->slot].hist[H_acquire_ns], avail_age(now_ns(), start_ns));
	return 0;
}

/* The word that the slot has when its VM dies under this lease. */
static inline uint64_t
dead_word(const struct lease *lease)
{
	return slot_word(SLOT_DEAD, slot_client(lease->word), slot_generation(lease->word));
}

/* The VM had died under this lease: let go of the slot. */
static int
release_dead(struct seg *seg, const struct lease *lease, uint64_t word)
{
	struct txn txn;

	txn_begin(&txn, seg);
	avail_stage(&txn, lease->slot, avail_unleased(SLOT_EMPTY, word), now_ns());
	avail_count(&txn, C_release_count);
	txn_add64(&txn, &seg->head->ended_dead, 1);
	CRASH_POINT("release_dead_before_commit");
	txn_commit(&txn);
	idle_moved(seg, lease->slot, SLOT_DEAD, SLOT_EMPTY);
	return -EOWNERDEAD;
}

/* Under the lock: an untouched VM becomes the newest idle one, if nobody waits
 * and there is room. As in claim_idle, the store of the word is the change. */
static bool
release_to_idle(struct seg *seg, uint32_t slot, uint64_t word, uint64_t now)
{
	struct shm_head *head = seg->head;
	struct shm_slot *s = &seg->slot[slot];
	uint64_t seq = atomic_load_explicit(&head->seq, memory_order_relaxed) + 1;

	if (atomic_load_explicit(&head->waiting, memory_order_relaxed) != 0 ||
	    idle_count(seg) >= atomic_load_explicit(&head->policy.max_idle, memory_order_relaxed))
		return false;
	CRASH_POINT("release_seq");
	atomic_store_explicit(&head->seq, seq, memory_order_relaxed);
	CRASH_POINT("release_idle_seq");
	atomic_store_explicit(&s->idle_seq, seq, memory_order_relaxed);
	CRASH_POINT("release_since");
	atomic_store_explicit(&s->since_ns, now, memory_order_relaxed);
	CRASH_POINT("release_word");
	/* Pairs with the acquire loads of lease_check and of the worker. */
	atomic_store_explicit(&s->word, avail_unleased(SLOT_IDLE, word), memory_order_release);
	CRASH_POINT("released");
	tally(seg, C_release_count);
	tally(seg, C_recycle_count);
	idle_moved(seg, slot, SLOT_IN_USE, SLOT_IDLE);
	return true;
}

/* Under the lock: the lease ends in whatever way. *ring: the supervisor has work. */
static int
release_locked(struct seg *seg, const struct lease *lease, bool untouched, uint64_t now, bool *ring)
{
	uint64_t word = avail_word(seg, lease->slot);
	struct txn txn;

	if (__builtin_expect(word != lease->word, 0)) {
		*ring = word == dead_word(lease);
		return *ring ? release_dead(seg, lease, word) : -ESTALE;
	}
	if (__builtin_expect(untouched && release_to_idle(seg, lease->slot, word, now), 1))
		return 0;
	txn_begin(&txn, seg);
	avail_count(&txn, C_release_count);
	*ring = avail_end_lease(&txn, lease->slot, word);
	return 0;
}

int
lease_release(struct seg *seg, const struct lease *lease, int kick_fd)
{
	uint64_t now = avail_now_coarse();
	bool ring = false, untouched;
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	if (lease->slot >= seg->nslots || slot_state(lease->word) != SLOT_IN_USE)
		return -EINVAL;
	untouched = avail_untouched(seg, lease->slot);
	r = lock_acquire(seg, now + RELEASE_NS);
	if (r < 0)
		return r;
	r = release_locked(seg, lease, untouched, now, &ring);
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
