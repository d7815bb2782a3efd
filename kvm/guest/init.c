/* SPDX-License-Identifier: MIT
 *
 * init.c - sets the guest up around the agent. Runs once, in PID 1. A missing
 * /etc/vmpool/modules is a kernel with everything built in.
 */
#include "kvm/guest/init.h"
#include "kvm/guest/port.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PORT_TIMEOUT_NS (60 * 1000000000ull)
#define HOST_NAME "vmpool"
#define CGROUPS "/sys/fs/cgroup"

struct mount_row {
	const char *type, *target;
	unsigned long flags;
	const char *options;
};

#define SAFE (MS_NOSUID | MS_NODEV)

static const struct mount_row early[] = {
    {"devtmpfs", "/dev", MS_NOSUID, "mode=755"},
    {"sysfs", "/sys", SAFE | MS_NOEXEC, NULL},
};

static const struct mount_row later[] = {
    {"proc", "/proc", SAFE | MS_NOEXEC, NULL},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
    {"tmpfs", "/dev/shm", SAFE, "mode=1777"},
    {"tmpfs", "/run", SAFE, "mode=755"},
    {"tmpfs", "/tmp", SAFE, "mode=1777"},
};

static const struct mount_row cgroups = {"cgroup2", CGROUPS, SAFE | MS_NOEXEC, NULL};

/* Already mounted is as good as mounted. */
static bool
mount_one(const struct mount_row *m)
{
	(void)mkdir(m->target, 0755);
	if (mount(m->type, m->target, m->type, m->flags, m->options) == 0 || errno == EBUSY)
		return true;
	util_log("mount %s: %s", m->target, strerror(errno));
	return false;
}

static void
load_module(const char *path)
{
	_cleanup_(util_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		util_log("module %s: %s", path, strerror(errno));
}

/* One path per line, in the order in which they are to be loaded. */
static void
load_modules(const char *list)
{
	_cleanup_(util_freep) char *text = NULL;
	char *rest, *line;
	int r = util_read_file(list, 64u << 10, &text);

	if (r != 0 && r != -ENOENT)
		util_log("%s: %s", list, strerror(-r));
	rest = text;
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (line[0] == '/')
			load_module(line);
	}
}

/* The kernel opens the console for PID 1 only if the image has /dev/console. */
static void
open_console(void)
{
	int fd;

	if (fcntl(STDERR_FILENO, F_GETFD) >= 0)
		return;
	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd < 0)
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd < STDERR_FILENO)
		fd = dup(fd);
}

int
init_channel(void)
{
	_cleanup_(util_closep) int events = -1;
	size_t i;
	int fd;

	(void)umask(0022);
	for (i = 0; i < ARRAY_SIZE(early); i++)
		(void)mount_one(&early[i]);
	open_console();
	events = port_listen();
	load_modules("/etc/vmpool/modules");
	fd = port_wait(events, util_now_ns() + PORT_TIMEOUT_NS);
	if (fd < 0)
		util_fatal("no virtio-console port named vmpool.0: %s", strerror(-fd));
	return fd;
}

static void
link_fds(void)
{
	static const char *const links[][2] = {
	    {"/proc/self/fd", "/dev/fd"},
	    {"fd/0", "/dev/stdin"},
	    {"fd/1", "/dev/stdout"},
	    {"fd/2", "/dev/stderr"},
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(links); i++)
		(void)!symlink(links[i][0], links[i][1]);
}

/* The kernel gives it 127.0.0.1 by itself. */
static void
loopback_up(void)
{
	_cleanup_(util_closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_flags = IFF_UP | IFF_RUNNING};

	if (fd < 0)
		return; /* a kernel without IPv4 has nothing to bring up */
	memcpy(ifr.ifr_name, "lo", sizeof("lo"));
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		util_log("loopback: %s", strerror(errno));
}

/* What the kernel does by the clock, whether there is anything to do or not, is what an
 * idle VM costs its host. A kernel that lacks one of these does not do it. */
static void
stop_chores(void)
{
	static const char *const settings[][2] = {
	    /* each half second: is memory fragmented? */
	    {"/proc/sys/vm/compaction_proactiveness", "0"},
	    /* each 5 s: does a neighbour need to be asked again? There is none. */
	    {"/proc/sys/net/ipv4/neigh/default/interval_probe_time_ms", "86400000"},
	    {"/proc/sys/net/ipv6/neigh/default/interval_probe_time_ms", "86400000"},
	};
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		r = util_write_file(AT_FDCWD, settings[i][0], settings[i][1]);
		if (r != 0 && r != -ENOENT)
			util_log("%s: %s", settings[i][0], strerror(-r));
	}
}

void
init_userland(void)
{
	size_t i;

	(void)chmod("/", 0755); /* an initramfs on tmpfs is born with 1777 */
	for (i = 0; i < ARRAY_SIZE(later); i++)
		(void)mount_one(&later[i]);
	link_fds();
	if (sethostname(HOST_NAME, strlen(HOST_NAME)) < 0)
		util_log("host name: %s", strerror(errno));
	loopback_up();
	stop_chores();
}

const char *
init_cgroups(void)
{
	return mount_one(&cgroups) ? CGROUPS : NULL;
}
