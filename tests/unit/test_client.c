/* SPDX-License-Identifier: MIT
 *
 * test_client.c - libvmpool's handles: attaching, leases, pings, statistics,
 * and what happens when the pool is not there, of another build, or dies.
 */
#include "shm/lease.h"
#include "tests/lib/clienttest.h"

#include <string.h>
#include <sys/wait.h>

static void
no_pool(void **state)
{
	struct vmpool *pool = (void *)1;

	(void)state;
	assert_int_equal(vmpool_attach(&pool, "nobody"), VMPOOL_ENOPOOL);
	assert_null(pool);
	assert_non_null(strstr(vmpool_error(NULL), "vmpool -p nobody start"));
	assert_int_equal(vmpool_attach(&pool, "a/b"), VMPOOL_ECONFIG);
	assert_int_equal(vmpool_stop("nobody", 0, 0), VMPOOL_ENOPOOL);
}

/* The socket file is there, but nobody listens any more. */
static void
stale_socket(void **state)
{
	struct fixture *f = *state;
	struct vmpool *pool;

	fakepool_kill_supervisor(&f->fp);
	assert_int_equal(access(f->fp.path, F_OK), 0);
	assert_int_equal(vmpool_attach(&pool, NULL), VMPOOL_ENOPOOL);
}

static void
other_layout(void **state)
{
	struct fixture *f = *state;
	struct vmpool *pool;

	atomic_store(&f->fp.wrong_format, true);
	assert_int_equal(vmpool_attach(&pool, NULL), VMPOOL_ELAYOUT);
	/* What another program says reaches no terminal as it is. */
	assert_non_null(strstr(vmpool_error(NULL), "another ? layout"));
}

static void
supervisor_silent(void **state)
{
	struct fixture *f = *state;
	struct vmpool *pool;
	uint64_t start = now_ns();

	atomic_store(&f->fp.silent_socket, true);
	assert_int_equal(vmpool_attach(&pool, NULL), VMPOOL_ETIMEDOUT);
	assert_in_range(now_ns() - start, 4000000000ull, 20000000000ull);
}

static void
acquire_release(void **state)
{
	struct fixture *f = *state;
	struct vmpool_vm *a, *b;

	assert_int_equal(vmpool_acquire(f->pool, NULL, &a), 0);
	assert_int_equal(vmpool_acquire(f->pool, NULL, &b), 0);
	assert_int_not_equal(vmpool_slot(a), vmpool_slot(b));
	assert_int_equal(stat_value(f->pool, "in_use_count"), 2);
	assert_int_equal(stat_value(f->pool, "idle_count"), 1);
	assert_int_equal(vmpool_release(a), 0);
	assert_int_equal(vmpool_release(b), 0);
	/* Untouched, so they are idle again; and no doorbell was ever asked for. */
	assert_int_equal(stat_value(f->pool, "idle_count"), 3);
	assert_int_equal(atomic_load(&f->fp.doorbell_requests), 0);
}

static void
no_capacity(void **state)
{
	struct fixture *f = *state;
	struct vmpool_vm *vm[4];

	for (int i = 0; i < 3; i++)
		assert_int_equal(vmpool_acquire(f->pool, NULL, &vm[i]), 0);
	assert_int_equal(
	    vmpool_acquire(f->pool, &(struct vmpool_acquire_opts){.timeout_ms = 0}, &vm[3]),
	    VMPOOL_ECAPACITY);
	assert_null(vm[3]);
	assert_int_equal(
	    vmpool_acquire(f->pool, &(struct vmpool_acquire_opts){.timeout_ms = 50}, &vm[3]),
	    VMPOOL_ECAPACITY);
	assert_non_null(strstr(vmpool_error(f->pool), "in use 3"));
	/* Three are left to detach. */
}

static void *
add_vm(void *arg)
{
	fakepool_add_vm(arg);
	return NULL;
}

