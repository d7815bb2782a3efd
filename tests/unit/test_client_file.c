/* SPDX-License-Identifier: MIT
 *
 * test_client_file.c - libvmpool's file operations against the real worker's job
 * and the real agent, which runs here: so its files are looked at directly.
 */
#include "tests/lib/clienttest.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define BIG (8u << 20)

static char dir[64];

static int
setup(void **state)
{
	(void)strcpy(dir, "/tmp/test_client_file.XXXXXX");
	AN(mkdtemp(dir));
	return setup_agent(state);
}

static int
finish(void **state)
{
	struct fixture *f = *state;
	const struct vmpool_file_opts all = {.recursive = true};

	/* What the tests leave is the agent's to remove, too. */
	if (vmpool_remove_file(f->vm, dir, &all) < 0)
		fail_msg("%s", vmpool_error(f->pool));
	return teardown(state);
}

/* A path in the test's directory; valid until the next call but three. */
static const char *
in(const char *name)
{
	static char buf[4][4096];
	static unsigned n;

	n = (n + 1) % 4;
	(void)snprintf(buf[n], sizeof(buf[n]), "%s/%s", dir, name);
	return buf[n];
}

static uint8_t *
pattern(size_t len)
{
	uint32_t x = 2463534242u;
	uint8_t *buf = malloc(len);

	assert_non_null(buf);
	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		buf[i] = (uint8_t)x;
	}
	return buf;
}

static void
assert_bytes(struct fixture *f, const char *path, const void *want, size_t want_len)
{
	size_t len;
	void *buf;

	if (vmpool_read_file(f->vm, path, NULL, &buf, &len) < 0)
		fail_msg("%s", vmpool_error(f->pool));
	assert_int_equal(len, want_len);
	assert_memory_equal(buf, want, len);
	assert_int_equal(((char *)buf)[len], '\0');
	free(buf);
}

