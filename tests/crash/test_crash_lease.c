/* SPDX-License-Identifier: MIT
 *
 * test_crash_lease.c - every critical section of the pool, with its process
 * dying at each of its steps, and the repairing process dying too.
 */
#include "tests/lib/crash_scene.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* --- what a pool may look like before ------------------------------------------- */

static struct lease
victim_lease(struct scene *s)
{
	struct lease lease;

	AZ(lease_acquire(s->seg, s->victim, -1, now_ns(), LOCK_TRY, &lease));
	return lease;
}

static void
one_idle(struct scene *s)
{
	s->slot = testpool_ready(s->seg);
}

static void
two_idle(struct scene *s)
{
	one_idle(s);
	one_idle(s);
}

static void
three_idle_middle(struct scene *s)
{
	one_idle(s);
	two_idle(s);
	s->slot--;
}

static void
newest_died(struct scene *s)
{
	two_idle(s);
	atomic_store(&s->seg->slot[s->slot].life, 0x40000000);
}

static void
all_expired(struct scene *s)
{
	two_idle(s);
	one_idle(s);
	for (uint32_t i = 0; i < 3; i++)
		atomic_fetch_sub(&s->seg->slot[i].since_ns, 4000 * SECOND_NS);
}

static void
one_leased(struct scene *s)
{
	one_idle(s);
	s->lease[0] = victim_lease(s);
}

static void
one_touched(struct scene *s)
{
	one_leased(s);
	testpool_touch(s->seg, s->lease[0].slot);
}

static void
leased_and_waited_for(struct scene *s)
{
	one_leased(s);
	scene_bystander(s);
}

static void
leased_and_full(struct scene *s)
{
	one_leased(s);
	for (unsigned i = 0; i < 3; i++)
		one_idle(s);
}

static void
one_dead(struct scene *s)
{
	one_leased(s);
	AZ(sup_worker_gone(s->seg, s->slot, NULL));
}

static void
one_starting(struct scene *s)
{
	s->slot = testpool_start(s->seg);
}

static void
starting_and_waited_for(struct scene *s)
{
	one_starting(s);
	scene_bystander(s);
}

static void
one_resetting(struct scene *s)
{
	one_touched(s);
	AZ(lease_release(s->seg, &s->lease[0], -1));
}

static void
resetting_and_waited_for(struct scene *s)
{
	one_resetting(s);
	scene_bystander(s);
}

static void
nothing(struct scene *s)
{
	(void)s;
}

/* The victim's place in the queue, without a process that sleeps there. */
static void
fake_waiter(struct scene *s)
{
	struct shm_waiter *w = &s->seg->waiter[0];

	AZ(lock_acquire(s->seg, LOCK_TRY));
	atomic_store(&w->client, s->victim);
	atomic_store(&w->ticket, atomic_fetch_add(&s->seg->head->seq, 1) + 1);
	atomic_store(&w->state, WAITER_WAITING);
	atomic_store(&s->seg->head->waiting, 1);
	lock_release(s->seg);
}

static void
starting_and_two_wait(struct scene *s)
{
	one_starting(s);
	fake_waiter(s);
	scene_bystander(s);
}

/* A client with everything: an untouched, a touched and a dead VM, a waiter's
 * entry of its own, and somebody else who waits. */
static void
many_leases(struct scene *s)
{
	for (unsigned i = 0; i < 3; i++) {
		(void)testpool_ready(s->seg);
		s->lease[i] = victim_lease(s);
	}
	testpool_touch(s->seg, s->lease[1].slot);
	AZ(sup_worker_gone(s->seg, s->lease[2].slot, NULL));
	fake_waiter(s);
	scene_bystander(s);
}

/* --- what the child does ----------------------------------------------------------- */

static int
acquire(struct scene *s, uint64_t patience, struct lease *lease)
{
	return lease_acquire(s->seg, s->victim, s->kick_fd, now_ns(), now_ns() + patience, lease);
}

static int
do_acquire_release(struct scene *s)
{
	struct lease lease;

	return acquire(s, PATIENCE_NS, &lease) != 0 ||
	       lease_release(s->seg, &lease, s->kick_fd) != 0;
}

