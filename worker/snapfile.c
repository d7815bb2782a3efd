/* SPDX-License-Identifier: MIT
 *
 * snapfile.c - lay out, finish and verify snapshot files. See snapfile.h.
 * Runs in the worker that takes a snapshot and in the one that starts a pool from
 * it; owns nothing.
 */
#include "worker/snapfile.h"
#include "kvm/vm.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define MIB (1ull << 20)

_Static_assert(SNAP_HEADER_LEN + VM_MEM_MIB_MAX * sizeof(struct snapsum_entry) <= SNAP_MEM_OFF,
	       "the table fits in front of the memory");
_Static_assert(SNAPSUM_CHUNK == MIB, "a row of the table per MiB");

/* --- layout ------------------------------------------------------------------------------- */

/* The header of a snapshot of this info, which has been checked, without its sums. */
static void
layout(struct snapfile_header *h, const struct snap_info *info, uint64_t state_len)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, SNAP_MAGIC, sizeof(h->magic));
	h->format = SNAP_FORMAT;
	h->header_len = SNAP_HEADER_LEN;
	h->table_off = SNAP_HEADER_LEN;
	h->table_len = info->mem_mib * sizeof(struct snapsum_entry);
	h->mem_off = SNAP_MEM_OFF;
	h->mem_len = info->mem_mib * MIB;
	h->state_off = h->mem_off + h->mem_len;
	h->state_len = state_len;
	h->file_len = h->state_off + state_len;
	h->chunk_len = SNAPSUM_CHUNK;
	h->chunks = info->mem_mib;
	h->info = *info;
}

static int
regular_size(int fd, uint64_t *size, char *err, size_t errlen)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(errno, err, errlen, "fstat: %s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(SNAP_EFORMAT, err, errlen, "not a regular file");
	*size = (uint64_t)st.st_size;
	return 0;
}

/* --- writing ------------------------------------------------------------------------------ */

static int
begin_info(const struct snap_info *info, struct snap_info *clean, char *err, size_t errlen)
{
	const char *wrong;

	*clean = snapinfo_clean(info);
	wrong = snapinfo_wrong(clean);
	return wrong == NULL ? 0 : fail(EINVAL, err, errlen, "cannot be a snapshot: %s", wrong);
}

int
snap_begin(int fd, const struct snap_info *info, struct snap_place *out, char *err, size_t errlen)
{
	struct snapfile_header h;
	struct snap_info clean;
	uint64_t size;
	int r = begin_info(info, &clean, err, errlen);

	if (r == 0)
		r = regular_size(fd, &size, err, errlen);
	if (r < 0)
		return r;
	layout(&h, &clean, 0);
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)h.file_len) < 0)
		return fail(errno, err, errlen, "making room for %" PRIu32 " MiB of memory: %s",
			    clean.mem_mib, strerror(errno));
	*out = (struct snap_place){h.mem_off, h.mem_len, h.state_off};
	return 0;
}

/* Is the state in the snapshot's own file, where the capture has put it? 1, 0, -errno. */
static int
state_is_here(int fd, const struct snapfile_header *h, const struct snap_source *state)
{
	struct stat mine, theirs;

	if (fstat(fd, &mine) < 0 || fstat(state->fd, &theirs) < 0)
		return -errno;
	if (mine.st_dev != theirs.st_dev || mine.st_ino != theirs.st_ino)
		return 0;
	return state->off == h->state_off ? 1 : -EINVAL;
}

/* Bring the state to its place, and the file to its size. */
static int
finish_state(int fd, const struct snapfile_header *h, const struct snap_source *state, char *err,
	     size_t errlen)
{
	int here = state_is_here(fd, h, state), r;
	uint64_t size;

	if (here < 0)
		return fail(-here, err, errlen, "the machine state's file: %s", strerror(-here));
	r = regular_size(fd, &size, err, errlen);
	if (r < 0)
		return r;
	if (size < (here ? h->file_len : h->state_off))
		return fail(SNAP_ETRUNCATED, err, errlen,
			    "the snapshot in the making has %" PRIu64 " bytes of %" PRIu64, size,
			    here ? h->file_len : h->state_off);
	/* What was behind the memory must not shine through zeros of the state. */
	if ((!here && ftruncate(fd, (off_t)h->state_off) < 0) ||
	    ftruncate(fd, (off_t)h->file_len) < 0)
		return fail(errno, err, errlen, "setting the size: %s", strerror(errno));
	if (!here)
		r = snapsum_copy(state->fd, state->off, fd, h->state_off, h->state_len);
	return r == 0 ? 0 : fail(-r, err, errlen, "writing the machine state: %s", strerror(-r));
}

