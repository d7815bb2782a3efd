/* SPDX-License-Identifier: MIT
 *
 * checkpool.c - every invariant of a pool that nobody scribbled on.
 *
 * Runs in test programs, under the pool lock. The list below is the argument of
 * shm/README.md turned into code.
 */
#include "shm/waiter.h"
#include "tests/lib/testpool.h"

static char why[256];

#define CHECK(cond, ...) \
	do { \
		if (!(cond)) { \
			(void)snprintf(why, sizeof(why), #cond ": " __VA_ARGS__); \
			return why; \
		} \
	} while (0)

static uint64_t
stat_of(const struct seg *seg, enum pool_counter counter)
{
	return testpool_stat(seg, counter);
}

static uint64_t
hist_count(const struct shm_hist *hist)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		n += atomic_load(&hist->bucket[i]);
	return n;
}

/* The state words are possible, and count[] counts them. */
static const char *
check_slots(struct seg *seg, uint32_t count[SLOT_STATES])
{
	for (uint32_t i = 0; i < seg->nslots; i++) {
		uint64_t word = atomic_load(&seg->slot[i].word);
		enum slot_state state = slot_state(word);
		uint32_t client = slot_client(word);
		bool leased = state == SLOT_IN_USE || state == SLOT_DEAD;

		CHECK(state < SLOT_STATES, "slot %u", i);
		/* A slot that was never used has the word 0. */
		CHECK(leased || client == SHM_NO_CLIENT || word == 0, "slot %u: client %u", i,
		      client);
		CHECK(!leased || client < seg->nclients, "slot %u: client %u", i, client);
		CHECK(!leased || atomic_load(&seg->client[client].pid) != 0, "slot %u: client %u",
		      i, client);
		count[state]++;
	}
	for (unsigned s = 0; s < SLOT_STATES; s++)
		CHECK(testpool_count(seg, s) == count[s], "%s: %u, counted %u", slot_state_name(s),
		      testpool_count(seg, s), count[s]);
	return NULL;
}

/* The idle ring holds each idle slot once, oldest first. */
static const char *
check_ring(struct seg *seg)
{
	uint32_t head = atomic_load(&seg->head->idle_head), n = testpool_count(seg, SLOT_IDLE);
	uint64_t before = 0;

	CHECK(head < seg->nslots, "%u", head);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = atomic_load(&seg->idle[(head + i) % seg->nslots]);
		uint64_t seq;

		CHECK(slot < seg->nslots, "place %u: %u", i, slot);
		CHECK(testpool_state(seg, slot) == SLOT_IDLE, "place %u: slot %u", i, slot);
		/* Strictly growing, so no slot is there twice. */
		seq = atomic_load(&seg->slot[slot].idle_seq);
		CHECK(seq > before && seq <= atomic_load(&seg->head->seq), "slot %u", slot);
		before = seq;
	}
	return NULL;
}

static const char *
check_waiters(struct seg *seg, uint32_t idle)
{
	uint32_t waiting = 0;

	for (uint32_t i = 0; i < seg->nwaiters; i++) {
		struct shm_waiter *w = &seg->waiter[i];
		enum waiter_state state = WAITER_STATE(atomic_load(&w->state));
		uint32_t claim = atomic_load(&w->claim), slot = atomic_load(&w->slot);
		uint64_t lease = atomic_load(&w->lease);

		CHECK(state <= WAITER_GRANTED, "waiter %u", i);
		waiting += state == WAITER_WAITING;
		if (state != WAITER_GRANTED)
			continue;
		CHECK(claim == CLAIM_OPEN || claim == CLAIM_TAKEN, "waiter %u: %u", i, claim);
		/* A grant that nobody has picked up yet is a lease that holds. */
		if (claim == CLAIM_OPEN) {
			CHECK(slot < seg->nslots, "waiter %u", i);
			CHECK(atomic_load(&seg->slot[slot].word) == lease ||
				  testpool_state(seg, slot) == SLOT_DEAD,
			      "waiter %u, slot %u", i, slot);
		}
	}
	CHECK(atomic_load(&seg->head->waiting) == waiting, "%u, counted %u",
	      atomic_load(&seg->head->waiting), waiting);
	CHECK(waiting == 0 || idle == 0 || atomic_load(&seg->head->state) != POOL_RUNNING,
	      "%u wait beside %u idle", waiting, idle);
	return NULL;
}

