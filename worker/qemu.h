/* SPDX-License-Identifier: MIT
 *
 * qemu.h - the software-emulated machine; see machine.h for what it offers.
 */
#ifndef VMPOOL_QEMU_H
#define VMPOOL_QEMU_H

#include "shm/base.h"

#define QEMU_PROGRAM "qemu-system-x86_64"

/* Is QEMU there? 0, or -ENOENT with one line that names the remedy. */
int qemu_check(char *err, size_t errlen) must_check;

#endif
