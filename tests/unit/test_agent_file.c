/* SPDX-License-Identifier: MIT
 *
 * test_agent_file.c - what the guest agent does to files: each operation and
 * its errors.
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
#define SET_MTIME PROTO_FILE_F_SET_MTIME
#define PARENTS PROTO_FILE_F_PARENTS

static void
test_read(void **state)
{
	struct filetest *f = *state;
	struct peer_run *r;

	put_file("a", "hello world");
	r = RUN(f, .head = {.op = PROTO_FILE_READ}, .path = "a");
	assert_int_equal(r->done.err, 0);
	assert_string_equal(r->out, "hello world");
	assert_int_equal(r->done.stat.size, 11);
	r = RUN(f, .head = {.op = PROTO_FILE_READ, .offset = 6, .length = 3}, .path = "a");
	assert_string_equal(r->out, "wor");
	r = RUN(f, .head = {.op = PROTO_FILE_READ, .offset = 100}, .path = "a");
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->out_len, 0);
	put_file("empty", "");
	r = RUN(f, .head = {.op = PROTO_FILE_READ}, .path = "empty");
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->out_len, 0);
	r = RUN(f, .head = {.op = PROTO_FILE_READ}, .path = "/proc/version");
	assert_int_equal(r->done.err, 0);
	assert_memory_equal(r->out, "Linux", 5);
}

/* A FIFO would wait, a device do something: neither is even opened. */
static void
test_read_what_is_no_file(void **state)
{
	struct filetest *f = *state;

	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = "fifo"), EINVAL);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = "/dev/zero"), EINVAL);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = "/tmp"), EISDIR);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = "none"), ENOENT);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = ""), ENOENT);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = "fifo/x"), ENOTDIR);
	assert_int_equal(symlink("loop", "loop"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READ}, .path = "loop"), ELOOP);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE}, .path = "fifo"), EINVAL);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_IN_PLACE},
			     .path = "fifo"),
			 EINVAL);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE}, .path = "/dev/null"), EINVAL);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE}, .path = "/tmp"), EISDIR);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE}, .path = "new/"), EISDIR);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE}, .path = "/"), EISDIR);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_LIST}, .path = "fifo"), ENOTDIR);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_READLINK}, .path = "fifo"), EINVAL);
}

static void
test_write(void **state)
{
	static const struct proto_file exact = {.op = PROTO_FILE_WRITE,
						.flags = SET_MODE | SET_MTIME,
						.mode = 04751,
						.mtime_sec = 1234567890,
						.mtime_nsec = 123456789};
	struct filetest *f = *state;
	struct peer_run *r;
	struct stat st;

	r = WRITE(f, "text", .head = exact, .path = "a");
	assert_int_equal(r->done.err, 0);
	assert_file("a", "text");
	assert_int_equal(stat("a", &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 04751);
	assert_int_equal(st.st_mtim.tv_sec, 1234567890);
	assert_int_equal(st.st_mtim.tv_nsec, 123456789);
	assert_int_equal(r->done.stat.mode, S_IFREG | 04751);
	assert_int_equal(r->done.stat.size, 4);
	assert_int_equal(r->done.stat.ino, st.st_ino);
	/* What it was like stays, unless the request says; a new one is 0644. */
	assert_int_equal(WRITE(f, "", .head = {.op = PROTO_FILE_WRITE}, .path = "a")->done.err, 0);
	assert_file("a", "");
	assert_int_equal(stat("a", &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 04751);
	assert_int_equal(WRITE(f, "x", .head = {.op = PROTO_FILE_WRITE}, .path = "b")->done.err, 0);
	assert_int_equal(stat("b", &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0644);
	assert_int_equal(count_entries("."), 2);
}

static void
test_write_makes_parents(void **state)
{
	static const struct proto_file head = {.op = PROTO_FILE_WRITE, .flags = PARENTS};
	struct filetest *f = *state;

	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE}, .path = "d/e/f"), ENOENT);
	assert_int_equal(WRITE(f, "x", .head = head, .path = "d//e/../e/./f/g")->done.err, 0);
	assert_file("d/e/f/g", "x");
	put_file("file", "");
	assert_int_equal(ERR(f, .head = head, .path = "file/x/y"), ENOTDIR);
	assert_int_equal(symlink("gone", "dangling"), 0);
	assert_int_equal(ERR(f, .head = head, .path = "dangling/x"), ENOENT);
}

