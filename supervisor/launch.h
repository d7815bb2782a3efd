/* SPDX-License-Identifier: MIT
 *
 * launch.h - start a program with exactly the descriptors it is to have.
 */
#ifndef VMPOOL_LAUNCH_H
#define VMPOOL_LAUNCH_H

#include <sys/types.h>

#include "shm/base.h"

#define LAUNCH_KEEP_MAX 8

struct launch {
	const char *const *argv;   /* argv[0] is the file, no search */
	int out, err;		   /* descriptors to become 1 and 2; -1: as ours */
	bool quiet;		   /* /dev/null for 0, 1 and 2 */
	int keep[LAUNCH_KEEP_MAX]; /* inherited under their own numbers */
	unsigned nkeep;
};

/* Every other descriptor of ours is close-on-exec. Signals are unblocked and at
 * their defaults, but SIGPIPE stays ignored (stderr may be a pipe to us, and we
 * may be dead). Returns when the program runs: 0 with *pid, or -errno. */
int launch(const struct launch *what, pid_t *pid) must_check;

#endif
