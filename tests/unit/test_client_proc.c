/* SPDX-License-Identifier: MIT
 *
 * test_client_proc.c - commands as streams: events in order, credit, stdin,
 * descriptors, killing, forgetting, full rings; several at once.
 */
#include "shm/client.h"
#include "tests/lib/clienttest.h"

#include <poll.h>
#include <signal.h>
#include <string.h>

static struct vmpool_proc *
spawn(struct fixture *f, const char *const *argv, bool want_stdin)
{
	const struct vmpool_exec_opts opts = {.want_stdin = want_stdin};
	struct vmpool_proc *proc;

	assert_int_equal(vmpool_spawn(f->vm, argv, &opts, &proc), 0);
	return proc;
}

/* All that is left of a command: bytes of stdout; asserts how it ends. */
static size_t
finish(struct vmpool_proc *proc, int code, int sig)
{
	struct vmpool_event ev;
	size_t n = 0;

	for (;;) {
		assert_int_equal(vmpool_proc_next(proc, FOREVER_MS, &ev), 0);
		if (ev.type == VMPOOL_EXIT)
			break;
		n += ev.type == VMPOOL_STDOUT ? ev.len : 0;
	}
	assert_int_equal(ev.exit_code, code);
	assert_int_equal(ev.signal, sig);
	return n;
}

static void
events(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *proc = spawn(f, ARGV("both", "50"), false);
	struct vmpool_event ev;
	int last = 0, changes = 0;

	for (;;) {
		assert_int_equal(vmpool_proc_next(proc, FOREVER_MS, &ev), 0);
		if (ev.type == VMPOOL_EXIT)
			break;
		changes += (int)ev.type != last;
		last = (int)ev.type;
	}
	/* In the order of writing, whatever was read at once. */
	assert_int_equal(changes, 100);
	/* The end is repeated, and stdin is closed. */
	assert_int_equal(vmpool_proc_next(proc, 0, &ev), 0);
	assert_int_equal(ev.type, VMPOOL_EXIT);
	assert_int_equal(vmpool_proc_write(proc, "x", 1, 0), -EPIPE);
	assert_int_equal(vmpool_proc_kill(proc, SIGTERM), -ESRCH);
	vmpool_proc_free(proc);
}

static void
nothing_yet(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *proc = spawn(f, ARGV("sleep"), false);
	struct vmpool_event ev;

	assert_int_equal(vmpool_proc_next(proc, 0, &ev), -EAGAIN);
	assert_int_equal(vmpool_proc_next(proc, 20, &ev), -EAGAIN);
	assert_int_equal(vmpool_proc_kill(proc, 0), -EINVAL);
	assert_int_equal(vmpool_proc_kill(proc, SIGTERM), 0);
	assert_int_equal(finish(proc, 0, SIGTERM), 0);
	vmpool_proc_free(proc);
}

/* Nobody fetches: the guest stops at its window, and another command goes on. */
static void
back_pressure(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *flood = spawn(f, ARGV("flood", "500000"), false);
	struct vmpool_result r;

	for (int i = 0; i < 20; i++) {
		assert_int_equal(vmpool_exec(f->vm, ARGV("echo", "on"), NULL, &r), 0);
		assert_string_equal(r.out, "on\n");
		vmpool_result_fini(&r);
	}
	assert_int_equal(atomic_load(&f->fp.credits), 0);
	assert_int_equal(finish(flood, 0, 0), 500000);
	/* Credit is returned in pieces, not byte by byte. */
	assert_in_range(atomic_load(&f->fp.credits), 2, 500000 / CLIENT_GRANT_MIN + 1);
	vmpool_proc_free(flood);
}

static void
stdin_stream(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *proc = spawn(f, ARGV("cat"), true);
	struct vmpool_event ev;

	assert_int_equal(vmpool_proc_write(proc, "ping", 4, FOREVER_MS), 4);
	assert_int_equal(vmpool_proc_next(proc, FOREVER_MS, &ev), 0);
	assert_int_equal(ev.type, VMPOOL_STDOUT);
	assert_memory_equal(ev.data, "ping", 4);
	assert_int_equal(vmpool_proc_write(proc, "x", 0, 0), 0);
	assert_int_equal(vmpool_proc_close_stdin(proc), 0);
	assert_int_equal(vmpool_proc_close_stdin(proc), 0);
	assert_int_equal(vmpool_proc_write(proc, "x", 1, 0), -EPIPE);
	assert_int_equal(finish(proc, 0, 0), 0);
	vmpool_proc_free(proc);
	/* Without want_stdin there is none. */
	proc = spawn(f, ARGV("sleep"), false);
	assert_int_equal(vmpool_proc_write(proc, "x", 1, 0), -EPIPE);
	vmpool_proc_free(proc);
}

