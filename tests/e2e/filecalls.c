/* SPDX-License-Identifier: MIT
 *
 * filecalls.c - a client that borrows one VM and moves files in and out of it:
 * large ones byte for byte, with their times printed; a full disk; transfers
 * beside commands; odd names; links and modes; each error. Run by files.sh; prints TAP.
 *
 * Usage: filecalls POOL MIB
 */
#include "tests/e2e/lib/e2eclient.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Bytes that are known without being kept: a generator for each end. */
struct bytes {
	uint64_t x, left, wrong;
};

static uint8_t
next_byte(struct bytes *b)
{
	b->x = b->x * 6364136223846793005u + 1442695040888963407u;
	return (uint8_t)(b->x >> 56);
}

static ssize_t
source(void *arg, void *buf, size_t len)
{
	struct bytes *b = arg;
	uint8_t *p = buf;
	size_t n = len < b->left ? len : (size_t)b->left;

	for (size_t i = 0; i < n; i++)
		p[i] = next_byte(b);
	b->left -= n;
	return (ssize_t)n;
}

static int
sink(void *arg, const void *buf, size_t len)
{
	struct bytes *b = arg;
	const uint8_t *p = buf;

	for (size_t i = 0; i < len; i++)
		b->wrong += p[i] != next_byte(b);
	b->left -= len;
	return 0;
}

static void
large(uint64_t mib)
{
	const struct vmpool_file_opts exact = {
	    .set_mode = true, .mode = 0600, .set_mtime = true, .mtime = {1600000000, 987654321}};
	struct bytes up = {.left = mib << 20}, down = {.left = mib << 20};
	struct vmpool_file_stat st;
	double start = seconds();
	int r;

	r = vmpool_write_file_from(vm, "/tmp/large", &exact, source, &up, &st);
	result(r == 0 && st.size == mib << 20 && st.mode == (S_IFREG | 0600) &&
		   st.mtime.tv_sec == 1600000000 && st.mtime.tv_nsec == 987654321,
	       "%u MiB up, with mode and time (%.1f MiB/s)", (unsigned)mib,
	       (double)mib / (seconds() - start));
	start = seconds();
	r = vmpool_read_file_to(vm, "/tmp/large", NULL, sink, &down, &st);
	result(r == 0 && down.left == 0 && down.wrong == 0 && st.size == mib << 20,
	       "%u MiB down, byte for byte (%.1f MiB/s)", (unsigned)mib,
	       (double)mib / (seconds() - start));
}

static void
full(void)
{
	struct bytes much = {.left = 4ull << 30};
	int r = vmpool_write_file_from(vm, "/tmp/much", NULL, source, &much, NULL);

	result(r == VMPOOL_EFILE_NOSPACE && strstr(vmpool_error(pool), "ENOSPC") != NULL,
	       "a full disk is told apart, and named");
	result(sh("ls -A /tmp", "large\n"), "and nothing of it is left");
}

/* --- at once ----------------------------------------------------------------------------- */

static void *
transfer(void *arg)
{
	struct bytes up = {.left = 8 << 20}, down = {.left = 8 << 20};
	char path[32];
	bool ok;

	(void)snprintf(path, sizeof(path), "/tmp/at-once-%d", *(const int *)arg);
	ok = vmpool_write_file_from(vm, path, NULL, source, &up, NULL) == 0 &&
	     vmpool_read_file_to(vm, path, NULL, sink, &down, NULL) == 0 && down.wrong == 0;
	return ok ? NULL : arg;
}

static void
at_once(void)
{
	int id[3] = {1, 2, 3};
	pthread_t thread[3];
	void *failed = NULL, *one;
	unsigned commands = 0;
	bool ok = true;

	for (int i = 0; i < 3; i++)
		if (pthread_create(&thread[i], NULL, transfer, &id[i]) != 0)
			abort();
	for (; commands < 20 && ok; commands++)
		ok = sh("echo still here", "still here\n");
	for (int i = 0; i < 3; i++) {
		(void)pthread_join(thread[i], &one);
		failed = one != NULL ? one : failed;
	}
	result(ok && failed == NULL, "three transfers both ways, and commands beside them");
}

static void
odd_names(void)
{
	static const char name[] = "/tmp/odd/new\nline \xff\xfe 'quote\" \\ *";
	const struct vmpool_file_opts parents = {.parents = true}, all = {.recursive = true};
	struct vmpool_dirent *list = NULL;
	size_t n = 0;
	bool ok = vmpool_write_file(vm, name, &parents, "x", 1) == 0 &&
		  vmpool_list_dir(vm, "/tmp/odd", NULL, &list, &n) == 0 && n == 1 &&
		  strcmp(list[0].name, name + strlen("/tmp/odd/")) == 0;

	vmpool_list_dir_free(list, n);
	result(ok, "a name of odd bytes goes there and comes back");
	result(vmpool_remove_file(vm, "/tmp/odd", &all) == 0 &&
		   vmpool_file_exists(vm, "/tmp/odd", NULL) == 0,
	       "a tree is removed");
}

