/* SPDX-License-Identifier: MIT
 *
 * benchpool.h - a pool without machines for the benchmarks of the host side: a
 * forked process plays the supervisor (segment, lifeline, socket), another may
 * be the worker of slot 0, with the product's own event loop. Clients attach to
 * it as to any pool.
 */
#ifndef VMPOOL_BENCH_BENCHPOOL_H
#define VMPOOL_BENCH_BENCHPOOL_H

#include "shm/client.h"
#include "tests/bench/report.h"

struct benchpool {
	char name[32];
	pid_t pid;
};

/* A pool NAME of nslots slots, all idle. worker: slot 0, the only one then, has a
 * worker process, whose guest never says more than READY. Ends the program on failure. */
void benchpool_open(struct benchpool *bp, const char *name, uint32_t nslots, bool worker);
void benchpool_close(struct benchpool *bp);

/* A new attachment, for vmpool_detach. Ends the program on failure. */
struct vmpool *benchpool_attach(const struct benchpool *bp);

/* Fork a child that dies with this process: 0 in the child. Ends the program on failure. */
pid_t bench_fork(void);

/* Zeroed memory that children share. Ends the program on failure. */
void *bench_share(size_t size);

/* What everything is compared with: a robust, process-shared mutex. */
void bench_mutex_init(pthread_mutex_t *mutex);

/* Report the ratio of two medians, both in ns, lower being better; its p99 is
 * ours at the 99th percentile over the other's median. */
int report_ratio(const char *name, double goal, struct samples *ours,
		 struct samples *other) must_check;

#endif