/* The name is the thing: a link there is replaced, and what it points to stays. */
static void
test_write_replaces_a_link(void **state)
{
	struct filetest *f = *state;
	struct stat st;

	put_file("target", "old");
	assert_int_equal(symlink("target", "link"), 0);
	assert_int_equal(
	    WRITE(f, "new", .head = {.op = PROTO_FILE_WRITE}, .path = "link")->done.err, 0);
	assert_file("target", "old");
	assert_int_equal(lstat("link", &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(
	    ERR(f, .head = {.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_EXCL}, .path = "target"),
	    EEXIST);
	assert_int_equal(WRITE(f, "x", .head = {.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_EXCL},
			       .path = "new")
			     ->done.err,
			 0);
}

static void
test_append_and_in_place(void **state)
{
	static const struct proto_file append = {.op = PROTO_FILE_WRITE,
						 .flags = PROTO_FILE_F_APPEND};
	static const struct proto_file in_place = {.op = PROTO_FILE_WRITE,
						   .flags = PROTO_FILE_F_IN_PLACE};
	struct filetest *f = *state;
	struct stat before, after;

	assert_int_equal(WRITE(f, "one", .head = append, .path = "a")->done.err, 0);
	assert_int_equal(stat("a", &before), 0);
	assert_int_equal(symlink("a", "link"), 0);
	assert_int_equal(WRITE(f, "two", .head = append, .path = "link")->done.err, 0);
	assert_file("a", "onetwo");
	assert_int_equal(WRITE(f, "3", .head = in_place, .path = "a")->done.err, 0);
	assert_file("a", "3");
	assert_int_equal(stat("a", &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(WRITE(f, "new", .head = in_place, .path = "b")->done.err, 0);
	assert_file("b", "new");
}

static void
test_sparse(void **state)
{
	enum { SIZE = 1 << 20 };
	static const struct peer_file file = {
	    {.op = PROTO_FILE_WRITE, .flags = PROTO_FILE_F_SPARSE}, "sparse", NULL, NULL};
	struct filetest *f = *state;
	char *bytes = calloc(1, SIZE + 1);
	struct peer_run *r;
	uint32_t stream;
	struct stat st;

	assert_non_null(bytes);
	bytes[0] = bytes[SIZE / 2 - 1] = 'x';
	stream = filetest_begin(f, &file);
	peer_stdin(f->p, stream, bytes, SIZE + 1, true);
	r = peer_wait(f->p, stream);
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->done.stat.size, SIZE + 1);
	assert_int_equal(stat("sparse", &st), 0);
	assert_in_range(st.st_blocks * 512, 1, 64 << 10);
	r = RUN(f, .head = {.op = PROTO_FILE_READ}, .path = "sparse");
	assert_int_equal(r->out_len, SIZE + 1);
	assert_memory_equal(r->out, bytes, SIZE + 1);
	free(bytes);
}

/* Entries of r's output, each of which must be whole; the named one, or NULL. */
static bool
listed(const struct peer_run *r, const char *name, size_t len, struct proto_dirent *found)
{
	size_t at = 0;
	bool is_there = false;

	while (at < r->out_len) {
		struct proto_dirent e;

		assert_true(r->out_len - at >= sizeof(e));
		memcpy(&e, r->out + at, sizeof(e));
		at += sizeof(e);
		assert_in_range(e.name_len, 1, PROTO_NAME_MAX);
		assert_true(r->out_len - at >= e.name_len);
		if (e.name_len == len && memcmp(r->out + at, name, len) == 0) {
			is_there = true;
			*found = e;
		}
		at += e.name_len;
	}
	return is_there;
}

static void
test_list(void **state)
{
	struct filetest *f = *state;
	char name[PROTO_NAME_MAX + 1];
	struct proto_dirent e;
	struct peer_run *r;

	/* Every byte that a name may have. */
	for (int i = 0; i < 254; i++)
		name[i] = (char)(i + 1 < '/' ? i + 1 : i + 2);
	name[254] = '\0';
	put_file(name, "x");
	put_file("line\nfeed", "12345");
	assert_int_equal(symlink("nowhere", "link"), 0);
	assert_int_equal(mkdir("d", 0711), 0);
	r = RUN(f, .head = {.op = PROTO_FILE_LIST}, .path = ".");
	assert_int_equal(r->done.err, 0);
	assert_true(listed(r, name, 254, &e));
	assert_true(listed(r, "line\nfeed", 9, &e));
	assert_int_equal(e.stat.size, 5);
	assert_true(listed(r, "link", 4, &e));
	assert_true(S_ISLNK(e.stat.mode));
	assert_true(listed(r, "d", 1, &e));
	assert_int_equal(e.stat.mode, S_IFDIR | 0711);
	assert_false(listed(r, ".", 1, &e));
	assert_false(listed(r, "..", 2, &e));
	/* And they are paths like any other. */
	assert_string_equal(RUN(f, .head = {.op = PROTO_FILE_READ}, .path = name)->out, "x");
	r = RUN(f, .head = {.op = PROTO_FILE_LIST}, .path = "d");
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->out_len, 0);
}

static void
test_list_of_many(void **state)
{
	enum { MANY = 3000 };
	struct filetest *f = *state;
	struct proto_dirent e;
	struct peer_run *r;
	char name[16];

	assert_int_equal(mkdir("d", 0755), 0);
	for (int i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "d/%d", i);
		put_file(name, "");
	}
	r = RUN(f, .head = {.op = PROTO_FILE_LIST}, .path = "d");
	assert_int_equal(r->done.err, 0);
	assert_true(listed(r, "0", 1, &e) && listed(r, "2999", 4, &e));
	/* 10, 90, 900 and 2000 names of one to four digits. */
	assert_int_equal(r->out_len, MANY * sizeof(e) + 10 + 2 * 90 + 3 * 900 + 4 * 2000);
}

static void
test_stat(void **state)
{
	struct filetest *f = *state;
	struct peer_run *r;
	struct stat st;

	put_file("a", "abc");
	assert_int_equal(symlink("a", "link"), 0);
	assert_int_equal(stat("a", &st), 0);
	r = RUN(f, .head = {.op = PROTO_FILE_STAT}, .path = "link");
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->done.stat.ino, st.st_ino);
	assert_int_equal(r->done.stat.mtime_sec, st.st_mtim.tv_sec);
	assert_int_equal(r->done.stat.mtime_nsec, st.st_mtim.tv_nsec);
	assert_int_equal(r->done.stat.nlink, 1);
	r = RUN(f, .head = {.op = PROTO_FILE_STAT, .flags = PROTO_FILE_F_NOFOLLOW}, .path = "link");
	assert_true(S_ISLNK(r->done.stat.mode));
	assert_true(S_ISDIR(RUN(f, .head = {.op = PROTO_FILE_STAT}, .path = "/")->done.stat.mode));
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_STAT}, .path = "none"), ENOENT);
	r = RUN(f, .head = {.op = PROTO_FILE_READLINK}, .path = "link");
	assert_string_equal(r->out, "a");
}