static void
special(void)
{
	const struct vmpool_file_opts in_place = {.in_place = true};
	void *buf = NULL;
	size_t len;
	int r;

	r = vmpool_write_file(vm, "/proc/sys/kernel/hostname", &in_place, "renamed\n", 8);
	result(r == 0 && sh("hostname", "renamed\n"), "a file of /proc is written in place");
	r = vmpool_read_file(vm, "/proc/cpuinfo", NULL, &buf, &len);
	result(r == 0 && strstr(buf, "processor") != NULL, "and read");
	free(buf);
	r = vmpool_read_file(vm, "/dev/console", NULL, &buf, &len);
	result(r == VMPOOL_EFILE_IO && strstr(vmpool_error(pool), "EINVAL") != NULL,
	       "a device is not");
	r = vmpool_write_file(vm, "/sys/kernel/x", NULL, "x", 1);
	result(r == VMPOOL_EFILE_PERM, "where nothing can be made is told apart");
}

/* --- modes, times, links, sizes ---------------------------------------------------------- */

static bool
stat_is(const char *path, uint32_t mode, uint64_t size, int64_t sec, long nsec)
{
	const struct vmpool_file_opts opts = {.no_follow = true};
	struct vmpool_file_stat st;

	return vmpool_stat(vm, path, &opts, &st) == 0 && st.mode == mode && st.size == size &&
	       st.mtime.tv_sec == sec && st.mtime.tv_nsec == nsec;
}

static void
attributes(void)
{
	static char holes[4 << 20];
	const struct timespec old = {-5, 123456789}, late = {4102444800, 999999999};
	const struct vmpool_file_opts sparse = {.sparse = true}, append = {.append = true},
				      link = {.no_follow = true};
	struct vmpool_file_stat st;
	char *target = NULL;
	bool ok = vmpool_write_file(vm, "/tmp/empty", NULL, "", 0) == 0 &&
		  vmpool_chmod(vm, "/tmp/empty", 04711, NULL) == 0 &&
		  vmpool_set_mtime(vm, "/tmp/empty", &old, NULL) == 0;

	result(ok && stat_is("/tmp/empty", S_IFREG | 04711, 0, -5, 123456789),
	       "an empty file; a mode and a time of before 1970, to the nanosecond");
	ok = vmpool_write_file(vm, "/tmp/holes", &sparse, holes, sizeof(holes)) == 0 &&
	     vmpool_stat(vm, "/tmp/holes", NULL, &st) == 0;
	result(ok && st.size == sizeof(holes) && st.blocks == 0, "holes take no blocks");
	ok = vmpool_write_file(vm, "/tmp/grown", NULL, "a\0", 2) == 0 &&
	     vmpool_write_file(vm, "/tmp/grown", &append, "\nb", 2) == 0;
	result(ok && sh("od -An -c /tmp/grown", "   a  \\0  \\n   b\n"), "bytes are appended");
	ok = vmpool_symlink(vm, "no\nsuch \xff", "/tmp/link", NULL) == 0 &&
	     vmpool_set_mtime(vm, "/tmp/link", &late, &link) == 0 &&
	     vmpool_readlink(vm, "/tmp/link", NULL, &target) == 0 &&
	     strcmp(target, "no\nsuch \xff") == 0;
	free(target);
	result(ok && stat_is("/tmp/link", S_IFLNK | 0777, 9, 4102444800, 999999999) &&
		   vmpool_file_exists(vm, "/tmp/link", NULL) == 0,
	       "a link to nothing, with a time of its own");
}

/* 255 bytes are a name, 256 are none. */
static void
long_names(void)
{
	char path[5 + 256 + 1] = "/tmp/";
	int r;

	(void)memset(path + 5, 'n', 256);
	path[5 + 255] = '\0';
	result(vmpool_write_file(vm, path, NULL, "x", 1) == 0 &&
		   vmpool_file_exists(vm, path, NULL) == 1,
	       "a name may have 255 bytes");
	path[5 + 255] = 'n';
	path[5 + 256] = '\0';
	r = vmpool_write_file(vm, path, NULL, "x", 1);
	result(r == VMPOOL_EFILE_IO && strstr(vmpool_error(pool), "ENAMETOOLONG") != NULL,
	       "and no more");
}

