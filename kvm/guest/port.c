/* SPDX-License-Identifier: MIT
 *
 * port.c - waits for the guest channel's port and opens it. Runs in the agent
 * as PID 1. The kernel announces a port before it knows its name, and may
 * refuse to open it for a moment (ENXIO), so every event leads to a new look at
 * /sys/class/virtio-ports.
 */
#include "kvm/guest/port.h"
#include "kvm/proto.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS "/sys/class/virtio-ports"
/* Looked at again this often without an event: for kernels that send none, and
 * for a port that is announced but not yet open to us, which has no event. */
#define LOOK_MS 5

int
port_listen(void)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd =
	    socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	int r;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	r = -errno;
	(void)close(fd);
	return r;
}

static bool
is_ours(const char *port)
{
	_cleanup_(util_freep) char *name = NULL;
	char path[128];

	(void)snprintf(path, sizeof(path), PORTS "/%.64s/name", port);
	if (util_read_file(path, 256, &name) != 0)
		return false; /* not named yet */
	name[strcspn(name, "\n")] = '\0';
	return strcmp(name, PROTO_PORT_NAME) == 0;
}

static int
try_open(void)
{
	DIR *ports = opendir(PORTS);
	struct dirent *d;
	char path[128];
	int fd = -ENOENT;

	if (ports == NULL)
		return -errno;
	while (fd < 0 && (d = readdir(ports)) != NULL) {
		if (d->d_name[0] == '.' || !is_ours(d->d_name))
			continue;
		(void)snprintf(path, sizeof(path), "/dev/%.64s", d->d_name);
		/* Non-blocking: this driver busy-waits in blocking writes. */
		fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	(void)closedir(ports);
	return fd;
}

/* Sleep until something happens to some device, or for LOOK_MS. */
static void
wait_event(int events_fd)
{
	struct pollfd p = {.fd = events_fd, .events = POLLIN};
	char event[4096];

	if (poll(&p, 1, LOOK_MS) <= 0)
		return;
	/* What it says does not matter: everything is looked at again. */
	while (recv(events_fd, event, sizeof(event), 0) > 0)
		continue;
}

int
port_wait(int events_fd, uint64_t deadline_ns)
{
	int fd;

	while ((fd = try_open()) < 0) {
		if (fd != -ENOENT && fd != -ENXIO && fd != -EBUSY)
			return fd;
		if (util_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		wait_event(events_fd);
	}
	return fd;
}
