/* SPDX-License-Identifier: MIT
 *
 * test_agent_stream.c - bytes through the guest agent: live, both ways, within
 * credit, many streams at once. Where order matters the command is held by its
 * standard input, not by the clock.
 */
#include "tests/lib/agent_peer.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
	peer_sh(p, 1, "read x; yes & yes >&2", PROTO_EXEC_STDIN);
	peer_grant(p, 1, 300);
	peer_grant(p, 1, 700);
	peer_stdin(p, 1, "\n", 1, false);
	while (r->out_len + r->err_len < PROTO_WINDOW + 1000)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
	/* Another stream still runs, and its end comes after all it might send. */
	peer_sh(p, 2, "head -c 300000 /dev/zero", 0);
	assert_int_equal(peer_wait(p, 2)->out_len, 300000);
	peer_ping(p);
	assert_int_equal(r->out_len + r->err_len, PROTO_WINDOW + 1000);
	peer_grant(p, 1, 1);
	while (r->out_len + r->err_len < PROTO_WINDOW + 1001)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
	peer_ping(p);
	assert_int_equal(r->out_len + r->err_len, PROTO_WINDOW + 1001);
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

/* With a deadline and a reader that has stopped. */
static struct peer_run *
run_unread(struct peer *p, uint32_t stream, const char *script, uint32_t timeout_ms)
{
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	struct peer_exec e = {.argv = argv, .timeout_ms = timeout_ms};

	p->run[stream].no_grant = true;
	peer_exec(p, stream, &e);
	return peer_wait(p, stream);
}

/* What has credit at a time-out still comes, what has none is dropped: whether the
 * deadline ended the command or it had ended and its output waited. */
static void
test_timeout_needs_no_reader(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	r = run_unread(p, 1, "yes & yes >&2", 300);
	assert_int_equal(r->exit.timed_out, 1);
	assert_int_equal(r->exit.signal, 9);
	assert_int_equal(r->out_len + r->err_len, PROTO_WINDOW);
	r = run_unread(p, 2, "head -c 50000 /dev/zero; exit 3", 300);
	assert_int_equal(r->exit.timed_out, 1);
	assert_int_equal(r->exit.code, 3);
	assert_int_equal(r->out_len, PROTO_WINDOW);
	r = run_unread(p, 3, "echo all of it; exec sleep 1000", 300);
	assert_int_equal(r->exit.timed_out, 1);
	assert_string_equal(r->out, "all of it\n");
	peer_grant(p, 1, 1);
	peer_ping(p);
	assert_int_equal(p->run[1].ends, 1);
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

/* Wait for a byte from each of n writers of the fifo. */
static void
wait_fifo(int fd, unsigned n)
{
	struct pollfd w = {.fd = fd, .events = POLLIN};
	char c;

	for (; n > 0; n--) {
		assert_int_equal(poll(&w, 1, PEER_TIMEOUT_MS), 1);
		assert_int_equal(read(fd, &c, 1), 1);
	}
}

/* Credit for streams 1 to n, in one send: the agent gets it all at once. */
static void
grant_all(struct peer *p, uint32_t n, uint32_t bytes)
{
	struct {
		struct proto_hdr h;
		uint32_t bytes;
	} f[8];
	uint32_t i;

	assert_true(n <= 8);
	for (i = 0; i < n; i++) {
		f[i].h = (struct proto_hdr){.length = 4, .type = PROTO_CREDIT, .stream = i + 1};
		f[i].bytes = bytes;
	}
	peer_send_raw(p, f, n * sizeof(f[0]));
}

/* Four streams with as much to send: no one gets far ahead of the others. */
static void
test_streams_take_turns(void **state)
{
	enum { N = 4, MORE = 60000 };
	struct peer *p = *state;
	char dir[] = "/tmp/test_agent.XXXXXX", fifo[64], script[256];
	uint32_t i;
	int fd;

	assert_non_null(mkdtemp(dir));
	(void)snprintf(fifo, sizeof(fifo), "%s/full", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	fd = open(fifo, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	/* The window is sent, the rest lies in the pipes when all have said so. */
	(void)snprintf(script, sizeof(script), "head -c 80000 /dev/zero; printf x >%s; read x",
		       fifo);
	for (i = 1; i <= N; i++) {
		p->run[i].no_grant = true;
		peer_sh(p, i, script, PROTO_EXEC_STDIN);
		(void)peer_wait_output(p, i, PROTO_WINDOW, 0);
	}
	wait_fifo(fd, N);
	grant_all(p, N, MORE);
	(void)peer_wait_output(p, 1, PROTO_WINDOW + MORE, 0);
	for (i = 2; i <= N; i++)
		assert_true(p->run[i].out_len >= PROTO_WINDOW + MORE / 2);
	for (i = 2; i <= N; i++)
		(void)peer_wait_output(p, i, PROTO_WINDOW + MORE, 0);
	(void)close(fd);
	(void)unlink(fifo);
	(void)rmdir(dir);
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
	    TEST(test_timeout_needs_no_reader),
	    TEST(test_one_long_line_without_its_end),
	    TEST(test_output_closed_early),
	    TEST(test_64_at_once),
	    TEST(test_streams_take_turns),
	};

	return cmocka_run_group_tests_name("agent streams", tests, NULL, NULL);
}
