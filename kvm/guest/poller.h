/* SPDX-License-Identifier: MIT
 *
 * poller.h - the agent's one epoll instance. Everything is watched edge
 * triggered: an event only marks its source as worth trying; who tries, and
 * when, is decided after all events of a turn are in. So nothing is ever
 * unregistered to make it quiet, and nothing is freed while events are out.
 */
#ifndef GUEST_POLLER_H
#define GUEST_POLLER_H

#include "kvm/guest/util.h"

struct source {
	void (*event)(struct source *s);
};

/* 0 or -errno. */
int poller_init(void) must_check;

/* Watch fd for input and hang-up, and for room to write if out, until
 * poller_close; *s must live as long. The first event comes at once if fd is ready.
 * 0 or -errno. */
int poller_add(int fd, struct source *s, bool out) must_check;

/* Stop watching *fd, close it, and make it -1; nothing if it is -1. Closing
 * alone would not do: a child that is just being started has a copy, and events
 * would still come. */
void poller_close(int *fd);

/* From now on watch for room to write, or no longer. If there is room, the event
 * comes at once. */
void poller_set_out(int fd, struct source *s, bool out);

/* Wait for events until the deadline (util_now_ns; 0: do not wait, UINT64_MAX:
 * for ever) and call their sources. */
void poller_wait(uint64_t deadline_ns);

#endif
