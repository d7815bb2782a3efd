/* SPDX-License-Identifier: MIT
 *
 * adopt.h - a snapshot file as a pool's template.
 */
#ifndef VMPOOL_ADOPT_H
#define VMPOOL_ADOPT_H

#include "worker/builder.h"

/* A builder's work with cfg->snapshot: verify the file whole, refuse it with the reason
 * if this pool cannot run it, and hand it to the supervisor as the template
 * (WORKER_TEMPLATE, or WORKER_FAILED). Returns the process's exit status. */
int adopt_run(const struct builder_config *cfg);

/* What the file says of the machine in it; only its header is looked at. 0, or the
 * errors of snap_open with err. */
int adopt_peek(int fd, uint32_t *mem_mib, uint32_t *vcpus, char *err, size_t errlen) must_check;

#endif
