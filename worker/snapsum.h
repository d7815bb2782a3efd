/* SPDX-License-Identifier: MIT
 *
 * snapsum.h - checksums over parts of a sparse file, for snapshot files.
 *
 * A file is read with pread, never mapped: it may be cut short by others at any
 * time, and that must be an error here, not SIGBUS. Holes are not read, so a
 * mostly empty file costs what its data costs, and no page of zeros enters the page
 * cache. Memory used is a chunk per thread. Offsets and lengths are the caller's,
 * who has checked them: below 2^62. The file position of fd is moved.
 *
 * Sums are XXH3, 64 bits: they find accidents, not forgers.
 */
#ifndef VMPOOL_SNAPSUM_H
#define VMPOOL_SNAPSUM_H

#include "shm/base.h"

#define SNAPSUM_CHUNK (1u << 20)
#define SNAPSUM_FILE_LEN 16

/* One chunk's row in the table; little-endian in the file. */
struct snapsum_entry {
	uint64_t sum;  /* of all its bytes, those in holes too; 0 for zeros */
	uint32_t kind; /* never 0: an unwritten row is not valid */
	uint32_t zero; /* always 0 */
};
enum snapsum_kind { SNAPSUM_ZEROS = 1, SNAPSUM_DATA = 2 };

uint64_t snapsum(const void *bytes, size_t len);

/* All of these: 0 or -errno; -ENODATA when the file ends too soon. Those with
 * read add the bytes that they have read to it. They block for file I/O. */

/* The sum of a part of the file. */
int snapsum_range(int fd, uint64_t off, uint64_t len, uint64_t *sum, uint64_t *read) must_check;
/* XXH3, 128 bits, of a whole file from its position on, as xxh128sum prints it. */
int snapsum_file(int fd, uint8_t out[SNAPSUM_FILE_LEN]) must_check;
/* -EBADMSG if a part of the file has a byte that is not zero. */
int snapsum_zeros(int fd, uint64_t off, uint64_t len, uint64_t *read) must_check;

/* Fill the table for n chunks from off. Pages of zeros that stand in the file as
 * data become holes, where the file system can do that. */
int snapsum_make(int fd, uint64_t off, struct snapsum_entry *table, uint32_t n,
		 uint64_t *read) must_check;
/* Check n chunks against the table, whose kinds the caller has checked; with two
 * threads, which take no signals and have ended on return. On an error, *bad is the
 * first chunk that has it; -EBADMSG: its bytes are not those of the table. */
int snapsum_check(int fd, uint64_t off, const struct snapsum_entry *table, uint32_t n,
		  uint32_t *bad, uint64_t *read) must_check;

/* Copy len bytes to another file (or a part of the same one that does not overlap),
 * where there must be holes or zeros: pages of zeros are left out. */
int snapsum_copy(int fd, uint64_t off, int to, uint64_t to_off, uint64_t len) must_check;

/* Read or write exactly len bytes. */
int snapsum_pread(int fd, void *buf, size_t len, uint64_t off) must_check;
int snapsum_pwrite(int fd, const void *buf, size_t len, uint64_t off) must_check;

#endif
