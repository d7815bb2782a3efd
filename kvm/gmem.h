/* SPDX-License-Identifier: MIT
 *
 * gmem.h - guest memory, and the only way to it.
 *
 * A guest physical address (GPA) is a number that a guest may choose. No code
 * outside gmem.c turns one into a pointer: everything else names a GPA and a
 * length, and gets -EFAULT when they are not wholly inside guest memory.
 *
 * Safe from several threads at once: the mapping never changes after gmem_init.
 * What the bytes are when a vCPU writes them meanwhile is the guest's problem;
 * callers copy a value once and validate their copy.
 */
#ifndef VMPOOL_GMEM_H
#define VMPOOL_GMEM_H

#include "shm/base.h"
#include <linux/kvm.h>

#define GMEM_PAGE 4096u

struct gmem {
	uint32_t magic;
	uint64_t size; /* GPAs 0 .. size-1 exist */
	uint8_t *base;
	uint64_t *written; /* NULL, or a bit per page that this process has written */
};

/* Map size bytes (a multiple of the page size). fd -1: fresh anonymous memory;
 * otherwise a private, copy-on-write mapping of the descriptor's first size
 * bytes, which stays the caller's. 0 or -errno. */
int gmem_init(struct gmem *m, uint64_t size, int fd) must_check;
/* Map size bytes of fd from off (multiples of the page size), which stays the
 * caller's. how: GMEM_SHARED, what the guest writes is in the file; or 0 to
 * GMEM_SKEWS - 1, private, starting so many pages after a multiple of GMEM_SKEWS. */
#define GMEM_SHARED (-1)
#define GMEM_SKEWS 16u
int gmem_map(struct gmem *m, uint64_t size, int fd, uint64_t off, int how) must_check;
/* From now on, remember in gmem.written what the functions below write. 0 or -ENOMEM. */
int gmem_track(struct gmem *m) must_check;
/* Unmap. A zeroed or finished gmem is fine. */
void gmem_fini(struct gmem *m);

/* Is [gpa, gpa+len) inside guest memory? Never overflows. */
bool gmem_holds(const struct gmem *m, uint64_t gpa, uint64_t len);

/* Copy len bytes. 0 or -EFAULT, then nothing was copied. */
int gmem_read(const struct gmem *m, uint64_t gpa, void *dst, size_t len) must_check;
int gmem_write(struct gmem *m, uint64_t gpa, const void *src, size_t len) must_check;

/* One naturally aligned 16-bit word, as virtqueue indices need it: the load
 * acquires, the store releases. 0, or -EFAULT (outside, or not aligned). */
int gmem_load16(const struct gmem *m, uint64_t gpa, uint16_t *out) must_check;
int gmem_store16(struct gmem *m, uint64_t gpa, uint16_t v) must_check;

/* Fill guest memory from a file. 0, -EFAULT, -ENODATA when the file ends
 * early, or the errno of the read. */
int gmem_load_file(struct gmem *m, uint64_t gpa, int fd, uint64_t off, uint64_t len) must_check;

/* Describe the whole of guest memory as KVM memory slot 0; when what is written
 * is tracked, with KVM's dirty log. */
void gmem_slot(const struct gmem *m, struct kvm_userspace_memory_region *out);

#endif
