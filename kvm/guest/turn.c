/* SPDX-License-Identifier: MIT
 *
 * turn.c - the queue of those with work to do. Runs in the agent; owns the
 * queue, not what is in it.
 */
#include "kvm/guest/turn.h"

/* Before what they made is written: a write costs much more than a turn. */
#define TURNS 8u

static TAILQ_HEAD(turn_list, turn) queue = TAILQ_HEAD_INITIALIZER(queue);
static unsigned nqueue;

void
turn_queue(struct turn *t)
{
	if (t->queued)
		return;
	t->queued = true;
	nqueue++;
	TAILQ_INSERT_TAIL(&queue, t, entry);
}

void
turn_cancel(struct turn *t)
{
	if (!t->queued)
		return;
	t->queued = false;
	nqueue--;
	TAILQ_REMOVE(&queue, t, entry);
}

bool
turn_runnable(const struct chan *c)
{
	return nqueue > 0 && chan_has_data_room(c);
}

void
turn_run_all(struct chan *c)
{
	unsigned n = TURNS * nqueue;
	struct turn *t;

	while (n-- > 0 && turn_runnable(c)) {
		t = TAILQ_FIRST(&queue);
		turn_cancel(t);
		if (t->run(t, c))
			turn_queue(t);
	}
}
