/* SPDX-License-Identifier: MIT
 *
 * tsc-khz.c - prints the rate of this processor's time-stamp counter in kHz.
 *
 * Run on the host by kvm-box. An emulated machine's TSC ticks at the host's
 * rate, but its kernel cannot calibrate it while the host is busy; so the rate
 * is measured here, against the system clock, and given on its command line.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#define SPAN_NS 100000000 /* error well under 100 ppm */

struct point {
	uint64_t tsc, ns;
};

/* The tightest of several readings: a preemption between the two clocks shows
 * as a long one. */
static struct point
sample(void)
{
	struct point best = {0, 0};
	uint64_t shortest = UINT64_MAX;

	for (int i = 0; i < 50; i++) {
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

int
main(void)
{
	struct timespec span = {.tv_nsec = SPAN_NS};
	struct point a = sample(), b;

	(void)nanosleep(&span, NULL);
	b = sample();
	return printf("%.0f\n", (double)(b.tsc - a.tsc) * 1e6 / (double)(b.ns - a.ns)) < 0;
}
