/* SPDX-License-Identifier: MIT
 *
 * accel.h - which kind of machine this host can run, and why.
 */
#ifndef VMPOOL_ACCEL_H
#define VMPOOL_ACCEL_H

#include "worker/machine.h"

/* Choose for want = "auto", "kvm" or "tcg": auto takes kvm where the probe says
 * that it runs Linux, else tcg. The kind, with one sentence in why; or NULL,
 * with the reason and the remedy in why. */
const struct machine_ops *accel_choose(const char *want, char *why, size_t len);

#endif
