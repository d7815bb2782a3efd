/* SPDX-License-Identifier: MIT
 *
 * test_client_exec.c - commands with collected output: results, arguments,
 * input, limits, errors.
 */
#include "tests/lib/clienttest.h"

#include <string.h>

static int
exec(struct fixture *f, const char *const *argv, const struct vmpool_exec_opts *opts,
     struct vmpool_result *r)
{
	return vmpool_exec(f->vm, argv, opts, r);
}

static void
results(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;

	assert_int_equal(exec(f, ARGV("echo", "hello", "world"), NULL, &r), 0);
	assert_string_equal(r.out, "hello world\n");
	assert_int_equal(r.out_len, 12);
	assert_string_equal(r.err, "");
	assert_int_equal(r.exit_code, 0);
	assert_int_equal(r.guest_ns, 12345);
	assert_in_range(r.elapsed_ns, 1, 20000000000ull);
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("exit", "124"), NULL, &r), 0);
	assert_int_equal(r.exit_code, 124);
	assert_false(r.timed_out);
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("signal", "11"), NULL, &r), 0);
	assert_int_equal(r.signal, 11);
	assert_int_equal(r.exit_code, 0);
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("timeout"), NULL, &r), 0);
	assert_true(r.timed_out);
	vmpool_result_fini(&r);
}

/* The request as the guest gets it. */
static void
request(void **state)
{
	static const char want[] = "dump\0\0line\nfeed\0\xff\xfe\0\"'\\\0A=1\0B=x=y\0/tmp\0nobody";
	struct fixture *f = *state;
	const struct vmpool_exec_opts opts = {.env = ARGV("A=1", "B=x=y"),
					      .clean_env = true,
					      .cwd = "/tmp",
					      .user = "nobody",
					      .timeout_ms = 7000};
	struct proto_exec head;
	struct vmpool_result r;

	assert_int_equal(exec(f, ARGV("dump", "", "line\nfeed", "\xff\xfe", "\"'\\"), &opts, &r),
			 0);
	assert_int_equal(r.out_len, sizeof(head) + sizeof(want));
	memcpy(&head, r.out, sizeof(head));
	assert_int_equal(head.size, r.out_len);
	assert_int_equal(head.argc, 5);
	assert_int_equal(head.envc, 2);
	assert_int_equal(head.timeout_ms, 7000);
	assert_int_equal(head.flags, PROTO_EXEC_CLEAN_ENV);
	assert_memory_equal(r.out + sizeof(head), want, sizeof(want));
	vmpool_result_fini(&r);
}

static void
request_options(void **state)
{
	static const char want[] = "dump\0A=1\0HOME\0PATH\0\0";
	struct fixture *f = *state;
	const struct vmpool_exec_opts opts = {.env = ARGV("A=1"),
					      .unset_env = ARGV("HOME", "PATH"),
					      .set_umask = true,
					      .umask = 027,
					      .cpu_s = 1,
					      .max_files = 2,
					      .memory_mib = 3,
					      .max_procs = 4,
					      .tty = true,
					      .rows = 25,
					      .cols = 81,
					      .input = ""};
	struct proto_exec head;
	struct vmpool_result r;

	assert_int_equal(exec(f, ARGV("dump"), &opts, &r), 0);
	memcpy(&head, r.out, sizeof(head));
	assert_int_equal(head.envc, 1);
	assert_int_equal(head.unsetc, 2);
	assert_int_equal(head.flags, PROTO_EXEC_STDIN | PROTO_EXEC_TTY | PROTO_EXEC_UMASK);
	assert_int_equal(head.umask, 027);
	assert_int_equal(head.cpu_s, 1);
	assert_int_equal(head.files, 2);
	assert_int_equal(head.memory_mib, 3);
	assert_int_equal(head.procs, 4);
	assert_int_equal(head.rows, 25);
	assert_int_equal(head.cols, 81);
	assert_int_equal(r.out_len, sizeof(head) + sizeof(want));
	assert_memory_equal(r.out + sizeof(head), want, sizeof(want));
	vmpool_result_fini(&r);
}

