/* SPDX-License-Identifier: MIT
 *
 * test_agent_stream.c - bytes through the guest agent: live, both ways, within
 * credit, many streams at once. Where order matters the command is held by its
 * standard input, not by the clock.
 */
#include "tests/lib/agent_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void
test_output_comes_while_it_is_written(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	peer_sh(p, 1, "echo a; read x; echo b >&2; read x; echo c", PROTO_EXEC_STDIN);
	r = peer_wait_output(p, 1, 2, 0);
	assert_string_equal(r->out, "a\n");
	peer_stdin(p, 1, "\n", 1, false);
	r = peer_wait_output(p, 1, 2, 2);
	assert_string_equal(r->err, "b\n");
	assert_int_equal(r->ends, 0);
	peer_stdin(p, 1, "\n", 1, false);
	assert_string_equal(peer_wait(p, 1)->out, "a\nc\n");
}

static void
fill(char *buf, size_t len)
{
	uint32_t x = 2463534242u;
	size_t i;

	for (i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		buf[i] = (char)x;
	}
}

static void
test_stdin_comes_back_from_cat(void **state)
{
	enum { SIZE = 1 << 20 };
	struct peer *p = *state;
	struct peer_run *r;
	char *bytes = malloc(SIZE);

	assert_non_null(bytes);
	fill(bytes, SIZE);
	peer_sh(p, 1, "exec cat", PROTO_EXEC_STDIN);
	peer_stdin(p, 1, bytes, SIZE, true);
	r = peer_wait(p, 1);
	assert_int_equal(r->exit.code, 0);
	assert_int_equal(r->out_len, SIZE);
	assert_memory_equal(r->out, bytes, SIZE);
	assert_true(r->in_given <= SIZE);
	free(bytes);
}

static void
test_eof_arrives(void **state)
{
	struct peer *p = *state;

	peer_sh(p, 1, "cat; echo ended", PROTO_EXEC_STDIN);
	peer_sh(p, 2, "cat; echo ended", PROTO_EXEC_STDIN);
	peer_stdin(p, 1, "x", 1, false);
	(void)peer_wait_output(p, 1, 1, 0);
	peer_stdin(p, 1, "", 0, true);
	peer_stdin(p, 2, "", 0, true);
	assert_string_equal(peer_wait(p, 1)->out, "xended\n");
	assert_string_equal(peer_wait(p, 2)->out, "ended\n");
}

/* It never reads: its pipe and the window fill up, and nothing else happens. */
static void
test_stdin_that_is_never_read(void **state)
{
	struct peer *p = *state;
	static char bytes[PROTO_WINDOW];
	struct peer_run *r = &p->run[1];
	size_t room;

	peer_sh(p, 1, "exec sleep 1000", PROTO_EXEC_STDIN);
	/* A pipe holds 64 KiB, after that no credit comes any more. */
	while (r->in_spent < (64u << 10) + PROTO_WINDOW) {
		room = PROTO_WINDOW + r->in_given - r->in_spent;
		if (room == 0)
			assert_true(peer_step(p, PEER_TIMEOUT_MS));
		peer_send(p, PROTO_STDIN, 0, 1, bytes, room);
		r->in_spent += room;
	}
	peer_sh(p, 2, "echo fine", 0);
	assert_string_equal(peer_wait(p, 2)->out, "fine\n");
	peer_ping(p);
	assert_int_equal(r->in_given, r->in_spent - PROTO_WINDOW);
	peer_kill(p, 1, 9);
	assert_int_equal(peer_wait(p, 1)->exit.signal, 9);
}

/* It closes its stdin and lives on: whatever is sent is dropped, and granted. */
static void
test_stdin_that_was_closed(void **state)
{
	struct peer *p = *state;
	static char bytes[512 << 10];

	peer_sh(p, 1, "exec <&-; echo closed; while [ ! -e /proc/$PPID/gone ]; do sleep 1000; done",
		PROTO_EXEC_STDIN);
	(void)peer_wait_output(p, 1, 7, 0);
	peer_stdin(p, 1, bytes, sizeof(bytes), true);
	peer_sh(p, 2, "echo no stdin", 0);
	peer_stdin(p, 2, bytes, sizeof(bytes), true);
	assert_string_equal(peer_wait(p, 2)->out, "no stdin\n");
	peer_kill(p, 1, 15);
	assert_int_equal(peer_wait(p, 1)->exit.signal, 15);
}