static void
stdin_not_read(void **state)
{
	static const char bytes[2 * PROTO_WINDOW];
	struct fixture *f = *state;
	struct vmpool_proc *proc = spawn(f, ARGV("deaf"), true);
	size_t n = 0;
	ssize_t r;

	while ((r = vmpool_proc_write(proc, bytes, 1000, 0)) > 0)
		n += (size_t)r;
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(n, PROTO_WINDOW);
	assert_int_equal(vmpool_proc_write(proc, bytes, 1, 20), -EAGAIN);
	assert_int_equal(vmpool_proc_kill(proc, SIGKILL), 0);
	assert_int_equal(finish(proc, 0, SIGKILL), 0);
	vmpool_proc_free(proc);
}

static bool
readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

/* Drain until -EAGAIN as the contract asks; true when the command has ended. */
static bool
drain(struct vmpool_proc *proc, size_t *bytes)
{
	struct vmpool_event ev;
	int r;

	while ((r = vmpool_proc_next(proc, 0, &ev)) == 0) {
		if (ev.type == VMPOOL_EXIT)
			return true;
		*bytes += ev.len;
	}
	assert_int_equal(r, -EAGAIN);
	return false;
}

static void
descriptors(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *a = spawn(f, ARGV("flood", "300000"), false);
	struct vmpool_proc *b = spawn(f, ARGV("cat"), true);
	int fd_a = vmpool_proc_fd(a), fd_b = vmpool_proc_fd(b);
	size_t n = 0, m = 0;

	assert_true(fd_a >= 0 && fd_b >= 0 && fd_a != fd_b);
	/* Serving one moves the other's records; the other's descriptor tells. */
	while (!drain(a, &n))
		assert_true(readable(fd_a, FOREVER_MS));
	assert_int_equal(n, 300000);
	while (readable(fd_b, 0))
		assert_false(drain(b, &m));
	assert_int_equal(vmpool_proc_write(b, "hello", 5, FOREVER_MS), 5);
	while (m < 5) {
		assert_true(readable(fd_b, FOREVER_MS));
		assert_false(drain(b, &m));
	}
	vmpool_proc_free(a);
	vmpool_proc_free(b);
}

/* b's bytes are taken from the ring while a is served: b must still be told. */
static void
descriptor_of_the_other(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *a = spawn(f, ARGV("cat"), true);
	struct vmpool_proc *b = spawn(f, ARGV("cat"), true);
	int fd_a = vmpool_proc_fd(a), fd_b = vmpool_proc_fd(b);
	size_t n = 0, m = 0;

	while (readable(fd_a, 0) || readable(fd_b, 0)) {
		assert_false(drain(a, &n));
		assert_false(drain(b, &m));
	}
	for (int i = 1; i <= 50; i++) {
		assert_int_equal(vmpool_proc_write(b, "x", 1, FOREVER_MS), 1);
		assert_int_equal(vmpool_proc_write(a, "y", 1, FOREVER_MS), 1);
		/* The answer to a comes after that to b, so b's has been moved as well. */
		while (n < (size_t)i) {
			assert_true(readable(fd_a, FOREVER_MS));
			assert_false(drain(a, &n));
		}
		assert_true(readable(fd_b, FOREVER_MS));
		while (m < (size_t)i)
			assert_false(drain(b, &m));
	}
	vmpool_proc_free(a);
	vmpool_proc_free(b);
}

/* A command that is not served does not keep the descriptor of another busy. */
static void
descriptor_is_quiet(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *idle = spawn(f, ARGV("sleep"), false);
	struct vmpool_proc *flood = spawn(f, ARGV("flood", "100000"), false);
	int fd = vmpool_proc_fd(idle);
	size_t n = 0;
	int rounds = 0;

	assert_true(vmpool_proc_fd(flood) >= 0);
	while (readable(fd, 20) && rounds++ < 1000)
		assert_false(drain(idle, &n));
	assert_in_range(rounds, 1, 50);
	vmpool_proc_free(flood);
	vmpool_proc_free(idle);
}

static void
descriptor_tells_death(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *a = spawn(f, ARGV("sleep"), false);
	struct vmpool_proc *b = spawn(f, ARGV("sleep"), false);
	int fd_a = vmpool_proc_fd(a), fd_b = vmpool_proc_fd(b);
	struct vmpool_event ev;
	size_t n = 0;

	while (readable(fd_a, 0) || readable(fd_b, 0)) {
		assert_false(drain(a, &n));
		assert_false(drain(b, &n));
	}
	fakepool_kill_vm(&f->fp, vmpool_slot(f->vm));
	assert_true(readable(fd_a, FOREVER_MS));
	assert_int_equal(vmpool_proc_next(a, 0, &ev), VMPOOL_EVMDIED);
	assert_true(readable(fd_b, FOREVER_MS));
	assert_int_equal(vmpool_proc_next(b, 0, &ev), VMPOOL_EVMDIED);
	assert_int_equal(vmpool_proc_next(b, 0, &ev), VMPOOL_EVMDIED);
	vmpool_proc_free(a);
	vmpool_proc_free(b);
}

