/* SPDX-License-Identifier: MIT
 *
 * procs.c - signals to sets of processes, and the walk through /proc that
 * finds a command's processes where there are no cgroups. Runs in the agent.
 */
#include "kvm/guest/procs.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PID_LIMIT (1u << 22) /* the kernel's largest pid_max on 64 bit */

struct entry {
	pid_t pid, parent;
	bool marked, ours;
};

struct table {
	struct entry *e;
	size_t n, cap;
};

int
procs_init(struct procs *p, int sig)
{
	p->sig = sig;
	p->fresh = 0;
	p->seen = calloc(1, PID_LIMIT / 8); /* untouched pages cost nothing */
	return p->seen == NULL ? -ENOMEM : 0;
}

void
procs_fini(struct procs *p)
{
	free(p->seen);
	p->seen = NULL;
}

void
procs_add(struct procs *p, pid_t pid)
{
	uint8_t bit = (uint8_t)(1u << (pid % 8));

	if (pid <= 1 || pid >= (pid_t)PID_LIMIT || (p->seen[pid / 8] & bit) != 0)
		return;
	p->seen[pid / 8] |= bit;
	p->fresh++;
	(void)kill(pid, p->sig); /* it may have gone since */
}

/* Parent and state of a process: "pid (name) state ppid ..."; the name may
 * hold anything, so count from its last parenthesis. */
static bool
read_stat(const char *pid, pid_t *parent)
{
	_cleanup_(util_freep) char *text = NULL;
	char path[64], state;
	const char *p;
	int ppid;

	(void)snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
	if (util_read_file(path, 4096, &text) != 0)
		return false;
	p = strrchr(text, ')');
	if (p == NULL || sscanf(p + 1, " %c %d", &state, &ppid) != 2)
		return false;
	*parent = ppid;
	return state != 'Z' && state != 'X';
}

static bool
has_mark(const char *pid, unsigned mark)
{
	_cleanup_(util_freep) char *text = NULL;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%.16s/oom_score_adj", pid);
	return util_read_file(path, 32, &text) == 0 && atoi(text) == (int)mark;
}

static int
table_add(struct table *t, const struct entry *e)
{
	if (t->n == t->cap) {
		size_t cap = t->cap == 0 ? 256 : t->cap * 2;
		struct entry *grown = realloc(t->e, cap * sizeof(*grown));

		if (grown == NULL)
			return -ENOMEM;
		t->e = grown;
		t->cap = cap;
	}
	t->e[t->n++] = *e;
	return 0;
}

static int
table_read(struct table *t, unsigned mark)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	int r = 0;

	if (proc == NULL)
		return -errno;
	while (r == 0 && (d = readdir(proc)) != NULL) {
		struct entry e = {.pid = atoi(d->d_name)};

		if (e.pid <= 0 || !read_stat(d->d_name, &e.parent))
			continue;
		e.marked = mark == 0 || has_mark(d->d_name, mark);
		r = table_add(t, &e);
	}
	(void)closedir(proc);
	return r;
}

/* Spread "descends from this process" until nothing changes: one round per
 * generation, as parents may stand anywhere in the table. */
static void
table_descend(struct table *t)
{
	pid_t self = getpid();
	bool changed = true;
	size_t i, k;

	while (changed) {
		changed = false;
		for (i = 0; i < t->n; i++) {
			if (t->e[i].ours)
				continue;
			for (k = 0; k < t->n; k++) {
				if (t->e[k].pid == t->e[i].parent)
					break;
			}
			if (t->e[i].parent == self || (k < t->n && t->e[k].ours))
				changed = t->e[i].ours = true;
		}
	}
}

int
procs_scan(struct procs *p, unsigned mark)
{
	struct table t = {.e = NULL};
	size_t i;
	int r = table_read(&t, mark);

	if (r == 0)
		table_descend(&t);
	for (i = 0; r == 0 && i < t.n; i++) {
		if (t.e[i].ours && t.e[i].marked)
			procs_add(p, t.e[i].pid);
	}
	free(t.e);
	return r;
}
