/* SPDX-License-Identifier: MIT
 *
 * test_agent_proto.c - what the guest agent does with requests and frames that
 * break kvm/proto.h: one ERROR for the stream, or the end of the machine when
 * nobody can tell any more where frames begin.
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

#include <cmocka.h>

/* A good request, for rows to spoil: sh -c ":" with one variable. */
static unsigned char *
good(size_t *len)
{
	static const char *const argv[] = {"/bin/sh", "-c", ":", NULL};
	static const char *const env[] = {"A=1", NULL};
	static const struct peer_exec e = {.argv = argv, .env = env};

	return peer_encode(&e, len);
}

static void
assert_refused(struct peer *p, uint32_t stream, int err, const char *says)
{
	struct peer_run *r = peer_wait(p, stream);

	assert_false(r->exited);
	assert_int_equal(r->error.stage, PROTO_STAGE_REQUEST);
	assert_int_equal(r->error.err, err);
	if (strstr(r->text, says) == NULL)
		fail_msg("'%s' does not say '%s'", r->text, says);
}

struct head_case {
	struct proto_exec head; /* added to the good header, field by field */
	int grow;		/* bytes added to (or cut from) the end */
	const char *says;
};

#define U(n) ((uint32_t)(n))
static const struct head_case head_cases[] = {
    {{.size = 1}, 0, "not as long as it says"},
    {{.size = U(-1)}, 0, "not as long as it says"},
    {{.size = U(-1)}, -1, "ends before"},
    {{.size = 1}, 1, "goes on after"},
    {{.argc = U(-3)}, 0, "no arguments"},
    {{.argc = U(-1)}, 0, "not NAME=VALUE"},
    {{.argc = 1}, 0, "not NAME=VALUE"},
    {{.argc = 3}, 0, "ends within the environment"},
    {{.argc = 4}, 0, "ends within an argument"},
    {{.argc = U(-4)}, 0, "more strings than it holds"},
    {{.envc = 1}, 0, "not NAME=VALUE"},
    {{.envc = U(-1)}, 0, "goes on after"},
    {{.envc = U(-2)}, 0, "more strings than it holds"},
    {{.envc = 0x7fffffff}, 0, "more strings than it holds"},
    {{.flags = 16}, 0, "flags"},
    {{.flags = 0x80000000}, 0, "flags"},
    {{.zero = 1}, 0, "flags"},
    {{.unsetc = 1}, 0, "ends before"},
    {{.unsetc = 3}, 0, "ends within the names"},
    {{.unsetc = U(-1)}, 0, "more strings than it holds"},
    {{.umask = 022}, 0, "umask"},
    {{.flags = PROTO_EXEC_UMASK, .umask = 01000}, 0, "umask"},
    {{.rows = 24}, 0, "terminal"},
    {{.cols = 80}, 0, "terminal"},
    {{.flags = PROTO_EXEC_TTY}, 0, "terminal"},
};

static void
test_malformed_requests(void **state)
{
	struct peer *p = *state;
	struct proto_exec h;
	unsigned char *bytes;
	uint32_t i, stream;
	size_t len, n;

	for (i = 0; i < sizeof(head_cases) / sizeof(head_cases[0]); i++) {
		const struct head_case *c = &head_cases[i];

		bytes = good(&len);
		bytes = realloc(bytes, len + 8);
		assert_non_null(bytes);
		memset(bytes + len, 0, 8);
		memcpy(&h, bytes, sizeof(h));
		h.size += c->head.size;
		h.argc += c->head.argc;
		h.envc += c->head.envc;
		h.flags += c->head.flags;
		h.zero += c->head.zero;
		h.unsetc += c->head.unsetc;
		h.umask += c->head.umask;
		h.rows += c->head.rows;
		h.cols += c->head.cols;
		memcpy(bytes, &h, sizeof(h));
		n = len + (size_t)c->grow;
		stream = 1 + 2 * i;
		peer_send(p, PROTO_EXEC, 0, stream, bytes, n);
		assert_refused(p, stream, EINVAL, c->says);
		/* The same in two pieces. */
		peer_send(p, PROTO_EXEC, PROTO_F_MORE, stream + 1, bytes, 10);
		peer_send(p, PROTO_EXEC, 0, stream + 1, bytes + 10, n - 10);
		assert_refused(p, stream + 1, EINVAL, c->says);
		free(bytes);
	}
}

static void
test_truncated_requests(void **state)
{
	struct peer *p = *state;
	unsigned char *bytes;
	struct proto_exec h;
	size_t len;
	uint32_t n;

	bytes = good(&len);
	memcpy(&h, bytes, sizeof(h));
	for (n = 1; n < len; n++) {
		peer_send(p, PROTO_EXEC, 0, n, bytes, n);
		assert_refused(p, n, EINVAL, "the request");
		/* Honest about its length, and still not whole. */
		h.size = n;
		memcpy(bytes, &h, sizeof(h));
		peer_send(p, PROTO_EXEC, 0, n + 100, bytes, n);
		assert_refused(p, n + 100, EINVAL, "the request");
		h.size = (uint32_t)len;
		memcpy(bytes, &h, sizeof(h));
	}
	assert_true(len < 100);
	free(bytes);
}

