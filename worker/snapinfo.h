/* SPDX-License-Identifier: MIT
 *
 * snapinfo.h - what a snapshot was made of: by which vmpool, for which machine, from
 * which kernel and image. Decides whether a pool may run it; part of the header of a
 * snapshot file (snapfile.h), and usable for anything else that is captured.
 */
#ifndef VMPOOL_SNAPINFO_H
#define VMPOOL_SNAPINFO_H

#include "shm/base.h"

#define SNAP_HASH_LEN 16
#define SNAP_ACCEL_LEN 16
#define SNAP_VERSION_LEN 32
#define SNAP_WARMUP_LEN 1024

#define SNAP_EMISMATCH EMEDIUMTYPE /* snap_check_fits */

/* What was captured, and where. Texts are NUL-terminated printable ASCII: snap_finish
 * replaces what is not, in the file. */
struct snap_info {
	char accel[SNAP_ACCEL_LEN];	/* "kvm", "tcg" */
	char version[SNAP_VERSION_LEN]; /* vmpool's */
	char warmup[SNAP_WARMUP_LEN];	/* warm-up command; "" = none. For people */
	uint64_t created_s;		/* wall clock; 0: snap_finish fills it in */
	uint32_t layout;		/* of devices and machine state: the caller's number */
	uint32_t mem_mib, vcpus;
	uint32_t tsc_khz; /* told to the guest; 0: in the state */
	uint8_t kernel[SNAP_HASH_LEN], image[SNAP_HASH_LEN]; /* snap_hash_file */
	uint8_t cpu[SNAP_HASH_LEN];			     /* of the CPU features; opaque here */
};

/* What is impossible in it, for people, or NULL. For bytes from a file: nothing in
 * it is trusted. */
const char *snapinfo_wrong(const struct snap_info *info);
/* The same as it goes into a file: texts made printable, the time filled in. */
struct snap_info snapinfo_clean(const struct snap_info *info);

/* Can a pool of this configuration run it? 0, or -SNAP_EMISMATCH and the first field
 * that differs, with both values. To accept any value of a field, copy it from the
 * snapshot into mine first. warmup and created_s are not compared; TSC rates may differ
 * by half a percent, as they are measured. */
int snap_check_fits(const struct snap_info *snap, const struct snap_info *mine, char *err,
		    size_t errlen) must_check;

/* One line for logs and lists. */
void snap_describe(const struct snap_info *info, char *buf, size_t len);

/* XXH3, 128 bits, of a regular file; in hexadecimal it is what xxh128sum prints. */
int snap_hash_file(const char *path, uint8_t out[SNAP_HASH_LEN], char *err,
		   size_t errlen) must_check;

#endif
