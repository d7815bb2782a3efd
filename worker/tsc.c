/* SPDX-License-Identifier: MIT
 *
 * tsc.c - measures the time-stamp counter. Runs in builders, and
 * in the helper program of the KVM host in a box.
 *
 * An emulated machine's TSC ticks at the host's rate, but its kernel cannot
 * calibrate it while the host is busy; so it is measured here and given to the
 * guest on its command line (tsc_early_khz, lpj).
 */
#include "worker/tsc.h"

#include <time.h>
#include <x86intrin.h>

#define SPAN_NS 20000000
#define READINGS 50

struct point {
	uint64_t tsc, ns;
};

/* The tightest of several readings: a preemption between the clocks makes a long one. */
static struct point
sample(void)
{
	struct point best = {0, 0};
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < READINGS; i++) {
		struct timespec ts;
		uint64_t before = __rdtsc(), after;

		(void)clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		after = __rdtsc();
		if (after - before < shortest) {
			shortest = after - before;
			best.tsc = before + shortest / 2;
			best.ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
		}
	}
	return best;
}

uint32_t
tsc_khz(void)
{
	const struct timespec span = {.tv_nsec = SPAN_NS};
	static uint32_t khz;
	struct point a, b;

	if (khz != 0)
		return khz;
	a = sample();
	(void)nanosleep(&span, NULL);
	b = sample();
	khz = (uint32_t)((double)(b.tsc - a.tsc) * 1e6 / (double)(b.ns - a.ns) + 0.5);
	return khz;
}
