/* SPDX-License-Identifier: MIT
 *
 * watchdog.h - ends whoever holds the pool lock and does not let go.
 *
 * A robust lock survives a dead holder, not a stopped one. Once a second the lock
 * is tried; while it is held by one and the same thread it is tried every 50 ms,
 * and after WATCHDOG_NS of that the thread's process is killed, provided that it
 * is a client of this pool. A word that names anybody else is rubbish that
 * somebody wrote there: the lock is broken, and the next holder repairs.
 */
#ifndef VMPOOL_WATCHDOG_H
#define VMPOOL_WATCHDOG_H

#include "shm/segment.h"
#include "supervisor/evloop.h"

#define WATCHDOG_NS 3000000000ull
#define WATCHDOG_STEP_NS 50000000ull

struct watchdog {
	struct seg *seg;
	/* Is this process attached as a client? */
	bool (*is_client)(void *arg, pid_t pid);
	void *arg;
	struct ev_timer timer;
	int tid;	   /* who held the lock at the last look, 0 = nobody */
	uint64_t since_ns; /* since when, as far as we have seen */
};

void watchdog_init(struct watchdog *dog, struct evloop *loop, struct seg *seg,
		   bool (*is_client)(void *arg, pid_t pid), void *arg);

/* Look now; once a second. */
void watchdog_look(struct watchdog *dog);

#endif
