/* SPDX-License-Identifier: MIT
 *
 * test_stress_threads.c - the body of the stress test as threads of one process,
 * with real workers, so that the thread sanitizer sees all of it.
 */
#include "tests/lib/stress_body.h"
#include "tests/lib/testpool.h"
#include "tests/lib/threadpool.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CLIENTS 6u
#define LEASES 1500u

/* liburing maps and unmaps its queues by system calls that the thread sanitizer
 * does not see: it takes the queue of a new worker for that of an ended one, when
 * both were at the same address. */
const char *__tsan_default_suppressions(void);
const char *
__tsan_default_suppressions(void)
{
	return "race:io_uring_\n";
}

static struct shared {
	struct stress_plan plan;
	struct stress_party party[CLIENTS];
} shared;

static void *
be_client(void *arg)
{
	struct stress_party *party = arg;
	uint32_t seed = 7919u * (uint32_t)(party - shared.party + 1);

	return stress_body(party, &shared.plan, seed) ? NULL : party;
}

static unsigned
open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n;
}

/* Every lease that somebody had has ended, and was counted once. */
static void
check_balance(struct threadpool *tp)
{
	uint64_t seen = 0, acquires;

	for (unsigned i = 0; i < CLIENTS; i++)
		seen += atomic_load(&shared.party[i].acquired);
	acquires = testpool_stat(tp->seg, C_hit_count) + testpool_stat(tp->seg, C_miss_count);
	assert_int_equal(acquires, seen);
	assert_int_equal(testpool_stat(tp->seg, C_release_count), acquires);
	assert_int_equal(testpool_stat(tp->seg, C_reclaim_count), 0);
	assert_int_equal(testpool_count(tp->seg, SLOT_EMPTY), THREADPOOL_SLOTS);
	assert_true(seen >= LEASES);
}

static void
clients_and_workers(void **state)
{
	static struct threadpool tp;
	pthread_t thread[CLIENTS];
	unsigned files = open_files();
	const char *bad;
	void *failed;

	(void)state;
	shared.plan = (struct stress_plan){
	    .ops = STRESS_ALL,
	    .touch = 400,
	    .patience_ms = 20000,
	    .command_ms = 60000,
	    .slack_ms = 60000,
	    .left = LEASES,
	};
	threadpool_open(&tp, 2, 5);
	for (unsigned i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, be_client, &shared.party[i]), 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		assert_int_equal(pthread_join(thread[i], &failed), 0);
		if (failed != NULL)
			fail_msg("client %u: %s", i, shared.party[i].complaint);
	}
	bad = checkpool(tp.seg);
	if (bad != NULL)
		fail_msg("%s", bad);
	threadpool_stop(&tp);
	check_balance(&tp);
	threadpool_close(&tp);
	assert_int_equal(open_files(), files);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(clients_and_workers)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