static void
waits_for_vm(void **state)
{
	struct fixture *f = *state;
	struct vmpool_vm *vm[4];
	pthread_t thread;

	for (int i = 0; i < 3; i++)
		assert_int_equal(vmpool_acquire(f->pool, NULL, &vm[i]), 0);
	assert_int_equal(pthread_create(&thread, NULL, add_vm, &f->fp), 0);
	assert_int_equal(vmpool_acquire(f->pool, NULL, &vm[3]), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(vmpool_release(vm[i]), 0);
}

static void
used_vm_is_not_handed_on(void **state)
{
	struct fixture *f = *state;
	struct vmpool_vm *vm;

	assert_int_equal(vmpool_acquire(f->pool, NULL, &vm), 0);
	assert_int_equal(vmpool_ping(vm, FOREVER_MS, NULL), 0);
	assert_int_equal(vmpool_release(vm), 0);
	/* It went to the supervisor; the other two are idle. */
	assert_int_equal(stat_value(f->pool, "idle_count"), 2);
}

static void
pings(void **state)
{
	struct fixture *f = *state;
	uint64_t rtt = 0;

	assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, &rtt), 0);
	assert_in_range(rtt, 1, 10000000000ull);
	assert_int_equal(vmpool_ping(f->vm, FOREVER_MS, &rtt), 0);
	atomic_store(&f->fp.silent_pings, true);
	assert_int_equal(vmpool_ping(f->vm, 30, &rtt), VMPOOL_ETIMEDOUT);
	assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, &rtt), 0);
	atomic_store(&f->fp.silent_pings, false);
	assert_int_equal(vmpool_ping(f->vm, FOREVER_MS, &rtt), 0);
	/* One exchange with the supervisor serves all calls on a slot. */
	assert_int_equal(atomic_load(&f->fp.doorbell_requests), 1);
}

static void
monitor(void **state)
{
	struct fixture *f = *state;
	struct vmpool_slot_info *list;
	struct vmpool_info info;
	struct vmpool_vm *vm;
	struct vmpool *mon;
	size_t n;

	assert_int_equal(vmpool_monitor(&mon, NULL), 0);
	assert_int_equal(vmpool_acquire(mon, NULL, &vm), -EROFS);
	assert_int_equal(vmpool_info(mon, &info), 0);
	assert_string_equal(info.state, "running");
	assert_string_equal(info.accel, "tcg");
	assert_int_equal(info.max_idle, FAKE_SLOTS);
	assert_int_equal(vmpool_list(mon, &list, &n), 0);
	assert_int_equal(n, 3);
	for (size_t i = 0; i < n; i++) {
		bool mine = list[i].slot == vmpool_slot(f->vm);

		assert_string_equal(list[i].state, mine ? "in_use" : "idle");
		assert_int_equal(list[i].client_pid, mine ? getpid() : 0);
		assert_int_equal(list[i].worker_pid, 4000000 + list[i].slot);
	}
	vmpool_list_free(list);
	fakepool_kill_supervisor(&f->fp);
	assert_int_equal(vmpool_info(mon, &info), 0);
	assert_string_equal(info.state, "dead");
	assert_int_equal(stat_value(mon, "in_use_count"), 1);
	vmpool_detach(mon);
}

static void
supervisor_dies(void **state)
{
	struct fixture *f = *state;
	struct vmpool_vm *vm;

	fakepool_kill_supervisor(&f->fp);
	assert_int_equal(vmpool_ping(f->vm, FOREVER_MS, NULL), VMPOOL_ERESTARTED);
	assert_int_equal(vmpool_acquire(f->pool, NULL, &vm), VMPOOL_ERESTARTED);
	assert_int_equal(vmpool_warm(f->pool, 2, FOREVER_MS), VMPOOL_ERESTARTED);
	assert_int_equal(vmpool_release(f->vm), VMPOOL_ERESTARTED);
	f->vm = NULL;
}

