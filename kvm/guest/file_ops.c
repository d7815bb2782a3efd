/* SPDX-License-Identifier: MIT
 *
 * file_ops.c - file operations that are done in one step. Runs in the agent;
 * owns nothing.
 */
#include "kvm/guest/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void
file_stat_out(struct proto_stat *out, const struct stat *st)
{
	*out = (struct proto_stat){
	    .mode = st->st_mode,
	    .nlink = (uint32_t)MIN(st->st_nlink, (nlink_t)UINT32_MAX),
	    .uid = st->st_uid,
	    .gid = st->st_gid,
	    .size = (uint64_t)st->st_size,
	    .blocks = (uint64_t)st->st_blocks,
	    .ino = st->st_ino,
	    .atime_sec = st->st_atim.tv_sec,
	    .mtime_sec = st->st_mtim.tv_sec,
	    .ctime_sec = st->st_ctim.tv_sec,
	    .atime_nsec = (uint32_t)st->st_atim.tv_nsec,
	    .mtime_nsec = (uint32_t)st->st_mtim.tv_nsec,
	    .ctime_nsec = (uint32_t)st->st_ctim.tv_nsec,
	};
}

static int
stat_fd(int fd, struct stat *st)
{
	return fstat(fd, st) < 0 ? -errno : 0;
}

static bool
has(const struct file_req *q, uint32_t flag)
{
	return (q->head.flags & flag) != 0;
}

int
file_stat(const struct file_req *q, const struct place *p, struct stat *st)
{
	int follow = has(q, PROTO_FILE_F_NOFOLLOW) ? O_NOFOLLOW : 0;
	_cleanup_(util_closep) int fd = place_openat(p, q->path, O_PATH | follow);

	return fd < 0 ? fd : stat_fd(fd, st);
}

int
file_rename(const struct file_req *q, const struct place *p)
{
	char from_name[PROTO_NAME_MAX + 1], to_name[PROTO_NAME_MAX + 1];
	_cleanup_(util_closep) int from = place_parent(p, q->path, false, from_name);
	_cleanup_(util_closep) int to = -1;
	unsigned flags = has(q, PROTO_FILE_F_EXCL) ? RENAME_NOREPLACE : 0;

	if (from < 0)
		return from;
	to = place_parent(p, q->other, has(q, PROTO_FILE_F_PARENTS), to_name);
	if (to < 0)
		return to;
	return renameat2(from, from_name, to, to_name, flags) < 0 ? -errno : 0;
}

/* What is there already is fine if it is a directory. */
static int
mkdir_existing(const struct file_req *q, const struct place *p, struct stat *st)
{
	_cleanup_(util_closep) int fd = place_openat(p, q->path, O_PATH | O_DIRECTORY);

	return fd < 0 ? fd : stat_fd(fd, st);
}

int
file_mkdir(const struct file_req *q, const struct place *p, struct stat *st)
{
	char name[PROTO_NAME_MAX + 1];
	bool parents = has(q, PROTO_FILE_F_PARENTS);
	_cleanup_(util_closep) int parent = -1, fd = -1;
	int r;

	if (parents && mkdir_existing(q, p, st) == 0)
		return 0;
	parent = place_parent(p, q->path, parents, name);
	if (parent == -EISDIR)
		return -EEXIST;
	if (parent < 0)
		return parent;
	if (mkdirat(parent, name, 0755) < 0)
		return -errno;
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = fd < 0 ? -errno : 0;
	if (r == 0 && has(q, PROTO_FILE_F_SET_MODE) && fchmod(fd, q->head.mode) < 0)
		r = -errno;
	return r == 0 ? stat_fd(fd, st) : r;
}

int
file_setattr(const struct file_req *q, const struct place *p, struct stat *st)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
					  {q->head.mtime_sec, q->head.mtime_nsec}};
	int follow = has(q, PROTO_FILE_F_NOFOLLOW) ? O_NOFOLLOW : 0;
	_cleanup_(util_closep) int fd = place_openat(p, q->path, O_PATH | follow);
	int r = fd < 0 ? fd : stat_fd(fd, st);

	/* The mode of a symbolic link means nothing, and cannot be changed. */
	if (r == 0 && has(q, PROTO_FILE_F_SET_MODE))
		r = S_ISLNK(st->st_mode) ? -EOPNOTSUPP : place_chmod(fd, q->head.mode);
	if (r == 0 && has(q, PROTO_FILE_F_SET_MTIME) && utimensat(fd, "", times, AT_EMPTY_PATH) < 0)
		r = -errno;
	return r == 0 ? stat_fd(fd, st) : r;
}

int
file_symlink(const struct file_req *q, const struct place *p)
{
	char name[PROTO_NAME_MAX + 1];
	_cleanup_(util_closep) int parent =
	    place_parent(p, q->path, has(q, PROTO_FILE_F_PARENTS), name);

	if (parent == -EISDIR)
		return -EEXIST;
	if (parent < 0)
		return parent;
	return symlinkat(q->other, parent, name) < 0 ? -errno : 0;
}

/* Of a symbolic link, another name of the link itself. */
int
file_link(const struct file_req *q, const struct place *p)
{
	char name[PROTO_NAME_MAX + 1], new_name[PROTO_NAME_MAX + 1];
	_cleanup_(util_closep) int from = place_parent(p, q->other, false, name), to = -1;

	if (from < 0)
		return from == -EISDIR ? -EPERM : from;
	to = place_parent(p, q->path, has(q, PROTO_FILE_F_PARENTS), new_name);
	if (to < 0)
		return to == -EISDIR ? -EEXIST : to;
	return linkat(from, name, to, new_name, 0) < 0 ? -errno : 0;
}
