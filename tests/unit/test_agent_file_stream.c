/* SPDX-License-Identifier: MIT
 *
 * test_agent_file_stream.c - file operations of the guest agent as streams:
 * windows, turns beside commands, cuts in the middle, requests that are none.
 */
#include "tests/lib/filetest.h"

#include <errno.h>
#include <fcntl.h>
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

#define BIG (3u << 20)

static const struct peer_file write_big = {{.op = PROTO_FILE_WRITE}, "big", NULL, NULL};
static const struct peer_file read_big = {{.op = PROTO_FILE_READ}, "big", NULL, NULL};

static char *
pattern(size_t len)
{
	uint32_t x = 2463534242u;
	char *buf = malloc(len);
	size_t i;

	assert_non_null(buf);
	for (i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		buf[i] = (char)x;
	}
	return buf;
}

static void
make_big(const char *bytes)
{
	int fd = open("big", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	assert_int_equal(write(fd, bytes, BIG), BIG);
	(void)close(fd);
}

/* --- tests ------------------------------------------------------------------------ */

static void
test_there_and_back(void **state)
{
	struct filetest *f = *state;
	char *bytes = pattern(BIG);
	uint32_t stream = filetest_begin(f, &write_big);
	struct peer_run *r;

	peer_stdin(f->p, stream, bytes, BIG, true);
	r = peer_wait(f->p, stream);
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->done.stat.size, BIG);
	assert_true(r->in_given <= BIG + (192u << 10));
	r = filetest_run(f, &read_big);
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->out_len, BIG);
	assert_memory_equal(r->out, bytes, BIG);
	free(bytes);
}

static void
test_reader_without_credit(void **state)
{
	struct filetest *f = *state;
	char *bytes = pattern(BIG);
	struct peer_run *r;
	uint32_t stream;

	make_big(bytes);
	f->p->run[f->stream + 1].no_grant = true;
	stream = filetest_begin(f, &read_big);
	r = peer_wait_output(f->p, stream, PROTO_WINDOW, 0);
	/* Others go on. */
	put_file("small", "text");
	assert_string_equal(RUN(f, .head = {.op = PROTO_FILE_READ}, .path = "small")->out, "text");
	peer_ping(f->p);
	assert_int_equal(r->out_len, PROTO_WINDOW);
	assert_int_equal(r->ends, 0);
	r->no_grant = false;
	peer_grant(f->p, stream, PROTO_WINDOW);
	assert_int_equal(peer_wait(f->p, stream)->out_len, BIG);
	free(bytes);
}

/* KILL, whatever the signal: an answer, and nothing is left. */
static void
test_kill_undoes_a_write(void **state)
{
	struct filetest *f = *state;
	uint32_t stream = filetest_begin(f, &write_big);

	peer_stdin(f->p, stream, "half", 4, false);
	peer_ping(f->p);
	assert_int_equal(count_entries("."), 1);
	assert_int_equal(access("big", F_OK), -1);
	peer_kill(f->p, stream, 15);
	assert_int_equal(peer_wait(f->p, stream)->done.err, ECANCELED);
	assert_int_equal(count_entries("."), 0);
	/* Its bytes may still come. */
	peer_send(f->p, PROTO_STDIN, PROTO_F_EOF, stream, "x", 1);
	peer_ping(f->p);
	assert_int_equal(f->p->run[stream].ends, 1);
}

static void
test_kill_takes_an_append_back(void **state)
{
	static const struct peer_file append = {
	    {.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_APPEND}, "a", NULL, NULL};
	static const struct peer_file fresh = {
	    {.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_APPEND}, "b", NULL, NULL};
	struct filetest *f = *state;
	uint32_t stream, other;

	put_file("a", "old");
	stream = filetest_begin(f, &append);
	other = filetest_begin(f, &fresh);
	peer_stdin(f->p, stream, "half", 4, false);
	peer_stdin(f->p, other, "half", 4, false);
	peer_ping(f->p);
	assert_file("a", "oldhalf");
	assert_file("b", "half");
	peer_kill(f->p, stream, 9);
	peer_kill(f->p, other, 9);
	(void)peer_wait(f->p, stream);
	(void)peer_wait(f->p, other);
	assert_file("a", "old");
	assert_int_equal(access("b", F_OK), -1);
}

static void
test_kill_ends_a_read(void **state)
{
	struct filetest *f = *state;
	char *bytes = pattern(BIG);
	uint32_t stream;

	make_big(bytes);
	f->p->run[f->stream + 1].no_grant = true;
	stream = filetest_begin(f, &read_big);
	(void)peer_wait_output(f->p, stream, PROTO_WINDOW, 0);
	peer_kill(f->p, stream, 9);
	assert_int_equal(peer_wait(f->p, stream)->done.err, ECANCELED);
	free(bytes);
}

static void
test_hang_up_undoes_a_write(void **state)
{
	struct filetest *f = *state;
	uint32_t stream = filetest_begin(f, &write_big);

	peer_stdin(f->p, stream, "half", 4, false);
	peer_ping(f->p);
	assert_int_equal(count_entries("."), 1);
	peer_wait_gone(f->p, 0);
	assert_int_equal(count_entries("."), 0);
}

