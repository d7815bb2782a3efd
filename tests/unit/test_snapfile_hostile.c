/* SPDX-License-Identifier: MIT
 *
 * test_snapfile_hostile.c - nothing that was altered, cut, lengthened or forged is
 * taken for a snapshot.
 */
#include "tests/lib/snaptest.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#define MIB (1ull << 20)
#define MEM_MIB SNAPTEST_MIB
#define STATE_LEN SNAPTEST_STATE_LEN
#ifdef __SANITIZE_THREAD__ /* many times slower, and sees no more in more of them */
#define FLIPS 200
#else
#define FLIPS 10000
#endif
#define SEED 20260423ull

/* --- altered ------------------------------------------------------------------------------ */

static void
every_header_byte(void **state)
{
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();

	(void)state;
	for (uint64_t at = 0; at < SNAP_HEADER_LEN; at++) {
		uint8_t mask = (uint8_t)(1u << at % 8);
		int r;

		snaptest_flip(fd, at, mask);
		r = snaptest_open_it(fd, NULL);
		if (at < 8)
			assert_int_equal(r, -SNAP_EFORMAT);
		else if (at < 12)
			assert_int_equal(r, -SNAP_EVERSION);
		else if (r != -SNAP_ECHECKSUM)
			fail_msg("byte %llu: %d %s", (unsigned long long)at, r, snaptest_err);
		snaptest_flip(fd, at, mask);
	}
	snaptest_accepted(fd);
}

/* Put a byte back, and the hole it was in. */
static void
unflip(int fd, uint64_t off, uint8_t mask, bool hole)
{
	snaptest_flip(fd, off, mask);
	if (hole)
		assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   (off_t)(off & ~4095ull), 4096),
				 0);
}

static void
random_body_bytes(void **state)
{
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();
	uint64_t d = SEED, body = snaptest_size_of(fd) - SNAP_HEADER_LEN;

	(void)state;
	print_message("# seed %llu\n", (unsigned long long)SEED);
	for (int i = 0; i < FLIPS; i++) {
		uint64_t at = snaptest_dice(&d) % body;
		uint8_t mask = (uint8_t)(snaptest_dice(&d) % 255 + 1);
		bool hole;

		/* Most of the file is hole: half of the flips go to data near the start
		 * of the part. */
		if (i % 2 == 0)
			at = (uint64_t[]){0, SNAP_MEM_OFF, SNAP_MEM_OFF + 7 * MIB,
					  SNAP_MEM_OFF + MEM_MIB * MIB}[i / 2 % 4] -
			     (i / 2 % 4 == 0 ? 0 : SNAP_HEADER_LEN) + snaptest_dice(&d) % 5000;
		at += SNAP_HEADER_LEN;
		hole = lseek(fd, (off_t)at, SEEK_DATA) != (off_t)at;
		snaptest_flip(fd, at, mask);
		if (snaptest_open_it(fd, NULL) != -SNAP_ECHECKSUM)
			fail_msg("flip %d, byte %llu: %s", i, (unsigned long long)at, snaptest_err);
		unflip(fd, at, mask, hole);
	}
	snaptest_accepted(fd);
}

static void
parts_are_named(void **state)
{
	static const struct {
		uint64_t off;
		const char *words;
	} rows[] = {
	    {SNAP_HEADER_LEN - 1, "header's checksum"},
	    {SNAP_HEADER_LEN, "table of checksums"},
	    {SNAP_HEADER_LEN + MEM_MIB * 16 - 1, "table of checksums"},
	    {SNAP_HEADER_LEN + MEM_MIB * 16, "between table and memory"},
	    {SNAP_MEM_OFF - 1, "between table and memory"},
	    {SNAP_MEM_OFF, "memory at MiB 0 "},
	    {SNAP_MEM_OFF + 7 * MIB + 9000, "memory at MiB 7 "},
	    {SNAP_MEM_OFF + 20 * MIB, "memory at MiB 20 "}, /* zeros */
	    {SNAP_MEM_OFF + MEM_MIB * MIB - 1, "memory at MiB 31 "},
	    {SNAP_MEM_OFF + MEM_MIB * MIB, "machine state"},
	    {SNAP_MEM_OFF + MEM_MIB * MIB + STATE_LEN - 1, "machine state"},
	};
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		snaptest_flip(fd, rows[i].off, 0x10);
		snaptest_refused(fd, SNAP_ECHECKSUM, rows[i].words);
		snaptest_flip(fd, rows[i].off, 0x10);
	}
	/* Of several wrong chunks the first is named, whichever thread is faster. */
	for (uint64_t mib = 2; mib < MEM_MIB; mib++)
		snaptest_flip(fd, SNAP_MEM_OFF + mib * MIB, 1);
	for (int i = 0; i < 50; i++)
		snaptest_refused(fd, SNAP_ECHECKSUM, "memory at MiB 2 ");
}

/* --- cut and lengthened ------------------------------------------------------------------- */

