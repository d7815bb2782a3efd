/* SPDX-License-Identifier: MIT
 *
 * procs.h - send one signal once to each process of a changing set.
 */
#ifndef GUEST_PROCS_H
#define GUEST_PROCS_H

#include "kvm/guest/util.h"

#include <sys/types.h>

struct procs {
	int sig;
	unsigned fresh; /* processes met for the first time since it was last zeroed */
	uint8_t *seen;	/* one bit per possible pid */
};

/* 0 or -ENOMEM. */
int procs_init(struct procs *p, int sig) must_check;
void procs_fini(struct procs *p);

/* Signal pid unless it has been signalled before. */
void procs_add(struct procs *p, pid_t pid);

/* procs_add every descendant of this process that is not a zombie and
 * whose oom_score_adj is mark (0: any), by one walk through /proc. 0 or -errno. */
int procs_scan(struct procs *p, unsigned mark) must_check;

#endif
