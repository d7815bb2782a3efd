/* SPDX-License-Identifier: MIT
 *
 * fuzz_segment.c - every byte of the segment changes under the logic of the
 * supervisor and of clients, between the calls and during them. Calls may fail or
 * tell lies; they return, and touch nothing outside the segment.
 */
#include "shm/lifeline.h"
#include "shm/lock.h"
#include "shm/stat.h"
#include "tests/lib/fuzz.h"
#include "tests/lib/testpool.h"

#include <pthread.h>
#include <string.h>

#define SLOTS 6u
#define STEPS 200u

struct scribbler {
	struct seg *seg;
	struct fuzz dice;
	_Atomic bool stop;
};

/* Anything but the lifeline, mostly: without it every call ends at once. */
static void
scribble(struct fuzz *f, struct seg *seg)
{
	uint8_t *base = (uint8_t *)seg->head;
	size_t tables = (size_t)((uint8_t *)seg->chan - base);
	struct shm_slot *s = &seg->slot[fuzz_below(f, SLOTS)];
	pthread_mutex_t *lifeline = &seg->head->lifeline;
	pthread_mutex_t keep = *lifeline;

	switch (fuzz_below(f, 4)) {
	case 0: fuzz_mutate(f, base, seg->size); break;
	case 1:
		atomic_store(&s->word, slot_word(fuzz_below(f, SLOT_STATES + 1), fuzz_below(f, 4),
						 fuzz_below(f, 9)));
		break;
	case 2: fuzz_mutate(f, (uint8_t *)&seg->head->journal, sizeof(seg->head->journal)); break;
	default: fuzz_mutate(f, base, tables);
	}
	if (!fuzz_one_in(f, 500))
		*lifeline = keep;
}

static void *
scribble_on(void *arg)
{
	struct scribbler *s = arg;

	while (!atomic_load(&s->stop)) {
		scribble(&s->dice, s->seg);
		atomic_store(&s->seg->head->lock.word, 0);
	}
	return NULL;
}

static void
call_supervisor(struct fuzz *f, struct seg *seg)
{
	uint32_t slot = fuzz_below(f, SLOTS + 1), out;
	enum slot_state was;
	uint64_t generation;

	switch (fuzz_below(f, 12)) {
	case 0: (void)!sup_start(seg, &out, &generation); break;
	case 1: (void)!sup_set_worker(seg, slot, 77); break;
	case 2: (void)!sup_ready(seg, slot, fuzz_value(f)); break;
	case 3: (void)!sup_evict(seg, slot); break;
	case 4: (void)!sup_check_begin(seg, &out); break;
	case 9: (void)!sup_check_end(seg, slot, fuzz_one_in(f, 2)); break;
	case 10: (void)!sup_reset_done(seg, slot, fuzz_value(f)); break;
	case 5: (void)!sup_worker_gone(seg, slot, &was); break;
	case 6: (void)!sup_client_new(seg, 5, &out); break;
	case 7: (void)!sup_client_gone(seg, fuzz_below(f, 4)); break;
	case 8: sup_failing(seg, fuzz_below(f, 5), "fuzzed"); break;
	default:
		if (fuzz_one_in(f, 10))
			(void)!sup_drain(seg);
	}
}

static void
call_client(struct fuzz *f, struct seg *seg)
{
	struct lease lease = {
	    .slot = fuzz_below(f, SLOTS + 1),
	    .word = slot_word(fuzz_one_in(f, 4) ? fuzz_below(f, SLOT_STATES) : SLOT_IN_USE,
			      fuzz_below(f, 4), fuzz_below(f, 9)),
	};
	uint64_t deadline = fuzz_one_in(f, 2) ? LOCK_TRY : now_ns() + 20000;
	struct vmpool_stat *rows;
	size_t n;

	switch (fuzz_below(f, 5)) {
	case 0:
	case 1: (void)!lease_acquire(seg, fuzz_below(f, 4), -1, now_ns(), deadline, &lease); break;
	case 2: (void)!lease_check(seg, &lease); break;
	case 3:
		if (stat_read(seg, &rows, &n) == 0)
			free(rows);
		break;
	default: (void)!lease_release(seg, &lease, -1);
	}
}

static void
one(struct fuzz *f)
{
	const struct testpool_policy policy = {
	    .nslots = SLOTS, .min_idle = 1, .max_idle = 4, .max_total = SLOTS, .max_idle_time = 1};
	struct scribbler s = {.seg = testpool_new(&policy), .dice = {.state = fuzz_random(f)}};
	bool beside = fuzz_one_in(f, 3);
	pthread_t thread;

	for (unsigned i = 0; i < 3; i++)
		(void)testpool_ready(s.seg);
	if (beside)
		AZ(pthread_create(&thread, NULL, scribble_on, &s));
	for (unsigned i = 0; i < STEPS; i++) {
		if (!beside && fuzz_one_in(f, 2))
			scribble(f, s.seg);
		/* The pool lock can be spoilt by design; a new pool is the remedy. */
		atomic_store(&s.seg->head->lock.word, 0);
		if (fuzz_one_in(f, 2))
			call_supervisor(f, s.seg);
		else
			call_client(f, s.seg);
	}
	atomic_store(&s.stop, true);
	if (beside)
		AZ(pthread_join(thread, NULL));
	testpool_free(s.seg);
}

int
main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_segment", one);
}
