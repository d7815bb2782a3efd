/* SPDX-License-Identifier: MIT
 *
 * sup.c - what the supervisor does to the pool, each as one critical section.
 *
 * Runs in the supervisor only. It never sleeps on the pool lock: -EBUSY means
 * that somebody holds it now. Channel pages are touched only while their slot
 * is EMPTY, when no worker has them.
 */
#include "shm/avail.h"
#include "shm/crash.h"
#include "shm/futex.h"
#include "shm/ring.h"
#include "shm/stat.h"
#include "shm/waiter.h"
#include <string.h>

static inline int
sup_lock(struct seg *seg)
{
	CHECK_OBJ(seg, SEG_MAGIC);
	return lock_acquire(seg, LOCK_TRY);
}

/* Commit the slot's new state, adjust what is derived, unlock. */
static void
sup_move(struct txn *txn, uint32_t slot, enum slot_state from, enum slot_state to)
{
	CRASH_POINT("sup_before_commit");
	txn_commit(txn);
	CRASH_POINT("sup_committed");
	idle_moved(txn->seg, slot, from, to);
	lock_release(txn->seg);
}

static uint32_t
first_empty(const struct seg *seg)
{
	const struct shm_head *head = seg->head;
	uint32_t total = 0;

	for (unsigned s = SLOT_STARTING; s < SLOT_DEAD; s++)
		total += atomic_load_explicit(&head->count[s], memory_order_relaxed);
	if (total >= atomic_load_explicit(&head->policy.max_total, memory_order_relaxed))
		return IDLE_NONE;
	for (uint32_t i = 0; i < seg->nslots; i++)
		if (slot_state(avail_word(seg, i)) == SLOT_EMPTY)
			return i;
	return IDLE_NONE;
}

int
sup_start(struct seg *seg, uint32_t *slot, uint64_t *generation)
{
	struct shm_slot *s;
	struct txn txn;
	uint64_t word;
	int r = sup_lock(seg);

	if (r < 0)
		return r;
	*slot = first_empty(seg);
	if (*slot == IDLE_NONE) {
		lock_release(seg);
		return -ENOSPC;
	}
	s = &seg->slot[*slot];
	word = avail_word(seg, *slot);
	*generation = slot_generation(word);
	/* No worker has it yet, and no client: they come through the state word. */
	ring_chan_reset(&seg->chan[*slot]);
	txn_begin(&txn, seg);
	avail_stage(&txn, *slot, avail_unleased(SLOT_STARTING, word), now_ns());
	txn_set32(&txn, &s->worker_pid, 0);
	txn_set32(&txn, &s->life, 0);
	txn_set32(&txn, &s->resetting, RESETTING_EVICTED);
	txn_set64(&txn, &s->req_mark, 0);
	sup_move(&txn, *slot, SLOT_EMPTY, SLOT_STARTING);
	return 0;
}

int
sup_set_worker(struct seg *seg, uint32_t slot, uint32_t pid)
{
	struct txn txn;
	int r = slot < seg->nslots ? sup_lock(seg) : -EINVAL;

	if (r < 0)
		return r;
	if (slot_state(avail_word(seg, slot)) != SLOT_STARTING) {
		lock_release(seg);
		return -ESTALE;
	}
	txn_begin(&txn, seg);
	txn_set32(&txn, &seg->slot[slot].worker_pid, pid);
	txn_commit(&txn);
	lock_release(seg);
	return 0;
}

/* The VM of the slot can be handed out: whoever waits first, or nobody yet. */
static void
give_fresh(struct txn *txn, uint32_t slot, uint64_t word, uint64_t now)
{
	struct seg *seg = txn->seg;
	struct shm_slot *s = &seg->slot[slot];

	txn_set64(txn, &s->born_ns, now);
	txn_set32(txn, &s->resetting, RESETTING_EVICTED);
	txn_set64(txn, &s->req_mark,
		  atomic_load_explicit(&seg->chan[slot].req.tail, memory_order_relaxed));
	(void)avail_give(txn, slot, word);
	lock_release(seg);
	avail_changed(seg, false);
}

