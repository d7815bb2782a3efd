/* SPDX-License-Identifier: MIT
 *
 * install.h - where the parts of an installation lie, seen from a program of it.
 *
 * Each call names one path: the one that the environment gives, else the first
 * that exists beside the running program's folder, else the first that could;
 * whether the file is there and usable is for the caller to see and to say.
 */
#ifndef VMPOOL_INSTALL_H
#define VMPOOL_INSTALL_H

#include "shm/base.h"

/* The vmpool-worker program: $VMPOOL_WORKER, else ../libexec[/vmpool]/vmpool-worker. */
void install_worker(char *buf, size_t len);

/* A file of the guest ("vmlinux", "bzImage", "initramfs"): in $VMPOOL_GUEST, else in
 * ../guest/current (build tree) or [../]../share/vmpool/guest. */
void install_guest(char *buf, size_t len, const char *file);

#endif
