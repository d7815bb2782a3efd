/* SPDX-License-Identifier: MIT
 *
 * ctl.c - packets with descriptors over SEQPACKET sockets, and where they live.
 *
 * Runs in every process of the product. Owns nothing: sockets and descriptors
 * are the caller's.
 */
#include "shm/ctl.h"
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int
ctl_send(int sock, const void *msg, size_t len, const int *fds, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(CTL_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = len};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (nfds > CTL_FDS)
		return -EINVAL;
	if (nfds > 0) {
		struct cmsghdr *c;

		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	do {
		n = sendmsg(sock, &mh, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET || errno == ENOTCONN ? -EPIPE : -errno;
	return (size_t)n == len ? 0 : -EPROTO;
}

/* Move the descriptors that came along into fds, as many as fit; close the rest. */
static unsigned
take_fds(struct msghdr *mh, int *fds, unsigned nfds)
{
	unsigned got = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c != NULL; c = CMSG_NXTHDR(mh, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (got < nfds)
				fds[got] = fd;
			else
				closep(&fd);
			got++;
		}
	}
	return got;
}

int
ctl_recv(int sock, void *msg, size_t len, int *fds, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(CTL_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = msg, .iov_len = len};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf)};
	unsigned got;
	ssize_t n;

	for (unsigned i = 0; i < nfds; i++)
		fds[i] = -1;
	do {
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	got = take_fds(&mh, fds, nfds);
	if (n == 0 && got == 0)
		return -EPIPE;
	if ((size_t)n == len && got <= nfds && (mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
		return 0;
	for (unsigned i = 0; i < nfds; i++)
		closep(&fds[i]);
	return -EPROTO;
}

int
ctl_pair(int *ours, int *theirs)
{
	int pair[2], r;

	*ours = *theirs = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) {
		r = -errno;
		closep(&pair[0]);
		closep(&pair[1]);
		return r;
	}
	*ours = pair[0];
	*theirs = pair[1];
	return 0;
}

int
ctl_rundir(char *buf, size_t len, char *err, size_t errlen)
{
	const char *dir = getenv("VMPOOL_RUNDIR"), *base = getenv("XDG_RUNTIME_DIR");
	int n;

	if (dir != NULL && dir[0] != '\0')
		n = snprintf(buf, len, "%s", dir);
	else if (base != NULL && base[0] != '\0')
		n = snprintf(buf, len, "%s/vmpool", base);
	else
		n = snprintf(buf, len, "/run/vmpool");
	if (n < 0 || (size_t)n >= len)
		return fail(ENAMETOOLONG, err, errlen, "the runtime directory's name is too long");
	return 0;
}

static bool
name_valid(const char *name)
{
	size_t n = strlen(name);

	return n >= 1 && n <= 63 && name[0] != '.' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
		   n;
}

int
ctl_path(char *buf, size_t len, const char *name, const char *suffix, char *err, size_t errlen)
{
	const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path);
	char dir[4096];
	int n, r;

	if (!name_valid(name))
		return fail(EINVAL, err, errlen,
			    "bad pool name '%.80s': 1 to 63 of letters, digits, '-', '_', '.', "
			    "not starting with '.'",
			    name);
	r = ctl_rundir(dir, sizeof(dir), err, errlen);
	if (r < 0)
		return r;
	n = snprintf(buf, len, "%s/%s%s", dir, name, suffix);
	if (n < 0 || (size_t)n >= len || (size_t)n >= max)
		return fail(ENAMETOOLONG, err, errlen,
			    "%.80s.../%s%s: longer than a socket's path may be (%zu bytes)", dir,
			    name, suffix, max - 1);
	return 0;
}
