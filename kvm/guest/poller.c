/* SPDX-License-Identifier: MIT
 *
 * poller.c - the agent's epoll instance. Runs in the agent; owns its
 * descriptor.
 */
#include "kvm/guest/poller.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>

#define EVENTS_PER_TURN 64

static int epfd = -1;

int
poller_init(void)
{
	epfd = epoll_create1(EPOLL_CLOEXEC);
	return epfd < 0 ? -errno : 0;
}

static int
control(int op, int fd, struct source *s, bool out)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = s};

	if (out)
		ev.events |= EPOLLOUT;
	return epoll_ctl(epfd, op, fd, &ev) < 0 ? -errno : 0;
}

int
poller_add(int fd, struct source *s, bool out)
{
	return control(EPOLL_CTL_ADD, fd, s, out);
}

void
poller_close(int *fd)
{
	if (*fd >= 0)
		(void)epoll_ctl(epfd, EPOLL_CTL_DEL, *fd, NULL);
	util_closep(fd);
}

void
poller_set_out(int fd, struct source *s, bool out)
{
	int r = control(EPOLL_CTL_MOD, fd, s, out);

	if (r != 0)
		util_fatal("epoll_ctl: %s", strerror(-r));
}

/* Milliseconds until the deadline, rounded up: a turn too early would spin. */
static int
timeout_ms(uint64_t deadline_ns)
{
	uint64_t now, ms;

	if (deadline_ns == 0)
		return 0;
	if (deadline_ns == UINT64_MAX)
		return -1;
	now = util_now_ns();
	if (deadline_ns <= now)
		return 0;
	ms = (deadline_ns - now + 999999) / 1000000;
	return (int)MIN(ms, (uint64_t)INT_MAX);
}

void
poller_wait(uint64_t deadline_ns)
{
	struct epoll_event ev[EVENTS_PER_TURN];
	struct source *s;
	int i, n = epoll_wait(epfd, ev, EVENTS_PER_TURN, timeout_ms(deadline_ns));

	if (n < 0 && errno != EINTR)
		util_fatal("epoll_wait: %s", strerror(errno));
	for (i = 0; i < n; i++) {
		s = ev[i].data.ptr;
		s->event(s);
	}
}
