/* SPDX-License-Identifier: MIT
 *
 * place.c - looks paths up for file operations. Runs in the agent; owns
 * nothing: all descriptors are its callers'.
 */
#include "kvm/guest/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A confined look-up fails with EAGAIN when something was renamed meanwhile. */
#define TRIES 32u

static int
lookup(int at, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
			       .resolve = resolve};
	unsigned tries = 0;
	long fd;

	do
		fd = syscall(SYS_openat2, at, path, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN && ++tries < TRIES);
	return fd < 0 ? -errno : (int)fd;
}

int
place_open(struct place *p, const char *root)
{
	p->fd = AT_FDCWD;
	p->confined = root[0] != '\0';
	if (!p->confined)
		return 0;
	p->fd = lookup(AT_FDCWD, root, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
	return p->fd < 0 ? p->fd : 0;
}

void
place_close(struct place *p)
{
	util_closep(&p->fd);
}

/* As the kernel is to see it: beneath a root there are no absolute paths. */
static const char *
relative(const struct place *p, const char *path)
{
	if (!p->confined)
		return path;
	path += strspn(path, "/");
	return path[0] == '\0' ? "." : path;
}

int
place_openat(const struct place *p, const char *path, int flags)
{
	return lookup(p->fd, relative(p, path), flags,
		      p->confined ? RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS : 0);
}

/* Open the first len bytes of the path as a directory. */
static int
open_prefix(const struct place *p, const char *path, size_t len)
{
	char prefix[PROTO_PATH_MAX];

	(void)snprintf(prefix, sizeof(prefix), "%.*s", (int)len, path);
	return place_openat(p, len == 0 ? "." : prefix, O_PATH | O_DIRECTORY);
}

/* Make the directory which the first len bytes of the path name, in the one above
 * it, which is *at; then that is *at. */
static int
step_down(const struct place *p, const char *path, size_t start, size_t len, int *at)
{
	char name[PROTO_NAME_MAX + 1];
	int fd = open_prefix(p, path, len);

	if (fd == -ENOENT) {
		if (len - start >= sizeof(name))
			return -ENAMETOOLONG;
		(void)snprintf(name, sizeof(name), "%.*s", (int)(len - start), path + start);
		if (mkdirat(*at, name, 0755) < 0 && errno != EEXIST)
			return -errno;
		fd = open_prefix(p, path, len);
	}
	if (fd < 0)
		return fd;
	util_closep(at);
	*at = fd;
	return 0;
}

/* The directory that the first len bytes of the path name, made where missing. */
static int
make_prefix(const struct place *p, const char *path, size_t len)
{
	size_t start = strspn(path, "/"), end = start;
	int at = open_prefix(p, path, MIN(start, len));
	int r = at < 0 ? at : 0;

	while (r == 0 && start < len) {
		end = MIN(start + strcspn(path + start, "/"), len);
		r = step_down(p, path, start, end, &at);
		start = end + strspn(path + end, "/");
	}
	if (r < 0)
		util_closep(&at);
	return r < 0 ? r : at;
}

int
place_mkdirs(const struct place *p, const char *path)
{
	int fd = make_prefix(p, path, strlen(path));

	if (fd < 0)
		return fd;
	(void)close(fd);
	return 0;
}

int
place_parent(const struct place *p, const char *path, bool create, char name[PROTO_NAME_MAX + 1])
{
	size_t end = strlen(path), start;
	int fd;

	if (end == 0)
		return -ENOENT;
	while (end > 0 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/'; start--)
		continue;
	if (end - start > PROTO_NAME_MAX)
		return -ENAMETOOLONG;
	(void)snprintf(name, PROTO_NAME_MAX + 1, "%.*s", (int)(end - start), path + start);
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EISDIR;
	fd = open_prefix(p, path, start);
	if (fd == -ENOENT && create)
		fd = make_prefix(p, path, start);
	return fd;
}

/* The magic links of /proc are the way from an O_PATH descriptor to its file that
 * no rename can lead astray. */
static void
fd_path(char path[32], int fd)
{
	(void)snprintf(path, 32, "/proc/self/fd/%d", fd);
}

int
place_reopen(int path_fd, int flags)
{
	char path[32];

	fd_path(path, path_fd);
	return lookup(AT_FDCWD, path, flags, 0);
}

int
place_chmod(int path_fd, mode_t mode)
{
	char path[32];

	fd_path(path, path_fd);
	return chmod(path, mode) < 0 ? -errno : 0;
}

int
place_regular(const struct place *p, const char *path, struct stat *st)
{
	int fd = place_openat(p, path, O_PATH), r;

	if (fd < 0)
		return fd;
	if (fstat(fd, st) < 0)
		r = -errno;
	else if (S_ISREG(st->st_mode))
		return fd;
	else
		r = S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL;
	(void)close(fd);
	return r;
}
