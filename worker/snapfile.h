/* SPDX-License-Identifier: MIT
 *
 * snapfile.h - a machine at rest, in a file: what vmpool snapshot writes and
 * vmpoold --snapshot takes into use. Knows the file, not the machine: what the state
 * bytes mean is the business of the kind of machine that wrote them.
 *
 *   0            struct snapfile_header, 4 KiB                      its own sum, at its end
 *   4 KiB        struct snapsum_entry [mem_mib]                     sum in the header
 *                zeros to 2 MiB                                     verified to be zeros
 *   2 MiB        guest memory, mem_mib MiB, sparse                  a sum per MiB in the table,
 *                                                                   or verified to be zeros
 *   2 MiB + mem  machine state, state_len bytes                     sum in the header
 *   ... and nothing after it: the file's size is exact
 *
 * So every byte is either under a checksum or known to be zero. Whether a zero stands
 * in a hole or is written out makes no difference: the file may be copied in any way.
 * Numbers are little-endian. The memory offset suits mmap, with huge pages too.
 *
 * Writing: snap_begin, then the capture writes memory and perhaps state into the file,
 * then snap_finish. The header comes last, after an fsync: an interrupted file has
 * none. The temporary name, the rename and the removal after an error are the caller's.
 *
 * Reading: snap_open checks everything once. What it guarantees, and what not:
 *   - XXH3 finds accidents, not forgeries: someone can make a file whose sums are right.
 *     Every number in the header is therefore checked against its limits as well, sums
 *     or no sums; no allocation, offset or loop depends on one that has not been. The
 *     contents of memory and state are the writer's: the loader of the state must
 *     treat them as hostile, and a guest can do no more than any other guest.
 *   - It vouches for the bytes it has read, at that time. The caller should use the same
 *     descriptor afterwards, opened read-only (a file renamed over the name changes
 *     nothing then), of a file that no one else may write: written to later, it shows
 *     in pages that a private mapping has not yet copied; cut short later, it ends with
 *     SIGBUS whoever touches the missing part. snapsum_copy into a sealed memfd
 *     excludes both, at the price of the memory.
 */
#ifndef VMPOOL_SNAPFILE_H
#define VMPOOL_SNAPFILE_H

#include "shm/base.h"
#include "worker/snapinfo.h"
#include "worker/snapsum.h"

#define SNAP_FORMAT 1u /* of the file; another one is refused */
#define SNAP_MAGIC "vmpool\x1a\n"
#define SNAP_HEADER_LEN 4096u
#define SNAP_MEM_OFF (2u << 20)
#define SNAP_STATE_MAX (64u << 20)

/* Why a snapshot is refused: -code. Any other -errno is the host's trouble. */
#define SNAP_EFORMAT ENOEXEC	      /* not a snapshot, or an impossible one */
#define SNAP_EVERSION EPROTONOSUPPORT /* of another format version */
#define SNAP_ETRUNCATED ENODATA
#define SNAP_ECHECKSUM EBADMSG /* the text names the part */

/* The file's first 4 KiB. All but state_len follow from mem_mib and the format. */
struct snapfile_header {
	char magic[8];
	uint32_t format, header_len;
	uint64_t file_len;
	uint64_t table_off, table_len;
	uint64_t mem_off, mem_len;
	uint64_t state_off, state_len;
	uint32_t chunk_len, chunks;
	uint64_t table_sum, state_sum;
	struct snap_info info;
	uint8_t zero[2848];
	uint64_t sum; /* snapsum of all before it */
};
_Static_assert(sizeof(struct snapfile_header) == SNAP_HEADER_LEN, "the header is one page");
_Static_assert(offsetof(struct snapfile_header, sum) == SNAP_HEADER_LEN - 8, "the sum is last");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the header is used as it is stored");

/* A snapshot that snap_open has verified. */
struct snap {
	struct snap_info info;
	uint64_t mem_off, mem_len;
	uint64_t state_off, state_len;
	uint64_t checked, read, ns; /* bytes vouched for, of which read from the file; time */
};

/* Where a capture writes. */
struct snap_place {
	uint64_t mem_off, mem_len;
	uint64_t state_off;
};

/* Where the state is, for snap_finish: in the snapshot's file itself (at state_off),
 * or anywhere else. */
struct snap_source {
	int fd;
	uint64_t off, len;
};

/* All: 0, or -errno with one line in err (256 bytes are enough), without the file's
 * name. They block for file I/O; err names what failed, e.g. for ENOSPC and EIO. A
 * process with a file size limit must ignore SIGXFSZ. */

/* Empty the file, open for reading and writing, and lay it out. */
int snap_begin(int fd, const struct snap_info *info, struct snap_place *out, char *err,
	       size_t errlen) must_check;
/* Memory is written, and nobody writes any more: take in the state, punch holes for
 * pages of zeros, compute the sums, sync, write the header, sync. Once per
 * snap_begin, with the same info. */
int snap_finish(int fd, const struct snap_info *info, const struct snap_source *state, char *err,
		size_t errlen) must_check;

/* Check everything: -SNAP_E... above, or -errno. The descriptor stays the caller's. */
int snap_open(int fd, struct snap *out, char *err, size_t errlen) must_check;
/* What its header says, checked by itself alone. The same errors. */
int snap_peek(int fd, struct snap_info *out, char *err, size_t errlen) must_check;
/* "512 MiB (93.1 MiB of data) in 0.021 s, 4400 MB/s" */
void snap_describe_check(const struct snap *s, char *buf, size_t len);

#endif
