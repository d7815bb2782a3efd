/* SPDX-License-Identifier: MIT
 *
 * test_snapfile.c - snapshot files: what was written comes back, fits or does not, and
 * what cannot be written is said.
 */
#include "tests/lib/snaptest.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#define MIB (1ull << 20)
#define MEM_MIB SNAPTEST_MIB
#define STATE_LEN SNAPTEST_STATE_LEN

static uint64_t
blocks_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void
put_dense(int fd, const struct snap_place *p)
{
	snaptest_put_pattern(fd, p->mem_off, p->mem_len);
}

static void
put_nothing(int fd, const struct snap_place *p)
{
	(void)fd;
	(void)p;
}

static void
put_written_zeros(int fd, const struct snap_place *p)
{
	static const uint8_t zeros[1 << 20];

	for (uint64_t at = 0; at < p->mem_len; at += sizeof(zeros))
		snaptest_put(fd, p->mem_off + at, zeros, sizeof(zeros));
}

/* --- round trips -------------------------------------------------------------------------- */

static void
same_memory(int a, int b, const struct snap_place *p)
{
	static uint8_t left[1 << 20], right[1 << 20];

	for (uint64_t at = 0; at < p->mem_len; at += sizeof(left)) {
		assert_int_equal(snapsum_pread(a, left, sizeof(left), p->mem_off + at), 0);
		assert_int_equal(snapsum_pread(b, right, sizeof(right), p->mem_off + at), 0);
		assert_memory_equal(left, right, sizeof(left));
	}
}

static void
round_trip(void (*memory)(int fd, const struct snap_place *p), uint64_t state_len, bool in_place,
	   uint64_t blocks_max)
{
	static uint8_t got[STATE_LEN];
	_cleanup_(closep) int fd = snaptest_new_file(), wanted = snaptest_new_file();
	struct snap s;
	struct snap_place p;

	snaptest_take(fd, memory, state_len, in_place);
	if (snaptest_open_it(fd, &s) != 0)
		fail_msg("%s", snaptest_err);
	assert_memory_equal(&s.info, &snaptest_info, sizeof(snaptest_info));
	assert_int_equal(s.mem_off % (2 * MIB), 0);
	assert_int_equal(s.mem_len, MEM_MIB * MIB);
	assert_int_equal(s.state_len, state_len);
	assert_int_equal(s.checked, s.state_off + s.state_len);
	assert_int_equal(snaptest_size_of(fd), s.checked);
	assert_int_equal(snapsum_pread(fd, got, state_len, s.state_off), 0);
	assert_memory_equal(got, snaptest_state, state_len);
	assert_true(blocks_of(fd) <= blocks_max);
	assert_true(s.read <= blocks_max);
	assert_int_equal(snap_begin(wanted, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)),
			 0);
	memory(wanted, &p);
	same_memory(fd, wanted, &p);
}

static void
round_trips(void **state)
{
	/* data of memory, state and table, and a page or two for the ends */
	uint64_t rest = STATE_LEN + SNAP_HEADER_LEN + 3 * 4096;

	(void)state;
	round_trip(snaptest_put_sparse, STATE_LEN, false, 1 * MIB + 5 * 4096 + rest);
	round_trip(snaptest_put_sparse, STATE_LEN, true, 1 * MIB + 5 * 4096 + rest);
	round_trip(snaptest_put_sparse, 1, true, 1 * MIB + 5 * 4096 + rest);
	round_trip(put_dense, STATE_LEN, false, MEM_MIB * MIB + rest);
	round_trip(put_dense, 4096, true, MEM_MIB * MIB + rest);
	round_trip(put_nothing, STATE_LEN, false, rest);
	round_trip(put_written_zeros, STATE_LEN, true, rest);
}

/* Copied so that every zero stands in the file as data. */
static void
dense_copy(void **state)
{
	_cleanup_(closep) int fd = snaptest_sparse_snapshot(), copy = snaptest_new_file();
	static uint8_t buf[1 << 20];
	uint64_t size = snaptest_size_of(fd);
	struct snap s;

	(void)state;
	for (uint64_t at = 0; at < size; at += sizeof(buf)) {
		size_t n = MIN(size - at, sizeof(buf));

		assert_int_equal(snapsum_pread(fd, buf, n, at), 0);
		snaptest_put(copy, at, buf, n);
	}
	assert_int_equal(snaptest_open_it(copy, &s), 0);
	assert_true(s.read >= MEM_MIB * MIB);
}

