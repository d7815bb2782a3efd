/* SPDX-License-Identifier: MIT
 *
 * stat.h - counters and histograms of the segment, as rows to be read.
 */
#ifndef VMPOOL_STAT_H
#define VMPOOL_STAT_H

#include "shm/hist.h"

/* All rows of stat.def, read without a lock; *out is malloc'ed. 0 or -ENOMEM. */
int stat_read(const struct seg *seg, struct vmpool_stat **out, size_t *count) must_check;

#endif
