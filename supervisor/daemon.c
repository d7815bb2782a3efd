/* SPDX-License-Identifier: MIT
 *
 * daemon.c - vmpoold in the background: fork, readiness, notification.
 */
#include "supervisor/daemon.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static _Noreturn void
daemon_wait(int fd, pid_t child)
{
	ssize_t n;
	int status;
	char byte;

	while ((n = read(fd, &byte, 1)) < 0 && errno == EINTR)
		continue;
	if (n == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	if (WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	fprintf(stderr, "vmpoold: the daemon was killed by signal %d while it started\n",
		WTERMSIG(status));
	_exit(1);
}

/* Put /dev/null in the place of descriptors first..last. */
static int
daemon_null(int first, int last)
{
	_cleanup_(closep) int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (int i = first; i <= last; i++)
		if (dup2(fd, i) < 0)
			return -errno;
	return 0;
}

int
daemon_fork(int *ready_fd)
{
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		r = -errno;
		(void)close(fds[0]);
		(void)close(fds[1]);
		return r;
	}
	if (pid > 0) {
		(void)close(fds[1]);
		daemon_wait(fds[0], pid);
	}
	(void)close(fds[0]);
	*ready_fd = fds[1];
	(void)setsid();
	return daemon_null(STDIN_FILENO, STDOUT_FILENO);
}

int
daemon_ready(int *ready_fd)
{
	_cleanup_(closep) int fd = steal_fd(ready_fd);

	if (fd < 0)
		return 0;
	if (write(fd, "", 1) != 1)
		return -errno;
	return daemon_null(STDERR_FILENO, STDERR_FILENO);
}

void
daemon_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_(closep) int fd = -1;
	size_t len;

	if (path == NULL || (*path != '/' && *path != '@'))
		return;
	len = strlen(path);
	if (len >= sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, path, len);
	if (*path == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}