static void
test_rename(void **state)
{
	struct filetest *f = *state;

	put_file("a", "A");
	put_file("b", "B");
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME, .flags = PROTO_FILE_F_EXCL},
			     .path = "a", .other = "b"),
			 EEXIST);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME}, .path = "a", .other = "b"), 0);
	assert_file("b", "A");
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME}, .path = "a", .other = "b"),
			 ENOENT);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME}, .path = "b", .other = "x/y/z"),
			 ENOENT);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME, .flags = PARENTS}, .path = "b",
			     .other = "x/y/z"),
			 0);
	assert_file("x/y/z", "A");
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME}, .path = "x", .other = "x/y/w"),
			 EINVAL);
	assert_int_equal(mkdir("d", 0755), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_RENAME}, .path = "x/y/z", .other = "d"),
			 EISDIR);
	assert_int_equal(
	    ERR(f, .head = {.op = PROTO_FILE_RENAME}, .path = "x/y/z", .other = "/proc/x"), EXDEV);
}

static void
test_mkdir_and_attributes(void **state)
{
	static const struct proto_file set = {.op = PROTO_FILE_SETATTR,
					      .flags = SET_MODE | SET_MTIME,
					      .mode = 01777,
					      .mtime_sec = -5,
					      .mtime_nsec = 999999999};
	static const struct proto_file touch_link = {
	    .op = PROTO_FILE_SETATTR, .flags = SET_MTIME | PROTO_FILE_F_NOFOLLOW, .mtime_sec = 77};
	struct filetest *f = *state;
	struct peer_run *r;

	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_MKDIR}, .path = "d/e"), ENOENT);
	r = RUN(f, .head = {.op = PROTO_FILE_MKDIR, .flags = PARENTS | SET_MODE, .mode = 0700},
		.path = "d/e/");
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->done.stat.mode, S_IFDIR | 0700);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_MKDIR}, .path = "d/e"), EEXIST);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_MKDIR}, .path = "/"), EEXIST);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_MKDIR, .flags = PARENTS}, .path = "d/e"),
			 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_MKDIR, .flags = PARENTS}, .path = "/"),
			 0);
	put_file("file", "");
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_MKDIR, .flags = PARENTS}, .path = "file"),
			 EEXIST);
	r = RUN(f, .head = set, .path = "d");
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->done.stat.mode, S_IFDIR | 01777);
	assert_int_equal(r->done.stat.mtime_sec, -5);
	assert_int_equal(r->done.stat.mtime_nsec, 999999999);
	assert_int_equal(
	    ERR(f, .head = {.op = PROTO_FILE_SYMLINK}, .path = "link", .other = "\xff\n"), 0);
	assert_string_equal(RUN(f, .head = {.op = PROTO_FILE_READLINK}, .path = "link")->out,
			    "\xff\n");
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_SYMLINK}, .path = "link", .other = "x"),
			 EEXIST);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_LINK}, .path = "name", .other = "file"),
			 0);
	assert_int_equal(RUN(f, .head = {.op = PROTO_FILE_STAT}, .path = "name")->done.stat.nlink,
			 2);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_LINK}, .path = "name", .other = "file"),
			 EEXIST);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_LINK}, .path = "x", .other = "d"), EPERM);
	r = RUN(f, .head = touch_link, .path = "link");
	assert_int_equal(r->done.err, 0);
	assert_int_equal(r->done.stat.mtime_sec, 77);
	assert_int_equal(
	    ERR(f, .head = {.op = PROTO_FILE_SETATTR, .flags = SET_MODE | PROTO_FILE_F_NOFOLLOW},
		.path = "link"),
	    EOPNOTSUPP);
}

