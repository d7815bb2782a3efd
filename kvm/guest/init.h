/* SPDX-License-Identifier: MIT
 *
 * init.h - what PID 1 owes a Linux userland, in two halves: what the channel
 * needs, and the rest, which waits until READY is on its way.
 */
#ifndef GUEST_INIT_H
#define GUEST_INIT_H

#include "kvm/guest/util.h"

/* /dev, /sys, modules, then the port: its descriptor. Does not return without. */
int init_channel(void);

/* Everything else: mounts, links, host name, loopback, a quiet kernel. What fails is logged;
 * commands then find out. */
void init_userland(void);

/* The directory for commands' cgroups, or NULL without cgroup v2. */
const char *init_cgroups(void);

#endif
