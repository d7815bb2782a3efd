/* SPDX-License-Identifier: MIT
 *
 * threadpool.h - a pool in one process: a thread plays the supervisor, and each
 * worker is the real one (worker.h, null machine) in a thread of its own. So the
 * thread sanitizer sees both sides of everything that is shared.
 */
#ifndef VMPOOL_TESTS_THREADPOOL_H
#define VMPOOL_TESTS_THREADPOOL_H

#include "shm/ctl.h"
#include "shm/segment.h"

#include <pthread.h>
#include <stdatomic.h>

#define THREADPOOL_SLOTS 8u
#define THREADPOOL_CONNS 64u

struct threadpool {
	struct seg *seg;
	char dir[64], path[108];
	int listen_fd, door;
	uint32_t min_idle;
	struct threadpool_worker {
		struct threadpool *pool;
		uint32_t slot;
		int control, theirs; /* -1 = no worker */
		int request, response;
		pthread_t thread;
	} worker[THREADPOOL_SLOTS];
	struct threadpool_conn {
		int fd; /* -1 = free */
		bool client;
		uint32_t id;
	} conn[THREADPOOL_CONNS];
	pthread_t thread;
	atomic_bool stop;
};

/* A pool "default" in a fresh runtime directory ($VMPOOL_RUNDIR is set). */
void threadpool_open(struct threadpool *tp, uint32_t min_idle, uint32_t max_total);
/* When all clients have left. The supervisor's thread has ended on return, the
 * segment is still there. */
void threadpool_stop(struct threadpool *tp);
void threadpool_close(struct threadpool *tp);

#endif