static void
truncated_at(int fd, uint64_t size)
{
	_cleanup_(closep) int copy = snaptest_new_file();
	uint64_t have = snaptest_size_of(fd);

	assert_true(size < have);
	assert_int_equal(ftruncate(copy, (off_t)have), 0);
	assert_int_equal(snapsum_copy(fd, 0, copy, 0, have), 0);
	snaptest_accepted(copy);
	assert_int_equal(ftruncate(copy, (off_t)size), 0);
	snaptest_refused(copy, SNAP_ETRUNCATED, "truncated: ");
	/* Regrown by a hole, as a sparse download is: altered, unless zeros were cut off. */
	if (size < SNAP_MEM_OFF + 32 * MIB) {
		assert_int_equal(ftruncate(copy, (off_t)have), 0);
		assert_true(snaptest_open_it(copy, NULL) < 0);
	}
}

static void
truncations(void **state)
{
	static const uint64_t ends[] = {8,
					12,
					SNAP_HEADER_LEN,
					SNAP_HEADER_LEN + MEM_MIB * 16,
					SNAP_MEM_OFF,
					SNAP_MEM_OFF + MIB,
					SNAP_MEM_OFF + 7 * MIB,
					SNAP_MEM_OFF + MEM_MIB * MIB,
					SNAP_MEM_OFF + MEM_MIB * MIB + STATE_LEN};
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();
	uint64_t size = snaptest_size_of(fd), d = SEED;

	(void)state;
	assert_int_equal(size, ends[ARRAY_SIZE(ends) - 1]);
	truncated_at(fd, 0);
	truncated_at(fd, 1);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		for (int delta = -1; delta <= 1; delta++)
			if (ends[i] + (uint64_t)delta < size)
				truncated_at(fd, ends[i] + (uint64_t)delta);
	for (size_t i = 0; i + 1 < ARRAY_SIZE(ends); i++)
		truncated_at(fd, ends[i] + snaptest_dice(&d) % (ends[i + 1] - ends[i]));
}

static void
lengthened(void **state)
{
	static const uint64_t by[] = {1, 7, 4095, 4096, MIB, MEM_MIB * MIB, 1ull << 40};
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();
	uint64_t size = snaptest_size_of(fd);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(by); i++) {
		assert_int_equal(ftruncate(fd, (off_t)(size + by[i])), 0);
		snaptest_refused(fd, SNAP_EFORMAT, "too long");
	}
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	snaptest_accepted(fd);
}

/* --- not ours ----------------------------------------------------------------------------- */

static void
other_files(void **state)
{
	_cleanup_(closep) int fd = snaptest_new_file(), dir = open("/", O_RDONLY),
			      null = open("/dev/zero", O_RDWR);
	struct snap_place p;
	int ends[2];

	(void)state;
	snaptest_put(fd, 0, "#!/bin/sh\n", 10);
	snaptest_refused(fd, SNAP_EFORMAT, "not a snapshot");
	snaptest_put(fd, 100000, "x", 1);
	snaptest_refused(fd, SNAP_EFORMAT, "not a snapshot");
	assert_int_equal(snap_begin(fd, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)), 0);
	snaptest_refused(fd, SNAP_EFORMAT, "interrupted");
	snaptest_refused(dir, SNAP_EFORMAT, "not a regular file");
	snaptest_refused(null, SNAP_EFORMAT, "not a regular file");
	snaptest_refused(-1, EBADF, "fstat");
	assert_int_equal(pipe(ends), 0);
	snaptest_refused(ends[0], SNAP_EFORMAT, "not a regular file");
	assert_int_equal(
	    snap_begin(ends[1], &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)),
	    -SNAP_EFORMAT);
	assert_int_equal(snap_begin(null, &snaptest_info, &p, snaptest_err, sizeof(snaptest_err)),
			 -SNAP_EFORMAT);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static struct snapfile_header forged;

static void
set_u32(void *at, uint64_t v)
{
	uint32_t n = (uint32_t)v;

	memcpy(at, &n, sizeof(n));
}

static void
set_u64(void *at, uint64_t v)
{
	memcpy(at, &v, sizeof(v));
}

/* A header whose sum is right, and its contents are not. */
static void
forge(int fd, void (*set)(void *at, uint64_t v), void *field, uint64_t v, int code)
{
	assert_int_equal(snapsum_pread(fd, &forged, sizeof(forged), 0), 0);
	{
		struct snapfile_header before = forged;

		set(field, v);
		if (memcmp(&before, &forged, sizeof(before)) == 0)
			return; /* what it was anyway */
		forged.sum = snapsum(&forged, offsetof(struct snapfile_header, sum));
		snaptest_put(fd, 0, &forged, sizeof(forged));
		if (snaptest_open_it(fd, NULL) != -code)
			fail_msg("offset %td = %llx: %s", (char *)field - (char *)&forged,
				 (unsigned long long)v, snaptest_err);
		snaptest_put(fd, 0, &before, sizeof(before));
	}
}