static int
finish_sums(int fd, struct snapfile_header *h, struct snapsum_entry *table, char *err,
	    size_t errlen)
{
	uint64_t read = 0;
	int r;

	r = snapsum_make(fd, h->mem_off, table, h->chunks, &read);
	if (r < 0)
		return fail(-r, err, errlen, "going through the memory: %s", strerror(-r));
	r = snapsum_range(fd, h->state_off, h->state_len, &h->state_sum, &read);
	if (r < 0)
		return fail(-r, err, errlen, "reading the machine state: %s", strerror(-r));
	h->table_sum = snapsum(table, h->table_len);
	h->sum = snapsum(h, offsetof(struct snapfile_header, sum));
	return 0;
}

static int
put_and_sync(int fd, const void *bytes, size_t len, uint64_t off, char *err, size_t errlen)
{
	int r = snapsum_pwrite(fd, bytes, len, off);

	if (r < 0)
		return fail(-r, err, errlen, "writing header and table: %s", strerror(-r));
	if (fsync(fd) < 0)
		return fail(errno, err, errlen, "fsync: %s", strerror(errno));
	return 0;
}

int
snap_finish(int fd, const struct snap_info *info, const struct snap_source *state, char *err,
	    size_t errlen)
{
	_cleanup_(freep) struct snapsum_entry *table = NULL;
	struct snapfile_header h;
	struct snap_info clean;
	int r = begin_info(info, &clean, err, errlen);

	if (r < 0)
		return r;
	if (state->len < 1 || state->len > SNAP_STATE_MAX)
		return fail(EINVAL, err, errlen, "%" PRIu64 " bytes of machine state", state->len);
	layout(&h, &clean, state->len);
	table = calloc(h.chunks, sizeof(*table));
	if (table == NULL)
		return fail(ENOMEM, err, errlen, "%s", strerror(ENOMEM));
	r = finish_state(fd, &h, state, err, errlen);
	if (r == 0)
		r = finish_sums(fd, &h, table, err, errlen);
	if (r == 0)
		r = put_and_sync(fd, table, h.table_len, h.table_off, err, errlen);
	if (r == 0)
		r = put_and_sync(fd, &h, sizeof(h), 0, err, errlen);
	return r;
}

/* --- reading ------------------------------------------------------------------------------ */

/* A header that ended early, or is of something else. */
static int
check_magic(int fd, uint64_t size, struct snapfile_header *h, char *err, size_t errlen)
{
	static const char none[sizeof(h->magic)];
	size_t have = MIN(size, sizeof(*h));
	int r = snapsum_pread(fd, h, have, 0);

	if (r < 0)
		return fail(-r, err, errlen, "reading the header: %s", strerror(-r));
	if (have >= sizeof(h->magic) && memcmp(h->magic, none, sizeof(none)) == 0)
		return fail(SNAP_EFORMAT, err, errlen,
			    "not a snapshot, or one whose writing was interrupted");
	if (memcmp(h->magic, SNAP_MAGIC, MIN(have, sizeof(h->magic))) != 0)
		return fail(SNAP_EFORMAT, err, errlen, "not a snapshot");
	if (have < sizeof(*h))
		return fail(SNAP_ETRUNCATED, err, errlen,
			    "truncated: %zu bytes, less than its header", have);
	return 0;
}

/* The header against its sum, its limits, and the layout that follows from them. */
static int
check_header(const struct snapfile_header *h, char *err, size_t errlen)
{
	struct snapfile_header want;
	const char *wrong;

	/* Before the sum: another format may have another header. */
	if (h->format != SNAP_FORMAT)
		return fail(SNAP_EVERSION, err, errlen,
			    "has format version %" PRIu32 ", this vmpool reads version %u",
			    h->format, SNAP_FORMAT);
	if (snapsum(h, offsetof(struct snapfile_header, sum)) != h->sum)
		return fail(SNAP_ECHECKSUM, err, errlen, "altered: the header's checksum is wrong");
	wrong = snapinfo_wrong(&h->info);
	if (wrong == NULL && (h->state_len < 1 || h->state_len > SNAP_STATE_MAX))
		wrong = "size of the machine state out of range";
	if (wrong != NULL)
		return fail(SNAP_EFORMAT, err, errlen, "not a snapshot of ours: %s", wrong);
	layout(&want, &h->info, h->state_len);
	want.table_sum = h->table_sum;
	want.state_sum = h->state_sum;
	want.sum = h->sum;
	if (memcmp(&want, h, sizeof(want)) != 0)
		return fail(SNAP_EFORMAT, err, errlen, "not a snapshot of ours: impossible layout");
	return 0;
}

static int
check_size(int fd, const struct snapfile_header *h, char *err, size_t errlen)
{
	uint64_t size;
	int r = regular_size(fd, &size, err, errlen);

	if (r == 0 && size < h->file_len)
		r = fail(SNAP_ETRUNCATED, err, errlen, "truncated: %" PRIu64 " bytes of %" PRIu64,
			 size, h->file_len);
	if (r == 0 && size > h->file_len)
		r = fail(SNAP_EFORMAT, err, errlen, "%" PRIu64 " bytes too long",
			 size - h->file_len);
	return r;
}

