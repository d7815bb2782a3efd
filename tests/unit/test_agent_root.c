/* SPDX-License-Identifier: MIT
 *
 * test_agent_root.c - file operations of the guest agent beneath a root, which
 * nothing leads out of.
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

#define SET_MODE PROTO_FILE_F_SET_MODE
#define PARENTS PROTO_FILE_F_PARENTS

static void
test_root(void **state)
{
	struct filetest *f = *state;
	struct peer_run *r;

	assert_int_equal(mkdir("root", 0755), 0);
	assert_int_equal(mkdir("root/d", 0755), 0);
	put_file("root/d/in", "inside");
	r = RUN(f, .head = {.op = PROTO_FILE_READ}, .path = "/d/in", .root = "root");
	assert_int_equal(r->done.err, 0);
	assert_string_equal(r->out, "inside");
	assert_string_equal(
	    RUN(f, .head = {.op = PROTO_FILE_READ}, .path = "d/../d/in", .root = "root")->out,
	    "inside");
	assert_int_equal(WRITE(f, "new", .head = {.op = PROTO_FILE_WRITE, .flags = PARENTS},
			       .path = "/x/y/z", .root = "root")
			     ->done.err,
			 0);
	assert_file("root/x/y/z", "new");
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME, .flags = PARENTS},
			     .path = "x/y/z", .other = "/v/w", .root = "root"),
			 0);
	assert_file("root/v/w", "new");
	assert_true(S_ISDIR(
	    RUN(f, .head = {.op = PROTO_FILE_STAT}, .path = "/", .root = "root")->done.stat.mode));
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_LIST}, .path = "", .root = "root"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_MKDIR, .flags = PARENTS}, .path = "m/n",
			     .root = "root"),
			 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE, .flags = PROTO_FILE_F_TREE},
			     .path = "/v", .root = "root"),
			 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_STAT}, .path = "x", .root = "no-root"),
			 ENOENT);
	/* No link is followed, not even one that stays inside. */
	assert_int_equal(symlink("d", "root/l"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = "l/in", .root = "root"),
			 ELOOP);
	assert_int_equal(symlink("root", "root-link"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_STAT}, .path = "x", .root = "root-link"),
			 ELOOP);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_STAT}, .path = "x", .root = "root/d/in"),
			 ENOTDIR);
}

/* Every operation, every way out. */
static void
test_root_cannot_be_left(void **state)
{
	static const char *const ways[] = {"../secret",	 "d/../../secret", "/../secret",
					   "out/secret", "abs/secret",	   "file"};
	struct filetest *f = *state;

	put_file("secret", "secret");
	assert_int_equal(mkdir("root", 0755), 0);
	assert_int_equal(mkdir("root/d", 0755), 0);
	assert_int_equal(symlink("..", "root/out"), 0);
	assert_int_equal(symlink(filetest_dir, "root/abs"), 0);
	assert_int_equal(symlink("../secret", "root/file"), 0);
	put_file("root/a", "");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		const bool link = strcmp(ways[i], "file") == 0;

		for (uint32_t op = PROTO_FILE_READ; op <= PROTO_FILE_LINK; op++) {
			const struct peer_file file = {
			    {.op = op,
			     .flags = op == PROTO_FILE_SETATTR	? SET_MODE
				      : op == PROTO_FILE_REMOVE ? PROTO_FILE_F_TREE
				      : op == PROTO_FILE_WRITE	? PROTO_FILE_F_IN_PLACE
				      : op == PROTO_FILE_MKDIR	? PARENTS
								: 0},
			    ways[i],
			    op == PROTO_FILE_RENAME || op == PROTO_FILE_SYMLINK ? "b"
			    : op == PROTO_FILE_LINK				? "a"
										: NULL,
			    "root"};
			uint32_t err = 0;

			/* Its own name is beneath the root: a link can be read, moved, removed. */
			if (link && (op == PROTO_FILE_REMOVE || op == PROTO_FILE_RENAME ||
				     op == PROTO_FILE_READLINK))
				continue;
			err = filetest_run(f, &file)->done.err;
			if (err != EXDEV && err != ELOOP && !(link && err == ENOTDIR) &&
			    !(link && err == EEXIST))
				fail_msg("operation %u on %s: %s", op, ways[i], strerror((int)err));
		}
		if (!link)
			assert_int_not_equal(ERR(f, .head = {.op = PROTO_FILE_LINK}, .path = "c",
						 .other = ways[i], .root = "root"),
					     0);
		if (!link)
			assert_int_not_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME}, .path = "a",
						 .other = ways[i], .root = "root"),
					     0);
	}
	assert_file("secret", "secret");
	assert_int_equal(count_entries("."), 2);
	assert_int_equal(count_entries("root"), 5);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, filetest_setup, filetest_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_root),
	    TEST(test_root_cannot_be_left),
	};

	return cmocka_run_group_tests_name("agent root", tests, NULL, NULL);
}
