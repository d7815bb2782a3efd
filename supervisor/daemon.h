/* SPDX-License-Identifier: MIT
 *
 * daemon.h - going into the background, and telling others that we are ready.
 */
#ifndef VMPOOL_DAEMON_H
#define VMPOOL_DAEMON_H

#include "shm/base.h"

/* Fork. The caller's process waits in here for the child to be ready and exits 0,
 * or exits with the child's status. In the child: 0, and *ready_fd breaks
 * (EPOLLERR) when the caller has gone. stderr stays the caller's until
 * daemon_ready. */
int daemon_fork(int *ready_fd) must_check;

/* Let the caller go; from now on nothing of ours is open on its terminal.
 * -EPIPE: it has gone already. Closes *ready_fd; nothing to do if it is -1. */
int daemon_ready(int *ready_fd) must_check;

/* Tell the service manager ("READY=1"), if there is one: the protocol of
 * sd_notify(3), a datagram to the socket named by $NOTIFY_SOCKET. */
void daemon_notify(const char *state);

#endif
