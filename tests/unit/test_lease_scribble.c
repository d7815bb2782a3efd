/* SPDX-License-Identifier: MIT
 *
 * test_lease_scribble.c - a pool whose every writable byte is garbage, or is
 * being scribbled on: calls may fail, or tell lies, but they return, and touch
 * nothing outside.
 */
#include "shm/lifeline.h"
#include "shm/stat.h"
#include "tests/lib/testpool.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SLOTS 12

static const struct testpool_policy policy = {
    .nslots = SLOTS, .min_idle = 1, .max_idle = 8, .max_total = SLOTS, .max_idle_time = 30};

static uint64_t
next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* What a client may write: all but the identity, which nobody reads again, and
 * the lifeline word, or every call would stop at "the supervisor is dead". */
static uint64_t *
place(struct seg *seg, uint64_t dice)
{
	char *base = (char *)seg->head;
	size_t low = offsetof(struct shm_head, policy), high;
	uint64_t *p;

	/* Mostly the tables, sometimes the channels. */
	high = dice % 8 == 0 ? seg->size : (size_t)((char *)seg->chan - base);
	p = (uint64_t *)(base + low + ((dice >> 8) % (high - low)) / 8 * 8);
	if (p >= (uint64_t *)&seg->head->lifeline && p < (uint64_t *)(&seg->head->lifeline + 1))
		p = &seg->head->generation;
	return p;
}

/* Garbage of the kinds that hurt: random, small, almost right, all ones. */
static uint64_t
garbage(uint64_t *x)
{
	uint64_t v = next(x);

	switch (v % 5) {
	case 0: return v;
	case 1: return (v >> 8) % 16;
	case 2: return slot_word((v >> 8) % 8, (uint32_t)(v >> 16) % 4, (v >> 24) % 16);
	case 3: return UINT64_MAX;
	default: return (v >> 8) % 16 | (v >> 12) % 16 << 32;
	}
}

static void
scribble(struct seg *seg, uint64_t *x, unsigned n)
{
	while (n-- > 0)
		__atomic_store_n(place(seg, next(x)), garbage(x), __ATOMIC_RELAXED);
}

/* One call of everything; results do not matter. Returns something of them so
 * that no call is optimised away. */
static int
call_everything(struct seg *seg, uint64_t *x)
{
	struct lease lease = {.slot = (uint32_t)next(x) % (SLOTS + 1),
			      .word = slot_word(SLOT_IN_USE, next(x) % 3, next(x) % 16)};
	uint32_t slot = (uint32_t)next(x) % SLOTS, n;
	uint64_t generation;
	struct vmpool_stat *rows;
	size_t count;
	int r = 0;

	r |= sup_start(seg, &n, &generation);
	r |= sup_set_worker(seg, slot, 77);
	r |= sup_ready(seg, slot, 1);
	r |= lease_try(seg, (uint32_t)next(x) % 3, &lease);
	if (next(x) % 2)
		r |= lease_release(seg, &lease, -1);
	r |= lease_acquire(seg, (uint32_t)next(x) % 3, -1, now_ns(), LOCK_TRY, &lease);
	r |= lease_check(seg, &lease);
	if (next(x) % 2)
		r |= lease_release(seg, &lease, -1);
	r |= lease_acquire(seg, (uint32_t)next(x) % 3, -1, now_ns(), now_ns() + 10000, &lease);
	r |= sup_evict(seg, slot);
	r |= sup_worker_gone(seg, slot, NULL);
	r |= sup_client_gone(seg, (uint32_t)next(x) % 3);
	r |= sup_client_new(seg, 5, &n);
	r |= sup_check_begin(seg, &n);
	r |= sup_check_end(seg, slot, next(x) % 2);
	r |= sup_reset_done(seg, slot, 7);
	sup_failing(seg, (uint32_t)next(x) % 5, "scribbled");
	r |= stat_read(seg, &rows, &count);
	free(rows);
	(void)txn_replay(seg);
	return r;
}

/* Nobody gets a slot or lock that is not there; the lock is made free again, as
 * the supervisor would do by a new pool. */
static void
unlock(struct seg *seg)
{
	atomic_store(&seg->head->lock.word, 0);
}

static void
garbage_between_calls(void **state)
{
	uint64_t x = 88172645463325252ull;
	int all = 0;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		struct seg *seg = testpool_new(&policy);

		for (unsigned i = 0; i < 5; i++)
			(void)testpool_ready(seg);
		for (unsigned i = 0; i < 8; i++) {
			scribble(seg, &x, 1 + (unsigned)(next(&x) % 2000));
			unlock(seg);
			all |= call_everything(seg, &x);
		}
		testpool_free(seg);
	}
	assert_true(all != 0);
}

/* All of it the same byte. */
static void
flooded(void **state)
{
	static const uint8_t bytes[] = {0x00, 0x01, 0x02, 0x03, 0x7f, 0x80, 0xff};
	uint64_t x = 4711;
	int all = 0;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bytes); i++) {
		struct seg *seg = testpool_new(&policy);
		char *low = (char *)&seg->head->lock;

		memset(low, bytes[i], (size_t)((char *)(seg->chan + 2) - low));
		for (unsigned k = 0; k < 20; k++) {
			unlock(seg);
			all |= call_everything(seg, &x);
		}
		testpool_free(seg);
	}
	assert_true(all != 0);
}

/* A scribbler at work while the calls run. */
struct scribbler {
	struct seg *seg;
	_Atomic bool stop;
};

static void *
scribble_on(void *arg)
{
	struct scribbler *s = arg;
	uint64_t x = 1234567;

	while (!atomic_load(&s->stop)) {
		scribble(s->seg, &x, 50);
		unlock(s->seg);
	}
	return NULL;
}