static void
test_environment_entries(void **state)
{
	static const char *const bad[] = {"", "=", "=x", "NAME"};
	static const char *const argv[] = {"true", NULL};
	struct peer *p = *state;
	uint32_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *env[] = {"OK=1", bad[i], NULL};
		struct peer_exec e = {.argv = argv, .env = env};

		peer_exec(p, i + 1, &e);
		assert_refused(p, i + 1, EINVAL, "NAME=VALUE");
	}
}

/* Byte by byte, with others in between: assembled per stream. */
static void
test_pieces_of_one_byte(void **state)
{
	struct peer *p = *state;
	unsigned char *bytes;
	size_t len, i;
	uint32_t s;

	bytes = good(&len);
	for (i = 0; i < len; i++) {
		for (s = 1; s <= 5; s++)
			peer_send(p, PROTO_EXEC, i + 1 < len ? PROTO_F_MORE : 0, s, bytes + i, 1);
	}
	for (s = 1; s <= 5; s++) {
		assert_true(peer_wait(p, s)->exited);
		assert_int_equal(p->run[s].exit.code, 0);
	}
	free(bytes);
}

/* The answer comes after the last piece, and the stream id is free again. */
static void
test_request_too_large(void **state)
{
	static unsigned char piece[PROTO_PAYLOAD_MAX];
	struct peer *p = *state;
	size_t sent;

	for (sent = 0; sent <= PROTO_EXEC_MAX + sizeof(piece); sent += sizeof(piece))
		peer_send(p, PROTO_EXEC, PROTO_F_MORE, 1, piece, sizeof(piece));
	peer_ping(p);
	assert_int_equal(p->run[1].ends, 0);
	peer_send(p, PROTO_EXEC, 0, 1, piece, 1);
	assert_refused(p, 1, E2BIG, "2 MiB");
	memset(&p->run[1], 0, sizeof(p->run[1]));
	peer_sh(p, 1, "exit 9", 0);
	assert_int_equal(peer_wait(p, 1)->exit.code, 9);
}

/* A command that would go on for long: its pidfd, once it runs. */
static int
start_sleeper(struct peer *p, uint32_t stream)
{
	int fd;

	peer_sh(p, stream, "echo $$; exec sleep 1000", 0);
	while (p->run[stream].out == NULL || strchr(p->run[stream].out, '\n') == NULL)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
	assert_int_equal(peer_open_pids(p->run[stream].out, &fd, 1), 1);
	return fd;
}

/* The old command ends, and the stream with it: there is only one end. */
static void
test_stream_in_use(void **state)
{
	struct peer *p = *state;
	int fd;

	fd = start_sleeper(p, 1);
	peer_sh(p, 1, ":", 0);
	assert_refused(p, 1, EBUSY, "in use");
	peer_assert_die(&fd, 1);
	peer_ping(p);
	assert_int_equal(p->run[1].ends, 1);
}

struct frame_case {
	uint8_t type, flags;
	uint16_t length;
	const char *what;
};

/* Frames whose bounds are clear but whose contents are not allowed. */
static const struct frame_case frame_cases[] = {
    {PROTO_KILL, 0, 3, "KILL too short"},
    {PROTO_KILL, 0, 8, "KILL too long"},
    {PROTO_KILL, 1, 4, "KILL with a flag"},
    {PROTO_CREDIT, 0, 0, "CREDIT too short"},
    {PROTO_CREDIT, 2, 4, "CREDIT with a flag"},
    {PROTO_STDIN, 2, 1, "STDIN with a flag"},
    {PROTO_PING, 0, 4, "PING on a stream"},
    {PROTO_EXEC, 0, 0, "empty EXEC"},
    {PROTO_EXEC, 2, 10, "EXEC with another flag"},
    {PROTO_RENEW, 0, sizeof(struct proto_renew), "RENEW on a stream"},
};

static void
test_bad_frames_end_their_stream(void **state)
{
	static const unsigned char zeros[sizeof(struct proto_renew)];
	struct peer *p = *state;
	uint32_t i, stream;
	int fd;

	for (i = 0; i < sizeof(frame_cases) / sizeof(frame_cases[0]); i++) {
		const struct frame_case *c = &frame_cases[i];

		stream = 3 * i + 1;
		/* on a running command, on nothing, within a request */
		fd = start_sleeper(p, stream);
		peer_send(p, c->type, c->flags, stream, zeros, c->length);
		assert_refused(p, stream, EPROTO, "does not allow");
		peer_assert_die(&fd, 1);
		peer_send(p, c->type, c->flags, stream + 1, zeros, c->length);
		assert_refused(p, stream + 1, EPROTO, "does not allow");
		peer_send(p, PROTO_EXEC, PROTO_F_MORE, stream + 2, zeros, 1);
		peer_send(p, c->type, c->flags, stream + 2, zeros, c->length);
		peer_send(p, PROTO_EXEC, 0, stream + 2, zeros, 1);
		assert_refused(p, stream + 2, EPROTO, "does not allow");
	}
	peer_ping(p);
}

