/* SPDX-License-Identifier: MIT
 *
 * filecalls.c - a client that borrows one VM and moves files in and out of it:
 * large ones byte for byte, with their times printed; a full disk; transfers
 * beside commands; odd names. Run by files.sh; prints TAP.
 *
 * Usage: filecalls POOL MIB
 */
#include "shm/vmpool.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static struct vmpool *pool;
static struct vmpool_vm *vm;
static unsigned count;

static void __attribute__((format(printf, 2, 3))) result(bool ok, const char *fmt, ...)
{
	va_list ap;

	printf("%sok %u - ", ok ? "" : "not ", ++count);
	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (!ok)
		printf("# %s\n", vmpool_error(pool));
	(void)fflush(stdout);
}

static double
seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

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

static bool
sh(const char *script, const char *want)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct vmpool_result r;
	bool ok = vmpool_exec(vm, argv, NULL, &r) == 0 && strcmp(r.out, want) == 0;

	if (!ok)
		printf("# \"%s\" printed \"%s\"\n", script, r.out != NULL ? r.out : "");
	vmpool_result_fini(&r);
	return ok;
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

int
main(int argc, char **argv)
{
	const struct vmpool_acquire_opts wait = {.timeout_ms = 180000};

	if (argc != 3 || vmpool_attach(&pool, argv[1]) < 0 ||
	    vmpool_acquire(pool, &wait, &vm) < 0) {
		fprintf(stderr, "filecalls: no VM: %s\n", vmpool_error(pool));
		return 1;
	}
	large((uint64_t)atoi(argv[2]));
	full();
	at_once();
	odd_names();
	special();
	printf("1..%u\n", count);
	(void)vmpool_release(vm);
	vmpool_detach(pool);
	return 0;
}
