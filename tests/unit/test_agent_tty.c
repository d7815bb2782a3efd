/* SPDX-License-Identifier: MIT
 *
 * test_agent_tty.c - commands in a terminal: what they see of it, keys, signals, sizes,
 * its end. The agent runs on this machine.
 */
#include "tests/lib/agent_peer.h"

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
#define TTY (PROTO_EXEC_TTY | PROTO_EXEC_STDIN)

static void
tty_sh(struct peer *p, uint32_t stream, const char *script)
{
	struct peer_exec e = {
	    .argv = ARGV("/bin/sh", "-c", script), .flags = TTY, .want = {.rows = 31, .cols = 97}};

	peer_exec(p, stream, &e);
}

static void
wait_text(struct peer *p, uint32_t stream, const char *text)
{
	struct peer_run *r = &p->run[stream];

	while (r->out == NULL || strstr(r->out, text) == NULL)
		if (r->ends > 0 || !peer_step(p, PEER_TIMEOUT_MS))
			fail_msg("'%s' does not come after '%s'", text, r->out);
}

static void
type(struct peer *p, uint32_t stream, const char *keys)
{
	peer_stdin(p, stream, keys, strlen(keys), false);
}

static void
test_all_three_are_one_terminal(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	tty_sh(p, 1,
	       "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && stty size && echo err >&2 && "
	       "[ \"$(tty)\" = \"$(readlink /proc/self/fd/2)\" ] && echo x >/dev/tty; exit 7");
	r = peer_wait(p, 1);
	assert_string_equal(r->out, "31 97\r\nerr\r\nx\r\n");
	assert_int_equal(r->err_len, 0);
	assert_int_equal(r->exit.code, 7);
}

static void
test_keys_are_echoed_and_edited(void **state)
{
	struct peer *p = *state;

	tty_sh(p, 1, "echo ready; read x; echo \"got $x\"");
	wait_text(p, 1, "ready");
	type(p, 1, "ab\177c\r");
	assert_non_null(strstr(peer_wait(p, 1)->out, "got ac\r\n"));
	assert_non_null(strstr(p->run[1].out, "ab"));
}

static void
test_interrupt_key(void **state)
{
	struct peer *p = *state;

	tty_sh(p, 1, "echo ready; exec sleep 1000");
	tty_sh(p, 2, "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.01; done");
	wait_text(p, 1, "ready");
	wait_text(p, 2, "ready");
	type(p, 1, "\003");
	type(p, 2, "\003");
	assert_int_equal(peer_wait(p, 1)->exit.signal, SIGINT);
	assert_int_equal(peer_wait(p, 2)->exit.code, 4);
	assert_non_null(strstr(p->run[2].out, "caught"));
}

/* ^D, and the end of what the host has to say, mean the same. */
static void
test_end_of_file(void **state)
{
	struct peer *p = *state;

	tty_sh(p, 1, "echo ready; cat; echo over");
	tty_sh(p, 2, "echo ready; cat; echo over");
	wait_text(p, 1, "ready");
	wait_text(p, 2, "ready");
	type(p, 1, "a\n\004");
	peer_stdin(p, 2, "b\n", 2, true);
	assert_non_null(strstr(peer_wait(p, 1)->out, "a\r\nover\r\n"));
	assert_non_null(strstr(peer_wait(p, 2)->out, "b\r\nover\r\n"));
}

static void
test_window_changes(void **state)
{
	static const struct proto_winsize size = {.rows = 50, .cols = 132};
	struct peer *p = *state;

	tty_sh(p, 1,
	       "trap 'stty size; exit 0' WINCH; stty size; echo ready; "
	       "while :; do sleep 0.01; done");
	wait_text(p, 1, "ready");
	assert_non_null(strstr(p->run[1].out, "31 97"));
	peer_send(p, PROTO_WINSIZE, 0, 1, &size, sizeof(size));
	assert_non_null(strstr(peer_wait(p, 1)->out, "50 132"));
	/* Nobody's window: no harm. */
	peer_sh(p, 2, "read x; exit 5", PROTO_EXEC_STDIN);
	peer_send(p, PROTO_WINSIZE, 0, 2, &size, sizeof(size));
	peer_stdin(p, 2, "\n", 1, false);
	assert_int_equal(peer_wait(p, 2)->exit.code, 5);
}

