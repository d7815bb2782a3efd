/* SPDX-License-Identifier: MIT
 *
 * hist.h - histograms of nanoseconds with logarithmic buckets (struct shm_hist).
 */
#ifndef VMPOOL_HIST_H
#define VMPOOL_HIST_H

#include "shm/lock.h"
#include "shm/vmpool.h"

/* Bucket of a value, and the largest value of a bucket. */
static inline unsigned
hist_bucket(uint64_t ns)
{
	unsigned log, bucket;

	if (ns == 0)
		return 0;
	log = 63u - (unsigned)__builtin_clzll(ns);
	/* The two bits below the highest one. */
	bucket = 4 * log + (unsigned)((log >= 2 ? ns >> (log - 2) : ns << (2 - log)) & 3u);
	return MIN(bucket, HIST_BUCKETS - 1);
}
uint64_t hist_bucket_max(unsigned bucket);

/* Add to a word that nobody else writes now. */
static inline void
hist_word_add(_Atomic uint64_t *word, uint64_t delta)
{
	/* One writer, so no read-modify-write; readers need no ordering. */
	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + delta,
			      memory_order_relaxed);
}

/* Add a value: under the lock, in a transaction (pool histograms). */
void hist_txn_add(struct txn *txn, struct shm_hist *hist, uint64_t ns);

/* Add a value as the histogram's only writer: a worker, or the holder of a lease. */
static inline void
hist_add(struct shm_hist *hist, uint64_t ns)
{
	hist_word_add(&hist->sum, ns);
	hist_word_add(&hist->bucket[hist_bucket(ns)], 1);
	if (ns > atomic_load_explicit(&hist->max, memory_order_relaxed))
		atomic_store_explicit(&hist->max, ns, memory_order_relaxed);
}

/* Add as many values of 0 as are missing to `count` values. */
void hist_fill(struct shm_hist *hist, uint64_t count);

/* Add src's present numbers to sum (private memory); then summarise. */
struct hist_sum {
	uint64_t sum, max, bucket[HIST_BUCKETS];
};
void hist_collect(struct hist_sum *sum, const struct shm_hist *src);
void hist_summary(const struct hist_sum *sum, struct vmpool_hist *out);

#endif