/* What a part turned out to be: a wrong sum, the file's end, or the host's trouble. */
static int
part_error(int r, const char *part, char *err, size_t errlen)
{
	if (r == -SNAP_ECHECKSUM)
		return fail(-r, err, errlen, "altered: the checksum of the %s is wrong", part);
	if (r == -SNAP_ETRUNCATED)
		return fail(-r, err, errlen, "truncated while it was checked, in the %s", part);
	return r == 0 ? 0 : fail(-r, err, errlen, "reading the %s: %s", part, strerror(-r));
}

static int
check_table(int fd, const struct snapfile_header *h, struct snapsum_entry *table, char *err,
	    size_t errlen)
{
	int r = snapsum_pread(fd, table, h->table_len, h->table_off);

	if (r == 0 && snapsum(table, h->table_len) != h->table_sum)
		r = -SNAP_ECHECKSUM;
	for (uint32_t i = 0; i < h->chunks && r == 0; i++) {
		const struct snapsum_entry *e = &table[i];

		if ((e->kind != SNAPSUM_DATA && (e->kind != SNAPSUM_ZEROS || e->sum != 0)) ||
		    e->zero != 0)
			return fail(SNAP_EFORMAT, err, errlen,
				    "not a snapshot of ours: bad row %" PRIu32 " in the table", i);
	}
	return part_error(r, "table of checksums", err, errlen);
}

static int
check_body(int fd, const struct snapfile_header *h, const struct snapsum_entry *table,
	   uint64_t *read, char *err, size_t errlen)
{
	uint64_t gap = h->table_off + h->table_len, sum = 0;
	char part[32];
	uint32_t bad = 0;
	int r = snapsum_zeros(fd, gap, h->mem_off - gap, read);

	if (r == -SNAP_ECHECKSUM)
		return fail(-r, err, errlen, "altered: not zero between table and memory");
	if (r < 0)
		return part_error(r, "gap before the memory", err, errlen);
	r = snapsum_range(fd, h->state_off, h->state_len, &sum, read);
	if (r == 0 && sum != h->state_sum)
		r = -SNAP_ECHECKSUM;
	if (r < 0)
		return part_error(r, "machine state", err, errlen);
	r = snapsum_check(fd, h->mem_off, table, h->chunks, &bad, read);
	(void)snprintf(part, sizeof(part), "memory at MiB %" PRIu32, bad);
	return part_error(r, part, err, errlen);
}

static int
check_all(int fd, struct snapfile_header *h, uint64_t *read, char *err, size_t errlen)
{
	_cleanup_(freep) struct snapsum_entry *table = NULL;
	uint64_t size;
	int r = regular_size(fd, &size, err, errlen);

	if (r == 0)
		r = check_magic(fd, size, h, err, errlen);
	if (r == 0)
		r = check_header(h, err, errlen);
	if (r == 0)
		r = check_size(fd, h, err, errlen);
	if (r < 0)
		return r;
	table = calloc(h->chunks, sizeof(*table));
	if (table == NULL)
		return fail(ENOMEM, err, errlen, "%s", strerror(ENOMEM));
	*read = h->table_off + h->table_len;
	r = check_table(fd, h, table, err, errlen);
	if (r == 0)
		r = check_body(fd, h, table, read, err, errlen);
	/* Again: a file cut short meanwhile looks like one that ends in a hole. */
	return r == 0 ? check_size(fd, h, err, errlen) : r;
}

int
snap_open(int fd, struct snap *out, char *err, size_t errlen)
{
	struct snapfile_header h;
	uint64_t began = now_ns(), read = 0;
	int r = check_all(fd, &h, &read, err, errlen);

	if (r < 0)
		return r;
	*out = (struct snap){
	    .info = h.info,
	    .mem_off = h.mem_off,
	    .mem_len = h.mem_len,
	    .state_off = h.state_off,
	    .state_len = h.state_len,
	    .checked = h.file_len,
	    .read = read,
	    .ns = now_ns() - began,
	};
	return 0;
}

int
snap_peek(int fd, struct snap_info *out, char *err, size_t errlen)
{
	struct snapfile_header h;
	uint64_t size;
	int r = regular_size(fd, &size, err, errlen);

	if (r == 0)
		r = check_magic(fd, size, &h, err, errlen);
	if (r == 0)
		r = check_header(&h, err, errlen);
	*out = r == 0 ? h.info : (struct snap_info){.mem_mib = 0};
	return r;
}

void
snap_describe_check(const struct snap *s, char *buf, size_t len)
{
	double seconds = (double)MAX(s->ns, 1) / 1e9;

	(void)snprintf(buf, len, "%.0f MiB (%.1f MiB of data) in %.3f s, %.0f MB/s",
		       (double)s->checked / MIB, (double)s->read / MIB, seconds,
		       (double)s->read / 1e6 / seconds);
}