static void
test_stdin_beyond_the_window(void **state)
{
	static const unsigned char bytes[PROTO_PAYLOAD_MAX];
	struct peer *p = *state;
	unsigned i;

	/* The pipe takes 64 KiB, the window the rest; then one byte too many. */
	peer_sh(p, 1, "exec sleep 1000", PROTO_EXEC_STDIN);
	for (i = 0; i < 10 && p->run[1].ends == 0; i++)
		peer_send(p, PROTO_STDIN, 0, 1, bytes, sizeof(bytes));
	assert_refused(p, 1, EPROTO, "beyond the window");
}

static void
test_signals_that_do_not_exist(void **state)
{
	struct peer *p = *state;

	peer_sh(p, 1, "read x; exit 2", PROTO_EXEC_STDIN);
	peer_kill(p, 1, 0); /* no signal: nothing happens */
	peer_stdin(p, 1, "\n", 1, false);
	assert_int_equal(peer_wait(p, 1)->exit.code, 2);
	peer_sh(p, 2, "sleep 1000", 0);
	peer_kill(p, 2, 65);
	assert_refused(p, 2, EPROTO, "signal");
}

/* Frames for a stream that has just ended are no fault of anybody. */
static void
test_frames_for_nobody(void **state)
{
	struct peer *p = *state;
	uint32_t n = 1;

	peer_send(p, PROTO_STDIN, PROTO_F_EOF, 200, "x", 1);
	peer_send(p, PROTO_KILL, 0, 200, &n, sizeof(n));
	peer_grant(p, 200, 1);
	peer_ping(p);
	assert_int_equal(p->run[200].ends, 0);
}

static void
test_stdin_after_eof(void **state)
{
	struct peer *p = *state;

	peer_sh(p, 1, "cat; read x; exec sleep 1000", PROTO_EXEC_STDIN);
	peer_stdin(p, 1, "once", 4, true);
	peer_send(p, PROTO_STDIN, PROTO_F_EOF, 1, "more", 4);
	peer_send(p, PROTO_STDIN, PROTO_F_EOF, 1, NULL, 0);
	(void)peer_wait_output(p, 1, 4, 0);
	peer_kill(p, 1, SIGKILL);
	assert_string_equal(peer_wait(p, 1)->out, "once");
}

static void
test_credit_has_no_end(void **state)
{
	struct peer *p = *state;
	unsigned i;

	peer_sh(p, 1, "read x; head -c 100000 /dev/zero", PROTO_EXEC_STDIN);
	for (i = 0; i < 100; i++)
		peer_grant(p, 1, UINT32_MAX);
	peer_stdin(p, 1, "\n", 1, false);
	assert_int_equal(peer_wait(p, 1)->out_len, 100000);
}

static const struct proto_hdr lost_cases[] = {
    {.length = PROTO_PAYLOAD_MAX + 1, .type = PROTO_STDIN, .stream = 1},
    {.length = UINT32_MAX, .type = PROTO_PING},
    {.length = 4, .type = PROTO_PING, .zero = 1},
    {.length = 4, .type = 0},
    {.length = 4, .type = 255, .stream = 1},
    {.length = 12, .type = PROTO_PONG},
    {.length = 65, .type = PROTO_PING},
    {.length = 4, .type = PROTO_EXEC, .stream = 0},
    {.length = sizeof(struct proto_renew) - 1, .type = PROTO_RENEW},
    {.length = sizeof(struct proto_renew) + 1, .type = PROTO_RENEW},
    {.length = sizeof(struct proto_renew), .type = PROTO_RENEW, .flags = 1},
    {.length = sizeof(struct proto_renewed), .type = PROTO_RENEWED},
};

static void
test_lost_framing_ends_the_machine(void **state)
{
	/* In one piece: the agent may end before a second one is sent. */
	unsigned char bytes[sizeof(lost_cases[0]) + 128] = {0};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lost_cases) / sizeof(lost_cases[0]); i++) {
		struct peer *p = peer_new(false);

		memcpy(bytes, &lost_cases[i], sizeof(lost_cases[i]));
		peer_send_raw(p, bytes, sizeof(bytes));
		peer_free(p, 1);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, peer_setup, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_malformed_requests),
	    TEST(test_truncated_requests),
	    TEST(test_environment_entries),
	    TEST(test_pieces_of_one_byte),
	    TEST(test_request_too_large),
	    TEST(test_stream_in_use),
	    TEST(test_bad_frames_end_their_stream),
	    TEST(test_stdin_beyond_the_window),
	    TEST(test_signals_that_do_not_exist),
	    TEST(test_frames_for_nobody),
	    TEST(test_stdin_after_eof),
	    TEST(test_credit_has_no_end),
	    cmocka_unit_test(test_lost_framing_ends_the_machine),
	};

	return cmocka_run_group_tests_name("agent protocol", tests, NULL, NULL);
}
