/* SPDX-License-Identifier: MIT
 *
 * snapsum.c - walks the data of a sparse file: sums, checks, copies. See snapsum.h.
 * Runs in whoever takes or checks a snapshot; owns nothing.
 */
#include "worker/snapsum.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#define PAGE 4096u
#define THREADS 2

_Static_assert(sizeof(XXH128_canonical_t) == SNAPSUM_FILE_LEN, "a hash as it is printed");

uint64_t
snapsum(const void *bytes, size_t len)
{
	return XXH3_64bits(bytes, len);
}

int
snapsum_pread(int fd, void *buf, size_t len, uint64_t off)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n == 0)
			return -ENODATA;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

int
snapsum_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));

		if (n == 0)
			return -EIO;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

static bool
all_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Where the data is, as far as it is known: none in [from, start), then data to stop.
 * Remembered, because asking for the end of the data takes some file systems time in
 * proportion to what is between. */
struct walk {
	int fd;
	uint64_t from, start, stop;
};

/* Ask about what follows at; 1, 0 when nothing but a hole does, or -errno. */
static int
look(struct walk *w, uint64_t at, uint64_t end)
{
	off_t data = lseek(w->fd, (off_t)at, SEEK_DATA), hole;
	struct stat st;

	if (data < 0 && errno != ENXIO)
		return -errno;
	/* The file may end too soon. */
	if (data < 0)
		return fstat(w->fd, &st) < 0 ? -errno : (uint64_t)st.st_size < end ? -ENODATA : 0;
	hole = lseek(w->fd, data, SEEK_HOLE);
	if (hole < 0)
		return errno == ENXIO ? -ENODATA : -errno;
	/* Another process has punched a hole here meanwhile. */
	if (hole <= data)
		return -EBUSY;
	w->from = at;
	w->start = (uint64_t)data;
	w->stop = (uint64_t)hole;
	return 1;
}

/* The next data at or after at: [*start, *stop), at most to end. 1, 0 when there is
 * none, or -errno. */
static int
next_data(struct walk *w, uint64_t at, uint64_t end, uint64_t *start, uint64_t *stop)
{
	int r = 1;

	if (at >= end)
		return 0;
	if (at < w->from || at >= w->stop)
		r = look(w, at, end);
	if (r <= 0 || w->start >= end)
		return MIN(r, 0);
	*start = MAX(at, w->start);
	*stop = MIN(w->stop, end);
	return 1;
}

/* --- one chunk ---------------------------------------------------------------------------- */

/* [off, off + len) into buf, without reading holes; how much was data. */
static int
load(struct walk *w, uint64_t off, uint8_t *buf, size_t len, uint64_t *data)
{
	uint64_t at = off, end = off + len, start, stop;
	int r;

	*data = 0;
	while ((r = next_data(w, at, end, &start, &stop)) > 0) {
		memset(buf + (at - off), 0, start - at);
		r = snapsum_pread(w->fd, buf + (start - off), stop - start, start);
		if (r < 0)
			return r;
		*data += stop - start;
		at = stop;
	}
	/* A buffer that is all hole stays as it is: most are, and nobody looks at it. */
	if (r == 0 && *data > 0)
		memset(buf + (at - off), 0, end - at);
	return r;
}

/* The next run, from *at, of pages that are all zeros (or not): its end; *at becomes
 * its start. Both are len when there is none. */
static size_t
next_run(const uint8_t *buf, size_t len, size_t *at, bool zeros)
{
	size_t end;

	while (*at < len && all_zero(buf + *at, MIN(PAGE, len - *at)) != zeros)
		*at += PAGE;
	for (end = *at; end < len && all_zero(buf + end, MIN(PAGE, len - end)) == zeros;)
		end += PAGE;
	*at = MIN(*at, len);
	return MIN(end, len);
}

/* Make holes of the pages of zeros in a part of the file that buf holds. */
static int
punch(struct walk *w, uint64_t off, const uint8_t *buf, size_t len)
{
	uint64_t start, stop;
	int r = 0;

	for (size_t at = 0, end; at < len && r >= 0; at = end) {
		end = next_run(buf, len, &at, true);
		r = next_data(w, off + at, off + end, &start, &stop);
		if (r > 0 && fallocate(w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       (off_t)(off + at), (off_t)(end - at)) < 0)
			r = -errno;
	}
	return r < 0 ? r : 0;
}