static void
test_remove(void **state)
{
	struct filetest *f = *state;

	put_file("a", "");
	assert_int_equal(mkdir("d", 0755), 0);
	put_file("d/x", "");
	assert_int_equal(symlink("d", "link"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = "d"), ENOTEMPTY);
	assert_int_equal(
	    ERR(f, .head = {.op = PROTO_FILE_REMOVE, .flags = PROTO_FILE_F_TREE}, .path = "link"),
	    0);
	assert_file("d/x", "");
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = "a"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = "d/x"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = "d/"), 0);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = "d"), ENOENT);
	/* Not with TREE: should the agent ever be wrong, this host lives on. */
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = "/"), EISDIR);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = ".."), EISDIR);
	assert_int_equal(count_entries("."), 0);
}

/* Deeper than any path, wide, and with links that lead out of it. */
static void
test_remove_a_tree(void **state)
{
	enum { DEPTH = 1500, WIDE = 300 };
	struct filetest *f = *state;
	char name[32];

	put_file("outside", "stays");
	for (int i = 0; i < DEPTH; i++) {
		assert_int_equal(mkdir("deeper", 0755), 0);
		assert_int_equal(symlink("/tmp", "up"), 0);
		assert_int_equal(chdir("deeper"), 0);
	}
	assert_int_equal(chdir(filetest_dir), 0);
	for (int i = 0; i < WIDE; i++) {
		(void)snprintf(name, sizeof(name), "deeper/%d", i);
		if (i % 2 == 0)
			put_file(name, "");
		else
			assert_int_equal(mkdir(name, 0755), 0);
	}
	assert_int_equal(symlink("../outside", "deeper/link"), 0);
	assert_int_equal(
	    ERR(f, .head = {.op = PROTO_FILE_REMOVE, .flags = PROTO_FILE_F_TREE}, .path = "deeper"),
	    0);
	assert_file("outside", "stays");
	assert_int_equal(count_entries("."), 2);
}

static int
skip_unless_root(void **state)
{
	if (geteuid() == 0)
		return filetest_setup(state);
	print_message("# skipped: needs root\n");
	skip();
	return -1;
}

/* What the file system says is what the host hears. */
static void
test_file_system_errors(void **state)
{
	struct filetest *f = *state;

	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_WRITE}, .path = "/sys/kernel/x"), EACCES);
	assert_int_equal(ERR(f, .head = {.op = PROTO_FILE_REMOVE}, .path = "/proc/version"), EPERM);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, filetest_setup, filetest_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_read),
	    TEST(test_read_what_is_no_file),
	    TEST(test_write),
	    TEST(test_write_makes_parents),
	    TEST(test_write_replaces_a_link),
	    TEST(test_append_and_in_place),
	    TEST(test_sparse),
	    TEST(test_list),
	    TEST(test_list_of_many),
	    TEST(test_stat),
	    TEST(test_rename),
	    TEST(test_mkdir_and_attributes),
	    TEST(test_remove),
	    TEST(test_remove_a_tree),
	    cmocka_unit_test_setup_teardown(test_file_system_errors, skip_unless_root,
					    filetest_teardown),
	};

	return cmocka_run_group_tests_name("agent files", tests, NULL, NULL);
}
