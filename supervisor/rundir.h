/* SPDX-License-Identifier: MIT
 *
 * rundir.h - the pool's files in the runtime directory, NAME.sock and NAME.pid,
 * and the lock on the latter that makes the pool's name ours.
 */
#ifndef VMPOOL_RUNDIR_H
#define VMPOOL_RUNDIR_H

#include <limits.h>

#include "shm/base.h"

struct rundir {
	char sock[PATH_MAX], pid[PATH_MAX];
	int lock_fd;   /* of NAME.pid, flock held; shared with the fork server */
	int listen_fd; /* of NAME.sock */
};

/* Make the directory if it is absent (0700), take the lock, write our pid.
 * A lock held by another is waited for at most 2 s: the fork server of a killed
 * supervisor holds it until it has cleared up. 0 or -errno with err
 * (-EEXIST: the pool is running). */
int rundir_open(struct rundir *dir, const char *name, char *err, size_t errlen) must_check;

/* Bind and listen on NAME.sock (0600), replacing a stale one. */
int rundir_listen(struct rundir *dir, char *err, size_t errlen) must_check;

/* Remove both files if they are (still) ours, and let go of the name. */
void rundir_close(struct rundir *dir);

#endif
