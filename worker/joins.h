/* SPDX-License-Identifier: MIT
 *
 * joins.h - the clients that have joined a worker's lease: their descriptors, and
 * whether they are still there. What they say is the job's (port.h).
 */
#ifndef VMPOOL_JOINS_H
#define VMPOOL_JOINS_H

#include "shm/ctl.h"
#include "worker/job.h"
#include "worker/loop.h"

struct joined;

struct joins {
	struct loop *loop;
	struct job *job;
	struct joined *first;
};

void joins_init(struct joins *joins, struct loop *loop, struct job *job);

/* WORKER_JOIN: a client joins the lease of this generation, with these descriptors,
 * which are taken. It is told on its socket how that went; a lease that has ended
 * meanwhile is nothing of ours. */
void joins_add(struct joins *joins, uint64_t generation, int fds[CTL_JOIN_FDS]);

/* Before the loop sleeps: let go of what belongs to clients that are no more. */
void joins_tend(struct joins *joins);

/* The loop does not run any more, and the job has no ports (job_fini): free all. */
void joins_fini(struct joins *joins);

#endif