/* Every acquire was timed, but for that of a lease whose holder is still at it, or
 * is dead and not yet reclaimed. */
static const char *
check_acquire_times(struct seg *seg)
{
	for (uint32_t i = 0; i < seg->nslots; i++) {
		uint64_t word = atomic_load(&seg->slot[i].word);
		uint64_t leases = slot_generation(word);
		bool leased = slot_state(word) == SLOT_IN_USE || slot_state(word) == SLOT_DEAD;
		uint64_t timed = leases == 0 ? 0 : hist_count(&seg->chan[i].hist[H_acquire_ns]);

		CHECK(timed == leases || (leased && timed + 1 == leases), "slot %u: %llu of %llu",
		      i, (unsigned long long)timed, (unsigned long long)leases);
	}
	return NULL;
}

/* Every event was counted once, whoever died. */
static const char *
check_counters(struct seg *seg, const uint32_t count[SLOT_STATES])
{
	const struct shm_hist *hist = seg->head->hist;
	uint64_t acquires = stat_of(seg, C_hit_count) + stat_of(seg, C_miss_count);
	uint64_t ended = stat_of(seg, C_release_count) + stat_of(seg, C_reclaim_count);
	uint64_t kept = 0, leases = 0;

	CHECK(acquires == ended + count[SLOT_IN_USE] + count[SLOT_DEAD], "%llu, %llu",
	      (unsigned long long)acquires, (unsigned long long)ended);
	for (uint32_t i = 0; i < seg->nslots; i++)
		leases += slot_generation(atomic_load(&seg->slot[i].word));
	CHECK(acquires == leases, "%llu of %llu", (unsigned long long)acquires,
	      (unsigned long long)leases);
	CHECK(hist_count(&hist[H_spawn_ns]) == stat_of(seg, C_spawn_count), "spawn_ns");
	CHECK(hist_count(&hist[H_boot_ns]) == stat_of(seg, C_spawn_count), "boot_ns");
	CHECK(hist_count(&hist[H_reset_ns]) == stat_of(seg, C_reset_count), "reset_ns");
	/* Where the VMs of ended leases went. */
	for (uint32_t i = 0; i < seg->nslots; i++)
		kept += testpool_state(seg, i) == SLOT_RESETTING &&
			atomic_load(&seg->slot[i].resetting) == RESETTING_USED;
	kept += stat_of(seg, C_recycle_count) + stat_of(seg, C_discard_count) +
		atomic_load(&seg->head->ended_dead);
	CHECK(kept == ended, "%llu of %llu", (unsigned long long)kept, (unsigned long long)ended);
	return NULL;
}

static const char *
check_all(struct seg *seg)
{
	const struct shm_policy *policy = &seg->head->policy;
	uint32_t count[SLOT_STATES] = {0}, total = 0;
	const char *bad;

	CHECK(atomic_load(&seg->head->journal.n) == 0, "journal");
	if ((bad = check_slots(seg, count)) != NULL || (bad = check_ring(seg)) != NULL ||
	    (bad = check_waiters(seg, count[SLOT_IDLE])) != NULL ||
	    (bad = check_acquire_times(seg)) != NULL || (bad = check_counters(seg, count)) != NULL)
		return bad;
	for (unsigned s = SLOT_STARTING; s < SLOT_DEAD; s++)
		total += count[s];
	CHECK(count[SLOT_IDLE] <= atomic_load(&policy->max_idle), "%u idle", count[SLOT_IDLE]);
	CHECK(total <= atomic_load(&policy->max_total), "%u in all", total);
	return NULL;
}

const char *
checkpool(struct seg *seg)
{
	const char *bad;
	int r = lock_acquire(seg, now_ns() + PATIENCE_NS);

	CHECK(r == 0, "the lock: %d", r);
	bad = check_all(seg);
	lock_release(seg);
	return bad;
}
