/* SPDX-License-Identifier: MIT
 *
 * cli_file_host.c - the host's end of a file that comes from a VM. Its bytes go
 * to a file without a name (O_TMPFILE), which gets one when it is whole; where
 * the file system has no such files, to one with a name of its own.
 */
#include "shm/cli/cli_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOLE 4096u

static int
fail(struct host_file *h)
{
	h->error = errno;
	return -errno;
}

static int
say_fail(struct host_file *h)
{
	int r = fail(h);

	cli_say("%s: %s", h->path, strerror(-r));
	host_file_close(h);
	return r;
}

/* The directory that it will be in, open, and its name there. */
static int
open_dir(struct host_file *h, const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[4096];

	(void)snprintf(dir, sizeof(dir), "%.*s", slash == NULL ? 0 : (int)(slash - path + 1), path);
	if (cli_file_name(path, h->name, sizeof(h->name)) == NULL ||
	    (slash != NULL && slash[1] == '\0'))
		errno = EISDIR;
	else
		h->dir_fd = open(dir[0] == '\0' ? "." : dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return h->dir_fd < 0 ? say_fail(h) : 0;
}

static void
make_temp_name(struct host_file *h)
{
	uint64_t x = cli_now();

	/* A name that is there already is an error, not a danger (O_EXCL, linkat). */
	(void)!getrandom(&x, sizeof(x), GRND_NONBLOCK);
	(void)snprintf(h->temp, sizeof(h->temp), ".vmpool-%016llx", (unsigned long long)x);
}

static int
open_nameless(struct host_file *h)
{
	h->fd = openat(h->dir_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (h->fd >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)
		return say_fail(h);
	make_temp_name(h);
	h->fd = openat(h->dir_fd, h->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (h->fd >= 0)
		return 0;
	h->temp[0] = '\0';
	return say_fail(h);
}

int
host_file_open(struct host_file *h, const char *path, bool sparse)
{
	struct stat st;
	int r;

	*h = (struct host_file){.fd = -1, .dir_fd = -1, .path = path, .sparse = sparse};
	if (strcmp(path, "-") == 0) {
		h->path = "stdout";
		h->fd = dup(STDOUT_FILENO);
		h->direct = true;
	} else if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
		h->fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
		h->direct = true;
	}
	if (h->direct) {
		h->sparse = false;
		return h->fd < 0 ? say_fail(h) : 0;
	}
	r = open_dir(h, path);
	return r == 0 ? open_nameless(h) : r;
}

static bool
all_zero(const char *p, size_t len)
{
	return p[0] == '\0' && memcmp(p, p + 1, len - 1) == 0;
}

static int
write_all(struct host_file *h, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(h->fd, p, len);

		if (n < 0 && errno != EINTR)
			return fail(h);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int
host_file_write(struct host_file *h, const void *buf, size_t len)
{
	const char *p = buf;
	int r = 0;

	while (r == 0 && len > 0) {
		size_t n = len, edge = HOLE - h->size % HOLE;

		if (h->sparse && n > edge)
			n = edge;
		if (!h->sparse || n < HOLE || !all_zero(p, n))
			r = write_all(h, p, n);
		else if (lseek(h->fd, (off_t)n, SEEK_CUR) < 0)
			r = fail(h);
		h->size += n;
		p += n;
		len -= n;
	}
	return r;
}

/* The guest's word on permissions counts as far as the umask lets it, and never for
 * more than that: no set-user-ID from in there. */
static int
set_attributes(struct host_file *h, const struct vmpool_file_stat *st)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st->mtime};
	mode_t mask = umask(0);

	(void)umask(mask);
	if (fchmod(h->fd, st->mode & 0777 & ~mask) < 0 || futimens(h->fd, times) < 0)
		return fail(h);
	return 0;
}

static int
give_name(struct host_file *h)
{
	char self[32];

	if (h->temp[0] == '\0') {
		make_temp_name(h);
		(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", h->fd);
		if (linkat(AT_FDCWD, self, h->dir_fd, h->temp, AT_SYMLINK_FOLLOW) < 0) {
			h->temp[0] = '\0';
			return fail(h);
		}
	}
	if (renameat(h->dir_fd, h->temp, h->dir_fd, h->name) < 0)
		return fail(h);
	h->temp[0] = '\0';
	return 0;
}

int
host_file_commit(struct host_file *h, const struct vmpool_file_stat *st)
{
	int r = 0;

	if (h->direct)
		return 0;
	if (h->sparse && ftruncate(h->fd, (off_t)h->size) < 0)
		r = fail(h);
	if (r == 0 && st != NULL)
		r = set_attributes(h, st);
	return r == 0 ? give_name(h) : r;
}

void
host_file_close(struct host_file *h)
{
	if (h->temp[0] != '\0')
		(void)unlinkat(h->dir_fd, h->temp, 0);
	if (h->fd >= 0)
		(void)close(h->fd);
	if (h->dir_fd >= 0)
		(void)close(h->dir_fd);
	h->fd = h->dir_fd = -1;
	h->temp[0] = '\0';
}