static void
garbage_during_calls(void **state)
{
	struct scribbler s = {.seg = testpool_new(&policy)};
	uint64_t x = 99, deadline = now_ns() + SECOND_NS;
	pthread_t thread;
	int all = 0;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, scribble_on, &s), 0);
	while (now_ns() < deadline)
		all |= call_everything(s.seg, &x);
	atomic_store(&s.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(all != 0);
	testpool_free(s.seg);
}

/* Garbage in the derived data alone is noticed and made good by its next user. */
static void
derived_data_heal(void **state)
{
	struct seg *seg = testpool_new(&policy);
	uint32_t client = testpool_client(seg);
	struct lease lease;
	const char *bad;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		(void)testpool_ready(seg);
	for (uint32_t i = 0; i < SLOTS; i++)
		atomic_store(&seg->idle[i], 0xdeadbeef);
	assert_int_equal(lease_acquire(seg, client, -1, now_ns(), LOCK_TRY, &lease), 0);
	assert_int_equal(lease.slot, 2);
	bad = checkpool(seg);
	if (bad != NULL)
		fail_msg("%s", bad);
	atomic_store(&seg->head->idle_head, 0xffffffff);
	atomic_store(&seg->idle[1], 2); /* in use */
	assert_int_equal(lease_acquire(seg, client, -1, now_ns(), LOCK_TRY, &lease), 0);
	assert_int_equal(lease.slot, 1);
	bad = checkpool(seg);
	if (bad != NULL)
		fail_msg("%s", bad);
	testpool_free(seg);
}

/* Slot words that cannot be, and leases of nobody, go to the supervisor. */
static void
impossible_words(void **state)
{
	static const uint64_t words[] = {
	    SLOT_STATES | 3ull << 24,
	    0xff,
	    SLOT_IN_USE | (uint64_t)SHM_NO_CLIENT << 8 | 3ull << 24,
	    SLOT_IN_USE | 1023ull << 8 | 3ull << 24, /* an id that nobody has */
	    SLOT_DEAD | 1ull << 8 | 3ull << 24,
	};
	struct seg *seg = testpool_new(&policy);
	uint64_t mine = slot_word(SLOT_IN_USE, testpool_client(seg), 9);

	(void)state;
	for (uint32_t i = 0; i < ARRAY_SIZE(words); i++)
		atomic_store(&seg->slot[i].word, words[i]);
	atomic_store(&seg->slot[6].word, mine);
	assert_int_equal(lock_acquire(seg, LOCK_TRY), 0);
	repair_rebuild(seg);
	lock_release(seg);
	for (uint32_t i = 0; i < ARRAY_SIZE(words); i++) {
		assert_int_equal(testpool_state(seg, i), SLOT_RESETTING);
		assert_int_equal(sup_worker_gone(seg, i, NULL), 0);
		assert_int_equal(testpool_state(seg, i), SLOT_EMPTY);
	}
	assert_true(atomic_load(&seg->slot[6].word) == mine);
	testpool_free(seg);
}

/* A journal that a hostile holder left changes nothing but words of the tables. */
static void
hostile_journal(void **state)
{
	struct seg *seg = testpool_new(&policy);
	struct shm_journal *j = &seg->head->journal;
	const uint64_t chan = (uint64_t)((char *)seg->chan - (char *)seg->head);
	const uint64_t seq = offsetof(struct shm_head, seq);
	const uint64_t bad[] = {
	    0 | 8ull << 32, /* the magic */
	    offsetof(struct shm_head, lock) | 4ull << 32,
	    offsetof(struct shm_head, lifeline) | 8ull << 32,
	    offsetof(struct shm_head, journal) | 8ull << 32,
	    (seq - 4) | 8ull << 32, /* half before */
	    (seq + 4) | 8ull << 32, /* not aligned */
	    seq | 0ull << 32,	    /* no size */
	    seq | 2ull << 32,	    /* a size that is none */
	    seq | 16ull << 32,
	    chan | 8ull << 32,	     /* the channels */
	    (chan - 4) | 8ull << 32, /* half behind */
	    seg->size | 8ull << 32,  /* outside */
	    UINT32_MAX | 8ull << 32,
	    UINT64_MAX,
	};
	char *before = malloc(chan);

	(void)state;
	assert_non_null(before);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		atomic_store(&j->e[i].place, bad[i]);
		atomic_store(&j->e[i].value, 0x4141414141414141ull);
	}
	memcpy(before, (char *)seg->head, chan);
	atomic_store(&j->n, ARRAY_SIZE(bad));
	assert_int_equal(txn_replay(seg), 0);
	assert_memory_equal(before, (char *)seg->head, chan);
	/* A good one, but of a journal that is too long. */
	atomic_store(&j->e[0].place, seq | 8ull << 32);
	atomic_store(&j->n, JOURNAL_MAX + 1);
	assert_int_equal(txn_replay(seg), 0);
	assert_int_equal(atomic_load(&j->n), 0);
	/* And the same of a journal that is not. */
	atomic_store(&j->n, 1);
	assert_int_equal(txn_replay(seg), 1);
	assert_true(atomic_load(&seg->head->seq) == 0x4141414141414141ull);
	free(before);
	testpool_free(seg);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(garbage_between_calls), cmocka_unit_test(flooded),
	    cmocka_unit_test(garbage_during_calls),  cmocka_unit_test(derived_data_heal),
	    cmocka_unit_test(impossible_words),	     cmocka_unit_test(hostile_journal),
	};

	return cmocka_run_group_tests_name("lease_scribble", tests, NULL, NULL);
}
