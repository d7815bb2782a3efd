/* SPDX-License-Identifier: MIT
 *
 * test_agent_want.c - what a command may ask for besides arguments: variables that it
 * does without, a umask, limits; and what the machine says of itself. The agent runs
 * on this machine, whose cgroups may have no controllers: then limits of a whole
 * command must be refused (the end-to-end test sees them work).
 */
#include "tests/lib/agent_peer.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct peer_run *
run(struct peer *p, uint32_t stream, const struct peer_exec *e)
{
	peer_exec(p, stream, e);
	return peer_wait(p, stream);
}

static void
test_unset(void **state)
{
	struct peer_exec some = {.argv = ARGV("/usr/bin/env"),
				 .unset = ARGV("HOME", "LOGNAME", "PAT", "", "NO=SUCH"),
				 .env = ARGV("A=1")};
	struct peer_exec path = {.argv = ARGV("env"),
				 .unset = ARGV("PATH", "HOME", "USER", "LOGNAME", "B"),
				 .env = ARGV("B=2")};

	assert_string_equal(run(*state, 1, &some)->out,
			    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
			    "USER=root\nA=1\n");
	/* The program is found all the same; what is asked for in words is there. */
	assert_string_equal(run(*state, 2, &path)->out, "B=2\n");
}

static void
test_bytes_that_are_no_text(void **state)
{
	struct peer_exec e = {.argv = ARGV("/bin/sh", "-c",
					   "printf '%s|%s|\\377\\000\\303' \"$A\" \"$1\"",
					   "\300\200", "\xf0\x9f\x92"),
			      .env = ARGV("A=\xff\xfe=\x80")};
	static const char want[] = "\xff\xfe=\x80|\xf0\x9f\x92|\377\000\303";
	struct peer_run *r = run(*state, 1, &e);

	assert_int_equal(r->out_len, sizeof(want) - 1);
	assert_memory_equal(r->out, want, sizeof(want) - 1);
}

static void
test_umask(void **state)
{
	struct peer_exec e = {.argv = ARGV("/bin/sh", "-c", "umask"),
			      .flags = PROTO_EXEC_UMASK,
			      .want = {.umask = 0077}};

	assert_string_equal(run(*state, 1, &e)->out, "0077\n");
	e.want.umask = 0;
	assert_string_equal(run(*state, 2, &e)->out, "0000\n");
	e.flags = 0;
	assert_string_equal(run(*state, 3, &e)->out, "0022\n");
}

static void
test_open_files(void **state)
{
	struct peer_exec e = {.argv = ARGV("/bin/sh", "-c", "ulimit -n; ulimit -Hn; ulimit -t"),
			      .want = {.files = 17, .cpu_s = 5}};

	assert_string_equal(run(*state, 1, &e)->out, "17\n17\n5\n");
}

static void
test_cpu_time(void **state)
{
	struct peer_exec e = {.argv = ARGV("/bin/sh", "-c", "while :; do :; done"),
			      .want = {.cpu_s = 1}};
	struct peer_exec deaf = {.argv = ARGV("/bin/sh", "-c", "trap '' XCPU; while :; do :; done"),
				 .want = {.cpu_s = 1}};
	struct peer_run *r = run(*state, 1, &e);

	assert_int_equal(r->exit.signal, SIGXCPU);
	assert_int_equal(r->exit.timed_out, 0);
	assert_int_equal(run(*state, 2, &deaf)->exit.signal, SIGKILL);
}

static void
test_limit_that_is_too_high(void **state)
{
	struct peer_exec e = {.argv = ARGV("true"), .want = {.files = UINT32_MAX}};
	struct peer_run *r = run(*state, 1, &e);

	assert_false(r->exited);
	assert_int_equal(r->error.stage, PROTO_STAGE_LIMITS);
	assert_non_null(strstr(r->text, "limit"));
	peer_sh(*state, 2, "exit 3", 0);
	assert_int_equal(peer_wait(*state, 2)->exit.code, 3);
}

/* Without cgroups, or in a tree without the controller, that is said. */
static void
test_limits_of_the_whole(void **state)
{
	struct peer_exec memory = {.argv = ARGV("true"), .want = {.memory_mib = 64}};
	struct peer_exec procs = {.argv = ARGV("/bin/sh", "-c", "(:); (:); echo fine"),
				  .want = {.procs = 8}};
	struct peer_run *r = run(*state, 1, &memory);

	if (!r->exited) {
		assert_int_equal(r->error.stage, PROTO_STAGE_LIMITS);
		assert_int_equal(r->error.err, EOPNOTSUPP);
	}
	r = run(*state, 2, &procs);
	if (r->exited)
		assert_string_equal(r->out, "fine\n");
	else
		assert_int_equal(r->error.err, EOPNOTSUPP);
	peer_sh(*state, 3, "exit 3", 0);
	assert_int_equal(peer_wait(*state, 3)->exit.code, 3);
}

static void
test_limits_of_the_whole_cgroup(void **state)
{
	if (*state == NULL) {
		print_message("# skipped: no cgroup v2 tree to write to\n");
		skip();
	}
	test_limits_of_the_whole(state);
}

static void
test_machine_statistics(void **state)
{
	struct peer *p = *state;
	struct proto_vmstats a, b;

	peer_sh(p, 1, "read x", PROTO_EXEC_STDIN);
	peer_send(p, PROTO_VMSTAT, 0, 2, NULL, 0);
	a = peer_wait(p, 2)->stats;
	assert_int_equal(a.commands, 1);
	assert_true(a.processes >= 2);
	assert_true(a.mem_total > 16u << 20 && a.mem_used > 0 && a.mem_used < a.mem_total);
	assert_true(a.uptime_ns > 0 && a.cpu_ns > 0 && a.page_faults > 0);
	assert_true(a.major_faults <= a.page_faults);
	peer_stdin(p, 1, "0123456789\n", 11, false);
	(void)peer_wait(p, 1);
	peer_send(p, PROTO_VMSTAT, 0, 3, NULL, 0);
	b = peer_wait(p, 3)->stats;
	assert_int_equal(b.commands, 0);
	assert_true(b.cpu_ns >= a.cpu_ns && b.page_faults > a.page_faults);
	/* Two frames: STDIN with its bytes, and the question. */
	assert_int_equal(b.bytes_in - a.bytes_in, 2 * sizeof(struct proto_hdr) + 11);
	assert_true(b.bytes_out - a.bytes_out >= 2 * sizeof(struct proto_hdr) + sizeof(b));
}

static void
test_statistics_on_a_used_stream(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	peer_sh(p, 1, "read x", PROTO_EXEC_STDIN);
	peer_send(p, PROTO_VMSTAT, 0, 1, NULL, 0);
	r = peer_wait(p, 1);
	assert_int_equal(r->error.stage, PROTO_STAGE_REQUEST);
	assert_non_null(strstr(r->text, "in use"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, peer_setup, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_unset),
	    TEST(test_bytes_that_are_no_text),
	    TEST(test_umask),
	    TEST(test_open_files),
	    TEST(test_cpu_time),
	    TEST(test_limit_that_is_too_high),
	    TEST(test_limits_of_the_whole),
	    cmocka_unit_test_setup_teardown(test_limits_of_the_whole_cgroup, peer_setup_cgroups,
					    peer_teardown),
	    TEST(test_machine_statistics),
	    TEST(test_statistics_on_a_used_stream),
	};

	return cmocka_run_group_tests_name("agent wants", tests, NULL, NULL);
}
