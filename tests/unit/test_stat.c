/* SPDX-License-Identifier: MIT
 *
 * test_stat.c - histograms, and all statistics as rows.
 */
#include "shm/stat.h"
#include "tests/lib/testpool.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

static void
bucket_limits(void **state)
{
	(void)state;
	assert_int_equal(hist_bucket(0), 0);
	assert_int_equal(hist_bucket(1), 0);
	assert_int_equal(hist_bucket(2), 4);
	assert_int_equal(hist_bucket(3), 6);
	assert_int_equal(hist_bucket(4), 8);
	assert_int_equal(hist_bucket(7), 11);
	assert_int_equal(hist_bucket(1024), 40);
	assert_int_equal(hist_bucket((1ull << 40) - 1), HIST_BUCKETS - 1);
	assert_int_equal(hist_bucket(1ull << 40), HIST_BUCKETS - 1);
	assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
	assert_true(hist_bucket_max(HIST_BUCKETS - 1) == UINT64_MAX);
	assert_true(hist_bucket_max(HIST_BUCKETS + 5) == UINT64_MAX);
	/* The largest value of a bucket is in it, the next one is not. */
	for (unsigned b = 8; b < HIST_BUCKETS - 1; b++) {
		uint64_t max = hist_bucket_max(b);

		assert_int_equal(hist_bucket(max), b);
		assert_int_equal(hist_bucket(max + 1), b + 1);
	}
}

/* Buckets never go down, and a value is at most a quarter below its bucket's end. */
static void
bucket_precision(void **state)
{
	unsigned last = 0;

	(void)state;
	for (uint64_t v = 1; v < 7ull << 37; v += 1 + v / 97) {
		unsigned b = hist_bucket(v);

		assert_true(b >= last);
		assert_true(hist_bucket_max(b) >= v);
		assert_true(v < 8 || hist_bucket_max(b) - v <= v / 4);
		last = b;
	}
}

static void
summary(void **state)
{
	struct shm_hist hist = {0};
	struct hist_sum sum = {0};
	struct vmpool_hist out;

	(void)state;
	hist_summary(&sum, &out);
	assert_int_equal(out.count, 0);
	assert_int_equal(out.p50_ns, 0);
	for (unsigned i = 1; i <= 1000; i++)
		hist_add(&hist, i * 1000);
	hist_collect(&sum, &hist);
	hist_summary(&sum, &out);
	assert_int_equal(out.count, 1000);
	assert_int_equal(out.sum_ns, 500500000);
	assert_int_equal(out.max_ns, 1000000);
	assert_in_range(out.p50_ns, 500000, 625000);
	assert_in_range(out.p99_ns, 990000, 1000000);
	/* Two histograms together. */
	hist_collect(&sum, &hist);
	hist_summary(&sum, &out);
	assert_int_equal(out.count, 2000);
	assert_int_equal(out.max_ns, 1000000);
	/* One value: it is every quantile. */
	memset(&hist, 0, sizeof(hist));
	memset(&sum, 0, sizeof(sum));
	hist_add(&hist, 777);
	hist_collect(&sum, &hist);
	hist_summary(&sum, &out);
	assert_int_equal(out.p50_ns, 777);
	assert_int_equal(out.p99_ns, 777);
}

static const struct testpool_policy policy = {
    .nslots = 64, .min_idle = 1, .max_idle = 8, .max_total = 64};

static const struct vmpool_stat *
row(const struct vmpool_stat *rows, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	fail_msg("no row %s", name);
	return NULL;
}

static void
rows_are_the_table(void **state)
{
	static const char *const names[] = {
#define POOL_COUNTER(name, unit, help) #name ":counter",
#define SLOT_COUNTER(name, unit, help) #name ":counter",
#define GAUGE(name, unit, help) #name ":gauge",
#define POOL_HIST(name, unit, help) #name ":histogram",
#define SLOT_HIST(name, unit, help) #name ":histogram",
#include "shm/stat.def"

	};
	struct seg *seg = testpool_new(&policy);
	struct vmpool_stat *rows;
	size_t n;

	(void)state;
	assert_int_equal(stat_read(seg, &rows, &n), 0);
	assert_int_equal(n, ARRAY_SIZE(names));
	for (size_t i = 0; i < n; i++) {
		char text[128];

		(void)snprintf(text, sizeof(text), "%s:%s", rows[i].name, rows[i].kind);
		assert_string_equal(text, names[i]);
		assert_true(strlen(rows[i].help) > 5 && strlen(rows[i].unit) > 0);
		assert_int_equal(rows[i].value, 0);
		assert_int_equal(rows[i].hist.count, 0);
	}
	free(rows);
	testpool_free(seg);
}