static void
descriptor_tells_supervisor_death(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *a = spawn(f, ARGV("sleep"), false);
	int fd = vmpool_proc_fd(a);
	struct vmpool_event ev;
	size_t n = 0;

	while (readable(fd, 0))
		assert_false(drain(a, &n));
	fakepool_kill_supervisor(&f->fp);
	assert_true(readable(fd, FOREVER_MS));
	assert_int_equal(vmpool_proc_next(a, 0, &ev), VMPOOL_ERESTARTED);
	vmpool_proc_free(a);
}

/* A freed command is killed, its output dropped; the VM stays usable. */
static void
forgotten(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;

	vmpool_proc_free(spawn(f, ARGV("sleep"), false));
	vmpool_proc_free(spawn(f, ARGV("flood", "1000000"), false));
	for (int i = 0; i < 2 * (int)PROTO_STREAMS_MAX; i++) {
		vmpool_proc_free(spawn(f, ARGV("flood", "20000"), false));
		assert_int_equal(vmpool_exec(f->vm, ARGV("exit", "3"), NULL, &r), 0);
		assert_int_equal(r.exit_code, 3);
		vmpool_result_fini(&r);
	}
	assert_true(atomic_load(&f->fp.kills) >= 1);
}

/* Its output runs dry though nobody fetches it, or it could never end. */
static void
forgotten_runs_dry(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *proc = spawn(f, ARGV("stubborn", "200000"), false);
	uint64_t deadline = now_ns() + FOREVER_MS * 1000000ull;

	/* A full window waits for it; then it is forgotten. */
	assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, NULL), 0);
	vmpool_proc_free(proc);
	while (atomic_load(&f->fp.exits) == 0 && now_ns() < deadline)
		assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, NULL), 0);
	assert_int_equal(atomic_load(&f->fp.exits), 1);
}

static void
streams_run_out(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *proc[PROTO_STREAMS_MAX], *more;
	struct vmpool_result r;

	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		proc[i] = spawn(f, ARGV("sleep"), false);
	assert_int_equal(vmpool_spawn(f->vm, ARGV("sleep"), NULL, &more), -EBUSY);
	assert_null(more);
	vmpool_proc_free(proc[77]);
	/* Answered after the kill, whose answer frees the stream. */
	assert_int_equal(vmpool_ping_worker(f->vm, FOREVER_MS, NULL), 0);
	assert_int_equal(vmpool_exec(f->vm, ARGV("echo"), NULL, &r), 0);
	vmpool_result_fini(&r);
	/* The others are left to the release. */
}

/* The worker takes nothing: requests pile up to the ring's end, then wait. */
static void
full_ring(void **state)
{
	struct fixture *f = *state;
	struct vmpool_proc *proc = spawn(f, ARGV("sink"), true);
	uint32_t slot = vmpool_slot(f->vm);
	struct vmpool_event ev;
	size_t sent = 0;
	char bytes[1000];
	ssize_t n;

	memset(bytes, 'x', sizeof(bytes));
	fakepool_pause(&f->fp, slot, true);
	while (vmpool_ping_worker(f->vm, 0, NULL) == VMPOOL_ETIMEDOUT && sent < 10000)
		sent++;
	assert_int_equal(sent, 10000); /* never an error, however full */
	/* Longer than a ping, so what is left of the ring does not do. */
	assert_int_equal(vmpool_proc_write(proc, bytes, sizeof(bytes), 20), -EAGAIN);
	fakepool_pause(&f->fp, slot, false);
	for (size_t done = 0; done < 50000; done += (size_t)n) {
		n = vmpool_proc_write(proc, bytes, MIN(sizeof(bytes), 50000 - done), FOREVER_MS);
		assert_true(n > 0);
	}
	assert_int_equal(vmpool_proc_close_stdin(proc), 0);
	assert_int_equal(vmpool_proc_next(proc, FOREVER_MS, &ev), 0);
	assert_memory_equal(ev.data, "50000", 5);
	assert_int_equal(finish(proc, 0, 0), 0);
	vmpool_proc_free(proc);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(events, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(nothing_yet, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(back_pressure, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(stdin_stream, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(stdin_not_read, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(descriptors, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(descriptor_of_the_other, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(descriptor_is_quiet, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(descriptor_tells_death, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(descriptor_tells_supervisor_death, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(forgotten, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(forgotten_runs_dry, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(streams_run_out, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(full_ring, setup_vm, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