static void
test_stopped_reader_stops_the_writer(void **state)
{
	struct peer *p = *state;
	struct peer_run *r = &p->run[1];

	r->no_grant = true;
	peer_sh(p, 1, "yes & yes >&2", 0);
	while (r->out_len + r->err_len < PROTO_WINDOW)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
	/* Another stream still runs, and its end comes after all it might send. */
	peer_sh(p, 2, "head -c 300000 /dev/zero", 0);
	assert_int_equal(peer_wait(p, 2)->out_len, 300000);
	peer_ping(p);
	assert_int_equal(r->out_len + r->err_len, PROTO_WINDOW);
	peer_grant(p, 1, 1000);
	while (r->out_len + r->err_len < PROTO_WINDOW + 1000)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
	peer_ping(p);
	assert_int_equal(r->out_len + r->err_len, PROTO_WINDOW + 1000);
	/* Its end waits for its reader, too. */
	peer_kill(p, 1, 9);
	peer_sh(p, 3, ":", 0);
	(void)peer_wait(p, 3);
	assert_int_equal(r->ends, 0);
	r->no_grant = false;
	peer_grant(p, 1, 1 << 20);
	assert_int_equal(peer_wait(p, 1)->exit.signal, 9);
}

static void
test_exit_comes_after_the_last_byte(void **state)
{
	struct peer *p = *state;
	struct peer_run *r = &p->run[1];

	/* More than the window, less than the pipe: the writer is long gone. */
	r->no_grant = true;
	peer_sh(p, 1, "head -c 40000 /dev/zero; head -c 20000 /dev/zero >&2; kill -9 $$", 0);
	while (r->out_len + r->err_len < PROTO_WINDOW)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
	r->no_grant = false;
	peer_grant(p, 1, PROTO_WINDOW);
	(void)peer_wait(p, 1);
	assert_int_equal(r->out_len, 40000);
	assert_int_equal(r->err_len, 20000);
	assert_int_equal(r->exit.signal, 9);
}

static void
test_one_long_line_without_its_end(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	peer_sh(p, 1, "head -c 1048576 /dev/zero | tr '\\0' x; printf %s y >&2", 0);
	r = peer_wait(p, 1);
	assert_int_equal(r->out_len, 1 << 20);
	assert_int_equal(r->out[(1 << 20) - 1], 'x');
	assert_string_equal(r->err, "y");
}

static void
test_output_closed_early(void **state)
{
	struct peer *p = *state;

	peer_sh(p, 1, "echo last; exec >&- 2>&-; read x; exit 5", PROTO_EXEC_STDIN);
	(void)peer_wait_output(p, 1, 5, 0);
	peer_ping(p);
	assert_int_equal(p->run[1].ends, 0);
	peer_stdin(p, 1, "\n", 1, false);
	assert_int_equal(peer_wait(p, 1)->exit.code, 5);
}

/* All 64 are alive at once: each waits for a byte that is sent when all run. */
static void
test_64_at_once(void **state)
{
	enum { N = 64 };
	struct peer *p = *state;
	char script[128], want[32];
	uint32_t i;

	for (i = 1; i <= N; i++) {
		(void)snprintf(script, sizeof(script), "echo up %u; read x; echo $x; exit %u", i,
			       i);
		peer_sh(p, i, script, PROTO_EXEC_STDIN);
	}
	for (i = 1; i <= N; i++)
		(void)peer_wait_output(p, i, 5, 0);
	for (i = N; i >= 1; i--)
		peer_stdin(p, i, "go\n", 3, false);
	for (i = 1; i <= N; i++) {
		(void)snprintf(want, sizeof(want), "up %u\ngo\n", i);
		assert_string_equal(peer_wait(p, i)->out, want);
		assert_int_equal(p->run[i].exit.code, i);
	}
}

/* Four writers that never stop: once all run, each keeps getting a share. */
static void
test_no_stream_starves(void **state)
{
	enum { N = 4, SHARE = 4 << 20 };
	struct peer *p = *state;
	size_t before[N + 1];
	uint32_t i;

	for (i = 1; i <= N; i++)
		peer_sh(p, i, "exec cat /dev/zero", 0);
	for (i = 1; i <= N; i++)
		(void)peer_wait_output(p, i, 1, 0);
	for (i = 1; i <= N; i++)
		before[i] = p->run[i].out_len;
	(void)peer_wait_output(p, 1, before[1] + SHARE, 0);
	for (i = 2; i <= N; i++) {
		if (p->run[i].out_len - before[i] < SHARE / 32)
			fail_msg("stream %u got %zu bytes", i, p->run[i].out_len - before[i]);
	}
	peer_ping(p);
	for (i = 1; i <= N; i++)
		peer_kill(p, i, 9);
	for (i = 1; i <= N; i++)
		assert_int_equal(peer_wait(p, i)->exit.signal, 9);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, peer_setup, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_output_comes_while_it_is_written),
	    TEST(test_stdin_comes_back_from_cat),
	    TEST(test_eof_arrives),
	    TEST(test_stdin_that_is_never_read),
	    TEST(test_stdin_that_was_closed),
	    TEST(test_stopped_reader_stops_the_writer),
	    TEST(test_exit_comes_after_the_last_byte),
	    TEST(test_one_long_line_without_its_end),
	    TEST(test_output_closed_early),
	    TEST(test_64_at_once),
	    TEST(test_no_stream_starves),
	};

	return cmocka_run_group_tests_name("agent streams", tests, NULL, NULL);
}