static const uint64_t nasty[] = {
    0,		1,	    31,		33,	    3073,      4096,	   1ull << 20,
    1ull << 31, 1ull << 32, 1ull << 52, 1ull << 63, INT64_MAX, UINT32_MAX, UINT64_MAX - 1,
    UINT64_MAX};

static void
forged_numbers(void **state)
{
	static void *const words[] = {
	    &forged.header_len,	  &forged.chunk_len, &forged.chunks,
	    &forged.info.mem_mib, &forged.zero,	     &forged.zero[2844],
	};
	static void *const longs[] = {
	    &forged.file_len, &forged.table_off, &forged.table_len, &forged.mem_off,
	    &forged.mem_len,  &forged.state_off, &forged.state_len,
	};
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(nasty); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(words); j++)
			forge(fd, set_u32, words[j], nasty[i], SNAP_EFORMAT);
		for (size_t j = 0; j < ARRAY_SIZE(longs); j++)
			forge(fd, set_u64, longs[j], nasty[i], SNAP_EFORMAT);
		forge(fd, set_u32, &forged.format, nasty[i],
		      nasty[i] % (1ull << 32) == 1 ? 0 : SNAP_EVERSION);
	}
	forge(fd, set_u32, &forged.info.vcpus, 0, SNAP_EFORMAT);
	forge(fd, set_u32, &forged.info.vcpus, VM_VCPUS_MAX + 1, SNAP_EFORMAT);
	forge(fd, set_u32, &forged.info.vcpus, UINT32_MAX, SNAP_EFORMAT);
	forge(fd, set_u64, &forged.info.created_s, UINT64_MAX, SNAP_EFORMAT);
	forge(fd, set_u64, &forged.table_sum, 0, SNAP_ECHECKSUM);
	forge(fd, set_u64, &forged.state_sum, 0, SNAP_ECHECKSUM);
	snaptest_accepted(fd);
}

static void
set_text(void *at, uint64_t v)
{
	memset(at, (int)(v & 0xff), v >> 8);
}

static void
forged_texts(void **state)
{
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();
	char *texts[] = {forged.info.accel, forged.info.version, forged.info.warmup};
	const uint64_t lens[] = {SNAP_ACCEL_LEN, SNAP_VERSION_LEN, SNAP_WARMUP_LEN};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		forge(fd, set_text, texts[i], lens[i] << 8 | 'a', SNAP_EFORMAT); /* no end */
		forge(fd, set_text, texts[i], 1 << 8 | '\n', SNAP_EFORMAT);
		forge(fd, set_text, texts[i], 1 << 8 | 0x1b, SNAP_EFORMAT);
		forge(fd, set_text, texts[i], 1 << 8 | 0xc3, SNAP_EFORMAT);
		forge(fd, set_text, texts[i] + lens[i] - 1, 1 << 8 | 'a', SNAP_EFORMAT);
		forge(fd, set_text, texts[i], 1 << 8, SNAP_EFORMAT); /* garbage behind the end */
	}
	forge(fd, set_text, texts[0], lens[0] << 8, SNAP_EFORMAT); /* empty */
	forge(fd, set_text, texts[1], lens[1] << 8, SNAP_EFORMAT);
}

/* A table whose sum is right, and its rows are not. */
static void
forged_table(void **state)
{
	static const struct snapsum_entry rows[] = {
	    {0, 0, 0},
	    {0, 3, 0},
	    {0, UINT32_MAX, 0},
	    {0, SNAPSUM_ZEROS, 1},
	    {1, SNAPSUM_ZEROS, 0},
	    {0, SNAPSUM_DATA, 1},
	};
	_cleanup_(closep) int fd = snaptest_sparse_snapshot();
	struct snapsum_entry table[MEM_MIB], good;

	(void)state;
	assert_int_equal(snapsum_pread(fd, &forged, sizeof(forged), 0), 0);
	assert_int_equal(snapsum_pread(fd, table, sizeof(table), SNAP_HEADER_LEN), 0);
	good = table[13];
	for (size_t i = 0; i <= ARRAY_SIZE(rows); i++) {
		table[13] = i < ARRAY_SIZE(rows) ? rows[i] : good;
		snaptest_put(fd, SNAP_HEADER_LEN, table, sizeof(table));
		forged.table_sum = snapsum(table, sizeof(table));
		forged.sum = snapsum(&forged, offsetof(struct snapfile_header, sum));
		snaptest_put(fd, 0, &forged, sizeof(forged));
		if (i < ARRAY_SIZE(rows))
			snaptest_refused(fd, SNAP_EFORMAT, "row 13");
		else
			snaptest_accepted(fd);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_header_byte), cmocka_unit_test(random_body_bytes),
	    cmocka_unit_test(parts_are_named),	 cmocka_unit_test(truncations),
	    cmocka_unit_test(lengthened),	 cmocka_unit_test(other_files),
	    cmocka_unit_test(forged_numbers),	 cmocka_unit_test(forged_texts),
	    cmocka_unit_test(forged_table),
	};

	return cmocka_run_group_tests(tests, snaptest_setup, NULL);
}
