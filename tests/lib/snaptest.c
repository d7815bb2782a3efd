/* SPDX-License-Identifier: MIT
 *
 * snaptest.c - snapshot files for tests, and looks at them. See snaptest.h.
 */
#include "tests/lib/snaptest.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MIB (1ull << 20)

char snaptest_err[256];
uint8_t snaptest_state[SNAPTEST_STATE_LEN];

const struct snap_info snaptest_info = {
    .accel = "kvm",
    .version = "0.1.0",
    .warmup = "sh -c 'python3 -c pass'",
    .created_s = 1795427122,
    .layout = 3,
    .mem_mib = SNAPTEST_MIB,
    .vcpus = 2,
    .kernel = "0123456789abcde",
    .image = "fedcba987654321",
    .cpu = "the CPU's flags",
};

int
snaptest_setup(void **state)
{
	uint64_t d = 1;

	(void)state;
	(void)signal(SIGXFSZ, SIG_IGN);
	for (size_t i = 0; i < sizeof(snaptest_state); i++)
		snaptest_state[i] = (uint8_t)snaptest_dice(&d);
	memset(snaptest_state + 4096, 0, 10000); /* state has zeros, too */
	return 0;
}

uint64_t
snaptest_dice(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	return z ^ z >> 31;
}

int
snaptest_new_file(void)
{
	int fd = memfd_create("test-snapshot", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

void
snaptest_put(int fd, uint64_t off, const void *bytes, size_t len)
{
	assert_int_equal(snapsum_pwrite(fd, bytes, len, off), 0);
}

uint8_t
snaptest_byte_at(int fd, uint64_t off)
{
	uint8_t b = 0;

	assert_int_equal(snapsum_pread(fd, &b, 1, off), 0);
	return b;
}

uint64_t
snaptest_size_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_size;
}

static uint8_t
pattern(uint64_t at)
{
	return (uint8_t)(at * 7 + (at >> 12) + 1);
}

void
snaptest_put_pattern(int fd, uint64_t off, size_t len)
{
	static uint8_t page[4096];

	for (size_t at = 0; at < len; at += sizeof(page)) {
		size_t n = MIN(len - at, sizeof(page));

		for (size_t i = 0; i < n; i++)
			page[i] = pattern(off + at + i);
		snaptest_put(fd, off + at, page, n);
	}
}

/* Memory with data in a few MiB, at odd places; zero pages written as data. */
void
snaptest_put_sparse(int fd, const struct snap_place *p)
{
	static const uint8_t zeros[65536];

	snaptest_put_pattern(fd, p->mem_off, 5000);
	snaptest_put_pattern(fd, p->mem_off + 3 * MIB - 100, 300); /* across two chunks */
	snaptest_put_pattern(fd, p->mem_off + 7 * MIB, 1 * MIB);
	snaptest_put(fd, p->mem_off + 7 * MIB + 8192, zeros, 8192);
	snaptest_put(fd, p->mem_off + 20 * MIB, zeros, sizeof(zeros)); /* a chunk of nothing else */
	snaptest_put_pattern(fd, p->mem_off + p->mem_len - 1, 1);
}

/* Take a snapshot of this memory and the state bytes. */
void
snaptest_take(int fd, void (*memory)(int fd, const struct snap_place *p), uint64_t state_len,
	      bool in_place)
{
	_cleanup_(closep) int other = snaptest_new_file();
	struct snap_source from = {.fd = in_place ? fd : other, .off = 3, .len = state_len};
	struct snap_place p;

	assert_int_equal(snap_begin(fd, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)), 0);
	memory(fd, &p);
	if (in_place)
		from.off = p.state_off;
	snaptest_put(from.fd, from.off, snaptest_state, state_len);
	snaptest_put(from.fd, from.off + state_len, "and more", 8);
	if (snap_finish(fd, &snaptest_info, &from, snaptest_err, sizeof(snaptest_err)) != 0)
		fail_msg("snap_finish: %s", snaptest_err);
}

int
snaptest_sparse_snapshot(void)
{
	int fd = snaptest_new_file();

	snaptest_take(fd, snaptest_put_sparse, SNAPTEST_STATE_LEN, false);
	return fd;
}

int
snaptest_open_it(int fd, struct snap *s)
{
	struct snap mine;
	int r;

	snaptest_err[0] = '\0';
	r = snap_open(fd, s == NULL ? &mine : s, snaptest_err, sizeof(snaptest_err));
	assert_true((r < 0) == (snaptest_err[0] != '\0'));
	return r;
}

/* A refusal of this kind that has these words. */
void
snaptest_refused(int fd, int code, const char *words)
{
	int r = snaptest_open_it(fd, NULL);

	if (r != -code || strstr(snaptest_err, words) == NULL)
		fail_msg("%d (wanted %d), \"%s\" (wanted \"%s\")", -r, code, snaptest_err, words);
}

void
snaptest_accepted(int fd)
{
	if (snaptest_open_it(fd, NULL) != 0)
		fail_msg("refused: %s", snaptest_err);
}

void
snaptest_flip(int fd, uint64_t off, uint8_t mask)
{
	uint8_t b = (uint8_t)(snaptest_byte_at(fd, off) ^ mask);

	snaptest_put(fd, off, &b, 1);
}