/* Old until it is new, and never anything else. */
static void
test_write_is_seen_when_it_is_whole(void **state)
{
	struct filetest *f = *state;
	uint32_t stream;

	put_file("big", "old");
	stream = filetest_begin(f, &write_big);
	peer_stdin(f->p, stream, "new", 3, false);
	peer_ping(f->p);
	assert_file("big", "old");
	peer_stdin(f->p, stream, "er", 2, true);
	assert_int_equal(peer_wait(f->p, stream)->done.err, 0);
	assert_file("big", "newer");
	assert_int_equal(count_entries("."), 1);
}

/* The directory goes meanwhile, or the name becomes a directory's. */
static void
test_write_that_cannot_be_finished(void **state)
{
	static const struct peer_file inside = {{.op = PROTO_FILE_WRITE}, "d/f", NULL, NULL};
	struct filetest *f = *state;
	uint32_t stream = filetest_begin(f, &write_big);

	peer_stdin(f->p, stream, "x", 1, false);
	peer_ping(f->p);
	assert_int_equal(mkdir("big", 0755), 0);
	peer_stdin(f->p, stream, "x", 1, true);
	assert_int_equal(peer_wait(f->p, stream)->done.err, EISDIR);
	assert_int_equal(count_entries("."), 1);
	assert_int_equal(mkdir("d", 0755), 0);
	stream = filetest_begin(f, &inside);
	peer_stdin(f->p, stream, "x", 1, false);
	peer_ping(f->p);
	assert_int_equal(
	    ERR(f, .head = {.op = PROTO_FILE_REMOVE, .flags = PROTO_FILE_F_TREE}, .path = "d"), 0);
	peer_stdin(f->p, stream, "x", 1, true);
	assert_int_equal(peer_wait(f->p, stream)->done.err, ENOENT);
}

/* Two commands and two transfers that all want the channel: none gets far ahead. */
static void
test_files_and_commands_take_turns(void **state)
{
	enum { SHARE = 512 << 10 };
	struct filetest *f = *state;
	char *bytes = pattern(BIG);
	uint32_t file[2], cmd[2];

	make_big(bytes);
	for (int i = 0; i < 2; i++) {
		file[i] = filetest_begin(f, &read_big);
		cmd[i] = ++f->stream;
		peer_sh(f->p, cmd[i], "exec cat /dev/zero", 0);
	}
	for (int i = 0; i < 2; i++) {
		(void)peer_wait_output(f->p, cmd[i], SHARE, 0);
		(void)peer_wait_output(f->p, file[i], SHARE, 0);
	}
	for (int i = 0; i < 2; i++) {
		peer_kill(f->p, cmd[i], 9);
		(void)peer_wait(f->p, cmd[i]);
		assert_int_equal(peer_wait(f->p, file[i])->out_len, BIG);
	}
	free(bytes);
}

static void
assert_refused(struct peer *p, uint32_t stream, int err, const char *says)
{
	struct peer_run *r = peer_wait(p, stream);

	assert_false(r->filed);
	assert_int_equal(r->error.stage, PROTO_STAGE_REQUEST);
	assert_int_equal(r->error.err, err);
	if (strstr(r->text, says) == NULL)
		fail_msg("'%s' does not say '%s'", r->text, says);
}

#define ALL_FLAGS 0x1ffu
static const struct {
	struct proto_file head;
	const char *other, *says;
} bad[] = {
    {{.op = 0}, "", "no known operation"},
    {{.op = PROTO_FILE_LINK + 1}, "", "no known operation"},
    {{.op = UINT32_MAX}, "", "no known operation"},
    {{.op = PROTO_FILE_WRITE, .flags = ALL_FLAGS + 1}, "", "flags"},
    {{.op = PROTO_FILE_READ, .flags = PROTO_FILE_F_PARENTS}, "", "flags"},
    {{.op = PROTO_FILE_STAT, .flags = PROTO_FILE_F_TREE}, "", "flags"},
    {{.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_EXCL | PROTO_FILE_F_APPEND}, "", "exclude"},
    {{.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_SPARSE | PROTO_FILE_F_APPEND}, "", "exclude"},
    {{.op = PROTO_FILE_WRITE, .mode = 0644}, "", "mode"},
    {{.op = PROTO_FILE_MKDIR, .flags = PROTO_FILE_F_SET_MODE, .mode = 010000}, "", "mode"},
    {{.op = PROTO_FILE_WRITE, .mtime_sec = 1}, "", "time"},
    {{.op = PROTO_FILE_SETATTR, .flags = PROTO_FILE_F_SET_MTIME, .mtime_nsec = 1000000000},
     "",
     "time"},
    {{.op = PROTO_FILE_WRITE, .offset = 1}, "", "range"},
    {{.op = PROTO_FILE_READ, .offset = UINT64_MAX}, "", "range"},
    {{.op = PROTO_FILE_READ}, "other", "too many"},
};

