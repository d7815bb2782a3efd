/* SPDX-License-Identifier: MIT
 *
 * errpipe.c - the worker program's stderr. Runs in vmpoold; owns the pipe, one
 * for all fork servers and workers of a pool's life.
 */
#include "supervisor/errpipe.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>

#include "supervisor/suplog.h"

static void
errpipe_end_line(struct errpipe *ep)
{
	ep->line[ep->len] = '\0';
	if (ep->len > 0) {
		memcpy(ep->last, ep->line, ep->len + 1);
		suplog(LOG_WARNING, "%s", ep->line);
	}
	ep->len = 0;
}

/* One bufferful. False: there is nothing more now. */
static bool
errpipe_read(struct errpipe *ep)
{
	char buf[512];
	ssize_t n = read(ep->read_fd, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n' || ep->len == sizeof(ep->line) - 1)
			errpipe_end_line(ep);
		if (buf[i] != '\n')
			ep->line[ep->len++] = buf[i];
	}
	return n > 0;
}

static void
errpipe_readable(void *arg, uint32_t events)
{
	(void)events;
	(void)errpipe_read(arg);
}

int
errpipe_open(struct errpipe *ep, struct evloop *loop)
{
	int fds[2], r;

	*ep = (struct errpipe){.loop = loop, .read_fd = -1, .write_fd = -1};
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	ep->read_fd = fds[0];
	ep->write_fd = fds[1];
	/* Our end only: writers may wait, a line is not to be lost. */
	r = fcntl(ep->read_fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	ep->src = (struct ev_source){.fd = ep->read_fd, .ready = errpipe_readable, .arg = ep};
	if (r == 0)
		r = evloop_add(loop, &ep->src, EPOLLIN);
	if (r < 0)
		errpipe_close(ep);
	return r;
}

void
errpipe_close(struct errpipe *ep)
{
	if (ep->read_fd < 0)
		return;
	errpipe_drain(ep);
	evloop_del(ep->loop, &ep->src);
	closep(&ep->read_fd);
	closep(&ep->write_fd);
}

void
errpipe_drain(struct errpipe *ep)
{
	/* A pipeful at most: somebody may go on writing. */
	for (unsigned i = 0; i < 128 && errpipe_read(ep); i++)
		continue;
}
