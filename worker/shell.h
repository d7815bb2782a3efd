/* SPDX-License-Identifier: MIT
 *
 * shell.h - workers made ahead of demand: forked, with everything prepared that
 * does not depend on the slot, waiting to be told which one is theirs.
 *
 * The fork server holds them. A shell that dies is noticed when it is to be used;
 * all end when the fork server does, as their sockets close.
 */
#ifndef VMPOOL_SHELL_H
#define VMPOOL_SHELL_H

#include "worker/worker.h"

#define SHELLS_MAX 2u

/* The descriptors that go with a slot, in this order. */
enum { SHELL_CONTROL, SHELL_REQUEST, SHELL_RESPONSE, SHELL_FDS };

struct shells {
	unsigned n;
	struct shell {
		pid_t pid;
		int pidfd, sock;
	} shell[SHELLS_MAX];
};

/* fork, but as our parent's child (CLONE_PARENT), and with a pidfd. */
pid_t shell_fork(int *pidfd);

/* Fork shells until there are so many. What cannot be made now is made later. */
void shells_fill(struct shells *shells, unsigned count, pid_t supervisor,
		 const struct worker_config *cfg);

/* Let one work in this slot: its pid, and *pidfd is the caller's. 0: there is none. */
pid_t shells_use(struct shells *shells, uint32_t slot, const int *fds, int *pidfd);

/* Close what we hold of them: they end. */
void shells_drop(struct shells *shells);

/* In a new process: prepare, and work in this slot until the end. */
void shell_work(const struct worker_config *cfg, uint32_t slot, const int *fds)
    __attribute__((noreturn));

#endif