static void
test_job_control(void **state)
{
	struct peer *p = *state;

	tty_sh(p, 1, "exec sh -i");
	/* The job says itself that it runs: then the terminal is its. */
	type(p, 1, "PS1=; sh -c 'echo be\"\"gun; exec sleep 1000'\n");
	wait_text(p, 1, "begun");
	type(p, 1, "\032");
	wait_text(p, 1, "Stopped");
	type(p, 1, "kill -9 %1; fg; exit 6\n");
	assert_int_equal(peer_wait(p, 1)->exit.code, 6);
}

/* All of its last words come, however many, and the EXIT after them. */
static void
test_last_output(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;
	uint32_t i;

	for (i = 1; i <= 20; i++) {
		tty_sh(p, i, "stty -opost; head -c 100000 /dev/zero | tr '\\0' x; printf end");
		r = peer_wait(p, i);
		assert_int_equal(r->out_len, 100003);
		assert_string_equal(r->out + 100000, "end");
	}
}

/* It closes its terminal, and takes it again: there is but one end, its own. */
static void
test_closed_and_opened_again(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	tty_sh(p, 1, "exec <&- >&- 2>&-; sleep 0.2; exec >/dev/tty; echo back; exit 3");
	r = peer_wait(p, 1);
	assert_string_equal(r->out, "back\r\n");
	assert_int_equal(r->exit.code, 3);
}

static void
test_background_does_not_hold_the_exit(void **state)
{
	struct peer *p = *state;
	int pid;

	tty_sh(p, 1,
	       "trap '' HUP; sh -c 'echo $$; while echo y; do :; done; exec sleep 1000' & "
	       "read x; exit 4");
	wait_text(p, 1, "y");
	p->run[1].out[strcspn(p->run[1].out, "\r")] = '\n';
	p->run[1].out[strcspn(p->run[1].out, "\n") + 1] = '\0';
	assert_int_equal(peer_open_pids(p->run[1].out, &pid, 1), 1);
	type(p, 1, "\n");
	assert_int_equal(peer_wait(p, 1)->exit.code, 4);
	peer_wait_gone(p, 0);
	peer_assert_die(&pid, 1);
}

static void
test_timeout(void **state)
{
	struct peer_exec e = {.argv = ARGV("/bin/sh", "-c", "trap '' HUP INT TERM; yes"),
			      .flags = TTY,
			      .timeout_ms = 200};
	struct peer *p = *state;
	struct peer_run *r = &p->run[1];

	r->no_grant = true;
	peer_exec(p, 1, &e);
	r = peer_wait(p, 1);
	assert_int_equal(r->exit.timed_out, 1);
	assert_int_equal(r->exit.signal, SIGKILL);
	peer_ping(p);
}

static void
test_user_owns_it(void **state)
{
	struct peer_exec e = {.argv = ARGV("/bin/sh", "-c", "stat -c %U $(tty); echo >/dev/stdout"),
			      .user = "daemon",
			      .flags = TTY};
	struct peer *p = *state;

	if (geteuid() != 0) {
		print_message("# skipped: only root can become somebody else\n");
		skip();
	}
	peer_exec(p, 1, &e);
	assert_string_equal(peer_wait(p, 1)->out, "daemon\r\n\r\n");
	assert_int_equal(p->run[1].exit.code, 0);
}

static void
test_program_that_is_not_there(void **state)
{
	struct peer_exec e = {.argv = ARGV("no-such-program"), .flags = TTY};
	struct peer *p = *state;

	peer_exec(p, 1, &e);
	assert_int_equal(peer_wait(p, 1)->error.stage, PROTO_STAGE_EXEC);
	tty_sh(p, 2, "exit 9");
	assert_int_equal(peer_wait(p, 2)->exit.code, 9);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, peer_setup, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_all_three_are_one_terminal),
	    TEST(test_keys_are_echoed_and_edited),
	    TEST(test_interrupt_key),
	    TEST(test_end_of_file),
	    TEST(test_window_changes),
	    TEST(test_job_control),
	    TEST(test_last_output),
	    TEST(test_closed_and_opened_again),
	    TEST(test_background_does_not_hold_the_exit),
	    TEST(test_timeout),
	    TEST(test_user_owns_it),
	    TEST(test_program_that_is_not_there),
	};

	return cmocka_run_group_tests_name("agent terminal", tests, NULL, NULL);
}