/* Memory from the middle of a file to the start of another, as QEMU wants it. */
static void
copied_out(void **state)
{
	_cleanup_(closep) int fd = snaptest_sparse_snapshot(), copy = snaptest_new_file();
	static uint8_t left[1 << 20], right[1 << 20];
	struct snap s;

	(void)state;
	assert_int_equal(snaptest_open_it(fd, &s), 0);
	assert_int_equal(ftruncate(copy, (off_t)s.mem_len), 0);
	assert_int_equal(snapsum_copy(fd, s.mem_off, copy, 0, s.mem_len), 0);
	for (uint64_t at = 0; at < s.mem_len; at += sizeof(left)) {
		assert_int_equal(snapsum_pread(fd, left, sizeof(left), s.mem_off + at), 0);
		assert_int_equal(snapsum_pread(copy, right, sizeof(right), at), 0);
		assert_memory_equal(left, right, sizeof(left));
	}
	assert_true(blocks_of(copy) <= 1 * MIB + 5 * 4096);
	assert_int_equal(snapsum_copy(fd, s.state_off, copy, 0, s.state_len + 1), -ENODATA);
}

/* --- does it fit -------------------------------------------------------------------------- */

static void
fits(void **state)
{
	static struct snap_info mine;
	const struct {
		void *field;
		size_t len;
		const char *value, *words;
	} rows[] = {
	    {mine.version, 6, "0.2.0", "another vmpool version: 0.1.0, the pool has 0.2.0"},
	    {&mine.layout, 4, "\4\0\0", "another device layout: 3, the pool has 4"},
	    {mine.accel, 4, "tcg", "another accelerator: kvm, the pool has tcg"},
	    {mine.kernel, 16, "0123456789abcdE",
	     "another kernel: 30313233343536373839616263646500, "
	     "the pool has 30313233343536373839616263644500"},
	    {mine.image, 1, "F", "another image: 66656463"},
	    {mine.cpu + 15, 1, "x", "another CPU feature set: "},
	    {&mine.mem_mib, 4, "\0\1\0", "another memory size: 32 MiB, the pool has 256 MiB"},
	    {&mine.vcpus, 4, "\1\0\0", "another number of vCPUs: 2, the pool has 1"},
	};

	(void)state;
	mine = snaptest_info;
	assert_int_equal(snap_check_fits(&snaptest_info, &mine, snaptest_err, sizeof(snaptest_err)),
			 0);
	mine.created_s = 5;
	mine.warmup[0] = '\0';
	assert_int_equal(snap_check_fits(&snaptest_info, &mine, snaptest_err, sizeof(snaptest_err)),
			 0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		mine = snaptest_info;
		memcpy(rows[i].field, rows[i].value, rows[i].len);
		assert_int_equal(
		    snap_check_fits(&snaptest_info, &mine, snaptest_err, sizeof(snaptest_err)),
		    -SNAP_EMISMATCH);
		if (strstr(snaptest_err, rows[i].words) == NULL)
			fail_msg("\"%s\", wanted \"%s\"", snaptest_err, rows[i].words);
	}
}

static void
described(void **state)
{
	struct snap s = {.checked = 512 * MIB, .read = 96 * MIB, .ns = 21000000};
	char text[1500];

	(void)state;
	snap_describe(&snaptest_info, text, sizeof(text));
	assert_string_equal(text,
			    "kvm, 32 MiB, 2 vCPUs, vmpool 0.1.0, device layout 3, kernel 30313233, "
			    "image 66656463, taken 2026-11-23 09:45:22 UTC, warmed up by "
			    "sh -c 'python3 -c pass'");
	snap_describe_check(&s, text, sizeof(text));
	assert_string_equal(text, "512 MiB (96.0 MiB of data) in 0.021 s, 4793 MB/s");
}

/* --- what a caller can get wrong ---------------------------------------------------------- */

