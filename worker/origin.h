/* SPDX-License-Identifier: MIT
 *
 * origin.h - what the machines of a pool are made of: kernel, image, processor.
 * It goes with a template, and into the header of every snapshot taken of a machine
 * that came from it.
 */
#ifndef VMPOOL_ORIGIN_H
#define VMPOOL_ORIGIN_H

#include "shm/ctl.h"
#include "worker/machine.h"
#include "worker/snapinfo.h"

/* Find out for machines of this configuration, started here and now. Reads kernel and
 * image whole. 0, or -errno with err. */
int origin_find(struct ctl_origin *out, const struct machine_ops *ops,
		const struct machine_config *cfg, char *err, size_t errlen) must_check;

/* What a snapshot of such a machine says of itself. */
struct snap_info origin_info(const struct ctl_origin *origin, const struct machine_ops *ops,
			     uint32_t mem_mib, uint32_t vcpus);

#endif