static void
signals_by_name(void **state)
{
	static const struct {
		const char *name;
		int number;
	} rows[] = {
	    {"TERM", 15},    {"SIGTERM", 15},	 {"sigkill", 9},  {"9", 9},
	    {"64", 64},	     {"65", 0},		 {"0", 0},	  {"-1", 0},
	    {"", 0},	     {"SIG", 0},	 {"NOSUCH", 0},	  {"SIGSIGTERM", 0},
	    {"RTMIN", 34},   {"SIGRTMIN+2", 36}, {"rtmax-1", 63}, {"RTMAX", 64},
	    {"RTMIN+31", 0}, {"RTMIN-1", 0},	 {"RTMIN+", 0},	  {"4294967311", 0},
	    {"WINCH", 28},   {"TERM ", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (vmpool_signal(rows[i].name) !=
		    (rows[i].number != 0 ? rows[i].number : VMPOOL_ECONFIG))
			fail_msg("\"%s\" is %d", rows[i].name, vmpool_signal(rows[i].name));
}

static void
vm_stats(void **state)
{
	struct fixture *f = *state;
	struct vmpool_vm_stats s;
	struct vmpool_result r;

	assert_int_equal(vmpool_vm_stats(f->vm, FOREVER_MS, &s), 0);
	assert_int_equal(s.guest_uptime_ns, 1);
	assert_int_equal(s.guest_cpu_ns, 2);
	assert_int_equal(s.guest_memory, 3);
	assert_int_equal(s.guest_memory_used, 4);
	assert_int_equal(s.guest_page_faults, 5);
	assert_int_equal(s.guest_major_faults, 6);
	assert_int_equal(s.guest_bytes_in, 7);
	assert_int_equal(s.guest_bytes_out, 8);
	assert_int_equal(s.guest_processes, 9);
	assert_int_equal(s.guest_commands, 10);
	/* The pool is a thread of ours: no child of the supervisor is its worker. */
	assert_false(s.host_known);
	atomic_store(&f->fp.silent_pings, true);
	assert_int_equal(vmpool_vm_stats(f->vm, 30, &s), VMPOOL_ETIMEDOUT);
	atomic_store(&f->fp.silent_pings, false);
	assert_int_equal(exec(f, ARGV("echo", "still"), NULL, &r), 0);
	assert_string_equal(r.out, "still\n");
	vmpool_result_fini(&r);
}

static void
stats_for_a_command(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;

	assert_int_equal(exec(f, ARGV("badstats"), NULL, &r), VMPOOL_EPROTOCOL);
	vmpool_result_fini(&r);
}

static void
window_size(void **state)
{
	const struct vmpool_exec_opts opts = {.tty = true};
	struct fixture *f = *state;
	struct vmpool_event e;
	struct vmpool_proc *p;

	assert_int_equal(vmpool_spawn(f->vm, ARGV("sleep"), &opts, &p), 0);
	assert_int_equal(vmpool_proc_resize(p, 50, 132), 0);
	assert_int_equal(vmpool_proc_next(p, FOREVER_MS, &e), 0);
	assert_int_equal(e.type, VMPOOL_STDOUT);
	assert_int_equal(e.len, strlen("50 x 132\n"));
	assert_memory_equal(e.data, "50 x 132\n", e.len);
	vmpool_proc_free(p);
}

/* Much more than the ring holds. */
static void
large_request(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;
	size_t n = PROTO_EXEC_MAX - sizeof(struct proto_exec) - strlen("dump") - 4;
	char *big = malloc(n + 2);

	assert_non_null(big);
	for (size_t i = 0; i < n + 1; i++)
		big[i] = (char)(1 + i % 255);
	big[n] = '\0';
	assert_int_equal(exec(f, ARGV("dump", big), NULL, &r), 0);
	assert_int_equal(r.out_len, PROTO_EXEC_MAX);
	assert_memory_equal(r.out + sizeof(struct proto_exec) + 5, big, n + 1);
	vmpool_result_fini(&r);
	big[n] = 'x';
	big[n + 1] = '\0';
	assert_int_equal(exec(f, ARGV("dump", big), NULL, &r), -E2BIG);
	vmpool_result_fini(&r);
	free(big);
}

static void
bad_requests(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;
	struct vmpool_exec_opts opts = {.env = ARGV("novalue")};

	assert_int_equal(exec(f, (const char *const[]){NULL}, NULL, &r), VMPOOL_ECONFIG);
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("echo"), &opts, &r), VMPOOL_ECONFIG);
	assert_non_null(strstr(vmpool_error(f->pool), "novalue"));
	vmpool_result_fini(&r);
	opts = (struct vmpool_exec_opts){.set_umask = true, .umask = 01000};
	assert_int_equal(exec(f, ARGV("echo"), &opts, &r), VMPOOL_ECONFIG);
	vmpool_result_fini(&r);
	/* Nobody could type its end. */
	opts = (struct vmpool_exec_opts){.tty = true};
	assert_int_equal(exec(f, ARGV("echo"), &opts, &r), VMPOOL_ECONFIG);
	vmpool_result_fini(&r);
}

