/* SPDX-License-Identifier: MIT
 *
 * stat.h - counters and histograms of the segment: writing them, reading them.
 */
#ifndef VMPOOL_STAT_H
#define VMPOOL_STAT_H

#include "shm/lock.h"
#include "shm/vmpool.h"

/* Bucket of a value, and the largest value of a bucket. */
unsigned hist_bucket(uint64_t ns);
uint64_t hist_bucket_max(unsigned bucket);

/* Add a value: under the lock, in a transaction (pool histograms). */
void hist_txn_add(struct txn *txn, struct shm_hist *hist, uint64_t ns);
/* Add a value as the histogram's only writer (a worker's own). */
void hist_add(struct shm_hist *hist, uint64_t ns);
/* Add as many values of 0 as are missing to `count` values. */
void hist_fill(struct shm_hist *hist, uint64_t count);

/* Add src's present numbers to sum (private memory); then summarise. */
struct hist_sum {
	uint64_t sum, max, bucket[HIST_BUCKETS];
};
void hist_collect(struct hist_sum *sum, const struct shm_hist *src);
void hist_summary(const struct hist_sum *sum, struct vmpool_hist *out);

/* All rows of stat.def, read without a lock; *out is malloc'ed. 0 or -ENOMEM. */
int stat_read(const struct seg *seg, struct vmpool_stat **out, size_t *count) must_check;

#endif
