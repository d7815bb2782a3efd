/* SPDX-License-Identifier: MIT
 *
 * file_write.c - files that come from the host. Runs in the agent; the
 * descriptors are the operation's (file.c).
 *
 * A file is written under a temporary name in its own directory and gets its
 * name when it is whole: who looks sees the old one, or the new one, or none.
 * In place (APPEND, IN_PLACE) there is no such moment; what was appended before
 * a cut is taken back, and so is a file that was not there before.
 */
#include "kvm/guest/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define HOLE 4096u     /* zeros in this measure become holes */
#define NEW_MODE 0644u /* of files that were not there, unless the request says */
#define NAME_TRIES 8u

/* What the name stands for now decides what the new file is like. */
static int
look_at_old(struct file *f)
{
	struct stat st;

	if (fstatat(f->w.parent, f->w.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if ((f->flags & PROTO_FILE_F_EXCL) != 0)
		return -EEXIST;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (S_ISLNK(st.st_mode))
		return 0;
	/* Nobody means to put a file where /dev/null is. */
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	f->w.uid = st.st_uid;
	f->w.gid = st.st_gid;
	if (f->w.mode == FILE_KEEP)
		f->w.mode = st.st_mode & 07777;
	return 0;
}

static int
open_temp(struct file *f)
{
	unsigned tries;
	uint64_t x = 0;

	for (tries = 0; tries < NAME_TRIES; tries++) {
		if (getrandom(&x, sizeof(x), GRND_NONBLOCK) < 0)
			x = util_now_ns();
		(void)snprintf(f->w.temp, sizeof(f->w.temp), ".vmpool-%016llx",
			       (unsigned long long)x);
		f->fd = openat(f->w.parent, f->w.temp,
			       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (f->fd >= 0)
			return 0;
		if (errno != EEXIST)
			break;
	}
	f->w.temp[0] = '\0';
	return -errno;
}

static int
begin_atomic(struct file *f, const struct file_req *q, const struct place *p)
{
	bool parents = (q->head.flags & PROTO_FILE_F_PARENTS) != 0;
	int r;

	f->w.parent = place_parent(p, q->path, parents, f->w.name);
	if (f->w.parent < 0)
		return f->w.parent;
	r = look_at_old(f);
	if (r == 0 && f->w.mode == FILE_KEEP)
		f->w.mode = NEW_MODE;
	return r == 0 ? open_temp(f) : r;
}

static int
make_in_place(struct file *f, const struct file_req *q, const struct place *p, int how)
{
	bool parents = (q->head.flags & PROTO_FILE_F_PARENTS) != 0;

	f->w.parent = place_parent(p, q->path, parents, f->w.name);
	if (f->w.parent < 0)
		return f->w.parent;
	f->fd = openat(f->w.parent, f->w.name,
		       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | how, NEW_MODE);
	f->w.made = f->fd >= 0;
	return f->fd < 0 ? -errno : 0;
}

static int
begin_in_place(struct file *f, const struct file_req *q, const struct place *p)
{
	int how = (q->head.flags & PROTO_FILE_F_APPEND) != 0 ? O_APPEND : 0;
	struct stat st;
	_cleanup_(util_closep) int path_fd = place_regular(p, q->path, &st);

	if (path_fd == -ENOENT)
		return make_in_place(f, q, p, how);
	if (path_fd < 0)
		return path_fd;
	f->w.start = (uint64_t)st.st_size;
	f->fd =
	    place_reopen(path_fd, O_WRONLY | O_NONBLOCK | O_NOCTTY | (how != 0 ? how : O_TRUNC));
	return f->fd < 0 ? f->fd : 0;
}

int
file_write_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	size_t len = strlen(q->path);
	int r;

	f->w.uid = f->w.gid = f->w.mode = FILE_KEEP;
	if ((f->flags & PROTO_FILE_F_SET_MODE) != 0)
		f->w.mode = q->head.mode;
	f->w.mtime = (struct timespec){q->head.mtime_sec, q->head.mtime_nsec};
	if (len > 0 && q->path[len - 1] == '/')
		return -EISDIR;
	if ((f->flags & (PROTO_FILE_F_APPEND | PROTO_FILE_F_IN_PLACE)) != 0)
		r = begin_in_place(f, q, p);
	else
		r = begin_atomic(f, q, p);
	f->w.pending = r == 0;
	return r < 0 ? r : FILE_WAITS;
}

static int
write_all(int fd, const uint8_t *bytes, size_t len)
{
	ssize_t n;

	for (; len > 0; len -= (size_t)n, bytes += n) {
		n = write(fd, bytes, len);
		if (n < 0)
			return -errno;
	}
	return 0;
}

static bool
all_zero(const uint8_t *bytes, size_t len)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static int
write_sparse(struct file *f, const uint8_t *bytes, size_t len)
{
	uint64_t at = f->w.at;
	int r = 0;
	size_t n;

	for (; r == 0 && len > 0; len -= n, bytes += n, at += n) {
		n = MIN(len, HOLE - at % HOLE);
		if (n < HOLE || !all_zero(bytes, n))
			r = write_all(f->fd, bytes, n);
		else if (lseek(f->fd, HOLE, SEEK_CUR) < 0)
			r = -errno;
	}
	return r;
}

int
file_write_bytes(struct file *f, const uint8_t *bytes, size_t len)
{
	int r;

	if ((f->flags & PROTO_FILE_F_SPARSE) != 0)
		r = write_sparse(f, bytes, len);
	else
		r = write_all(f->fd, bytes, len);
	f->w.at += len;
	return r;
}

/* What is asked for beside the bytes; the owner first, since that resets mode bits. */
static int
set_attributes(const struct file *f)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, f->w.mtime};

	if ((f->flags & PROTO_FILE_F_SPARSE) != 0 && ftruncate(f->fd, (off_t)f->w.at) < 0)
		return -errno;
	if (f->w.uid != FILE_KEEP && fchown(f->fd, f->w.uid, f->w.gid) < 0)
		return -errno;
	if (f->w.mode != FILE_KEEP && fchmod(f->fd, f->w.mode) < 0)
		return -errno;
	if ((f->flags & PROTO_FILE_F_SET_MTIME) != 0 && futimens(f->fd, times) < 0)
		return -errno;
	return 0;
}

static int
give_name(const struct file *f)
{
	unsigned flags = (f->flags & PROTO_FILE_F_EXCL) != 0 ? RENAME_NOREPLACE : 0;

	if (f->w.temp[0] == '\0')
		return 0;
	if (renameat2(f->w.parent, f->w.temp, f->w.parent, f->w.name, flags) < 0)
		return -errno;
	return 0;
}

int
file_write_commit(struct file *f, struct stat *st)
{
	int r = set_attributes(f);

	if (r == 0)
		r = give_name(f);
	if (r < 0)
		return r;
	f->w.pending = false;
	return fstat(f->fd, st) < 0 ? -errno : 0;
}

/* Unless somebody else has written to it meanwhile. */
static void
take_back(const struct file *f)
{
	struct stat st;

	if (fstat(f->fd, &st) == 0 && (uint64_t)st.st_size == f->w.start + f->w.at)
		(void)!ftruncate(f->fd, (off_t)f->w.start);
}

void
file_write_undo(struct file *f)
{
	if (!f->w.pending)
		return;
	f->w.pending = false;
	if (f->w.temp[0] != '\0')
		(void)unlinkat(f->w.parent, f->w.temp, 0);
	else if (f->w.made)
		(void)unlinkat(f->w.parent, f->w.name, 0);
	else if ((f->flags & PROTO_FILE_F_APPEND) != 0)
		take_back(f);
}
