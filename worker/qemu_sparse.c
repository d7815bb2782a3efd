/* SPDX-License-Identifier: MIT
 *
 * qemu_sparse.c - makes holes of a file's zero pages. Runs in a worker.
 *
 * QEMU looks at every page of memory that it takes over, and a look at a hole of
 * a memfd fills it with a page of zeros.
 */
#include "worker/qemu_sparse.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

static bool
zero_page(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static int
punch(int fd, uint64_t from, uint64_t to)
{
	if (from == to || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
				    (off_t)(to - from)) == 0)
		return 0;
	return errno == EOPNOTSUPP ? 0 : -errno;
}

/* One extent of data. */
static int
punch_zeros(int fd, const uint8_t *mem, uint64_t from, uint64_t to)
{
	uint64_t start = from; /* of the present run of zero pages */
	int r = 0;

	for (uint64_t at = from; at < to && r == 0; at += PAGE) {
		if (zero_page(mem + at))
			continue;
		r = punch(fd, start, at);
		start = at + PAGE;
	}
	return r < 0 || start >= to ? r : punch(fd, start, to);
}

int
qemu_sparse(int fd, uint64_t len)
{
	const uint8_t *mem = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	uint64_t at = 0;
	int r = 0;

	if (mem == MAP_FAILED)
		return -errno;
	while (r == 0 && at < len) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0 || (uint64_t)data >= len)
			break; /* nothing but a hole */
		hole = lseek(fd, data, SEEK_HOLE);
		at = hole > data ? MIN((uint64_t)hole, len) : len;
		r = punch_zeros(fd, mem, (uint64_t)data & ~(uint64_t)(PAGE - 1), at);
	}
	(void)munmap((void *)(uintptr_t)mem, len);
	return r;
}
