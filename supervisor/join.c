/* SPDX-License-Identifier: MIT
 *
 * join.c - makes the channels by which clients join leases. Runs in vmpoold, which
 * keeps none of it: once the descriptors are sent, they are the two sides' alone.
 */
#include "supervisor/join.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include "shm/joined.h"

int
join_open(struct join *join)
{
	int pair[2], r;

	*join = (struct join){-1, -1, -1, -1, -1};
	join->chan = joined_create();
	if (join->chan < 0)
		return join->chan;
	join->request = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	join->response = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (join->request < 0 || join->response < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		r = -errno;
		join_close(join);
		return r;
	}
	join->client = pair[0];
	join->worker = pair[1];
	return 0;
}

void
join_close(struct join *join)
{
	closep(&join->chan);
	closep(&join->request);
	closep(&join->response);
	closep(&join->client);
	closep(&join->worker);
}

void
join_fds(const struct join *join, bool worker, int fds[CTL_JOIN_FDS])
{
	fds[CTL_JOIN_CHAN] = join->chan;
	fds[CTL_JOIN_REQUEST] = join->request;
	fds[CTL_JOIN_RESPONSE] = join->response;
	fds[CTL_JOIN_LIFE] = worker ? join->worker : join->client;
}