/* The first is timed, the second is not. */
static int
do_try_release(struct scene *s)
{
	struct lease lease;

	for (unsigned i = 0; i < 2; i++)
		if (lease_try(s->seg, s->victim, &lease) != 0 ||
		    lease_release(s->seg, &lease, s->kick_fd) != 0)
			return 1;
	return 0;
}

static int
do_acquire_use_release(struct scene *s)
{
	struct lease lease;

	if (acquire(s, PATIENCE_NS, &lease) != 0)
		return 1;
	testpool_touch(s->seg, lease.slot);
	return lease_release(s->seg, &lease, s->kick_fd) != 0;
}

static int
do_release(struct scene *s)
{
	return lease_release(s->seg, &s->lease[0], s->kick_fd) != 0;
}

static int
do_release_dead(struct scene *s)
{
	return lease_release(s->seg, &s->lease[0], s->kick_fd) != -EOWNERDEAD;
}

static int
do_wait_in_vain(struct scene *s)
{
	struct lease lease;

	return acquire(s, 1000000, &lease) != -ETIMEDOUT;
}

static int
do_warm(struct scene *s)
{
	return lease_set_warm(s->seg, 2, s->kick_fd) != 0;
}

static int
do_start(struct scene *s)
{
	uint64_t generation;
	uint32_t slot;

	return sup_start(s->seg, &slot, &generation) != 0 ||
	       sup_set_worker(s->seg, slot, 4711) != 0;
}

static int
do_ready(struct scene *s)
{
	return sup_ready(s->seg, s->slot, 1) != 0;
}

static int
do_lend(struct scene *s)
{
	uint64_t word;

	return sup_lend(s->seg, s->slot, s->victim, 1, &word) != 0;
}

/* The first waiter gives up just when it is granted the VM. */
static void
give_up(void *arg)
{
	atomic_store(&((struct scene *)arg)->seg->waiter[0].claim, CLAIM_ABANDONED);
	crash_call(NULL, NULL, NULL);
}

static int
do_ready_crossed(struct scene *s)
{
	crash_call("grant_before_commit", give_up, s);
	return sup_ready(s->seg, s->slot, 1) != 0 || testpool_stat(s->seg, C_reclaim_count) != 1;
}

static int
do_evict(struct scene *s)
{
	return sup_evict(s->seg, s->slot) != 0;
}

static int
do_worker_gone(struct scene *s)
{
	return sup_worker_gone(s->seg, s->slot, NULL) != 0;
}

static int
do_checked(struct scene *s)
{
	return sup_check_begin(s->seg, &s->slot) != 0 || sup_check_end(s->seg, s->slot, true) != 0;
}

static int
do_checked_sick(struct scene *s)
{
	return sup_check_begin(s->seg, &s->slot) != 0 ||
	       sup_check_end(s->seg, s->slot, false) != 0 ||
	       sup_worker_gone(s->seg, s->slot, NULL) != 0;
}

static int
do_checked_silent(struct scene *s)
{
	return sup_check_begin(s->seg, &s->slot) != 0 ||
	       sup_worker_gone(s->seg, s->slot, NULL) != 0;
}

/* A caller came while the VM was being checked. */
static int
do_checked_crossed(struct scene *s)
{
	if (sup_check_begin(s->seg, &s->slot) != 0)
		return 1;
	fake_waiter(s);
	return sup_check_end(s->seg, s->slot, true) != 0;
}

static int
do_reset(struct scene *s)
{
	return sup_reset_done(s->seg, s->slot, 5) != 0;
}

static int
do_client_new(struct scene *s)
{
	uint32_t client;

	return sup_client_new(s->seg, 4711, &client) != 0;
}

static int
do_client_gone(struct scene *s)
{
	return sup_client_gone(s->seg, s->victim) != 0;
}

static int
do_join(struct scene *s)
{
	return sup_join(s->seg, s->slot, 1) != 0 || do_release(s) != 0;
}

static int
do_drain(struct scene *s)
{
	return sup_drain(s->seg) != 0;
}

/* --- what the parent does meanwhile ---------------------------------------------------- */

/* The child queues: its VM becomes ready. */
static void
help_ready(struct scene *s)
{
	(void)scene_child_queued(s);
	AZ(testpool_sup(sup_ready(s->seg, s->slot, 1)));
}

