/* SPDX-License-Identifier: MIT
 *
 * evloop.c - the event loop of vmpoold. Owns the epoll descriptor.
 */
#include "supervisor/evloop.h"

#include <sys/epoll.h>

#define EVLOOP_MAGIC 0x7c1e03b4u

struct evloop {
	unsigned magic;
	int epfd;
	bool stop;
	struct ev_timer *timers; /* a handful: looked through on every turn */
};

int
evloop_new(struct evloop **out)
{
	struct evloop *loop = calloc(1, sizeof(*loop));
	int r;

	*out = NULL;
	if (loop == NULL)
		return -ENOMEM;
	loop->magic = EVLOOP_MAGIC;
	loop->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epfd < 0) {
		r = -errno;
		free(loop);
		return r;
	}
	*out = loop;
	return 0;
}

void
evloop_free(struct evloop *loop)
{
	if (loop == NULL)
		return;
	CHECK_OBJ(loop, EVLOOP_MAGIC);
	closep(&loop->epfd);
	loop->magic = 0;
	free(loop);
}

int
evloop_add(struct evloop *loop, struct ev_source *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};

	CHECK_OBJ(loop, EVLOOP_MAGIC);
	return epoll_ctl(loop->epfd, EPOLL_CTL_ADD, src->fd, &ev) < 0 ? -errno : 0;
}

void
evloop_del(struct evloop *loop, struct ev_source *src)
{
	CHECK_OBJ(loop, EVLOOP_MAGIC);
	(void)epoll_ctl(loop->epfd, EPOLL_CTL_DEL, src->fd, NULL);
}

void
evloop_timer(struct evloop *loop, struct ev_timer *timer)
{
	CHECK_OBJ(loop, EVLOOP_MAGIC);
	AN(timer->fire);
	timer->next = loop->timers;
	loop->timers = timer;
}

void
ev_timer_by(struct ev_timer *timer, uint64_t at_ns)
{
	if (timer->at_ns == 0 || at_ns < timer->at_ns)
		timer->at_ns = at_ns;
}

/* Fires what is due; returns the milliseconds until the next timer, -1 for none. */
static int
evloop_timers(struct evloop *loop)
{
	uint64_t now = now_ns(), next = UINT64_MAX;

	for (struct ev_timer *t = loop->timers; t != NULL; t = t->next) {
		if (t->at_ns != 0 && t->at_ns <= now) {
			t->at_ns = 0;
			t->fire(t->arg);
		}
	}
	for (struct ev_timer *t = loop->timers; t != NULL; t = t->next)
		if (t->at_ns != 0 && t->at_ns < next)
			next = t->at_ns;
	if (next == UINT64_MAX)
		return -1;
	now = now_ns();
	return next <= now ? 0 : (int)MIN((next - now) / 1000000 + 1, 60000u);
}

int
evloop_run(struct evloop *loop)
{
	struct epoll_event ev;
	struct ev_source *src;
	int n, wait_ms;

	CHECK_OBJ(loop, EVLOOP_MAGIC);
	loop->stop = false;
	for (;;) {
		wait_ms = evloop_timers(loop);
		if (loop->stop)
			return 0;
		/* One event at a time: a handler may remove and free any source, and
		 * no event of a removed one is left over. */
		n = epoll_wait(loop->epfd, &ev, 1, wait_ms);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 1) {
			src = ev.data.ptr;
			src->ready(src->arg, ev.events);
		}
		if (loop->stop)
			return 0;
	}
}

void
evloop_stop(struct evloop *loop)
{
	CHECK_OBJ(loop, EVLOOP_MAGIC);
	loop->stop = true;
}