/* Lock, if the slot is in this state for this reason. */
static int
sup_lock_at(struct seg *seg, uint32_t slot, enum slot_state state, enum slot_resetting why)
{
	int r = slot < seg->nslots ? sup_lock(seg) : -EINVAL;

	if (r < 0)
		return r;
	if (slot_state(avail_word(seg, slot)) == state &&
	    (state != SLOT_RESETTING ||
	     atomic_load_explicit(&seg->slot[slot].resetting, memory_order_relaxed) == why))
		return 0;
	lock_release(seg);
	return -ESTALE;
}

static uint64_t
slot_since(const struct seg *seg, uint32_t slot)
{
	return atomic_load_explicit(&seg->slot[slot].since_ns, memory_order_relaxed);
}

/* Stage what a VM that is ready for the first time means for the statistics. */
static void
count_spawn(struct txn *txn, uint32_t slot, uint64_t boot_ns, uint64_t now)
{
	struct shm_hist *hist = txn->seg->head->hist;

	avail_count(txn, C_spawn_count);
	hist_txn_add(txn, &hist[H_spawn_ns], avail_age(now, slot_since(txn->seg, slot)));
	hist_txn_add(txn, &hist[H_boot_ns], boot_ns);
}

int
sup_ready(struct seg *seg, uint32_t slot, uint64_t boot_ns)
{
	int r = sup_lock_at(seg, slot, SLOT_STARTING, RESETTING_EVICTED);
	uint64_t now = now_ns();
	struct txn txn;

	if (r < 0)
		return r;
	txn_begin(&txn, seg);
	count_spawn(&txn, slot, boot_ns, now);
	give_fresh(&txn, slot, avail_word(seg, slot), now);
	return 0;
}

int
sup_lend(struct seg *seg, uint32_t slot, uint32_t client, uint64_t boot_ns, uint64_t *word)
{
	int r = client < seg->nclients ? sup_lock_at(seg, slot, SLOT_STARTING, RESETTING_EVICTED)
				       : -ESRCH;
	uint64_t now = now_ns();
	struct shm_slot *s;
	struct txn txn;

	if (r < 0)
		return r;
	if (atomic_load_explicit(&seg->client[client].pid, memory_order_relaxed) == 0) {
		lock_release(seg);
		return -ESRCH;
	}
	s = &seg->slot[slot];
	*word = avail_leased(avail_word(seg, slot), client);
	txn_begin(&txn, seg);
	count_spawn(&txn, slot, boot_ns, now);
	avail_count(&txn, C_miss_count);
	txn_set64(&txn, &s->born_ns, now);
	txn_set64(&txn, &s->req_mark, SHM_MARK_TOUCHED);
	avail_stage(&txn, slot, *word, now);
	sup_move(&txn, slot, SLOT_STARTING, SLOT_IN_USE);
	return 0;
}

int
sup_reset_done(struct seg *seg, uint32_t slot, uint64_t pages)
{
	int r = sup_lock_at(seg, slot, SLOT_RESETTING, RESETTING_USED);
	uint64_t now = now_ns();
	struct txn txn;

	if (r < 0)
		return r;
	txn_begin(&txn, seg);
	avail_count(&txn, C_reset_count);
	avail_count(&txn, C_recycle_count);
	txn_add64(&txn, &seg->head->counter[C_reset_page_count], pages);
	txn_add64(&txn, &seg->head->reset_leased, 1);
	hist_txn_add(&txn, &seg->head->hist[H_reset_ns], avail_age(now, slot_since(seg, slot)));
	give_fresh(&txn, slot, avail_word(seg, slot), now);
	return 0;
}

int
sup_evict(struct seg *seg, uint32_t slot)
{
	int r = sup_lock_at(seg, slot, SLOT_IDLE, RESETTING_EVICTED);

	if (r < 0)
		return r;
	avail_evict(seg, slot, avail_word(seg, slot), C_evict_count);
	lock_release(seg);
	return 0;
}