static void
bad_info(void **state)
{
	_cleanup_(closep) int fd = snaptest_new_file();
	struct snap_source from = {.fd = fd, .off = SNAP_MEM_OFF + MEM_MIB * MIB, .len = 1};
	struct snap_info bad = snaptest_info;
	struct snap_place p;

	(void)state;
	bad.mem_mib = VM_MEM_MIB_MIN - 1;
	assert_int_equal(snap_begin(fd, &bad, &p, snaptest_err, sizeof(snaptest_err)), -EINVAL);
	bad.mem_mib = VM_MEM_MIB_MAX + 1;
	assert_int_equal(snap_begin(fd, &bad, &p, snaptest_err, sizeof(snaptest_err)), -EINVAL);
	assert_int_equal(snap_finish(fd, &bad, &from, snaptest_err, sizeof(snaptest_err)), -EINVAL);
	/* Without snap_begin, or cut by somebody since. */
	assert_int_equal(snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)),
			 -SNAP_ETRUNCATED);
	assert_int_equal(snap_begin(fd, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)), 0);
	assert_int_equal(snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)),
			 -SNAP_ETRUNCATED);
	from.len = 0;
	assert_int_equal(snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)),
			 -EINVAL);
	from.len = SNAP_STATE_MAX + 1;
	assert_int_equal(snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)),
			 -EINVAL);
	/* State in the file, but not where it belongs. */
	from = (struct snap_source){.fd = fd, .off = SNAP_MEM_OFF, .len = 1};
	assert_int_equal(snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)),
			 -EINVAL);
	/* A state shorter than it is said to be. */
	from.fd = snaptest_new_file();
	assert_int_equal(snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)),
			 -ENODATA);
	assert_non_null(strstr(snaptest_err, "machine state"));
	closep(&from.fd);
	assert_true(snaptest_open_it(fd, NULL) < 0);
}

/* Texts that are not printable are made so, rather than refused when it is read. */
static void
odd_texts(void **state)
{
	_cleanup_(closep) int fd = snaptest_new_file();
	struct snap_info odd = snaptest_info;
	struct snap_source from = {.fd = fd, .len = 1};
	struct snap_place p;
	struct snap s;

	(void)state;
	odd.created_s = 0;
	memset(odd.warmup, '\n', sizeof(odd.warmup));
	assert_int_equal(snap_begin(fd, &odd, &p, snaptest_err, sizeof(snaptest_err)), 0);
	from.off = p.state_off;
	snaptest_put(fd, from.off, "s", 1);
	assert_int_equal(snap_finish(fd, &odd, &from, snaptest_err, sizeof(snaptest_err)), 0);
	assert_int_equal(snaptest_open_it(fd, &s), 0);
	assert_int_equal(strlen(s.info.warmup), SNAP_WARMUP_LEN - 1);
	assert_int_equal(s.info.warmup[SNAP_WARMUP_LEN - 2], '?');
	assert_true(s.info.created_s > 1700000000);
}

static void
file_hashes(void **state)
{
	static const uint8_t empty[] = {0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47, 0x98, 0xd8,
					0x60, 0x01, 0xc3, 0x24, 0x46, 0x8d, 0x49, 0x7f};
	char path[] = "/tmp/test_snapfile.XXXXXX";
	_cleanup_(closep) int fd = mkstemp(path);
	uint8_t a[SNAP_HASH_LEN], b[SNAP_HASH_LEN];

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(snap_hash_file(path, a, snaptest_err, sizeof(snaptest_err)), 0);
	assert_memory_equal(a, empty, sizeof(a));
	snaptest_put_pattern(fd, 0, 3 * MIB + 5);
	assert_int_equal(snap_hash_file(path, a, snaptest_err, sizeof(snaptest_err)), 0);
	snaptest_flip(fd, 2 * MIB + 99, 1);
	assert_int_equal(snap_hash_file(path, b, snaptest_err, sizeof(snaptest_err)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	snaptest_flip(fd, 2 * MIB + 99, 1);
	assert_int_equal(snap_hash_file(path, b, snaptest_err, sizeof(snaptest_err)), 0);
	assert_memory_equal(a, b, sizeof(a));
	(void)unlink(path);
	assert_int_equal(snap_hash_file(path, a, snaptest_err, sizeof(snaptest_err)), -ENOENT);
	assert_non_null(strstr(snaptest_err, path));
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(snap_hash_file(path, a, snaptest_err, sizeof(snaptest_err)),
			 -EINVAL); /* and does not wait */
	(void)unlink(path);
	assert_int_equal(snap_hash_file("/tmp", a, snaptest_err, sizeof(snaptest_err)), -EINVAL);
}

/* --- no room ------------------------------------------------------------------------------ */

/* In a child of its own: 0, or the line of the check that failed. */
static int
in_child(int (*run)(void))
{
	int status = -1;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(run());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

enum { DONE, NOT_POSSIBLE, BEGIN_FAILED, ROOM_LEFT, WRONG_ERROR, NOT_NAMED, TAKEN };

/* A file system with room for the state and a little more: all that is written by
 * snap_finish itself must fail by name, and leave no snapshot. */
static int
full_disk(void)
{
	_cleanup_(closep) int other = memfd_create("state", MFD_CLOEXEC), fd = -1;
	struct snap_source from = {.fd = other, .len = 2 * MIB};
	struct snap_place p;
	struct snap s;
	int r;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", "/mnt", "tmpfs", 0, "size=1m") < 0)
		return NOT_POSSIBLE;
	fd = open("/mnt/snapshot", O_RDWR | O_CREAT, 0600);
	if (fd < 0 || snap_begin(fd, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)) < 0)
		return BEGIN_FAILED;
	snaptest_put_pattern(other, 0, 2 * MIB);
	r = snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err));
	if (r != -ENOSPC)
		return r == 0 ? ROOM_LEFT : WRONG_ERROR;
	if (strstr(snaptest_err, "machine state: No space left on device") == NULL)
		return NOT_NAMED;
	if (snap_open(fd, &s, snaptest_err, sizeof(snaptest_err)) == 0)
		return TAKEN;
	/* The state fits now, the header does not. */
	if (snap_begin(fd, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)) < 0)
		return BEGIN_FAILED;
	from.len = 1 * MIB;
	r = snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err));
	if (r != -ENOSPC)
		return r == 0 ? ROOM_LEFT : WRONG_ERROR;
	if (strstr(snaptest_err, "header and table: No space left on device") == NULL)
		return NOT_NAMED;
	return snap_open(fd, &s, snaptest_err, sizeof(snaptest_err)) == 0 ? TAKEN : DONE;
}