/* Output far beyond the window, in order and whole; and one beyond its limit. */
static void
output(void **state)
{
	struct fixture *f = *state;
	struct vmpool_exec_opts opts = {.output_limit = 1000};
	struct vmpool_result r;

	assert_int_equal(exec(f, ARGV("flood", "1000003"), NULL, &r), 0);
	assert_int_equal(r.out_len, 1000003);
	for (size_t i = 0; i < r.out_len; i++)
		if ((uint8_t)r.out[i] != i % 251)
			fail_msg("byte %zu is %d", i, r.out[i]);
	assert_false(r.truncated);
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("flood", "100000"), &opts, &r), 0);
	assert_int_equal(r.out_len, 1000);
	assert_int_equal(r.out[1000], '\0');
	assert_true(r.truncated);
	assert_int_equal(r.exit_code, 0);
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("both", "3000"), NULL, &r), 0);
	assert_int_equal(r.out_len, 3000);
	assert_int_equal(r.err_len, 3000);
	assert_int_equal(strspn(r.out, "o"), 3000);
	assert_int_equal(strspn(r.err, "e"), 3000);
	vmpool_result_fini(&r);
}

static void
input(void **state)
{
	struct fixture *f = *state;
	struct vmpool_exec_opts opts;
	struct vmpool_result r;
	size_t n = 300007;
	char *bytes = malloc(n);

	assert_non_null(bytes);
	for (size_t i = 0; i < n; i++)
		bytes[i] = (char)(i % 253);
	opts = (struct vmpool_exec_opts){.input = bytes, .input_len = n};
	/* Both directions at once: neither side waits for the other for ever. */
	assert_int_equal(exec(f, ARGV("cat"), &opts, &r), 0);
	assert_int_equal(r.out_len, n);
	assert_memory_equal(r.out, bytes, n);
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("sink"), &opts, &r), 0);
	assert_string_equal(r.out, "300007");
	vmpool_result_fini(&r);
	/* A child that never reads it is no failure. */
	assert_int_equal(exec(f, ARGV("exit", "5"), &opts, &r), 0);
	assert_int_equal(r.exit_code, 5);
	vmpool_result_fini(&r);
	opts.input_len = 0;
	assert_int_equal(exec(f, ARGV("sink"), &opts, &r), 0);
	assert_string_equal(r.out, "0");
	vmpool_result_fini(&r);
	free(bytes);
}

static void
refusals(void **state)
{
	static const struct {
		const char *stage, *err;
		int result;
		const char *text;
	} table[] = {
	    {"1", "22", VMPOOL_EGUEST, "bad ? text"},
	    {"2", "11", VMPOOL_EGUEST, "bad ? text"},
	    {"3", "2", VMPOOL_ECWD, "\"/nowhere\""},
	    {"4", "0", VMPOOL_EUSER, "\"nobody\""},
	    {"5", "2", VMPOOL_ENOTFOUND, "\"error\""},
	    {"5", "20", VMPOOL_ENOTFOUND, "\"error\""},
	    {"5", "13", VMPOOL_ENOTEXEC, "Permission denied"},
	    {"5", "8", VMPOOL_ENOTEXEC, "Exec format error"},
	    {"5", "4000000000", VMPOOL_ENOTEXEC, "unknown error"},
	    {"5", "7", -E2BIG, "too long"},
	    {"99", "1", VMPOOL_EGUEST, "bad ? text"},
	};
	const struct vmpool_exec_opts opts = {.cwd = "/nowhere", .user = "nobody"};
	struct fixture *f = *state;
	struct vmpool_result r;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(exec(f, ARGV("error", table[i].stage, table[i].err), &opts, &r),
				 table[i].result);
		if (strstr(vmpool_error(f->pool), table[i].text) == NULL)
			fail_msg("row %zu: %s", i, vmpool_error(f->pool));
		vmpool_result_fini(&r);
	}
	/* None of them hurts the VM. */
	assert_int_equal(exec(f, ARGV("echo", "x"), NULL, &r), 0);
	vmpool_result_fini(&r);
}

static void
vm_dies_meanwhile(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;

	assert_int_equal(exec(f, ARGV("partial"), NULL, &r), VMPOOL_EVMDIED);
	/* What it said before is kept. */
	assert_string_equal(r.out, "partial");
	vmpool_result_fini(&r);
	assert_int_equal(exec(f, ARGV("echo"), NULL, &r), VMPOOL_EVMDIED);
	vmpool_result_fini(&r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(results, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(request, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(request_options, setup_vm, teardown),
	    cmocka_unit_test(signals_by_name),
	    cmocka_unit_test_setup_teardown(vm_stats, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(stats_for_a_command, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(window_size, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(large_request, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(bad_requests, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(output, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(input, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(refusals, setup_vm, teardown),
	    cmocka_unit_test_setup_teardown(vm_dies_meanwhile, setup_vm, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
