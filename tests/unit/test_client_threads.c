/* SPDX-License-Identifier: MIT
 *
 * test_client_threads.c - many threads: on commands of one VM, on VMs of one
 * handle; waiting while the VM or the supervisor dies; signals. Meant to run
 * under ThreadSanitizer as well.
 */
#include "tests/lib/clienttest.h"

#include <signal.h>
#include <string.h>

#define THREADS 6
#define ROUNDS 30

struct job {
	struct fixture *f;
	int id, result;
	pthread_t thread;
	atomic_bool started;
};

static void
run_all(struct job *job, size_t n, void *(*body)(void *))
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(pthread_create(&job[i].thread, NULL, body, &job[i]), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(pthread_join(job[i].thread, NULL), 0);
}

static bool
exec_ok(struct vmpool_vm *vm, const char *const *argv, const struct vmpool_exec_opts *opts,
	size_t out_len)
{
	struct vmpool_result r;
	bool ok = vmpool_exec(vm, argv, opts, &r) == 0 && r.exit_code == 0 && r.out_len == out_len;

	vmpool_result_fini(&r);
	return ok;
}

/* Output, input, pings and forgotten commands at once on one VM. */
static void *
use_one_vm(void *arg)
{
	static const char bytes[40000];
	const struct vmpool_exec_opts opts = {.input = bytes, .input_len = sizeof(bytes)};
	struct job *job = arg;
	struct vmpool_vm *vm = job->f->vm;
	struct vmpool_proc *proc;

	for (int i = 0; i < ROUNDS && job->result == 0; i++) {
		bool ok = true;

		switch ((i + job->id) % 4) {
		case 0: ok = exec_ok(vm, ARGV("flood", "70000"), NULL, 70000); break;
		case 1: ok = exec_ok(vm, ARGV("cat"), &opts, sizeof(bytes)); break;
		case 2: ok = vmpool_ping(vm, FOREVER_MS, NULL) == 0; break;
		default:
			ok = vmpool_spawn(vm, ARGV("flood", "50000"), NULL, &proc) == 0;
			vmpool_proc_free(proc);
		}
		job->result = ok ? 0 : i + 1;
	}
	return NULL;
}

static void
one_vm(void **state)
{
	struct job job[THREADS] = {0};

	for (int i = 0; i < THREADS; i++)
		job[i] = (struct job){.f = *state, .id = i};
	run_all(job, THREADS, use_one_vm);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(job[i].result, 0);
}

/* More threads than VMs: they take turns. */
static void *
borrow(void *arg)
{
	const struct vmpool_acquire_opts opts = {.timeout_ms = FOREVER_MS};
	struct job *job = arg;
	struct vmpool_vm *vm;

	for (int i = 0; i < ROUNDS && job->result == 0; i++) {
		job->result = vmpool_acquire(job->f->pool, &opts, &vm);
		if (job->result != 0)
			break;
		if (i == ROUNDS - 1 && job->id == 0 && !exec_ok(vm, ARGV("echo", "x"), NULL, 2))
			job->result = 1;
		/* A text of another thread's failure is not ours. */
		if (vmpool_error(job->f->pool)[0] != '\0')
			job->result = 2;
		(void)vmpool_release(vm);
	}
	return NULL;
}

static void
many_vms(void **state)
{
	struct job job[THREADS] = {0};
	struct fixture *f = *state;

	for (int i = 0; i < THREADS; i++)
		job[i] = (struct job){.f = f, .id = i};
	run_all(job, THREADS, borrow);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(job[i].result, 0);
	assert_int_equal(stat_value(f->pool, "in_use_count"), 0);
	assert_int_equal(stat_value(f->pool, "release_count"), THREADS * ROUNDS);
}

static void *
wait_for_ever(void *arg)
{
	struct job *job = arg;
	struct vmpool_result r;
	struct vmpool_proc *proc;
	struct vmpool_event ev;

	atomic_store(&job->started, true);
	if (job->id % 3 == 0) {
		job->result = vmpool_exec(job->f->vm, ARGV("sleep"), NULL, &r);
		vmpool_result_fini(&r);
	} else if (job->id % 3 == 1) {
		job->result = vmpool_ping(job->f->vm, -1, NULL);
	} else if ((job->result = vmpool_spawn(job->f->vm, ARGV("sleep"), NULL, &proc)) == 0) {
		job->result = vmpool_proc_next(proc, -1, &ev);
	}
	return NULL;
}

static void
start_waiting(struct job *job, struct fixture *f)
{
	atomic_store(&f->fp.silent_pings, true);
	for (int i = 0; i < THREADS; i++) {
		job[i] = (struct job){.f = f, .id = i};
		assert_int_equal(pthread_create(&job[i].thread, NULL, wait_for_ever, &job[i]), 0);
	}
	/* Usually all of them sleep by the time they are needed; the outcome is the
	 * same for one that has yet to begin. */
	for (int i = 0; i < THREADS; i++)
		while (!atomic_load(&job[i].started))
			assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, NULL), 0);
}

static void
end_waiting(struct job *job, int result)
{
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(job[i].thread, NULL), 0);
		assert_int_equal(job[i].result, result);
	}
}

static void
vm_dies(void **state)
{
	struct fixture *f = *state;
	struct job job[THREADS];

	start_waiting(job, f);
	fakepool_kill_vm(&f->fp, vmpool_slot(f->vm));
	end_waiting(job, VMPOOL_EVMDIED);
}

static void
supervisor_dies(void **state)
{
	struct fixture *f = *state;
	struct job job[THREADS];

	start_waiting(job, f);
	fakepool_kill_supervisor(&f->fp);
	end_waiting(job, VMPOOL_ERESTARTED);
}

static void
on_signal(int sig)
{
	(void)sig;
}

static void *
wait_interrupted(void *arg)
{
	struct job *job = arg;
	struct vmpool_result r;

	job->result = vmpool_exec(job->f->vm, ARGV("sleep"), NULL, &r);
	vmpool_result_fini(&r);
	atomic_store(&job->started, true); /* here: has ended */
	return NULL;
}

/* A handler without SA_RESTART ends the wait, and the command with it. */
static void
interrupted(void **state)
{
	const struct sigaction sa = {.sa_handler = on_signal};
	struct fixture *f = *state;
	struct job job = {.f = f};

	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	assert_int_equal(pthread_create(&job.thread, NULL, wait_interrupted, &job), 0);
	while (!atomic_load(&job.started)) {
		(void)pthread_kill(job.thread, SIGUSR1);
		(void)sched_yield();
	}
	assert_int_equal(pthread_join(job.thread, NULL), 0);
	assert_int_equal(job.result, -EINTR);
	assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, NULL), 0);
	assert_int_equal(atomic_load(&f->fp.kills), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(one_vm, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(many_vms, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(vm_dies, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(supervisor_dies, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(interrupted, setup_vm, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
