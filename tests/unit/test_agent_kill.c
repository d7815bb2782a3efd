/* SPDX-License-Identifier: MIT
 *
 * test_agent_kill.c - time-outs and signals reach everything that a command
 * started, and nothing else; what a command leaves behind lives on. Each test
 * runs twice: with a cgroup per command, and without cgroups.
 */
#include "tests/lib/agent_peer.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* Four processes that do their best to survive: in the session, in one of its
 * own, orphaned by a double fork, all deaf to SIGTERM. Each prints its pid. */
#define SURVIVORS \
	"trap '' TERM HUP INT; " \
	"sh -c 'echo $$; while :; do sleep 1000; done' & " \
	"setsid sh -c 'echo $$; while :; do sleep 1000; done' & " \
	"(setsid sh -c '(setsid sh -c \"echo \\$\\$; while :; do sleep 1000; done\" &)' &); " \
	"echo $$; "

static size_t
lines(const struct peer_run *r)
{
	size_t i, n = 0;

	for (i = 0; i < r->out_len; i++)
		n += r->out[i] == '\n';
	return n;
}

static void
wait_lines(struct peer *p, uint32_t stream, size_t n)
{
	while (lines(&p->run[stream]) < n)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
}

static void
start_survivors(struct peer *p, uint32_t stream, uint32_t timeout_ms, int *fds)
{
	const char *argv[] = {"/bin/sh", "-c", SURVIVORS "wait; sleep 1000", NULL};
	struct peer_exec e = {.argv = argv, .timeout_ms = timeout_ms};

	peer_exec(p, stream, &e);
	wait_lines(p, stream, 4);
	assert_int_equal(peer_open_pids(p->run[stream].out, fds, 4), 4);
}

static void
test_timeout_kills_everything(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;
	int fds[4];

	/* Long enough for all four to have said their pid on a busy machine. */
	start_survivors(p, 1, 4000, fds);
	r = peer_wait(p, 1);
	assert_int_equal(r->exit.timed_out, 1);
	assert_int_equal(r->exit.signal, SIGKILL);
	assert_true(r->exit.elapsed_ns >= 4000000000u);
	peer_assert_die(fds, 4);
	peer_sh(p, 2, "echo usable", 0);
	assert_string_equal(peer_wait(p, 2)->out, "usable\n");
}

static void
test_kill_kills_everything(void **state)
{
	struct peer *p = *state;
	int fds[4];

	start_survivors(p, 1, 0, fds);
	peer_kill(p, 1, SIGKILL);
	assert_int_equal(peer_wait(p, 1)->exit.signal, SIGKILL);
	assert_int_equal(p->run[1].exit.timed_out, 0);
	peer_assert_die(fds, 4);
}

static void
test_signal_reaches_every_process(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	peer_sh(p, 1,
		"t='trap \"echo got; exit 3\" USR1; echo up; while :; do sleep 0.01; done'; "
		"setsid sh -c \"$t\" & (setsid sh -c \"$t\" &) ; eval \"$t\"",
		0);
	wait_lines(p, 1, 3);
	peer_kill(p, 1, SIGUSR1);
	r = peer_wait(p, 1);
	/* sleep dies of it, the three shells say so. */
	assert_int_equal(r->exit.code, 3);
	assert_non_null(strstr(r->out, "got"));
}

static void
test_other_commands_are_left_alone(void **state)
{
	struct peer *p = *state;
	int fds[4];

	/* By way of 3: a shell gives what it puts in the background no stdin. */
	peer_sh(p, 2, "exec 3<&0; setsid sh -c 'echo $$; read x <&3; echo alive' & wait",
		PROTO_EXEC_STDIN);
	wait_lines(p, 2, 1);
	start_survivors(p, 1, 0, fds);
	peer_kill(p, 1, SIGKILL);
	(void)peer_wait(p, 1);
	peer_assert_die(fds, 4);
	peer_stdin(p, 2, "\n", 1, false);
	assert_non_null(strstr(peer_wait(p, 2)->out, "alive"));
	assert_int_equal(p->run[2].exit.code, 0);
}

/* It lives on when its command has ended, deaf to a KILL for a stream that is
 * over, and writes far more than a pipe holds without blocking or dying of it. */