static void
no_space(void **state)
{
	int r = in_child(full_disk);

	(void)state;
	if (r == NOT_POSSIBLE) {
		print_message("# no mount namespace here\n");
		skip();
	}
	assert_int_equal(r, DONE);
}

static int
small_files(void)
{
	const struct rlimit memory_only = {SNAP_MEM_OFF + MEM_MIB * MIB + 100, RLIM_INFINITY};
	const struct rlimit less = {5 * MIB, RLIM_INFINITY};
	_cleanup_(closep) int fd = memfd_create("snapshot", MFD_CLOEXEC),
			      other = memfd_create("state", MFD_CLOEXEC);
	struct snap_source from = {.fd = other, .len = STATE_LEN};
	struct snap_place p;

	snaptest_put(other, 0, snaptest_state, STATE_LEN);
	if (setrlimit(RLIMIT_FSIZE, &memory_only) < 0 ||
	    snap_begin(fd, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)) < 0)
		return BEGIN_FAILED;
	if (snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)) != -EFBIG)
		return WRONG_ERROR;
	if (strstr(snaptest_err, "File too large") == NULL)
		return NOT_NAMED;
	if (setrlimit(RLIMIT_FSIZE, &less) < 0 ||
	    snap_begin(fd, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)) != -EFBIG)
		return WRONG_ERROR;
	return strstr(snaptest_err, "room for 32 MiB of memory: File too large") == NULL ? NOT_NAMED
											 : DONE;
}

static void
file_size_limit(void **state)
{
	(void)state;
	assert_int_equal(in_child(small_files), DONE);
}

/* A descriptor without the right to write. */
static void
read_only(void **state)
{
	_cleanup_(closep) int fd = snaptest_sparse_snapshot(), ro = -1;
	struct snap_source from = {.fd = fd, .off = SNAP_MEM_OFF + MEM_MIB * MIB, .len = STATE_LEN};
	struct snap_place p;
	char path[40];

	(void)state;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(ro >= 0);
	snaptest_accepted(ro);
	assert_true(snap_begin(ro, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)) < 0);
	assert_true(snap_finish(ro, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)) < 0);
	snaptest_accepted(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(round_trips), cmocka_unit_test(dense_copy),
	    cmocka_unit_test(copied_out),  cmocka_unit_test(fits),
	    cmocka_unit_test(described),   cmocka_unit_test(bad_info),
	    cmocka_unit_test(odd_texts),   cmocka_unit_test(file_hashes),
	    cmocka_unit_test(no_space),	   cmocka_unit_test(file_size_limit),
	    cmocka_unit_test(read_only),
	};

	return cmocka_run_group_tests(tests, snaptest_setup, NULL);
}