static int
make_entry(struct walk *w, uint64_t off, uint8_t *buf, struct snapsum_entry *e, uint64_t *read)
{
	uint64_t data;
	int r = load(w, off, buf, SNAPSUM_CHUNK, &data);

	if (r < 0)
		return r;
	*read += data;
	*e = (struct snapsum_entry){.kind = SNAPSUM_ZEROS};
	if (data == 0)
		return 0;
	if (!all_zero(buf, SNAPSUM_CHUNK))
		*e = (struct snapsum_entry){snapsum(buf, SNAPSUM_CHUNK), SNAPSUM_DATA, 0};
	r = punch(w, off, buf, SNAPSUM_CHUNK);
	return r == -EOPNOTSUPP ? 0 : r;
}

static int
check_entry(struct walk *w, uint64_t off, uint8_t *buf, const struct snapsum_entry *e,
	    uint64_t *read)
{
	uint64_t data;
	int r = load(w, off, buf, SNAPSUM_CHUNK, &data);

	if (r < 0)
		return r;
	*read += data;
	if (e->kind == SNAPSUM_ZEROS)
		return data == 0 || all_zero(buf, SNAPSUM_CHUNK) ? 0 : -EBADMSG;
	if (data == 0)
		memset(buf, 0, SNAPSUM_CHUNK);
	return snapsum(buf, SNAPSUM_CHUNK) == e->sum ? 0 : -EBADMSG;
}

/* --- many chunks -------------------------------------------------------------------------- */

int
snapsum_make(int fd, uint64_t off, struct snapsum_entry *table, uint32_t n, uint64_t *read)
{
	_cleanup_(freep) uint8_t *buf = malloc(SNAPSUM_CHUNK);
	struct walk w = {.fd = fd};
	int r = buf == NULL ? -ENOMEM : 0;

	for (uint32_t i = 0; i < n && r == 0; i++)
		r = make_entry(&w, off + (uint64_t)i * SNAPSUM_CHUNK, buf, &table[i], read);
	return r;
}

/* What the threads of a check share. The atomics order nothing: pthread_join, in
 * snapsum_check, does that. */
struct check {
	int fd;
	uint64_t off;
	const struct snapsum_entry *table;
	uint32_t n;
	_Atomic uint32_t next;
	_Atomic uint64_t first; /* chunk << 32 | errno of the first bad one */
	_Atomic uint64_t read;
};

static void
found_bad(struct check *c, uint32_t chunk, int error)
{
	uint64_t mine = (uint64_t)chunk << 32 | (uint32_t)error, first = c->first;

	while (mine < first && !atomic_compare_exchange_weak(&c->first, &first, mine))
		continue;
}

static void *
check_some(void *arg)
{
	_cleanup_(freep) uint8_t *buf = malloc(SNAPSUM_CHUNK);
	struct check *c = arg;
	struct walk w = {.fd = c->fd};
	uint64_t read = 0;
	uint32_t i;
	int r;

	/* Chunks are taken in order, and one taken is looked at unless an earlier one is
	 * bad: so the first is found, whichever thread is faster. */
	while ((i = atomic_fetch_add(&c->next, 1)) < c->n && i < c->first >> 32) {
		r = buf == NULL ? -ENOMEM
				: check_entry(&w, c->off + (uint64_t)i * SNAPSUM_CHUNK, buf,
					      &c->table[i], &read);
		if (r < 0)
			found_bad(c, i, -r);
	}
	atomic_fetch_add(&c->read, read);
	return NULL;
}

