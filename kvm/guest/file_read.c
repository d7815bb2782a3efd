/* SPDX-License-Identifier: MIT
 *
 * file_read.c - what goes to the host in pieces: the bytes of a file, the
 * entries of a directory, the text of a link. Runs in the agent; the
 * descriptors are the operation's (file.c).
 */
#include "kvm/guest/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define ENTRY_MAX (sizeof(struct proto_dirent) + PROTO_NAME_MAX)
#define ENTRIES_PER_STEP 64u /* also those that vanish before they are looked at */

/* Only regular files: a device does things when it is opened, a FIFO waits. So
 * it is looked at first, and opened by what was looked at. */
int
file_read_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	struct stat st;
	_cleanup_(util_closep) int path_fd = place_regular(p, q->path, &st);

	if (path_fd < 0)
		return path_fd;
	f->fd = place_reopen(path_fd, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (f->fd < 0)
		return f->fd;
	if (q->head.offset > 0 && lseek(f->fd, (off_t)q->head.offset, SEEK_SET) < 0)
		return -errno;
	f->left = q->head.length == 0 ? UINT64_MAX : q->head.length;
	return FILE_MORE;
}

int
file_read_step(struct file *f, struct chan *c)
{
	size_t want = MIN(MIN(f->credit, f->left), PROTO_PAYLOAD_MAX);
	ssize_t n;

	if (f->left == 0)
		return FILE_DONE;
	if (want == 0)
		return FILE_WAITS;
	n = chan_pass(c, PROTO_STDOUT, f->stream, f->fd, want, &f->passed);
	if (n <= 0)
		return n < 0 ? (int)n : FILE_DONE;
	f->credit -= (uint64_t)n;
	f->left -= (uint64_t)n;
	return FILE_MORE;
}

int
file_list_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	int fd = place_openat(p, q->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
	int r;

	if (fd < 0)
		return fd;
	f->dir = fdopendir(fd);
	if (f->dir != NULL)
		return FILE_MORE;
	r = -errno;
	(void)close(fd);
	return r;
}

/* One entry at p, which has ENTRY_MAX bytes. Its length, 0 if it is to be passed
 * over, or -errno. */
static ssize_t
put_entry(DIR *dir, const char *name, uint8_t *p)
{
	struct proto_dirent e = {.name_len = (uint32_t)strlen(name)};
	struct stat st;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || e.name_len > PROTO_NAME_MAX)
		return 0;
	if (fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return errno == ENOENT ? 0 : -errno;
	file_stat_out(&e.stat, &st);
	memcpy(p, &e, sizeof(e));
	memcpy(p + sizeof(e), name, e.name_len);
	return (ssize_t)(sizeof(e) + e.name_len);
}

int
file_list_step(struct file *f, struct chan *c)
{
	size_t len = 0, room = MIN(f->credit, PROTO_PAYLOAD_MAX);
	uint8_t *buf = chan_reserve(c, PROTO_PAYLOAD_MAX);
	int r = room < ENTRY_MAX ? FILE_WAITS : FILE_MORE;
	const struct dirent *e;
	ssize_t n;
	unsigned i;

	for (i = 0; r == FILE_MORE && i < ENTRIES_PER_STEP && room - len >= ENTRY_MAX; i++) {
		errno = 0;
		e = readdir(f->dir);
		n = e == NULL ? -errno : put_entry(f->dir, e->d_name, buf + len);
		if (n < 0)
			r = (int)n;
		else if (e == NULL)
			r = FILE_DONE;
		else
			len += (size_t)n;
	}
	if (len > 0)
		chan_commit(c, PROTO_STDOUT, f->stream, len);
	f->credit -= len;
	return r;
}

int
file_readlink_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	struct stat st;

	f->fd = place_openat(p, q->path, O_PATH | O_NOFOLLOW);
	if (f->fd < 0)
		return f->fd;
	if (fstat(f->fd, &st) < 0)
		return -errno;
	return S_ISLNK(st.st_mode) ? FILE_MORE : -EINVAL;
}

int
file_readlink_step(struct file *f, struct chan *c)
{
	uint8_t *buf = chan_reserve(c, PROTO_PATH_MAX);
	ssize_t n;

	if (f->credit < PROTO_PATH_MAX)
		return FILE_WAITS;
	n = readlinkat(f->fd, "", (char *)buf, PROTO_PATH_MAX);
	if (n < 0)
		return -errno;
	if (n > 0)
		chan_commit(c, PROTO_STDOUT, f->stream, (size_t)n);
	return FILE_DONE;
}
