/* SPDX-License-Identifier: MIT
 *
 * kvm_kernel.h - kernel files for tests: small ELF and bzImage files with given
 * machine code in them, as memfds that have a path.
 */
#ifndef TEST_KVM_KERNEL_H
#define TEST_KVM_KERNEL_H

#include "shm/base.h"
#include <asm/bootparam.h>
#include <elf.h>

#define KERNEL_GPA 0x1000000u /* where both kinds are loaded and start */

struct kernel_file {
	int fd;
	char path[32]; /* /proc/self/fd/N */
};

/* A file with these bytes. */
void kernel_raw(struct kernel_file *k, const void *bytes, size_t len);
/* An ELF file with one segment of code at KERNEL_GPA. */
void kernel_elf(struct kernel_file *k, const void *code, size_t len);
/* A bzImage with code at its 64-bit entry point, KERNEL_GPA + 0x200. */
void kernel_bz(struct kernel_file *k, const void *code, size_t len);
void kernel_close(struct kernel_file *k);

/* Overwrite, cut or stretch it. */
void kernel_patch(const struct kernel_file *k, size_t off, const void *bytes, size_t len);
void kernel_truncate(const struct kernel_file *k, size_t len);
size_t kernel_size(const struct kernel_file *k);

#endif
