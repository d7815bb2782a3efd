/* SPDX-License-Identifier: MIT
 *
 * qemu_sparse.h - makes holes of a file's zero pages.
 */
#ifndef VMPOOL_QEMU_SPARSE_H
#define VMPOOL_QEMU_SPARSE_H

#include "shm/base.h"

/* Read the data of the first len bytes (whole pages) of a file and give its zero
 * pages back. Nobody may write the file meanwhile. Blocks. 0 or -errno; a file
 * system without holes is none. */
int qemu_sparse(int fd, uint64_t len) must_check;

#endif