/* --- errors -------------------------------------------------------------------------------- */

/* What is done to a path: each row of the table below ends as it says. */
static int
attempt(char what, const char *path, const struct vmpool_file_opts *opts)
{
	struct vmpool_dirent *list = NULL;
	void *buf = NULL;
	char *target = NULL;
	size_t n = 0;
	int r;

	switch (what) {
	case 'r': r = vmpool_read_file(vm, path, opts, &buf, &n); break;
	case 'w': r = vmpool_write_file(vm, path, opts, "x", 1); break;
	case 'l': r = vmpool_list_dir(vm, path, opts, &list, &n); break;
	case 'd': r = vmpool_mkdir(vm, path, opts); break;
	case 'k': r = vmpool_readlink(vm, path, opts, &target); break;
	default: r = vmpool_remove_file(vm, path, opts); break;
	}
	free(buf);
	free(target);
	vmpool_list_dir_free(list, n);
	return r;
}

static void
errors(void)
{
	static const struct vmpool_file_opts none, in_place = {.in_place = true},
						   root = {.root = "/tmp/e"};
	static const struct {
		char what;
		const char *path, *name;
		const struct vmpool_file_opts *opts;
		int want;
	} rows[] = {
	    {'r', "/tmp/e/none", "ENOENT", &none, VMPOOL_EFILE_NOTFOUND},
	    {'w', "/sys/kernel/new", "EACCES", &none, VMPOOL_EFILE_PERM},
	    {'r', "/tmp/e", "EISDIR", &none, VMPOOL_EFILE_ISDIR},
	    {'w', "/tmp/e", "EISDIR", &none, VMPOOL_EFILE_ISDIR},
	    {'r', "/tmp/e/file/x", "ENOTDIR", &none, VMPOOL_EFILE_NOTDIR},
	    {'l', "/tmp/e/file", "ENOTDIR", &none, VMPOOL_EFILE_NOTDIR},
	    {'r', "/tmp/e/loop", "ELOOP", &none, VMPOOL_EFILE_LINKS},
	    {'d', "/tmp/e/file", "EEXIST", &none, VMPOOL_EFILE_EXISTS},
	    {'u', "/tmp/e", "ENOTEMPTY", &none, VMPOOL_EFILE_NOTEMPTY},
	    {'w', "/tmp/e/ro/new", "EROFS", &none, VMPOOL_EFILE_READONLY},
	    {'w', "/tmp/e/small/new", "ENOSPC", &none, VMPOOL_EFILE_NOSPACE},
	    {'u', "/tmp/e/ro", "EBUSY", &none, VMPOOL_EFILE_IO},
	    {'w', "/tmp/e/busy", "ETXTBSY", &in_place, VMPOOL_EFILE_IO},
	    {'k', "/tmp/e/file", "EINVAL", &none, VMPOOL_EFILE_IO},
	    {'r', "../e/file", "EXDEV", &root, VMPOOL_EFILE_PERM},
	    {'r', "/../../etc/passwd", "EXDEV", &root, VMPOOL_EFILE_PERM},
	    {'r', "out/passwd", "ELOOP", &root, VMPOOL_EFILE_LINKS},
	    {'w', "out/new", "ELOOP", &root, VMPOOL_EFILE_LINKS},
	};
	unsigned wrong = 0;

	(void)sh("mkdir /tmp/e /tmp/e/ro /tmp/e/small; cd /tmp/e; echo >file; ln -s loop loop;"
		 "ln -s /etc out; mount -t tmpfs -o ro none ro;"
		 "mount -t tmpfs -o size=4k none small; head -c 4096 /dev/zero >small/all;"
		 "cp /bin/busybox busy; ln -s busy sleep; ./busy sleep 1000 &",
		 "");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int r = attempt(rows[i].what, rows[i].path, rows[i].opts);

		if (r == rows[i].want && strstr(vmpool_error(pool), rows[i].name) != NULL)
			continue;
		printf("# %c %s: %d, %s\n", rows[i].what, rows[i].path, r,
		       r == 0 ? "" : vmpool_error(pool));
		wrong++;
	}
	result(wrong == 0 && sh("cat /etc/new 2>&1 | wc -l", "1\n"),
	       "each error is told apart, with the VM's own name for it");
}

int
main(int argc, char **argv)
{
	if (argc != 3 || !e2e_begin(argv[1]))
		return 1;
	large((uint64_t)atoi(argv[2]));
	full();
	at_once();
	odd_names();
	special();
	attributes();
	long_names();
	errors();
	return e2e_end();
}