int
snapsum_check(int fd, uint64_t off, const struct snapsum_entry *table, uint32_t n, uint32_t *bad,
	      uint64_t *read)
{
	struct check c = {.fd = fd, .off = off, .table = table, .n = n, .first = UINT64_MAX};
	pthread_t thread[THREADS - 1];
	sigset_t all, before;
	size_t started = 0;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	/* Without a thread it takes longer. */
	while (n > 1 && started < ARRAY_SIZE(thread) &&
	       pthread_create(&thread[started], NULL, check_some, &c) == 0)
		started++;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	(void)check_some(&c);
	for (size_t i = 0; i < started; i++)
		AZ(pthread_join(thread[i], NULL));
	*read += c.read;
	if (c.first == UINT64_MAX)
		return 0;
	*bad = (uint32_t)(c.first >> 32);
	return -(int)(uint32_t)c.first;
}

/* --- other parts of the file -------------------------------------------------------------- */

int
snapsum_range(int fd, uint64_t off, uint64_t len, uint64_t *sum, uint64_t *read)
{
	_cleanup_(freep) uint8_t *buf = malloc(SNAPSUM_CHUNK);
	XXH3_state_t *state = XXH3_createState();
	int r = buf == NULL || state == NULL ? -ENOMEM : 0;

	if (state != NULL)
		(void)XXH3_64bits_reset(state);
	for (uint64_t at = 0; at < len && r == 0;) {
		size_t n = MIN(len - at, SNAPSUM_CHUNK);

		r = snapsum_pread(fd, buf, n, off + at);
		if (r == 0)
			(void)XXH3_64bits_update(state, buf, n);
		at += n;
	}
	if (r == 0) {
		*sum = XXH3_64bits_digest(state);
		*read += len;
	}
	(void)XXH3_freeState(state);
	return r;
}

int
snapsum_file(int fd, uint8_t out[SNAPSUM_FILE_LEN])
{
	_cleanup_(freep) uint8_t *buf = malloc(SNAPSUM_CHUNK);
	XXH3_state_t *state = XXH3_createState();
	XXH128_canonical_t sum;
	int r = buf == NULL || state == NULL ? -ENOMEM : 0;
	ssize_t n = 1;

	if (r == 0)
		(void)XXH3_128bits_reset(state);
	while (r == 0 && n > 0) {
		n = read(fd, buf, SNAPSUM_CHUNK);
		if (n > 0)
			(void)XXH3_128bits_update(state, buf, (size_t)n);
		else if (n < 0 && errno != EINTR)
			r = -errno;
		else if (n < 0)
			n = 1;
	}
	if (r == 0) {
		XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(state));
		memcpy(out, &sum, sizeof(sum));
	}
	(void)XXH3_freeState(state);
	return r;
}

int
snapsum_zeros(int fd, uint64_t off, uint64_t len, uint64_t *read)
{
	_cleanup_(freep) uint8_t *buf = malloc(SNAPSUM_CHUNK);
	struct walk w = {.fd = fd};
	uint64_t data;
	int r = buf == NULL ? -ENOMEM : 0;

	for (uint64_t at = 0; at < len && r == 0;) {
		size_t n = MIN(len - at, SNAPSUM_CHUNK);

		r = load(&w, off + at, buf, n, &data);
		if (r == 0 && data > 0 && !all_zero(buf, n))
			r = -EBADMSG;
		*read += r == 0 ? data : 0;
		at += n;
	}
	return r;
}

/* Write what is not a page of zeros. */
static int
put(int to, uint64_t off, const uint8_t *buf, size_t len)
{
	int r = 0;

	for (size_t at = 0, end; at < len && r == 0; at = end) {
		end = next_run(buf, len, &at, false);
		if (end > at)
			r = snapsum_pwrite(to, buf + at, end - at, off + at);
	}
	return r;
}

int
snapsum_copy(int fd, uint64_t off, int to, uint64_t to_off, uint64_t len)
{
	_cleanup_(freep) uint8_t *buf = malloc(SNAPSUM_CHUNK);
	struct walk w = {.fd = fd};
	uint64_t data;
	int r = buf == NULL ? -ENOMEM : 0;

	for (uint64_t at = 0; at < len && r == 0;) {
		size_t n = MIN(len - at, SNAPSUM_CHUNK);

		r = load(&w, off + at, buf, n, &data);
		if (r == 0 && data > 0)
			r = put(to, to_off + at, buf, n);
		at += n;
	}
	return r;
}
