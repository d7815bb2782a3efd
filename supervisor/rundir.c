/* SPDX-License-Identifier: MIT
 *
 * rundir.c - the pool's name on this host. Runs in vmpoold at its start and end;
 * owns NAME.sock and NAME.pid.
 *
 * Whoever holds the flock on the file that is NAME.pid *now* owns the name. The
 * last holder removes the file before it lets go, so a lock is good only if the
 * locked file is still the one of that name.
 */
#include "supervisor/rundir.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "shm/ctl.h"

#define LOCK_WAIT_NS 2000000000ull

static void
rundir_tick(int sig)
{
	(void)sig;
}

/* flock that gives up at the deadline. There is no timed flock: a repeating
 * timer interrupts it, so that no tick can be missed. */
static int
rundir_flock(int fd, uint64_t deadline)
{
	struct sigaction act = {.sa_handler = rundir_tick}, old;
	struct itimerval tick = {{0, 100000}, {0, 100000}}, off = {{0, 0}, {0, 0}};
	int r = 0;

	(void)sigaction(SIGALRM, &act, &old);
	(void)setitimer(ITIMER_REAL, &tick, NULL);
	while (flock(fd, LOCK_EX) < 0) {
		r = -errno;
		if (r != -EINTR || now_ns() >= deadline)
			break;
		r = 0;
	}
	(void)setitimer(ITIMER_REAL, &off, NULL);
	(void)sigaction(SIGALRM, &old, NULL);
	return r;
}

static bool
rundir_is_ours(const struct rundir *dir)
{
	struct stat a, b;

	return fstat(dir->lock_fd, &a) == 0 && stat(dir->pid, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static int
rundir_owner(const struct rundir *dir)
{
	char text[16] = "";
	ssize_t n = pread(dir->lock_fd, text, sizeof(text) - 1, 0);

	return n > 0 ? atoi(text) : 0;
}

static int
rundir_lock(struct rundir *dir, const char *name, char *err, size_t errlen)
{
	uint64_t deadline = now_ns() + LOCK_WAIT_NS;
	int r;

	for (;;) {
		closep(&dir->lock_fd);
		dir->lock_fd = open(dir->pid, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (dir->lock_fd < 0)
			return fail(errno, err, errlen, "%s: %m", dir->pid);
		r = rundir_flock(dir->lock_fd, deadline);
		if (r == -EINTR)
			return fail(EEXIST, err, errlen, "pool '%s' is already running (pid %d)",
				    name, rundir_owner(dir));
		if (r < 0)
			return fail(-r, err, errlen, "%s: flock: %s", dir->pid, strerror(-r));
		if (rundir_is_ours(dir))
			return 0;
	}
}

static int
rundir_write_pid(const struct rundir *dir, char *err, size_t errlen)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (ftruncate(dir->lock_fd, 0) < 0 || pwrite(dir->lock_fd, text, (size_t)n, 0) != n)
		return fail(errno, err, errlen, "%s: %m", dir->pid);
	return 0;
}

int
rundir_open(struct rundir *dir, const char *name, char *err, size_t errlen)
{
	char path[PATH_MAX];
	int r;

	*dir = (struct rundir){.lock_fd = -1, .listen_fd = -1};
	r = ctl_rundir(path, sizeof(path), err, errlen);
	if (r == 0)
		r = ctl_path(dir->sock, sizeof(dir->sock), name, ".sock", err, errlen);
	if (r == 0)
		r = ctl_path(dir->pid, sizeof(dir->pid), name, ".pid", err, errlen);
	if (r < 0)
		return r;
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return fail(errno, err, errlen, "runtime directory %s: %m (set VMPOOL_RUNDIR?)",
			    path);
	r = rundir_lock(dir, name, err, errlen);
	if (r < 0) {
		closep(&dir->lock_fd);
		return r;
	}
	r = rundir_write_pid(dir, err, errlen);
	if (r < 0)
		rundir_close(dir);
	return r;
}

int
rundir_listen(struct rundir *dir, char *err, size_t errlen)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_(closep) int fd = -1;
	mode_t mask;
	int r;

	if (strlen(dir->sock) >= sizeof(addr.sun_path))
		return fail(ENAMETOOLONG, err, errlen, "socket path too long: %s", dir->sock);
	memcpy(addr.sun_path, dir->sock, strlen(dir->sock) + 1);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(errno, err, errlen, "socket: %m");
	(void)unlink(dir->sock);
	mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	(void)umask(mask);
	if (r < 0 || listen(fd, 256) < 0)
		return fail(errno, err, errlen, "%s: %m", dir->sock);
	dir->listen_fd = steal_fd(&fd);
	return 0;
}

void
rundir_close(struct rundir *dir)
{
	if (dir->lock_fd >= 0 && rundir_is_ours(dir)) {
		(void)unlink(dir->sock);
		(void)unlink(dir->pid);
	}
	closep(&dir->listen_fd);
	closep(&dir->lock_fd);
}
