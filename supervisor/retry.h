/* SPDX-License-Identifier: MIT
 *
 * retry.h - changes of the segment that wait for the pool lock.
 *
 * The supervisor never sleeps on the pool lock: what finds it held is queued
 * here and tried again in order, after 1 ms, then 2, 4 ... 20 ms.
 */
#ifndef VMPOOL_RETRY_H
#define VMPOOL_RETRY_H

#include "shm/segment.h"
#include "supervisor/evloop.h"

struct retry_op {
	/* Does the work; -EBUSY: the lock is held, call again. It may free the op
	 * and may start others. */
	int (*attempt)(void *arg);
	void *arg;
	bool queued;
	struct retry_op *next;
};

struct retry {
	const struct seg *seg;
	struct ev_timer timer;
	struct retry_op *first, **last;
	uint64_t wait_ns;  /* the present pause between tries */
	uint64_t since_ns; /* when the lock was first found held; 0 = it was not */
	bool warned;
};

void retry_init(struct retry *retry, struct evloop *loop, const struct seg *seg);

/* Try now; queue the op if the lock is held. An op already queued stays there. */
void retry_start(struct retry *retry, struct retry_op *op);

/* Forget a queued op. */
void retry_cancel(struct retry *retry, struct retry_op *op);

#endif
