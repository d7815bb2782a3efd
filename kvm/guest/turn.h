/* SPDX-License-Identifier: MIT
 *
 * turn.h - who has work to do: commands and file operations in one queue, each
 * of which gets one bounded turn per turn of the loop. So no stream starves
 * another, whatever its kind.
 */
#ifndef GUEST_TURN_H
#define GUEST_TURN_H

#include "kvm/guest/chan.h"
#include "kvm/guest/util.h"

#include <sys/queue.h>

struct turn {
	TAILQ_ENTRY(turn) entry;
	bool queued;
	/* One bounded piece of work; the channel has room for one frame of data and an
	 * answer. True: there may be more to do at once. If not, *t may be gone. */
	bool (*run)(struct turn *t, struct chan *c);
};

/* Queue t, at the end, unless it is queued; take it out, if it is. */
void turn_queue(struct turn *t);
void turn_cancel(struct turn *t);

/* Give each that is queued now its turn, as far as the channel has room. */
void turn_run_all(struct chan *c);
/* Is there work that turn_run_all could do at once? */
bool turn_runnable(const struct chan *c);

#endif
