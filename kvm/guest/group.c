/* SPDX-License-Identifier: MIT
 *
 * group.c - cgroups of commands, and the stand-in for kernels without them.
 * Runs in the agent (PID 1 of the guest). Owns the directories it makes below
 * the one it was given.
 */
#include "kvm/guest/group.h"
#include "kvm/guest/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK_MAX 1000u /* the largest oom_score_adj */

static int parent_fd = -1;
static unsigned dirs; /* directories made so far; they are numbered from 0 */
static unsigned mark_base, mark_last;

int
group_init(const char *dir)
{
	_cleanup_(util_freep) char *text = NULL;

	if (dir != NULL) {
		parent_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return parent_fd < 0 ? -errno : 0;
	}
	if (util_read_file("/proc/self/oom_score_adj", 32, &text) == 0 && atoi(text) > 0)
		mark_base = MIN((unsigned)atoi(text), MARK_MAX - 1);
	mark_last = mark_base;
	return 0;
}

static void
dir_name(char *buf, size_t len, unsigned n)
{
	(void)snprintf(buf, len, "vmpool-%u", n);
}

void
group_fini(void)
{
	char name[32];
	unsigned i;

	for (i = 0; parent_fd >= 0 && i < dirs; i++) {
		dir_name(name, sizeof(name), i);
		(void)unlinkat(parent_fd, name, AT_REMOVEDIR);
	}
	util_closep(&parent_fd);
}

int
group_new(struct group *g)
{
	char name[32];
	int r;

	*g = (struct group){.fd = -1};
	if (parent_fd < 0) {
		mark_last = mark_last < MARK_MAX ? mark_last + 1 : mark_base + 1;
		g->mark = mark_last;
		return 0;
	}
	g->dir = dirs;
	dir_name(name, sizeof(name), g->dir);
	if (mkdirat(parent_fd, name, 0755) < 0 && errno != EEXIST)
		return -errno;
	dirs++;
	g->fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (g->fd >= 0)
		return 0;
	r = -errno;
	(void)unlinkat(parent_fd, name, AT_REMOVEDIR);
	return r;
}

/* Controllers cost everybody, so they are on from the first limit. */
static int
set_limit(const struct group *g, const char *file, const char *controller, uint64_t value)
{
	char text[32];
	int r;

	if (value == 0)
		return 0;
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	r = util_write_file(g->fd, file, text);
	if (r != -ENOENT)
		return r;
	r = util_write_file(parent_fd, "cgroup.subtree_control", controller);
	if (r == 0)
		r = util_write_file(g->fd, file, text);
	return r == -ENOENT || r == -EINVAL ? -EOPNOTSUPP : r;
}

int
group_limit(const struct group *g, uint32_t memory_mib, uint32_t procs)
{
	int r;

	if (g->fd < 0)
		return memory_mib == 0 && procs == 0 ? 0 : -EOPNOTSUPP;
	r = set_limit(g, "memory.max", "+memory", (uint64_t)memory_mib << 20);
	return r == 0 ? set_limit(g, "pids.max", "+pids", procs) : r;
}

void
group_free(struct group *g)
{
	char name[32];

	if (g->fd < 0)
		return;
	dir_name(name, sizeof(name), g->dir);
	(void)unlinkat(parent_fd, name, AT_REMOVEDIR);
	util_closep(&g->fd);
}

bool
group_is_empty(const struct group *g)
{
	static const char empty[] = "populated 0";
	_cleanup_(util_closep) int fd = -1;
	char text[64];

	if (g->fd < 0)
		return false;
	fd = openat(g->fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, text, sizeof(text)) >= (ssize_t)sizeof(empty) - 1 &&
	       memcmp(text, empty, sizeof(empty) - 1) == 0;
}

/* cgroup.procs, one read at a time: the kernel lists a snapshot per open. */
static int
list_cgroup(int dirfd, struct procs *p)
{
	_cleanup_(util_closep) int fd = openat(dirfd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	char text[4096];
	pid_t pid = 0;
	ssize_t n, i;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, text, sizeof(text))) > 0) {
		for (i = 0; i < n; i++) {
			if (text[i] >= '0' && text[i] <= '9') {
				pid = pid * 10 + (text[i] - '0');
				continue;
			}
			if (pid > 0)
				procs_add(p, pid);
			pid = 0;
		}
	}
	return n < 0 ? -errno : 0;
}

/* Pass after pass until one meets nobody new. After SIGKILL the signalled
 * cannot fork any more; for gentler signals the bound ends the race. */
static int
signal_each(int dirfd, unsigned mark, int sig)
{
	struct procs p;
	int r = procs_init(&p, sig), pass = 0;

	while (r == 0) {
		p.fresh = 0;
		r = dirfd >= 0 ? list_cgroup(dirfd, &p) : procs_scan(&p, mark);
		if (p.fresh == 0 || (sig != SIGKILL && ++pass == 4))
			break;
	}
	procs_fini(&p);
	return r;
}

int
group_signal(const struct group *g, int sig)
{
	if (g->fd >= 0 && sig == SIGKILL && util_write_file(g->fd, "cgroup.kill", "1") == 0)
		return 0;
	return signal_each(g->fd, g->mark, sig);
}

void
group_kill_all(void)
{
	char name[64];
	unsigned i;

	for (i = 0; parent_fd >= 0 && i < dirs; i++) {
		(void)snprintf(name, sizeof(name), "vmpool-%u/cgroup.kill", i);
		if (util_write_file(parent_fd, name, "1") != 0)
			continue; /* removed since */
	}
	if (parent_fd < 0 && signal_each(-1, 0, SIGKILL) != 0)
		util_log("cannot list processes in /proc");
}