static void
vm_dies(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(vmpool_ping(f->vm, FOREVER_MS, NULL), 0);
	fakepool_kill_vm(&f->fp, vmpool_slot(f->vm));
	assert_int_equal(vmpool_ping(f->vm, FOREVER_MS, NULL), VMPOOL_EVMDIED);
	assert_int_equal(vmpool_release(f->vm), VMPOOL_EVMDIED);
	f->vm = NULL;
}

static void
warm(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;

	assert_int_equal(vmpool_warm(f->pool, 3, FOREVER_MS), 0);
	assert_int_equal(vmpool_warm(f->pool, 4, 30), 0);
	assert_int_equal(pthread_create(&thread, NULL, add_vm, &f->fp), 0);
	/* Idle before, or inserted meanwhile: either way four are in the end. */
	assert_in_range(vmpool_warm(f->pool, 4, FOREVER_MS), 0, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(stat_value(f->pool, "idle_count"), 4);
}

static void
warm_fails(void **state)
{
	struct fixture *f = *state;

	sup_failing(f->fp.seg, 3, "no \033 kernel");
	assert_int_equal(vmpool_warm(f->pool, 5, FOREVER_MS), VMPOOL_ESTART);
	assert_non_null(strstr(vmpool_error(f->pool), "no ? kernel"));
}

/* A forked child must not use what it inherited. */
static int
child_of(struct fixture *f)
{
	struct vmpool_stat *stats;
	struct vmpool_vm *vm;
	struct vmpool *own;
	size_t n;

	if (vmpool_acquire(f->pool, NULL, &vm) != VMPOOL_EFORKED ||
	    vmpool_ping(f->vm, 100, NULL) != VMPOOL_EFORKED ||
	    vmpool_release(f->vm) != VMPOOL_EFORKED ||
	    vmpool_stats(f->pool, &stats, &n) != VMPOOL_EFORKED)
		return 1;
	if (strstr(vmpool_error(f->pool), "fork") == NULL)
		return 2;
	vmpool_detach(f->pool);
	return vmpool_attach(&own, NULL) == 0 && vmpool_acquire(own, NULL, &vm) == 0 ? 0 : 3;
}

static void
forked(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(child_of(f));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	/* The parent's lease is as it was. */
	assert_int_equal(vmpool_ping(f->vm, FOREVER_MS, NULL), 0);
}

static void
detach_gives_back(void **state)
{
	struct fixture *f = *state;
	struct vmpool_vm *vm;
	struct vmpool *other;

	assert_int_equal(vmpool_attach(&other, NULL), 0);
	assert_int_equal(vmpool_acquire(other, NULL, &vm), 0);
	assert_int_equal(vmpool_acquire(other, NULL, &vm), 0);
	vmpool_detach(other);
	assert_int_equal(stat_value(f->pool, "idle_count"), 3);
	assert_int_equal(stat_value(f->pool, "release_count"), 2);
}

static void
stop(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(vmpool_stop(NULL, 0, 50), VMPOOL_ETIMEDOUT);
	/* It would now end with its last client. */
	assert_true(atomic_exchange(&f->fp.stop_asked, false));
	vmpool_detach(f->pool);
	f->pool = NULL;
	assert_int_equal(vmpool_stop(NULL, 0, FOREVER_MS), 0);
	assert_int_equal(vmpool_stop(NULL, 0, FOREVER_MS), VMPOOL_ENOPOOL);
}

static void
texts(void **state)
{
	(void)state;
	for (int e = VMPOOL_EPROTOCOL; e <= VMPOOL_ECONFIG; e++)
		assert_string_not_equal(vmpool_strerror(e), "unknown error");
	assert_string_equal(vmpool_strerror(-ENOENT), "No such file or directory");
	assert_string_equal(vmpool_strerror(-99999), "unknown error");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(no_pool, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(stale_socket, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(other_layout, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(supervisor_silent, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(acquire_release, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(no_capacity, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(waits_for_vm, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(used_vm_is_not_handed_on, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(pings, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(monitor, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(supervisor_dies, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(vm_dies, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(warm, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(warm_fails, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(forked, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(detach_gives_back, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(stop, setup_pool, teardown),
	    cmocka_unit_test(texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
