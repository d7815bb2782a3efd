/* SPDX-License-Identifier: MIT
 *
 * testwait.h - processes that queue for a VM, for tests.
 */
#ifndef VMPOOL_TESTS_TESTWAIT_H
#define VMPOOL_TESTS_TESTWAIT_H

#include "tests/lib/crash_point.h"
#include "tests/lib/testpool.h"
#include "tests/lib/testproc.h"

/* One process that acquires once; lies in shared memory. */
struct testwait {
	struct seg *seg;
	uint32_t client;
	uint64_t deadline_ns;
	const char *point; /* armed in the process if not NULL */
	int sig;
	bool give_back; /* release at once what it got */
	int kick_fd;	/* rung when it queues */
	pid_t pid;
	/* Results. */
	int r;
	struct lease lease;
	_Atomic uint32_t *turn; /* shared by all: how many have been served */
	uint32_t order;		/* as which this one was: 1, 2, ... */
};

/* n of them, zeroed but for seg, clients, deadline (patience), kick_fd and turn. */
struct testwait *testwait_new(struct seg *seg, unsigned n);
void testwait_free(struct testwait *waits, unsigned n);

/* Start it, and return when it is in the queue and asleep. */
void testwait_queue(struct testwait *wait);
/* Start it; it is expected to end, or to stop, by itself. */
void testwait_start(struct testwait *wait);
/* Wait for its end; what lease_acquire returned, or 1000 + signal. */
int testwait_end(struct testwait *wait);

#endif
