/* SPDX-License-Identifier: MIT
 *
 * test_client_hostile.c - what a VM may do to its borrower: nothing but fail.
 * Each row makes the other side misbehave in one way and says what the caller
 * sees; afterwards another VM of the same pool works.
 */
#include "tests/lib/clienttest.h"

#include <string.h>

struct row {
	const char *script;
	int result;	   /* of vmpool_exec */
	const char *out;   /* collected, NULL = do not look */
	const char *error; /* in the error's text */
	bool broken;	   /* the VM is unusable from then on */
};

static const struct row rows[] = {
    {"cheat", VMPOOL_EPROTOCOL, NULL, "stream", true},
    {"credit", VMPOOL_EPROTOCOL, "", "stream", true},
    {"badexit", VMPOOL_EPROTOCOL, "", "stream", true},
    {"badtype", VMPOOL_EPROTOCOL, "", "type 200", true},
    {"badpos", VMPOOL_EPROTOCOL, "", "tampered", true},
    {"stale", 0, "fresh", NULL, false},
    {"stranger", 0, "mine", NULL, false},
    {"late", 0, "early", NULL, false},
};

static void
check_row(struct fixture *f, const struct row *row)
{
	const struct vmpool_exec_opts opts = {.input = "", .input_len = 0};
	struct vmpool_result r;
	struct vmpool_vm *vm;
	int result;

	assert_int_equal(vmpool_acquire(f->pool, NULL, &vm), 0);
	result = vmpool_exec(vm, ARGV(row->script), &opts, &r);
	if (result != row->result)
		fail_msg("%s: %d (%s)", row->script, result, vmpool_error(f->pool));
	if (row->error != NULL && strstr(vmpool_error(f->pool), row->error) == NULL)
		fail_msg("%s: %s", row->script, vmpool_error(f->pool));
	if (row->out != NULL)
		assert_string_equal(r.out, row->out);
	vmpool_result_fini(&r);
	result = vmpool_exec(vm, ARGV("echo", "again"), NULL, &r);
	assert_int_equal(result, row->broken ? row->result : 0);
	vmpool_result_fini(&r);
	(void)vmpool_release(vm);
}

static void
misbehaviour(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		check_row(f, &rows[i]);
		fakepool_add_vm(&f->fp);
	}
}

/* Every word of the channel that a worker may write, scribbled on while a
 * command runs: an error or a result, never a crash and never a hang. */
static void
scribbles(void **state)
{
	struct fixture *f = *state;
	uint32_t seed = 1;

	for (int round = 0; round < 60; round++) {
		const struct vmpool_acquire_opts now = {.timeout_ms = FOREVER_MS};
		struct vmpool_proc *proc;
		struct vmpool_event ev;
		struct vmpool_vm *vm;
		uint8_t *chan;
		int r;

		assert_int_equal(vmpool_acquire(f->pool, &now, &vm), 0);
		assert_int_equal(vmpool_spawn(vm, ARGV("flood", "40000"), NULL, &proc), 0);
		chan = f->fp.seg->chan[vmpool_slot(vm)].rsp_data;
		fakepool_pause(&f->fp, vmpool_slot(vm), true);
		assert_int_equal(vmpool_ping_worker(vm, 0, NULL), VMPOOL_ETIMEDOUT);
		for (int i = 0; i < 64; i++) {
			seed = seed * 1664525u + 1013904223u;
			__atomic_store_n(&chan[(seed >> 8) % (32u << 10)], (uint8_t)seed,
					 __ATOMIC_RELAXED);
		}
		(void)atomic_fetch_add(&f->fp.seg->chan[vmpool_slot(vm)].rsp.tail,
				       round % 3 == 0 ? 64 * (seed >> 26) : 0);
		do
			r = vmpool_proc_next(proc, 20, &ev);
		while (r == 0 && (ev.type == VMPOOL_STDOUT || ev.type == VMPOOL_STDERR));
		assert_true(r == 0 || r == -EAGAIN || r < -4000);
		fakepool_kill_vm(&f->fp, vmpool_slot(vm));
		(void)vmpool_release(vm);
		fakepool_add_vm(&f->fp);
	}
}

/* The client's side of the channel is written by the worker's side as well. */
static void
request_ring(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;

	assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, NULL), 0);
	fakepool_pause(&f->fp, vmpool_slot(f->vm), true);
	(void)atomic_fetch_add(&f->fp.seg->chan[vmpool_slot(f->vm)].req.head, 1u << 20);
	assert_int_equal(vmpool_exec(f->vm, ARGV("echo"), NULL, &r), VMPOOL_EPROTOCOL);
	vmpool_result_fini(&r);
	assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, NULL), VMPOOL_EPROTOCOL);
}

/* Whatever is called then says so, and at once. */
static void
dies_in_every_call(void **state)
{
	static const char bytes[100000];
	const struct vmpool_exec_opts opts = {.want_stdin = true};
	struct fixture *f = *state;
	struct vmpool_proc *proc;
	struct vmpool_event ev;
	struct vmpool_result r;

	assert_int_equal(vmpool_spawn(f->vm, ARGV("deaf"), &opts, &proc), 0);
	fakepool_kill_vm(&f->fp, vmpool_slot(f->vm));
	assert_int_equal(vmpool_proc_write(proc, bytes, sizeof(bytes), FOREVER_MS), VMPOOL_EVMDIED);
	assert_int_equal(vmpool_proc_kill(proc, 9), VMPOOL_EVMDIED);
	assert_int_equal(vmpool_proc_close_stdin(proc), VMPOOL_EVMDIED);
	assert_int_equal(vmpool_proc_next(proc, FOREVER_MS, &ev), VMPOOL_EVMDIED);
	assert_int_equal(vmpool_spawn(f->vm, ARGV("deaf"), &opts, &proc), VMPOOL_EVMDIED);
	assert_int_equal(vmpool_exec(f->vm, ARGV("deaf"), NULL, &r), VMPOOL_EVMDIED);
	vmpool_result_fini(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(misbehaviour, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(scribbles, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(request_ring, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(dies_in_every_call, setup_vm, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
