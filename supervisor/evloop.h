/* SPDX-License-Identifier: MIT
 *
 * evloop.h - the supervisor's event loop: descriptors (epoll) and timers.
 *
 * One thread. A source or timer belongs to its caller and must be removed
 * before it is freed; a handler may remove any source, its own included.
 */
#ifndef VMPOOL_EVLOOP_H
#define VMPOOL_EVLOOP_H

#include "shm/base.h"

struct evloop;

struct ev_source {
	int fd; /* not owned */
	void (*ready)(void *arg, uint32_t events);
	void *arg;
};

struct ev_timer {
	uint64_t at_ns; /* CLOCK_MONOTONIC; 0 = not set. Cleared before fire is called. */
	void (*fire)(void *arg);
	void *arg;
	struct ev_timer *next;
};

int evloop_new(struct evloop **out) must_check;
void evloop_free(struct evloop *loop);

/* Watch src->fd for EPOLLIN and/or EPOLLOUT. 0 or -errno. */
int evloop_add(struct evloop *loop, struct ev_source *src, uint32_t events) must_check;
void evloop_del(struct evloop *loop, struct ev_source *src);

/* Let the loop know a timer; it fires once whenever at_ns has been set and passes. */
void evloop_timer(struct evloop *loop, struct ev_timer *timer);

/* Make the timer fire no later than at_ns. */
void ev_timer_by(struct ev_timer *timer, uint64_t at_ns);

/* Handle events until evloop_stop is called. 0 or -errno. */
int evloop_run(struct evloop *loop) must_check;
void evloop_stop(struct evloop *loop);

#endif