static void
test_exit_does_not_wait_for_the_background(void **state)
{
	struct peer *p = *state;
	char dir[] = "/tmp/test_agent.XXXXXX", gate[64], done[64], script[256];
	int fd, pid;

	assert_non_null(mkdtemp(dir));
	(void)snprintf(gate, sizeof(gate), "%s/gate", dir);
	(void)snprintf(done, sizeof(done), "%s/done", dir);
	assert_int_equal(mkfifo(gate, 0600), 0);
	fd = open(gate, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	(void)snprintf(script, sizeof(script),
		       "sh -c 'echo $$; read x <%s; head -c 1000000 /dev/zero && : >%s' & "
		       "read y; exit 4",
		       gate, done);
	peer_sh(p, 1, script, PROTO_EXEC_STDIN);
	wait_lines(p, 1, 1);
	assert_int_equal(peer_open_pids(p->run[1].out, &pid, 1), 1);
	peer_stdin(p, 1, "\n", 1, false);
	assert_int_equal(peer_wait(p, 1)->exit.code, 4);
	peer_kill(p, 1, SIGKILL);
	peer_ping(p);
	assert_int_equal(write(fd, "\n", 1), 1);
	peer_assert_die(&pid, 1);
	assert_int_equal(unlink(done), 0);
	(void)close(fd);
	(void)unlink(gate);
	(void)rmdir(dir);
}

/* More daemons than the agent keeps records of: all live, and all end with it. */
static void
test_many_left_behind(void **state)
{
	enum { N = 80 };
	struct peer *p = *state;
	int fds[N];
	uint32_t i;

	for (i = 1; i <= N; i++) {
		peer_sh(p, i, "setsid sh -c 'echo $$; exec sleep 1000' & read x", PROTO_EXEC_STDIN);
		wait_lines(p, i, 1);
		assert_int_equal(peer_open_pids(p->run[i].out, &fds[i - 1], 1), 1);
		peer_stdin(p, i, "\n", 1, false);
		assert_int_equal(peer_wait(p, i)->exit.code, 0);
	}
	for (i = 0; i < N; i++)
		assert_int_equal(syscall(SYS_pidfd_send_signal, fds[i], 0, NULL, 0), 0);
	peer_wait_gone(p, 0);
	peer_assert_die(fds, N);
}

static void
test_deadline_of_a_short_command(void **state)
{
	struct peer *p = *state;
	const char *argv[] = {"/bin/sh", "-c", "exit 124", NULL};
	struct peer_exec e = {.argv = argv, .timeout_ms = 60000};
	struct peer_run *r;

	peer_exec(p, 1, &e);
	r = peer_wait(p, 1);
	assert_int_equal(r->exit.code, 124);
	assert_int_equal(r->exit.timed_out, 0);
}

/* A command that forks without end is caught all the same. */
static void
test_fork_storm(void **state)
{
	struct peer *p = *state;

	peer_sh(
	    p, 1,
	    "echo up; while :; do (setsid sleep 1000 &) ; [ $((n+=1)) -gt 300 ] && sleep 1; done",
	    0);
	wait_lines(p, 1, 1);
	peer_kill(p, 1, SIGKILL);
	assert_int_equal(peer_wait(p, 1)->exit.signal, SIGKILL);
	peer_ping(p);
}

/* Hanging up ends everything: peer_teardown would hang or find it otherwise. */
static void
test_hangup_kills_everything(void **state)
{
	struct peer *p = *state;
	int fds[4];

	start_survivors(p, 1, 0, fds);
	peer_wait_gone(p, 0);
	peer_assert_die(fds, 4);
}

static void
with_cgroups(void **state, void (*test)(void **))
{
	if (*state == NULL) {
		print_message("# skipped: no cgroup v2 tree to write to\n");
		skip();
	}
	test(state);
}

#define BOTH(f) \
	static void f##_cgroup(void **state) \
	{ \
		with_cgroups(state, f); \
	}
BOTH(test_timeout_kills_everything)
BOTH(test_kill_kills_everything)
BOTH(test_signal_reaches_every_process)
BOTH(test_other_commands_are_left_alone)
BOTH(test_exit_does_not_wait_for_the_background)
BOTH(test_many_left_behind)
BOTH(test_deadline_of_a_short_command)
BOTH(test_fork_storm)
BOTH(test_hangup_kills_everything)

#define TEST(f) \
	cmocka_unit_test_setup_teardown(f, peer_setup, peer_teardown), \
	    cmocka_unit_test_setup_teardown(f##_cgroup, peer_setup_cgroups, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_timeout_kills_everything),
	    TEST(test_kill_kills_everything),
	    TEST(test_signal_reaches_every_process),
	    TEST(test_other_commands_are_left_alone),
	    TEST(test_exit_does_not_wait_for_the_background),
	    TEST(test_many_left_behind),
	    TEST(test_deadline_of_a_short_command),
	    TEST(test_fork_storm),
	    TEST(test_hangup_kills_everything),
	};

	return cmocka_run_group_tests_name("agent kill", tests, NULL, NULL);
}
