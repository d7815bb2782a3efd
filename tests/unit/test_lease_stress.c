/* SPDX-License-Identifier: MIT
 *
 * test_lease_stress.c - clients, a supervisor and the pool at full speed: the
 * same body as threads and as processes, and as processes that are killed.
 *
 * Every VM has a word that only its lease's holder may write: a VM in two hands
 * shows.
 */
#include "shm/futex.h"
#include "shm/lifeline.h"
#include "tests/lib/testpool.h"
#include "tests/lib/testproc.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <cmocka.h>

#define CLIENTS 6
#define SLOTS 4
#define ROUNDS 2000u

static const struct testpool_policy policy = {
    .nslots = SLOTS, .min_idle = 2, .max_idle = 3, .max_total = SLOTS};

/* Shared by all parties. */
struct arena {
	struct seg *seg;
	int kick_fd;
	_Atomic uint32_t owner[SLOTS]; /* who holds the slot: 1 + party, 0 = nobody */
	_Atomic uint32_t stop;
	_Atomic uint32_t served[CLIENTS], timeouts[CLIENTS];
	struct party {
		struct arena *arena;
		uint32_t index, client;
	} party[CLIENTS];
};

static uint32_t
next(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

/* One lease: nobody else has the VM before, during and after. */
static int
one_lease(struct party *p, uint32_t dice)
{
	struct arena *a = p->arena;
	uint64_t patience = dice % 16 == 0 ? 20000 : PATIENCE_NS;
	uint32_t nobody = 0;
	struct lease lease;
	int r;

	/* As libvmpool does it. */
	r = lease_try(a->seg, p->client, &lease);
	if (r == -EAGAIN)
		r = lease_acquire(a->seg, p->client, a->kick_fd, now_ns(), now_ns() + patience,
				  &lease);
	if (r == -ETIMEDOUT && patience < PATIENCE_NS) {
		atomic_fetch_add(&a->timeouts[p->index], 1);
		return 0;
	}
	if (r != 0)
		return 10;
	if (!atomic_compare_exchange_strong(&a->owner[lease.slot], &nobody, p->index + 1))
		return 11;
	r = lease_check(a->seg, &lease);
	if (r != 0 && r != -EOWNERDEAD)
		return 12;
	if (dice % 3 == 0)
		testpool_touch(a->seg, lease.slot);
	if (atomic_exchange(&a->owner[lease.slot], 0) != p->index + 1)
		return 13;
	r = lease_release(a->seg, &lease, a->kick_fd);
	if (r != 0 && r != -EOWNERDEAD)
		return 14;
	atomic_fetch_add(&a->served[p->index], 1);
	return 0;
}

static int
client_body(void *arg)
{
	struct party *p = arg;
	uint32_t dice = 2463534242u + p->index;
	int r = 0;

	for (uint32_t i = 0; i < ROUNDS && r == 0; i++)
		r = one_lease(p, next(&dice));
	return r;
}

/* What a supervisor would do now: end or reset what is RESETTING, make ready
 * what starts, find workers dead, refill. */
static int
supervise_slot(struct seg *seg, uint32_t slot, uint32_t dice)
{
	switch (testpool_state(seg, slot)) {
	case SLOT_RESETTING:
		return dice % 2 ? sup_reset_done(seg, slot, 1) : sup_worker_gone(seg, slot, NULL);
	case SLOT_STARTING:
		return dice % 8 ? sup_ready(seg, slot, 1) : sup_worker_gone(seg, slot, NULL);
	case SLOT_IDLE: return dice % 64 ? 0 : sup_evict(seg, slot);
	case SLOT_IN_USE: return dice % 64 ? 0 : sup_worker_gone(seg, slot, NULL);
	default: return 0;
	}
}

/* False: a call failed in a way that no race explains. */
static bool
supervise_once(struct seg *seg, uint32_t *dice)
{
	uint64_t generation;
	uint32_t slot;
	int r;

	for (uint32_t i = 0; i < SLOTS; i++) {
		r = supervise_slot(seg, i, next(dice));
		if (r != 0 && r != -EBUSY && r != -ESTALE)
			return false;
	}
	r = sup_start(seg, &slot, &generation);
	return r == 0 || r == -EBUSY || r == -ENOSPC;
}

static void *
supervisor_body(void *arg)
{
	struct arena *a = arg;
	uint32_t dice = 99;

	while (atomic_load(&a->stop) == 0) {
		struct pollfd pfd = {.fd = a->kick_fd, .events = POLLIN};
		uint64_t n;

		/* The timeout is for what nobody rings: a VM that is starting. */
		if (poll(&pfd, 1, 1) > 0 && read(a->kick_fd, &n, sizeof(n)) < 0)
			return a;
		if (!supervise_once(a->seg, &dice))
			return a;
	}
	return NULL;
}

static struct arena *
arena_new(void)
{
	struct arena *a =
	    mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(a, MAP_FAILED);
	a->seg = testpool_new(&policy);
	a->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (uint32_t i = 0; i < CLIENTS; i++)
		a->party[i] =
		    (struct party){.arena = a, .index = i, .client = testpool_client(a->seg)};
	return a;
}

static void
arena_free(struct arena *a)
{
	const char *bad = checkpool(a->seg);

	if (bad != NULL)
		fail_msg("%s", bad);
	closep(&a->kick_fd);
	testpool_free(a->seg);
	(void)munmap(a, sizeof(*a));
}

static void
balance(struct arena *a)
{
	uint64_t served = 0, timeouts = 0;

	for (uint32_t i = 0; i < CLIENTS; i++) {
		served += atomic_load(&a->served[i]);
		timeouts += atomic_load(&a->timeouts[i]);
	}
	assert_int_equal(testpool_stat(a->seg, C_hit_count) + testpool_stat(a->seg, C_miss_count),
			 served);
	assert_int_equal(testpool_stat(a->seg, C_release_count), served);
	assert_true(testpool_stat(a->seg, C_wait_timeout_count) <= timeouts);
	assert_int_equal(served + timeouts, CLIENTS * ROUNDS);
	assert_int_equal(atomic_load(&a->seg->head->waiting), 0);
	assert_int_equal(testpool_count(a->seg, SLOT_IN_USE), 0);
}

static void *
client_thread(void *arg)
{
	return (void *)(intptr_t)client_body(arg);
}

static void
as_threads(void **state)
{
	struct arena *a = arena_new();
	pthread_t sup, thread[CLIENTS];
	void *r, *bad;

	(void)state;
	assert_int_equal(pthread_create(&sup, NULL, supervisor_body, a), 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, client_thread, &a->party[i]), 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		assert_int_equal(pthread_join(thread[i], &r), 0);
		assert_int_equal((intptr_t)r, 0);
	}
	atomic_store(&a->stop, 1);
	assert_int_equal(pthread_join(sup, &bad), 0);
	assert_null(bad);
	balance(a);
	assert_int_equal(testpool_stat(a->seg, C_lock_recovery_count), 0);
	arena_free(a);
}

