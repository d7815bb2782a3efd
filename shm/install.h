/* SPDX-License-Identifier: MIT
 *
 * install.h - where the parts of an installation lie, seen from a program of it.
 */
#ifndef VMPOOL_INSTALL_H
#define VMPOOL_INSTALL_H

#include "shm/base.h"

/* The vmpool-worker program: $VMPOOL_WORKER, else beside this program's folder in
 * ../libexec, ../libexec/vmpool. 0, or -ENOENT with one line in err. */
int install_worker(char *buf, size_t len, char *err, size_t errlen) must_check;

/* A file of the guest ("vmlinux", "bzImage", "initramfs"): in $VMPOOL_GUEST, else
 * in ../guest/current (build tree), ../share/vmpool/guest or
 * ../../share/vmpool/guest. 0, or -ENOENT with one line in err. */
int install_guest(char *buf, size_t len, const char *file, char *err, size_t errlen) must_check;

#endif