/* The child queues, and then the lock is never to be had. */
static void
help_hold_lock(struct scene *s)
{
	if (!scene_child_queued(s))
		return;
	AZ(lock_acquire(s->seg, now_ns() + PATIENCE_NS));
	scene_child_ended(s);
	lock_release(s->seg);
}

static int
do_give_up_without_lock(struct scene *s)
{
	struct lease lease;
	int r = acquire(s, 100000000, &lease);

	/* Unless the lock came too late: then it left the queue in order. */
	return r != -ETIMEDOUT;
}

/* --- all of it ------------------------------------------------------------------------- */

static const struct scenario scenarios[] = {
    {"hit at once, release", one_idle, do_try_release, NULL},
    {"hit at once, release beside others", three_idle_middle, do_try_release, NULL},
    {"hit, release", one_idle, do_acquire_release, NULL},
    {"hit, release beside another", two_idle, do_acquire_release, NULL},
    {"hit, use, release", one_idle, do_acquire_use_release, NULL},
    {"hit among expired ones", all_expired, do_acquire_release, NULL},
    {"hit past a dead one", newest_died, do_acquire_release, NULL},
    {"release", one_leased, do_release, NULL},
    {"release after use", one_touched, do_release, NULL},
    {"release to a waiter", leased_and_waited_for, do_release, NULL},
    {"release over max-idle", leased_and_full, do_release, NULL},
    {"release of a dead VM", one_dead, do_release_dead, NULL},
    {"wait, granted, release", one_starting, do_acquire_release, help_ready},
    {"wait in vain", nothing, do_wait_in_vain, NULL},
    {"give up without the lock", nothing, do_give_up_without_lock, help_hold_lock},
    {"warm", one_idle, do_warm, NULL},
    {"start", one_idle, do_start, NULL},
    {"ready, idle", one_starting, do_ready, NULL},
    {"ready, granted", starting_and_waited_for, do_ready, NULL},
    {"ready, granted to one who gives up", starting_and_two_wait, do_ready_crossed, NULL},
    {"lend a copy", one_starting, do_lend, NULL},
    {"reset, idle", one_resetting, do_reset, NULL},
    {"reset, granted", resetting_and_waited_for, do_reset, NULL},
    {"evict the only one", one_idle, do_evict, NULL},
    {"evict from the middle", three_idle_middle, do_evict, NULL},
    {"worker gone while starting", one_starting, do_worker_gone, NULL},
    {"worker gone while idle", three_idle_middle, do_worker_gone, NULL},
    {"worker gone under a lease", one_leased, do_worker_gone, NULL},
    {"worker gone while resetting", one_resetting, do_worker_gone, NULL},
    {"health check passed", two_idle, do_checked, NULL},
    {"health check passed, granted", one_idle, do_checked_crossed, NULL},
    {"health check failed", two_idle, do_checked_sick, NULL},
    {"worker gone in a health check", two_idle, do_checked_silent, NULL},
    {"client comes", one_idle, do_client_new, NULL},
    {"client goes", many_leases, do_client_gone, NULL},
    {"joined, release", one_leased, do_join, NULL},
    {"drain", starting_and_waited_for, do_drain, NULL},
};

static struct crash_log *names;

static void
one_scenario(void **state)
{
	const char *bad = scene_run_all(*state, false, names);

	if (bad != NULL)
		fail_msg("%s", bad);
}

/* Every pair of deaths, where most is at stake. */
static void
every_pair_of_deaths(void **state)
{
	static const struct scenario scenario = {"release to a waiter, crossed",
						 leased_and_waited_for, do_release, NULL};
	const char *bad = scene_run_all(&scenario, true, names);

	(void)state;
	if (bad != NULL)
		fail_msg("%s", bad);
}

static void
points_are_many(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < names->n; i++)
		print_message("# %s\n", names->point[i].name);
	assert_true(names->n >= 40);
}

int
main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(scenarios) + 2];
	size_t n = 0;

	names = crash_log_new();
	for (; n < ARRAY_SIZE(scenarios); n++)
		tests[n] = (struct CMUnitTest){.name = scenarios[n].name,
					       .test_func = one_scenario,
					       .initial_state = (void *)(uintptr_t)&scenarios[n]};
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_pair_of_deaths);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(points_are_many);
	return cmocka_run_group_tests_name("crash_lease", tests, NULL, NULL);
}