static void
test_malformed_requests(void **state)
{
	struct filetest *f = *state;
	unsigned char bytes[sizeof(struct proto_file) + PROTO_PATH_MAX + 3];
	struct proto_file head = {.op = PROTO_FILE_STAT};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct peer_file file = {bad[i].head, "x", bad[i].other, NULL};

		peer_file(f->p, ++f->stream, &file);
		assert_refused(f->p, f->stream, EINVAL, bad[i].says);
	}
	/* Two strings, four strings, none that ends; a path too long by one. */
	memset(bytes, 'x', sizeof(bytes));
	memcpy(bytes, &head, sizeof(head));
	peer_send(f->p, PROTO_FILE, 0, ++f->stream, bytes, sizeof(head) + 3);
	assert_refused(f->p, f->stream, EINVAL, "three paths");
	bytes[sizeof(head)] = bytes[sizeof(head) + 1] = '\0';
	peer_send(f->p, PROTO_FILE, 0, ++f->stream, bytes, sizeof(head) + 3);
	assert_refused(f->p, f->stream, EINVAL, "three paths");
	memset(bytes + sizeof(head), 0, 4);
	peer_send(f->p, PROTO_FILE, 0, ++f->stream, bytes, sizeof(head) + 4);
	assert_refused(f->p, f->stream, EINVAL, "three paths");
	memset(bytes + sizeof(head), 'x', PROTO_PATH_MAX);
	memset(bytes + sizeof(head) + PROTO_PATH_MAX, 0, 3);
	peer_send(f->p, PROTO_FILE, 0, ++f->stream, bytes, sizeof(bytes));
	assert_refused(f->p, f->stream, EINVAL, "three paths");
	/* Not even that: the type's own rules. */
	peer_send(f->p, PROTO_FILE, 0, ++f->stream, bytes, sizeof(head) + 2);
	assert_refused(f->p, f->stream, EPROTO, "type");
}

/* On a stream that is in use, it or a command ends both. */
static void
test_stream_in_use(void **state)
{
	struct filetest *f = *state;
	struct peer_file stat = {{.op = PROTO_FILE_STAT}, "/", NULL, NULL};
	uint32_t stream = filetest_begin(f, &write_big);

	peer_sh(f->p, stream, ":", 0);
	assert_refused(f->p, stream, EBUSY, "in use");
	assert_int_equal(count_entries("."), 0);
	stream = filetest_begin(f, &write_big);
	peer_file(f->p, stream, &stat);
	assert_refused(f->p, stream, EBUSY, "in use");
	assert_int_equal(count_entries("."), 0);
	peer_sh(f->p, ++f->stream, "exec sleep 1000", 0);
	peer_file(f->p, f->stream, &stat);
	assert_refused(f->p, f->stream, EBUSY, "in use");
	/* A command whose request is not whole yet: the answer comes when it is. */
	peer_send(f->p, PROTO_EXEC, PROTO_F_MORE, ++f->stream, "x", 1);
	peer_file(f->p, f->stream, &stat);
	peer_ping(f->p);
	assert_int_equal(f->p->run[f->stream].ends, 0);
	peer_send(f->p, PROTO_EXEC, 0, f->stream, "x", 1);
	assert_refused(f->p, f->stream, EBUSY, "in use");
}

static void
test_too_many_streams(void **state)
{
	struct filetest *f = *state;
	struct peer_file file = write_big;
	struct peer_file stat = {{.op = PROTO_FILE_STAT}, "/", NULL, NULL};
	char name[16];

	file.path = name;
	for (unsigned i = 0; i < PROTO_STREAMS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		(void)filetest_begin(f, &file);
	}
	peer_file(f->p, ++f->stream, &stat);
	assert_refused(f->p, f->stream, EAGAIN, "too many");
	peer_sh(f->p, ++f->stream, ":", 0);
	assert_refused(f->p, f->stream, EAGAIN, "too many");
	for (uint32_t i = 1; i <= PROTO_STREAMS_MAX; i++) {
		peer_stdin(f->p, i, "x", 1, true);
		assert_int_equal(peer_wait(f->p, i)->done.err, 0);
	}
	assert_int_equal(count_entries("."), PROTO_STREAMS_MAX);
	assert_int_equal(filetest_run(f, &stat)->done.err, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, filetest_setup, filetest_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_there_and_back),
	    TEST(test_reader_without_credit),
	    TEST(test_kill_undoes_a_write),
	    TEST(test_kill_takes_an_append_back),
	    TEST(test_kill_ends_a_read),
	    TEST(test_hang_up_undoes_a_write),
	    TEST(test_write_is_seen_when_it_is_whole),
	    TEST(test_write_that_cannot_be_finished),
	    TEST(test_files_and_commands_take_turns),
	    TEST(test_malformed_requests),
	    TEST(test_stream_in_use),
	    TEST(test_too_many_streams),
	};

	return cmocka_run_group_tests_name("agent file streams", tests, NULL, NULL);
}