static void
rows_show_what_happened(void **state)
{
	struct seg *seg = testpool_new(&policy), *ro;
	uint32_t client = testpool_client(seg);
	struct vmpool_stat *rows;
	struct lease lease;
	char err[256];
	size_t n;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		(void)testpool_ready(seg);
	(void)testpool_start(seg);
	assert_int_equal(lease_acquire(seg, client, -1, now_ns() - 5000, LOCK_TRY, &lease), 0);
	for (unsigned i = 0; i < 3; i++) {
		atomic_store(&seg->chan[i].counter[C_exec_count], 10 + i);
		hist_add(&seg->chan[i].hist[H_exec_ns], 1000000);
	}
	assert_int_equal(seg_attach(&ro, seg_read_only_fd(seg), true, err, sizeof(err)), 0);
	assert_int_equal(stat_read(ro, &rows, &n), 0);
	assert_int_equal(row(rows, n, "hit_count")->value, 1);
	assert_int_equal(row(rows, n, "miss_count")->value, 0);
	assert_int_equal(row(rows, n, "idle_count")->value, 2);
	assert_int_equal(row(rows, n, "in_use_count")->value, 1);
	assert_int_equal(row(rows, n, "starting_count")->value, 1);
	assert_int_equal(row(rows, n, "resetting_count")->value, 0);
	assert_int_equal(row(rows, n, "spawn_count")->value, 3);
	assert_int_equal(row(rows, n, "exec_count")->value, 33);
	assert_int_equal(row(rows, n, "exec_ns")->hist.count, 3);
	assert_int_equal(row(rows, n, "exec_ns")->hist.sum_ns, 3000000);
	assert_int_equal(row(rows, n, "acquire_ns")->hist.count, 1);
	assert_true(row(rows, n, "acquire_ns")->hist.p50_ns >= 5000);
	assert_int_equal(row(rows, n, "boot_ns")->hist.count, 3);
	free(rows);
	/* What a worker counted stays when its slot is empty again. */
	testpool_touch(seg, lease.slot);
	assert_int_equal(lease_release(seg, &lease, -1), 0);
	assert_int_equal(sup_worker_gone(seg, lease.slot, NULL), 0);
	assert_int_equal(stat_read(ro, &rows, &n), 0);
	assert_int_equal(row(rows, n, "exec_count")->value, 33);
	free(rows);
	seg_close(ro);
	testpool_free(seg);
}

/* Reading does not allocate the pages of slots that were never used. */
static void
reading_is_cheap(void **state)
{
	struct testpool_policy large = policy;
	struct vmpool_stat *rows;
	struct seg *seg;
	struct stat before, after;
	size_t n;

	(void)state;
	large.nslots = SHM_SLOTS_MAX;
	seg = testpool_new(&large);
	(void)testpool_ready(seg);
	assert_int_equal(stat_read(seg, &rows, &n), 0);
	free(rows);
	assert_int_equal(fstat(seg->fd, &before), 0);
	assert_int_equal(stat_read(seg, &rows, &n), 0);
	free(rows);
	assert_int_equal(fstat(seg->fd, &after), 0);
	assert_true(after.st_blocks == before.st_blocks);
	assert_true(after.st_blocks * 512 < 1024 * 1024);
	testpool_free(seg);
}

/* A lock that is held, by anybody, does not matter. */
static void
reading_takes_no_lock(void **state)
{
	struct seg *seg = testpool_new(&policy);
	struct vmpool_stat *rows;
	size_t n;

	(void)state;
	atomic_store(&seg->head->lock.word, 0x3fffffff);
	assert_int_equal(stat_read(seg, &rows, &n), 0);
	free(rows);
	atomic_store(&seg->head->lock.word, 0);
	testpool_free(seg);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bucket_limits),
	    cmocka_unit_test(bucket_precision),
	    cmocka_unit_test(summary),
	    cmocka_unit_test(rows_are_the_table),
	    cmocka_unit_test(rows_show_what_happened),
	    cmocka_unit_test(reading_is_cheap),
	    cmocka_unit_test(reading_takes_no_lock),
	};

	return cmocka_run_group_tests_name("stat", tests, NULL, NULL);
}