static void
assert_error(struct fixture *f, int got, int want, const char *text)
{
	if (got != want)
		fail_msg("%d (%s), not %d", got, vmpool_error(f->pool), want);
	if (strstr(vmpool_error(f->pool), text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", vmpool_error(f->pool), text);
}

/* --- tests ---------------------------------------------------------------------------- */

static void
sizes(void **state)
{
	static const size_t size[] = {0,	1,	4095, PROTO_PAYLOAD_MAX, (16 << 10) + 1,
				      64 << 10, 100000, BIG};
	struct fixture *f = *state;
	uint8_t *bytes = pattern(BIG);

	for (size_t i = 0; i < ARRAY_SIZE(size); i++) {
		assert_int_equal(vmpool_write_file(f->vm, in("f"), NULL, bytes, size[i]), 0);
		assert_bytes(f, in("f"), bytes, size[i]);
	}
	free(bytes);
}

static void
attributes(void **state)
{
	const struct vmpool_file_opts exact = {.set_mode = true,
					       .mode = 0640,
					       .set_mtime = true,
					       .mtime = {1700000000, 123456789},
					       .parents = true};
	const struct timespec later = {1700000001, 999999999};
	struct fixture *f = *state;
	struct vmpool_file_stat st;
	struct stat here;

	assert_int_equal(vmpool_write_file(f->vm, in("a/b/c"), &exact, "text", 4), 0);
	assert_int_equal(vmpool_stat(f->vm, in("a/b/c"), NULL, &st), 0);
	assert_int_equal(stat(in("a/b/c"), &here), 0);
	assert_int_equal(st.mode, S_IFREG | 0640);
	assert_int_equal(st.size, 4);
	assert_int_equal(st.ino, here.st_ino);
	assert_int_equal(st.mtime.tv_sec, 1700000000);
	assert_int_equal(st.mtime.tv_nsec, 123456789);
	assert_int_equal(st.ctime.tv_nsec, here.st_ctim.tv_nsec);
	assert_int_equal(vmpool_chmod(f->vm, in("a/b/c"), 04755, NULL), 0);
	assert_int_equal(vmpool_set_mtime(f->vm, in("a/b/c"), &later, NULL), 0);
	assert_int_equal(vmpool_stat(f->vm, in("a/b/c"), NULL, &st), 0);
	assert_int_equal(st.mode, S_IFREG | 04755);
	assert_int_equal(st.mtime.tv_nsec, 999999999);
	assert_int_equal(vmpool_mkdir(f->vm, in("d"),
				      &(struct vmpool_file_opts){.set_mode = true, .mode = 01777}),
			 0);
	assert_int_equal(vmpool_stat(f->vm, in("d"), NULL, &st), 0);
	assert_int_equal(st.mode, S_IFDIR | 01777);
}

static void
options_of_writing(void **state)
{
	const struct vmpool_file_opts append = {.append = true}, excl = {.exclusive = true},
				      in_place = {.in_place = true}, sparse = {.sparse = true};
	static const uint8_t zeros[1 << 20];
	struct fixture *f = *state;
	struct vmpool_file_stat before, after;

	assert_int_equal(vmpool_write_file(f->vm, in("f"), &excl, "1", 1), 0);
	assert_error(f, vmpool_write_file(f->vm, in("f"), &excl, "2", 1), VMPOOL_EFILE_EXISTS,
		     "EEXIST");
	assert_int_equal(vmpool_write_file(f->vm, in("f"), &append, "23", 2), 0);
	assert_bytes(f, in("f"), "123", 3);
	assert_int_equal(vmpool_stat(f->vm, in("f"), NULL, &before), 0);
	assert_int_equal(vmpool_write_file(f->vm, in("f"), &in_place, "4", 1), 0);
	assert_int_equal(vmpool_stat(f->vm, in("f"), NULL, &after), 0);
	assert_int_equal(before.ino, after.ino);
	assert_bytes(f, in("f"), "4", 1);
	assert_int_equal(vmpool_write_file(f->vm, in("s"), &sparse, zeros, sizeof(zeros)), 0);
	assert_int_equal(vmpool_stat(f->vm, in("s"), NULL, &after), 0);
	assert_int_equal(after.size, sizeof(zeros));
	assert_in_range(after.blocks, 0, 64);
	assert_bytes(f, in("s"), zeros, sizeof(zeros));
}

static void
ranges(void **state)
{
	struct vmpool_file_opts o = {.offset = 3, .length = 4};
	struct fixture *f = *state;
	size_t len;
	void *buf;

	assert_int_equal(vmpool_write_file(f->vm, in("f"), NULL, "0123456789", 10), 0);
	assert_int_equal(vmpool_read_file(f->vm, in("f"), &o, &buf, &len), 0);
	assert_string_equal(buf, "3456");
	free(buf);
	o = (struct vmpool_file_opts){.limit = 10};
	assert_int_equal(vmpool_read_file(f->vm, in("f"), &o, &buf, &len), 0);
	free(buf);
	o.limit = 9;
	assert_error(f, vmpool_read_file(f->vm, in("f"), &o, &buf, &len), -EFBIG, "9 bytes");
	assert_null(buf);
	assert_int_equal(vmpool_read_file(f->vm, "/proc/version", NULL, &buf, &len), 0);
	assert_true(len > 20);
	free(buf);
}

static void
listing(void **state)
{
	static const char *const names[] = {"plain", "line\nfeed", "\xff\xfe\x01", " ", "d"};
	struct fixture *f = *state;
	struct vmpool_dirent *list;
	unsigned found = 0;
	size_t count;

	for (size_t i = 0; i + 1 < ARRAY_SIZE(names); i++)
		assert_int_equal(vmpool_write_file(f->vm, in(names[i]), NULL, "0123", i), 0);
	assert_int_equal(vmpool_mkdir(f->vm, in("d"), NULL), 0);
	assert_int_equal(vmpool_list_dir(f->vm, dir, NULL, &list, &count), 0);
	assert_int_equal(count, ARRAY_SIZE(names));
	for (size_t i = 0; i < count; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
			if (strcmp(list[i].name, names[k]) != 0)
				continue;
			found |= 1u << k;
			if (k < 4)
				assert_int_equal(list[i].st.size, k);
			assert_int_equal(S_ISDIR(list[i].st.mode) != 0, k == 4);
		}
	}
	assert_int_equal(found, 31);
	vmpool_list_dir_free(list, count);
	assert_int_equal(vmpool_list_dir(f->vm, in("d"), NULL, &list, &count), 0);
	assert_int_equal(count, 0);
	vmpool_list_dir_free(list, count);
}

static int
count_to(void *arg, const struct vmpool_dirent *entry)
{
	assert_true(entry->name[0] != '\0');
	return --*(int *)arg == 0 ? -1234 : 0;
}

static void
listing_of_many(void **state)
{
	enum { MANY = 2000 };
	struct fixture *f = *state;
	struct vmpool_dirent *list;
	int left = 1500;
	char name[16];
	size_t count;

	for (int i = 0; i < MANY; i++) {
		(void)snprintf(name, sizeof(name), "%d", i);
		(void)close(open(in(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	}
	assert_int_equal(vmpool_list_dir(f->vm, dir, NULL, &list, &count), 0);
	assert_int_equal(count, MANY);
	vmpool_list_dir_free(list, count);
	/* The caller's own word ends it; a limit, too. */
	assert_int_equal(vmpool_list_dir_each(f->vm, dir, NULL, count_to, &left), -1234);
	assert_int_equal(
	    vmpool_list_dir(f->vm, dir, &(struct vmpool_file_opts){.limit = 10000}, &list, &count),
	    -EFBIG);
	assert_int_equal(vmpool_file_exists(f->vm, in("1999"), NULL), 1);
}

static void
names(void **state)
{
	struct fixture *f = *state;
	struct vmpool_file_stat st;
	char *target;

	assert_int_equal(vmpool_file_exists(f->vm, in("a"), NULL), 0);
	assert_int_equal(vmpool_write_file(f->vm, in("a"), NULL, "x", 1), 0);
	assert_int_equal(vmpool_file_exists(f->vm, in("a"), NULL), 1);
	assert_int_equal(vmpool_file_exists(f->vm, in("a/b"), NULL), 0);
	assert_int_equal(vmpool_rename(f->vm, in("a"), in("b"), NULL), 0);
	assert_int_equal(vmpool_symlink(f->vm, "b", in("link"), NULL), 0);
	assert_int_equal(vmpool_readlink(f->vm, in("link"), NULL, &target), 0);
	assert_string_equal(target, "b");
	free(target);
	assert_int_equal(vmpool_stat(f->vm, in("link"), NULL, &st), 0);
	assert_true(S_ISREG(st.mode));
	assert_int_equal(
	    vmpool_stat(f->vm, in("link"), &(struct vmpool_file_opts){.no_follow = true}, &st), 0);
	assert_true(S_ISLNK(st.mode));
	assert_int_equal(vmpool_link(f->vm, in("b"), in("c"), NULL), 0);
	assert_int_equal(vmpool_stat(f->vm, in("c"), NULL, &st), 0);
	assert_int_equal(st.nlink, 2);
	assert_int_equal(vmpool_link(f->vm, in("b"), in("c"), NULL), VMPOOL_EFILE_EXISTS);
	assert_int_equal(vmpool_remove_file(f->vm, in("b"), NULL), 0);
	assert_int_equal(vmpool_file_exists(f->vm, in("link"), NULL), 0);
}

/* Each class, from the real thing. */
static void
errors(void **state)
{
	struct fixture *f = *state;
	struct vmpool_file_stat st;
	char *target, *huge;
	size_t len;
	void *buf;

	assert_error(f, vmpool_read_file(f->vm, in("no\nne"), NULL, &buf, &len),
		     VMPOOL_EFILE_NOTFOUND, "no?ne\": No such file or directory (ENOENT)");
	assert_error(f, vmpool_read_file(f->vm, dir, NULL, &buf, &len), VMPOOL_EFILE_ISDIR,
		     "(EISDIR)");
	assert_error(f, vmpool_read_file(f->vm, "/dev/null", NULL, &buf, &len), VMPOOL_EFILE_IO,
		     "not a regular file (EINVAL)");
	assert_error(f, vmpool_readlink(f->vm, "/dev/null", NULL, &target), VMPOOL_EFILE_IO,
		     "not a symbolic link (EINVAL)");
	assert_int_equal(vmpool_write_file(f->vm, in("f"), NULL, "", 0), 0);
	assert_error(f, vmpool_stat(f->vm, in("f/x"), NULL, &st), VMPOOL_EFILE_NOTDIR, "(ENOTDIR)");
	assert_error(f, vmpool_mkdir(f->vm, in("f"), NULL), VMPOOL_EFILE_EXISTS, "(EEXIST)");
	assert_error(f, vmpool_remove_file(f->vm, dir, NULL), VMPOOL_EFILE_NOTEMPTY, "(ENOTEMPTY)");
	assert_int_equal(vmpool_symlink(f->vm, "loop", in("loop"), NULL), 0);
	assert_error(f, vmpool_stat(f->vm, in("loop"), NULL, &st), VMPOOL_EFILE_LINKS, "(ELOOP)");
	assert_error(f, vmpool_rename(f->vm, in("f"), "/proc/x", NULL), VMPOOL_EFILE_IO,
		     "/f\", \"/proc/x\": Invalid cross-device link (EXDEV)");
	huge = calloc(1, PROTO_PATH_MAX + 1);
	assert_non_null(huge);
	memset(huge, 'x', PROTO_PATH_MAX);
	assert_error(f, vmpool_stat(f->vm, huge, NULL, &st), VMPOOL_EFILE_IO, "(ENAMETOOLONG)");
	free(huge);
}

static void
bad_options(void **state)
{
	struct vmpool_file_opts o = {.exclusive = true, .append = true};
	struct fixture *f = *state;
	size_t len;
	void *buf;

	assert_int_equal(vmpool_write_file(f->vm, in("f"), &o, "", 0), VMPOOL_ECONFIG);
	o = (struct vmpool_file_opts){.sparse = true, .append = true};
	assert_int_equal(vmpool_write_file(f->vm, in("f"), &o, "", 0), VMPOOL_ECONFIG);
	o = (struct vmpool_file_opts){.set_mode = true, .mode = 010000};
	assert_int_equal(vmpool_write_file(f->vm, in("f"), &o, "", 0), VMPOOL_ECONFIG);
	o = (struct vmpool_file_opts){.set_mtime = true, .mtime = {0, 1000000000}};
	assert_int_equal(vmpool_write_file(f->vm, in("f"), &o, "", 0), VMPOOL_ECONFIG);
	o = (struct vmpool_file_opts){.offset = UINT64_MAX};
	assert_int_equal(vmpool_read_file(f->vm, in("f"), &o, &buf, &len), VMPOOL_ECONFIG);
	assert_int_equal(vmpool_chmod(f->vm, in("f"), 010000, NULL), VMPOOL_ECONFIG);
}

static void
root(void **state)
{
	struct vmpool_file_opts o = {.root = dir, .parents = true};
	struct fixture *f = *state;
	struct vmpool_file_stat st;

	assert_int_equal(vmpool_write_file(f->vm, "/x/y", &o, "in", 2), 0);
	assert_bytes(f, in("x/y"), "in", 2);
	assert_error(f, vmpool_stat(f->vm, "../x", &o, &st), VMPOOL_EFILE_PERM,
		     "leads out of the root (EXDEV)");
	assert_int_equal(vmpool_symlink(f->vm, "x", "link", &o), 0);
	assert_error(f, vmpool_stat(f->vm, "link/y", &o, &st), VMPOOL_EFILE_LINKS,
		     "a symbolic link is in the way (ELOOP)");
	assert_int_equal(vmpool_link(f->vm, "x/y", "z/new", &o), 0);
	assert_error(f, vmpool_link(f->vm, "link/y", "new", &o), VMPOOL_EFILE_LINKS,
		     "a symbolic link is in the way (ELOOP)");
}

/* --- cut in the middle ------------------------------------------------------------------ */

static ssize_t
source_that_fails(void *arg, void *buf, size_t len)
{
	int *left = arg;

	memset(buf, 'x', len);
	return (*left)-- > 0 ? (ssize_t)len : -4321;
}

static int
sink_that_stops(void *arg, const void *buf, size_t len)
{
	size_t *left = arg;

	(void)buf;
	*left -= MIN(*left, len);
	return *left == 0 ? -4322 : 0;
}

static void
cuts(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = pattern(BIG);
	struct vmpool_dirent *list;
	size_t count, left = 100000;
	int pieces = 20;

	assert_int_equal(
	    vmpool_write_file_from(f->vm, in("f"), NULL, source_that_fails, &pieces, NULL), -4321);
	/* The agent has been told, and does things in turn. */
	assert_int_equal(vmpool_list_dir(f->vm, dir, NULL, &list, &count), 0);
	assert_int_equal(count, 0);
	vmpool_list_dir_free(list, count);
	assert_int_equal(vmpool_write_file(f->vm, in("f"), NULL, bytes, BIG), 0);
	assert_int_equal(vmpool_read_file_to(f->vm, in("f"), NULL, sink_that_stops, &left, NULL),
			 -4322);
	assert_bytes(f, in("f"), bytes, BIG);
	free(bytes);
}

/* A WRITE that cannot go on ends before its source does. */
static void
ends_early(void **state)
{
	struct fixture *f = *state;
	int pieces = 1000000;

	assert_error(
	    f, vmpool_write_file_from(f->vm, in("no/f"), NULL, source_that_fails, &pieces, NULL),
	    VMPOOL_EFILE_NOTFOUND, "ENOENT");
	assert_true(pieces > 1000000 - 100);
}

/* More than a hundred cuts, and all streams can still be used. */
static void
cuts_leave_no_stream_behind(void **state)
{
	struct fixture *f = *state;
	uint8_t *bytes = pattern(1 << 20);

	assert_int_equal(vmpool_write_file(f->vm, in("f"), NULL, bytes, 1 << 20), 0);
	for (unsigned i = 0; i < 2 * PROTO_STREAMS_MAX; i++) {
		size_t left = 1;
		int pieces = 2;

		assert_int_equal(
		    vmpool_read_file_to(f->vm, in("f"), NULL, sink_that_stops, &left, NULL), -4322);
		assert_int_equal(
		    vmpool_write_file_from(f->vm, in("g"), NULL, source_that_fails, &pieces, NULL),
		    -4321);
	}
	assert_bytes(f, in("f"), bytes, 1 << 20);
	free(bytes);
}

/* --- at once ------------------------------------------------------------------------------ */

struct user {
	struct fixture *f;
	unsigned id;
	int failed;
	pthread_t thread;
};

static void *
use(void *arg)
{
	static const char *const argv[] = {"/bin/cat", NULL};
	struct user *u = arg;
	size_t size = 300000 + u->id, len = 0;
	uint8_t *bytes = pattern(size);
	const struct vmpool_exec_opts cat = {.input = bytes, .input_len = size};
	struct vmpool_result r;
	char name[16], path[128];
	void *buf = NULL;

	(void)snprintf(name, sizeof(name), "u%u", u->id);
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	for (int i = 0; i < 10 && u->failed == 0; i++) {
		if (u->id % 3 == 0) {
			u->failed = vmpool_exec(u->f->vm, argv, &cat, &r);
			u->failed |= r.out_len != size || memcmp(r.out, bytes, size) != 0;
			vmpool_result_fini(&r);
			continue;
		}
		u->failed = vmpool_write_file(u->f->vm, path, NULL, bytes, size);
		u->failed |= vmpool_read_file(u->f->vm, path, NULL, &buf, &len);
		u->failed |= len != size || memcmp(buf, bytes, size) != 0;
		free(buf);
	}
	free(bytes);
	return NULL;
}

static void
many_at_once(void **state)
{
	struct user user[9];

	for (unsigned i = 0; i < ARRAY_SIZE(user); i++) {
		user[i] = (struct user){.f = *state, .id = i};
		assert_int_equal(pthread_create(&user[i].thread, NULL, use, &user[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(user); i++) {
		assert_int_equal(pthread_join(user[i].thread, NULL), 0);
		assert_int_equal(user[i].failed, 0);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, finish)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(sizes),
	    TEST(attributes),
	    TEST(options_of_writing),
	    TEST(ranges),
	    TEST(listing),
	    TEST(listing_of_many),
	    TEST(names),
	    TEST(errors),
	    TEST(bad_options),
	    TEST(root),
	    TEST(cuts),
	    TEST(ends_early),
	    TEST(cuts_leave_no_stream_behind),
	    TEST(many_at_once),
	};

	return cmocka_run_group_tests_name("client files", tests, NULL, NULL);
}