int
sup_check_begin(struct seg *seg, uint32_t *slot)
{
	struct txn txn;
	int r = sup_lock(seg);

	if (r < 0)
		return r;
	*slot = idle_newest(seg);
	if (*slot == IDLE_NONE) {
		lock_release(seg);
		return -ENOENT;
	}
	txn_begin(&txn, seg);
	avail_stage(&txn, *slot, avail_unleased(SLOT_RESETTING, avail_word(seg, *slot)), now_ns());
	txn_set32(&txn, &seg->slot[*slot].resetting, RESETTING_CHECK);
	sup_move(&txn, *slot, SLOT_IDLE, SLOT_RESETTING);
	return 0;
}

/* Stage what a health check that has ended means for the statistics. */
static void
count_check(struct txn *txn, bool ok)
{
	avail_count(txn, C_health_check_count);
	if (!ok)
		avail_count(txn, C_health_fail_count);
}

int
sup_check_end(struct seg *seg, uint32_t slot, bool ok)
{
	int r = sup_lock_at(seg, slot, SLOT_RESETTING, RESETTING_CHECK);
	struct txn txn;

	if (r < 0)
		return r;
	txn_begin(&txn, seg);
	count_check(&txn, ok);
	txn_set32(&txn, &seg->slot[slot].resetting, RESETTING_EVICTED);
	CRASH_POINT("check_before_commit");
	if (ok)
		(void)avail_give(&txn, slot, avail_word(seg, slot));
	else
		txn_commit(&txn);
	lock_release(seg);
	avail_changed(seg, false);
	return 0;
}

/* A worker is gone whose slot was RESETTING: what that means. */
static void
count_gone_resetting(struct txn *txn, uint32_t slot)
{
	/* Changed under the lock only. */
	switch (atomic_load_explicit(&txn->seg->slot[slot].resetting, memory_order_relaxed)) {
	case RESETTING_USED: avail_count(txn, C_discard_count); break;
	case RESETTING_CHECK: count_check(txn, false); break;
	default: break;
	}
}

int
sup_worker_gone(struct seg *seg, uint32_t slot, enum slot_state *was)
{
	enum slot_state from, to = SLOT_EMPTY;
	struct txn txn;
	uint64_t word;
	int r = slot < seg->nslots ? sup_lock(seg) : -EINVAL;

	if (r < 0)
		return r;
	word = avail_word(seg, slot);
	from = slot_state(word);
	if (was != NULL)
		*was = from;
	txn_begin(&txn, seg);
	switch (from) {
	case SLOT_STARTING: avail_count(&txn, C_spawn_fail_count); break;
	case SLOT_IDLE: avail_count(&txn, C_vm_died_count); break;
	case SLOT_IN_USE:
		avail_count(&txn, C_vm_died_count);
		to = SLOT_DEAD;
		break;
	case SLOT_RESETTING: count_gone_resetting(&txn, slot); break;
	default: lock_release(seg); return -ESTALE;
	}
	avail_stage(&txn, slot,
		    to == SLOT_DEAD ? slot_word(SLOT_DEAD, slot_client(word), slot_generation(word))
				    : avail_unleased(SLOT_EMPTY, word),
		    now_ns());
	txn_set32(&txn, &seg->slot[slot].worker_pid, 0);
	sup_move(&txn, slot, from, to);
	/* Its client sleeps on rsp_seq, if at all; pairs with its load of the seq
	 * before it looks at the slot's word. */
	(void)atomic_fetch_add_explicit(&seg->chan[slot].rsp_seq, 1, memory_order_release);
	(void)futex_wake(&seg->chan[slot].rsp_seq, INT32_MAX);
	avail_changed(seg, false);
	return 0;
}

int
sup_client_new(struct seg *seg, uint32_t pid, uint32_t *client)
{
	struct txn txn;
	int r = sup_lock(seg);

	if (r < 0)
		return r;
	for (*client = 0; *client < seg->nclients; (*client)++)
		if (atomic_load_explicit(&seg->client[*client].pid, memory_order_relaxed) == 0)
			break;
	if (*client == seg->nclients) {
		lock_release(seg);
		return -ENOSPC;
	}
	txn_begin(&txn, seg);
	txn_set32(&txn, &seg->client[*client].pid, pid);
	txn_commit(&txn);
	lock_release(seg);
	return 0;
}

