/* SPDX-License-Identifier: MIT
 *
 * spawn.h - start one program: the hot path of the agent.
 */
#ifndef GUEST_SPAWN_H
#define GUEST_SPAWN_H

#include "kvm/guest/group.h"
#include "kvm/guest/user.h"
#include "kvm/guest/util.h"
#include "kvm/proto.h"

#include <sys/types.h>

struct spawn {
	/* what to start; fds are all above 2 and close-on-exec */
	char *const *argv;
	char *const *env;
	const char *path;	 /* where argv[0] is looked up if it has no slash */
	const char *cwd;	 /* "" = "/" */
	const struct user *user; /* NULL = as the agent */
	const struct group *group;
	const struct proto_exec *want; /* its terminal, umask, limits of each process */
	int in, out, err;
	/* what came of it */
	pid_t pid;
	uint64_t started_ns;	/* just before the fork */
	enum proto_stage stage; /* of the failure */
};

/* Start it in a session of its own, default signals, nothing inherited but the
 * three descriptors. Returns once the program runs: 0 and pid; or -errno and
 * stage, exactly as the step that failed had it, with nothing left behind.
 * Blocks while the kernel loads the program. */
int spawn_run(struct spawn *s) must_check;

#endif
