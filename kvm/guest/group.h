/* SPDX-License-Identifier: MIT
 *
 * group.h - everything that one command started, however it tried to get away
 * (setsid, double fork, ignored signals): one cgroup per command.
 *
 * Where the kernel has no cgroup v2 (or the agent runs in a test) a command is
 * told apart by its oom_score_adj instead: every command gets a value of its
 * own, inherited by all it starts, and the agent is the subreaper, so that
 * whatever descends from the agent and carries the value is the command's.
 */
#ifndef GUEST_GROUP_H
#define GUEST_GROUP_H

#include "kvm/guest/util.h"

struct group {
	int fd;	       /* the cgroup's directory; -1: told apart by mark */
	unsigned dir;  /* its number in the parent directory */
	unsigned mark; /* oom_score_adj of its processes; 0 with a cgroup */
};

/* dir: a cgroup v2 directory of the agent's own, or NULL for none. Call once,
 * and before any other function here. 0 or -errno. */
int group_init(const char *dir) must_check;

/* Remove every cgroup that was made; those with processes in them stay. */
void group_fini(void);

/* An empty group. 0 or -errno. */
int group_new(struct group *g) must_check;

/* Limit the memory (MiB) and the processes of an empty group that has never been used: 0
 * leaves one alone. 0; -EOPNOTSUPP where the kernel cannot. */
int group_limit(const struct group *g, uint32_t memory_mib, uint32_t procs) must_check;

/* Forget the group; its cgroup is removed unless processes are left in it. */
void group_free(struct group *g);

/* No process is left in it, so it may serve another command. Always false for
 * a group that is told apart by mark: marks are used in turn. */
bool group_is_empty(const struct group *g);

/* SIGKILL for every process of every group that was ever made. */
void group_kill_all(void);

/* Send sig to every process of the group, forks that race with it included.
 * 0, or -errno when the group could not be listed. */
int group_signal(const struct group *g, int sig) must_check;

#endif