/* Under the lock: take the client's entries out of the queue. */
static void
forget_waiters(struct seg *seg, uint32_t client)
{
	for (uint32_t i = 0; i < seg->nwaiters; i++) {
		const struct shm_waiter *w = &seg->waiter[i];
		enum waiter_state state = WAITER_STATE(waiter_look(seg, i));
		struct txn txn;

		if (state == WAITER_FREE ||
		    atomic_load_explicit(&w->client, memory_order_relaxed) != client)
			continue;
		txn_begin(&txn, seg);
		waiter_free(&txn, i);
		txn_commit(&txn);
		CRASH_POINT("gone_waiter");
		if (state == WAITER_WAITING)
			waiter_left(seg);
		(void)futex_wake(&w->state, INT32_MAX);
	}
}

/* Under the lock: take back one lease, if it is this client's. */
static void
reclaim_slot(struct seg *seg, uint32_t slot, uint32_t client)
{
	uint64_t word = avail_word(seg, slot);
	enum slot_state state = slot_state(word);
	struct txn txn;

	if ((state != SLOT_IN_USE && state != SLOT_DEAD) || slot_client(word) != client)
		return;
	avail_lost(seg, slot, word);
	txn_begin(&txn, seg);
	avail_count(&txn, C_reclaim_count);
	CRASH_POINT("gone_slot");
	if (state == SLOT_IN_USE) {
		(void)avail_end_lease(&txn, slot, word);
		return;
	}
	avail_stage(&txn, slot, avail_unleased(SLOT_EMPTY, word), now_ns());
	txn_add64(&txn, &seg->head->ended_dead, 1);
	txn_commit(&txn);
	idle_moved(seg, slot, SLOT_DEAD, SLOT_EMPTY);
}

int
sup_client_gone(struct seg *seg, uint32_t client)
{
	struct txn txn;
	int r = client < seg->nclients ? sup_lock(seg) : -EINVAL;

	if (r < 0)
		return r;
	/* Its waiters first: a slot taken back must not be granted to one of them. */
	forget_waiters(seg, client);
	for (uint32_t i = 0; i < seg->nslots; i++)
		reclaim_slot(seg, i, client);
	txn_begin(&txn, seg);
	txn_set32(&txn, &seg->client[client].pid, 0);
	txn_commit(&txn);
	CRASH_POINT("gone_client");
	lock_release(seg);
	avail_changed(seg, false);
	return 0;
}

int
sup_join(struct seg *seg, uint32_t slot, uint64_t generation)
{
	int r = sup_lock_at(seg, slot, SLOT_IN_USE, RESETTING_EVICTED);
	struct txn txn;

	if (r < 0)
		return r;
	if (slot_generation(avail_word(seg, slot)) != generation) {
		lock_release(seg);
		return -ESTALE;
	}
	txn_begin(&txn, seg);
	txn_set64(&txn, &seg->slot[slot].req_mark, SHM_MARK_TOUCHED);
	CRASH_POINT("join_before_commit");
	txn_commit(&txn);
	lock_release(seg);
	return 0;
}

int
sup_drain(struct seg *seg)
{
	int r = sup_lock(seg);

	if (r < 0)
		return r;
	atomic_store_explicit(&seg->head->state, POOL_DRAINING, memory_order_relaxed);
	CRASH_POINT("draining");
	/* Pairs with hopeless in lease.c: who looks after the nudge sees DRAINING. */
	waiter_nudge_all(seg);
	avail_changed(seg, false);
	lock_release(seg);
	return 0;
}

void
sup_failing(struct seg *seg, uint32_t failing, const char *why)
{
	struct shm_head *head = seg->head;
	size_t n = strnlen(why, sizeof(head->last_failure) - 1);

	CHECK_OBJ(seg, SEG_MAGIC);
	/* Readers may see a mixture of two texts; the NUL at the end stays. */
	for (size_t i = 0; i < sizeof(head->last_failure); i++)
		__atomic_store_n(&head->last_failure[i], i < n ? why[i] : '\0', __ATOMIC_RELAXED);
	atomic_store_explicit(&head->failing, failing, memory_order_release);
	if (failing == 0)
		return;
	waiter_nudge_all(seg);
	avail_changed(seg, false);
}
