/* SPDX-License-Identifier: MIT
 *
 * hist.c - histograms of nanoseconds with logarithmic buckets.
 *
 * Runs wherever something is timed. Owns nothing: a histogram belongs to the
 * holder of the pool lock, or to the one worker that writes it.
 */
#include "shm/hist.h"

uint64_t
hist_bucket_max(unsigned bucket)
{
	unsigned log = bucket / 4, part = bucket % 4;
	uint64_t limit;

	if (bucket >= HIST_BUCKETS - 1)
		return UINT64_MAX;
	/* The first value beyond it is ceil((5 + part) * 2^log / 4). */
	limit = ((uint64_t)(5 + part) << log) + 3;
	return limit / 4 - 1;
}

void
hist_txn_add(struct txn *txn, struct shm_hist *hist, uint64_t ns)
{
	txn_add64(txn, &hist->sum, ns);
	txn_add64(txn, &hist->bucket[hist_bucket(ns)], 1);
	if (ns > atomic_load_explicit(&hist->max, memory_order_relaxed))
		txn_set64(txn, &hist->max, ns);
}

void
hist_fill(struct shm_hist *hist, uint64_t count)
{
	uint64_t have = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		have += atomic_load_explicit(&hist->bucket[i], memory_order_relaxed);
	if (have < count)
		hist_word_add(&hist->bucket[0], count - have);
}

void
hist_collect(struct hist_sum *sum, const struct shm_hist *src)
{
	uint64_t max = atomic_load_explicit(&src->max, memory_order_relaxed);

	sum->sum += atomic_load_explicit(&src->sum, memory_order_relaxed);
	sum->max = MAX(sum->max, max);
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		sum->bucket[i] += atomic_load_explicit(&src->bucket[i], memory_order_relaxed);
}

/* The largest value among the lowest `rank` ones, as far as buckets tell. */
static uint64_t
quantile(const struct hist_sum *sum, uint64_t rank)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += sum->bucket[i];
		if (seen >= rank)
			return MIN(hist_bucket_max(i), sum->max);
	}
	return sum->max;
}

void
hist_summary(const struct hist_sum *sum, struct vmpool_hist *out)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		count += sum->bucket[i];
	*out = (struct vmpool_hist){.count = count, .sum_ns = sum->sum, .max_ns = sum->max};
	if (count == 0)
		return;
	out->p50_ns = quantile(sum, count / 2 + count % 2);
	out->p99_ns = quantile(sum, count - count / 100);
}
