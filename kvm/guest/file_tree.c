/* SPDX-License-Identifier: MIT
 *
 * file_tree.c - removes files, and directories with all that is in them, a
 * bounded piece at a time. Runs in the agent; owns the way down to where it is.
 *
 * One directory is open at a time, however deep the tree: the way back up is
 * "..", and what is found there must be what was left. It does not enter what
 * is mounted in the tree (EBUSY). The first failure ends it.
 */
#include "kvm/guest/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES_PER_STEP 64u
#define DEPTH_MAX 65536u /* a name each is kept; a deeper tree is refused */

struct level {
	dev_t dev; /* the directory above */
	ino_t ino;
	char *name; /* in there */
};

struct tree {
	DIR *dir; /* where it is */
	struct level *level;
	size_t depth, cap;
};

void
file_tree_free(struct tree *t)
{
	if (t == NULL)
		return;
	if (t->dir != NULL)
		(void)closedir(t->dir);
	while (t->depth > 0)
		free(t->level[--t->depth].name);
	free(t->level);
	free(t);
}

static int
push(struct tree *t, const char *name)
{
	struct level *grown = t->level;
	struct stat st;

	if (t->depth == DEPTH_MAX)
		return -ENAMETOOLONG;
	if (t->depth == t->cap) {
		grown = realloc(t->level, (t->cap * 2 + 16) * sizeof(*grown));
		if (grown == NULL)
			return -ENOMEM;
		t->level = grown;
		t->cap = t->cap * 2 + 16;
	}
	if (fstat(dirfd(t->dir), &st) < 0)
		return -errno;
	grown[t->depth] = (struct level){.dev = st.st_dev, .ino = st.st_ino, .name = strdup(name)};
	if (grown[t->depth].name == NULL)
		return -ENOMEM;
	t->depth++;
	return 0;
}

/* Go on in the directory that fd is open on, and take it over. */
static int
enter(struct tree *t, int fd)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int r = -errno;

	if (fd < 0)
		return fd;
	if (dir == NULL) {
		(void)close(fd);
		return r;
	}
	if (t->dir != NULL)
		(void)closedir(t->dir);
	t->dir = dir;
	return 0;
}

static int
open_inside(int at, const char *name)
{
	struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
	long fd = syscall(SYS_openat2, at, name, &how, sizeof(how));

	if (fd >= 0)
		return (int)fd;
	return errno == EXDEV ? -EBUSY : -errno;
}

/* A file, a link or an empty directory. -EISDIR: a directory; -ENOTEMPTY. */
static int
remove_one(int at, const char *name)
{
	int err;

	if (unlinkat(at, name, 0) == 0)
		return 0;
	err = errno;
	if (err != EISDIR && err != EPERM)
		return -err;
	if (unlinkat(at, name, AT_REMOVEDIR) == 0)
		return 0;
	/* It is no directory: what was said first is why. */
	return errno == ENOTDIR ? -err : -errno;
}

static bool
is_full(int r)
{
	return r == -ENOTEMPTY || r == -EEXIST;
}

static int
remove_entry(struct tree *t, const char *name)
{
	int r = remove_one(dirfd(t->dir), name);

	if (!is_full(r))
		return r == -ENOENT ? 0 : r;
	r = push(t, name);
	return r == 0 ? enter(t, open_inside(dirfd(t->dir), name)) : r;
}

/* All is gone from here: back up, and remove what was this directory. */
static int
leave(struct tree *t)
{
	struct level *up = &t->level[t->depth - 1];
	int fd = openat(dirfd(t->dir), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	int r = fd < 0 ? -errno : 0;

	if (r == 0 && fstat(fd, &st) < 0)
		r = -errno;
	else if (r == 0 && (st.st_dev != up->dev || st.st_ino != up->ino))
		r = -ESTALE;
	if (r < 0) {
		util_closep(&fd);
		return r;
	}
	r = enter(t, fd);
	if (r == 0)
		r = remove_one(dirfd(t->dir), up->name);
	t->depth--;
	util_freep(&t->level[t->depth].name);
	/* What came in meanwhile is found as this directory is read again. */
	return r == -ENOENT || (is_full(r) && t->depth > 0) ? 0 : r;
}

/* The directory that holds the tree is where it begins, and its one entry. */
static int
begin_tree(struct file *f, int parent, const char *name)
{
	int r;

	f->tree = calloc(1, sizeof(*f->tree));
	if (f->tree == NULL)
		return -ENOMEM;
	r = enter(f->tree, openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (r == 0)
		r = push(f->tree, name);
	if (r == 0)
		r = enter(f->tree, open_inside(dirfd(f->tree->dir), name));
	return r == 0 ? FILE_MORE : r;
}

int
file_remove_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	char name[PROTO_NAME_MAX + 1];
	_cleanup_(util_closep) int parent = place_parent(p, q->path, false, name);
	int r = parent < 0 ? parent : remove_one(parent, name);

	if (!is_full(r) || (f->flags & PROTO_FILE_F_TREE) == 0)
		return r == 0 ? FILE_DONE : r;
	return begin_tree(f, parent, name);
}

int
file_remove_step(struct file *f)
{
	struct tree *t = f->tree;
	const struct dirent *e;
	int r = 0;
	unsigned i;

	for (i = 0; r == 0 && i < ENTRIES_PER_STEP; i++) {
		if (t->depth == 0)
			return FILE_DONE;
		errno = 0;
		e = readdir(t->dir);
		if (e == NULL)
			r = errno != 0 ? -errno : leave(t);
		else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = remove_entry(t, e->d_name);
	}
	return r == 0 ? FILE_MORE : r;
}
