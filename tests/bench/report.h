/* SPDX-License-Identifier: MIT
 *
 * report.h - what every benchmark program shares: times, samples, percentiles, and one
 * row of the report per figure. A row is printed for people and, as a JSON
 * object on a line of its own, appended to the file named by $VMPOOL_BENCH_OUT.
 */
#ifndef VMPOOL_BENCH_REPORT_H
#define VMPOOL_BENCH_REPORT_H

#include "shm/base.h"

/* Milliseconds since now_ns() was that. */
double ms_since(uint64_t start);

struct samples {
	double *v;
	size_t n, room;
};

void samples_add(struct samples *s, double v);
void samples_fini(struct samples *s);
/* The p-th percentile, 0 <= p <= 100, by nearest rank; sorts s. 0 if empty. */
double samples_percentile(struct samples *s, double p);

struct figure {
	const char *name, *accel, *unit;
	double value, goal;
	bool lower_is_better;
	double p50, p99;
	size_t n;
};

/* $VMPOOL_BENCH_WHERE ("host" or "box") says where it was measured. 0 or -errno. */
int report(const struct figure *f) must_check;

/* End the program with a line on stderr that names what failed. */
void __attribute__((noreturn)) printf_like(1, 2) bench_die(const char *fmt, ...);

#endif
