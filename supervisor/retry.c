/* SPDX-License-Identifier: MIT
 *
 * retry.c - the queue of segment changes that found the pool lock held. Runs
 * in vmpoold; owns nothing but the order.
 */
#include "supervisor/retry.h"

#include "shm/lock.h"
#include "supervisor/suplog.h"

#define RETRY_FIRST_NS 1000000ull
#define RETRY_MAX_NS 20000000ull
#define RETRY_WARN_NS 1000000000ull

static void
retry_push(struct retry *retry, struct retry_op *op, struct retry_op **at)
{
	if (op->queued)
		return;
	op->queued = true;
	op->next = *at;
	*at = op;
	if (op->next == NULL)
		retry->last = &op->next;
}

static void
retry_reset(struct retry *retry)
{
	retry->wait_ns = RETRY_FIRST_NS;
	retry->since_ns = 0;
	retry->warned = false;
}

static void
retry_busy(struct retry *retry)
{
	uint64_t now = now_ns();

	if (retry->since_ns == 0)
		retry->since_ns = now;
	if (!retry->warned && now - retry->since_ns >= RETRY_WARN_NS) {
		retry->warned = true;
		suplog(LOG_WARNING, "the pool lock has been held by thread %d for over a second",
		       lock_holder(retry->seg));
	}
	ev_timer_by(&retry->timer, now + retry->wait_ns);
}

static void
retry_fire(void *arg)
{
	struct retry *retry = arg;
	struct retry_op *op;

	while ((op = retry->first) != NULL) {
		/* Off the queue first: attempt may free the op or queue it anew. */
		retry_cancel(retry, op);
		if (op->attempt(op->arg) != -EBUSY) {
			retry_reset(retry);
			continue;
		}
		retry_push(retry, op, &retry->first);
		retry->wait_ns = MIN(retry->wait_ns * 2, RETRY_MAX_NS);
		retry_busy(retry);
		return;
	}
}

void
retry_init(struct retry *retry, struct evloop *loop, const struct seg *seg)
{
	*retry = (struct retry){.seg = seg, .wait_ns = RETRY_FIRST_NS};
	retry->last = &retry->first;
	retry->timer.fire = retry_fire;
	retry->timer.arg = retry;
	evloop_timer(loop, &retry->timer);
}

void
retry_start(struct retry *retry, struct retry_op *op)
{
	if (op->queued)
		return;
	/* Success here says nothing of the lock: the op may not have needed it. */
	if (op->attempt(op->arg) == -EBUSY) {
		if (retry->first == NULL)
			retry_reset(retry);
		retry_push(retry, op, retry->last);
		retry_busy(retry);
	}
}

void
retry_cancel(struct retry *retry, struct retry_op *op)
{
	struct retry_op **p = &retry->first;

	while (*p != NULL && *p != op)
		p = &(*p)->next;
	if (*p == NULL)
		return;
	*p = op->next;
	if (retry->last == &op->next)
		retry->last = p;
	op->queued = false;
	op->next = NULL;
}
