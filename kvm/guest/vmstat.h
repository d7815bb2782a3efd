/* SPDX-License-Identifier: MIT
 *
 * vmstat.h - how the machine does: CPU time, memory, page faults, processes.
 */
#ifndef GUEST_VMSTAT_H
#define GUEST_VMSTAT_H

#include "kvm/guest/util.h"
#include "kvm/proto.h"

/* Fill in what /proc says; what it does not say stays 0. */
void vmstat_read(struct proto_vmstats *s);

#endif
