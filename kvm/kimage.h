/* SPDX-License-Identifier: MIT
 *
 * kimage.h - a kernel file (ELF vmlinux or bzImage, told apart by content) put
 * into guest memory as the 64-bit boot protocol wants it
 * (Documentation/x86/boot.rst of Linux).
 */
#ifndef VMPOOL_KIMAGE_H
#define VMPOOL_KIMAGE_H

#include "kvm/gmem.h"
#include <asm/bootparam.h>

struct kimage {
	uint64_t entry;		 /* GPA of the first instruction, 64-bit mode */
	uint64_t end;		 /* first GPA above all that the kernel needs to start */
	uint64_t initrd_max;	 /* highest GPA an initrd may use */
	uint32_t cmdline_max;	 /* longest command line, without NUL */
	struct setup_header hdr; /* for boot_params */
};

/* Load the open file fd, called name in errors. 0, or -errno and one line in
 * err: -ENOEXEC not a kernel, damaged or truncated; -EFBIG does not fit. */
int kimage_load(struct gmem *mem, int fd, const char *name, struct kimage *out, char *err,
		size_t errlen) must_check;

#endif
