/* SPDX-License-Identifier: MIT
 *
 * stat.c - all statistics of a pool as rows, in the order of stat.def.
 *
 * Runs in clients and monitors, on a read-only map too. Takes no lock: each
 * number is one atomic load, and pairs with nothing.
 */
#include "shm/stat.h"

enum row_kind { ROW_POOL_COUNTER, ROW_SLOT_COUNTER, ROW_GAUGE, ROW_POOL_HIST, ROW_SLOT_HIST };

/* What the gauges are: a count of slots in a state, or of waiters. */
enum gauge {
	G_idle_count = SLOT_IDLE,
	G_in_use_count = SLOT_IN_USE,
	G_starting_count = SLOT_STARTING,
	G_resetting_count = SLOT_RESETTING,
	G_waiting_count = SLOT_STATES,
};

static const struct row {
	const char *name, *unit, *help;
	enum row_kind kind;
	unsigned index;
} rows[] = {
/* clang-format off */
#define POOL_COUNTER(name, unit, help) {#name, unit, help, ROW_POOL_COUNTER, C_##name},
#define SLOT_COUNTER(name, unit, help) {#name, unit, help, ROW_SLOT_COUNTER, C_##name},
#define GAUGE(name, unit, help) {#name, unit, help, ROW_GAUGE, G_##name},
#define POOL_HIST(name, unit, help) {#name, unit, help, ROW_POOL_HIST, H_##name},
#define SLOT_HIST(name, unit, help) {#name, unit, help, ROW_SLOT_HIST, H_##name},
#include "shm/stat.def"
    /* clang-format on */
};

/* Sums over the channel pages. A slot that never had a ready VM has counted
 * nothing, and reading its page would make the kernel allocate it. */
struct slot_sums {
	uint64_t counter[SLOT_COUNTERS];
	struct hist_sum hist[SLOT_HISTS];
};

static void
collect_slots(const struct seg *seg, struct slot_sums *sums)
{
	for (uint32_t i = 0; i < seg->nslots; i++) {
		const struct shm_chan *chan = &seg->chan[i];

		if (atomic_load_explicit(&seg->slot[i].born_ns, memory_order_relaxed) == 0)
			continue;
		for (unsigned c = 0; c < SLOT_COUNTERS; c++)
			sums->counter[c] +=
			    atomic_load_explicit(&chan->counter[c], memory_order_relaxed);
		for (unsigned h = 0; h < SLOT_HISTS; h++)
			hist_collect(&sums->hist[h], &chan->hist[h]);
	}
}

static void
fill(struct vmpool_stat *out, const struct row *row, const struct seg *seg,
     const struct slot_sums *sums)
{
	const struct shm_head *head = seg->head;
	struct hist_sum hist = {0};

	*out = (struct vmpool_stat){
	    .name = row->name, .kind = "counter", .unit = row->unit, .help = row->help};
	switch (row->kind) {
	case ROW_POOL_COUNTER:
		out->value = atomic_load_explicit(&head->counter[row->index], memory_order_relaxed);
		break;
	case ROW_SLOT_COUNTER: out->value = sums->counter[row->index]; break;
	case ROW_GAUGE:
		out->kind = "gauge";
		out->value =
		    row->index == G_waiting_count
			? atomic_load_explicit(&head->waiting, memory_order_relaxed)
			: atomic_load_explicit(&head->count[row->index], memory_order_relaxed);
		break;
	case ROW_POOL_HIST:
		out->kind = "histogram";
		hist_collect(&hist, &head->hist[row->index]);
		hist_summary(&hist, &out->hist);
		break;
	case ROW_SLOT_HIST:
		out->kind = "histogram";
		hist_summary(&sums->hist[row->index], &out->hist);
		break;
	}
}

int
stat_read(const struct seg *seg, struct vmpool_stat **out, size_t *count)
{
	struct slot_sums sums = {0};
	struct vmpool_stat *stats;

	CHECK_OBJ(seg, SEG_MAGIC);
	stats = calloc(ARRAY_SIZE(rows), sizeof(*stats));
	if (stats == NULL)
		return -ENOMEM;
	collect_slots(seg, &sums);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		fill(&stats[i], &rows[i], seg, &sums);
	*out = stats;
	*count = ARRAY_SIZE(rows);
	return 0;
}
