/* SPDX-License-Identifier: MIT
 *
 * gmem_save.c - guest memory to a sparse file. See gmem_save.h. Runs in the
 * worker, on the owner's thread; writes straight from the mapping.
 */
#include "kvm/gmem_save.h"
#include <string.h>
#include <sys/stat.h>

#define RUN_MAX 256u /* pages written by one call */

struct saver {
	const struct gmem *m;
	int fd;
	uint64_t off;
	uint64_t first, n; /* pages gathered and not yet written */
};

static bool
is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, GMEM_PAGE - 1) == 0;
}

static int
flush(struct saver *s)
{
	uint64_t at = s->first * GMEM_PAGE, end = at + s->n * GMEM_PAGE;
	ssize_t n;

	while (at < end) {
		n = pwrite(s->fd, s->m->base + at, end - at, (off_t)(s->off + at));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		at += (uint64_t)n;
	}
	s->n = 0;
	return 0;
}

static int
save_page(struct saver *s, uint64_t page)
{
	int r = 0;

	if (is_zero(s->m->base + page * GMEM_PAGE))
		return 0;
	if (s->n == RUN_MAX || s->first + s->n != page)
		r = flush(s);
	if (s->n == 0)
		s->first = page;
	s->n++;
	return r;
}

/* The next stretch of data in the hint's file at or after page: its end, and
 * *page moved to its start. All of memory when a file cannot tell. */
static uint64_t
next_data(const struct gmem_save_hint *hint, uint64_t *page, uint64_t pages)
{
	off_t start, end;

	if (hint->fd < 0)
		return hint->pages == NULL ? pages : *page;
	start = lseek(hint->fd, (off_t)(hint->off + *page * GMEM_PAGE), SEEK_DATA);
	if (start < 0) {
		*page = errno == ENXIO ? pages : *page;
		return pages;
	}
	end = lseek(hint->fd, start, SEEK_HOLE);
	*page = MIN(pages, ((uint64_t)start - hint->off) / GMEM_PAGE);
	if (end < 0)
		return pages;
	return MIN(pages, ((uint64_t)end - hint->off + GMEM_PAGE - 1) / GMEM_PAGE);
}

static bool
marked(const struct gmem_save_hint *hint, uint64_t page)
{
	return hint->pages != NULL && (hint->pages[page / 64] >> page % 64 & 1) != 0;
}

int
gmem_save(const struct gmem *m, const struct gmem_save_hint *hint, int fd, uint64_t off, char *err,
	  size_t errlen)
{
	struct saver s = {.m = m, .fd = fd, .off = off};
	uint64_t pages = m->size / GMEM_PAGE, data = 0, end = 0;
	struct stat st;
	int r = 0;

	for (uint64_t page = 0; page < pages && r == 0; page++) {
		if (page >= end) {
			data = page;
			end = next_data(hint, &data, pages);
		}
		if (marked(hint, page) || (page >= data && page < end))
			r = save_page(&s, page);
		if (end <= page)
			end = hint->fd < 0 ? pages : page + 1;
	}
	if (r == 0)
		r = flush(&s);
	if (r == 0 && (fstat(fd, &st) < 0 || ((uint64_t)st.st_size < off + m->size &&
					      ftruncate(fd, (off_t)(off + m->size)) < 0)))
		r = -errno;
	return r < 0 ? fail(-r, err, errlen, "writing guest memory: %s", strerror(-r)) : 0;
}