static void
as_processes(void **state)
{
	struct arena *a = arena_new();
	pid_t pid[CLIENTS];
	pthread_t sup;
	void *bad;

	(void)state;
	for (unsigned i = 0; i < CLIENTS; i++)
		pid[i] = testproc_start(client_body, &a->party[i]);
	assert_int_equal(pthread_create(&sup, NULL, supervisor_body, a), 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		assert_int_equal(testproc_wait(pid[i]), 0);
	atomic_store(&a->stop, 1);
	assert_int_equal(pthread_join(sup, &bad), 0);
	assert_null(bad);
	balance(a);
	assert_int_equal(testpool_stat(a->seg, C_lock_recovery_count), 0);
	arena_free(a);
}

/* Clients are killed at any moment, and replaced. The supervisor's part runs
 * between, in this thread; nobody may ever see a VM in two hands. */
static int
endless_client(void *arg)
{
	struct party *p = arg;
	uint32_t dice = (uint32_t)getpid() | 1;
	int r = 0;

	while (r == 0)
		r = one_lease(p, next(&dice));
	return r;
}

static void
reclaim(struct arena *a, uint32_t i)
{
	uint32_t mine;

	/* Whoever it held is nobody's before the supervisor gives it on. */
	for (uint32_t s = 0; s < SLOTS; s++) {
		mine = i + 1;
		(void)atomic_compare_exchange_strong(&a->owner[s], &mine, 0);
	}
	assert_int_equal(testpool_sup(sup_client_gone(a->seg, a->party[i].client)), 0);
	a->party[i].client = testpool_client(a->seg);
}

static void
as_mortals(void **state)
{
	struct arena *a = arena_new();
	uint32_t dice = 7, deaths = 0;
	pid_t pid[CLIENTS];

	(void)state;
	for (unsigned i = 0; i < CLIENTS; i++)
		pid[i] = testproc_start(endless_client, &a->party[i]);
	while (deaths < 300) {
		struct pollfd pfd = {.fd = a->kick_fd, .events = POLLIN};
		uint32_t victim = next(&dice) % CLIENTS;
		uint64_t n;

		for (unsigned k = next(&dice) % 8; k > 0; k--) {
			if (poll(&pfd, 1, 1) > 0)
				assert_int_equal(read(a->kick_fd, &n, sizeof(n)), sizeof(n));
			assert_true(supervise_once(a->seg, &dice));
		}
		assert_int_equal(kill(pid[victim], SIGKILL), 0);
		assert_int_equal(testproc_wait(pid[victim]), 1000 + SIGKILL);
		reclaim(a, victim);
		deaths++;
		pid[victim] = testproc_start(endless_client, &a->party[victim]);
		if (deaths % 16 == 0) {
			const char *bad = checkpool(a->seg);

			if (bad != NULL)
				fail_msg("%s", bad);
		}
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		testproc_kill(pid[i]);
		reclaim(a, i);
	}
	assert_int_equal(testpool_count(a->seg, SLOT_IN_USE), 0);
	assert_int_equal(atomic_load(&a->seg->head->waiting), 0);
	arena_free(a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_threads),
	    cmocka_unit_test(as_processes),
	    cmocka_unit_test(as_mortals),
	};

	return cmocka_run_group_tests_name("lease_stress", tests, NULL, NULL);
}
