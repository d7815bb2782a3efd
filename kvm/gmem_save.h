/* SPDX-License-Identifier: MIT
 *
 * gmem_save.h - write guest memory into a file, leaving out what is zero.
 */
#ifndef VMPOOL_GMEM_SAVE_H
#define VMPOOL_GMEM_SAVE_H

#include "kvm/gmem.h"

/* Which pages can hold anything: those of the set bits, and those for which the
 * file that memory was mapped from has data. Neither given: all. */
struct gmem_save_hint {
	const uint64_t *pages; /* NULL: none */
	int fd;		       /* -1: none */
	uint64_t off;
};

/* Write memory to fd from off; pages of zeros are not written, fd is extended to
 * hold all. 0, or -errno with err. The guest stands still. */
int gmem_save(const struct gmem *m, const struct gmem_save_hint *hint, int fd, uint64_t off,
	      char *err, size_t errlen) must_check;

#endif
