/* SPDX-License-Identifier: MIT
 *
 * join.h - what a client that joins a lease gets, and what the VM's worker gets for
 * it: a channel, its two eventfds, the ends of a socket.
 */
#ifndef VMPOOL_JOIN_H
#define VMPOOL_JOIN_H

#include "shm/ctl.h"

struct join {
	int chan, request, response; /* both sides' */
	int client, worker;	     /* the ends of the socket */
};

/* Make all of it: 0, or -errno with nothing left. Closed by join_close, sent or not. */
int join_open(struct join *join) must_check;
void join_close(struct join *join);

/* In the order in which they are sent. */
void join_fds(const struct join *join, bool worker, int fds[CTL_JOIN_FDS]);

#endif
