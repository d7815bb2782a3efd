/* SPDX-License-Identifier: MIT
 *
 * box-init.c - PID 1 of the KVM host in a box (see kvm-box).
 *
 * Runs in the emulated machine, owns everything in it. Mounts what a Linux
 * userland needs, loads the modules listed in /box/modules, opens the
 * virtio-serial port to the host, checks that /dev/kvm is there, runs the
 * command in /box/argv and reports over the port, in order: lines, some with
 * bytes behind them.
 *
 *   ready                 /dev/kvm is there; the command starts now
 *   out N, err N          N bytes that the command wrote
 *   file I N              N bytes of the I-th file of /box/out
 *   nofile I TEXT         that file could not be read
 *   exit STATUS           the command's (128 + signal); the last line
 *   fail TEXT             the box itself failed; the last line
 *
 * Before the port exists a failure goes to the console, and the machine resets.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT "/dev/vport0p1"
#define PORT_WAIT_MS 10000
#define CHUNK 32768 /* as much as the port takes in one write */

static int port = -1;

static void
port_write(const void *buf, size_t len)
{
	const char *p = buf;

	while (len > 0) {
		ssize_t n = write(port, p, len);

		if (n < 0 && errno != EINTR)
			exit(1); /* PID 1: the kernel panics, which the host sees */
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
}

static void __attribute__((format(printf, 1, 2))) report(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (port >= 0)
		port_write(line, (size_t)n);
	else
		(void)!write(STDERR_FILENO, line, (size_t)n);
}

/* The host ends the machine when it has read the last line. */
static void __attribute__((noreturn)) finish(void)
{
	if (port < 0)
		(void)reboot(RB_AUTOBOOT);
	for (;;)
		(void)pause();
}

static void __attribute__((noreturn)) fail(const char *what)
{
	report("fail %s: %s", what, strerror(errno));
	finish();
}

/* The kernel's first root file system cannot be left with pivot_root, as a
 * jail wants to: put a mount of itself over it. */
static void
real_root(void)
{
	if (mount("/", "/box/root", NULL, MS_BIND, NULL) < 0 || chdir("/box/root") < 0 ||
	    mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		fail("root");
}

static void
mount_all(void)
{
	static const struct {
		const char *type, *dir, *data;
		mode_t mode;
	} table[] = {
	    {"proc", "/proc", NULL, 0755},
	    {"sysfs", "/sys", NULL, 0755},
	    {"devtmpfs", "/dev", NULL, 0755},
	    {"tmpfs", "/dev/shm", "mode=1777", 0755},
	    {"devpts", "/dev/pts", "ptmxmode=0666", 0755},
	    {"tmpfs", "/tmp", "mode=1777", 0755},
	    {"tmpfs", "/run", "mode=755", 0755},
	    {"cgroup2", "/sys/fs/cgroup", NULL, 0},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].mode != 0)
			(void)mkdir(table[i].dir, table[i].mode);
		/* The kernel may have mounted devtmpfs by itself. Files that the user put
		 * below /tmp or /run must stay visible. */
		if (table[i].type[0] == 't' && access(table[i].dir, F_OK) == 0 &&
		    rmdir(table[i].dir) < 0 && errno == ENOTEMPTY)
			continue;
		(void)mkdir(table[i].dir, 0755);
		if (mount("box", table[i].dir, table[i].type, 0, table[i].data) < 0 &&
		    errno != EBUSY)
			fail(table[i].dir);
	}
	(void)chmod("/tmp", 01777);
	(void)symlink("/proc/self/fd", "/dev/fd");
	(void)symlink("/proc/self/fd/0", "/dev/stdin");
	(void)symlink("/proc/self/fd/1", "/dev/stdout");
	(void)symlink("/proc/self/fd/2", "/dev/stderr");
}

static void
loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		fail("loopback");
	(void)close(fd);
}

/* Read a whole file; NUL-terminated. */
static char *
slurp(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *buf;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || (buf = malloc((size_t)st.st_size + 1)) == NULL)
		fail(path);
	*len = 0;
	while ((n = read(fd, buf + *len, (size_t)st.st_size - *len)) > 0)
		*len += (size_t)n;
	if (n < 0)
		fail(path);
	buf[*len] = '\0';
	(void)close(fd);
	return buf;
}

/* The NUL-terminated strings of a file as a NULL-terminated array. */
static char **
slurp_strings(const char *path, size_t *count)
{
	size_t len, n = 0;
	char *buf = slurp(path, &len);
	char **v;

	for (size_t i = 0; i < len; i++)
		n += buf[i] == '\0';
	v = calloc(n + 1, sizeof(*v));
	if (v == NULL)
		fail(path);
	*count = n;
	for (size_t i = 0; i < n; i++, buf += strlen(buf) + 1)
		v[i] = buf;
	return v;
}

static void
load_modules(void)
{
	size_t len;
	char *save, *list = slurp("/box/modules", &len);

	for (char *m = strtok_r(list, "\n", &save); m != NULL; m = strtok_r(NULL, "\n", &save)) {
		int fd = open(m, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			fail(m);
		(void)close(fd);
	}
	free(list);
}

/* The port's node appears after its driver, and cannot be opened until the
 * driver has finished with it; each step is announced by a uevent. */
static void
open_port(int uevents)
{
	struct pollfd p = {.fd = uevents, .events = POLLIN};
	char buf[4096];
	int fd;

	while ((fd = open(PORT, O_RDWR | O_CLOEXEC)) < 0) {
		if (poll(&p, 1, PORT_WAIT_MS) <= 0)
			fail("no virtio-serial port");
		(void)!read(uevents, buf, sizeof(buf));
	}
	port = fd;
}

static int
listen_uevents(void)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		fail("uevent socket");
	return fd;
}

static pid_t
spawn(char **argv, char **env, const char *cwd, int out, int err)
{
	pid_t pid = fork();
	sigset_t none;

	if (pid < 0)
		fail("fork");
	if (pid > 0)
		return pid;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setsid();
	if (dup2(open("/dev/null", O_RDONLY), 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		_exit(125);
	if (chdir(cwd) < 0) {
		dprintf(2, "box: %s: %s\n", cwd, strerror(errno));
		_exit(125);
	}
	for (; *env != NULL; env++)
		(void)putenv(*env);
	(void)execvp(argv[0], argv);
	dprintf(2, "box: %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Send on what fd has; false at its end. */
static bool
forward(int fd, const char *kind)
{
	static char buf[CHUNK];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n <= 0)
		return n < 0 && errno == EINTR;
	report("%s %zd", kind, n);
	port_write(buf, (size_t)n);
	return true;
}

/* Reap everything that ended; true once the command is among it. */
static bool
reap(pid_t command, int *status)
{
	int st;
	pid_t pid;
	bool ended = false;

	while ((pid = waitpid(-1, &st, WNOHANG)) > 0) {
		if (pid == command) {
			*status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
			ended = true;
		}
	}
	return ended;
}

/* Run the command to its end and its output to the last byte. What it leaves
 * running is killed, or it would hold the output open. */
static int
run(char **argv, char **env, const char *cwd)
{
	int out[2], err[2], status = -1;
	struct pollfd p[3] = {{.events = POLLIN}, {.events = POLLIN}, {.events = POLLIN}};
	sigset_t chld;
	pid_t pid;

	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &chld, NULL);
	p[2].fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p[2].fd < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		fail("pipes");
	pid = spawn(argv, env, cwd, out[1], err[1]);
	(void)close(out[1]);
	(void)close(err[1]);
	p[0].fd = out[0];
	p[1].fd = err[0];
	while (status < 0 || p[0].fd >= 0 || p[1].fd >= 0) {
		if (poll(p, 3, -1) < 0)
			continue;
		if (p[0].revents != 0 && !forward(p[0].fd, "out"))
			p[0].fd = -1;
		if (p[1].revents != 0 && !forward(p[1].fd, "err"))
			p[1].fd = -1;
		if (p[2].revents != 0) {
			struct signalfd_siginfo si;

			(void)!read(p[2].fd, &si, sizeof(si));
			if (reap(pid, &status))
				(void)kill(-1, SIGKILL);
		}
	}
	return status;
}

static void
send_file(size_t index, const char *path)
{
	char buf[CHUNK];
	struct stat st;
	off_t left;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		report("nofile %zu %s: %s", index, path, fd < 0 ? strerror(errno) : "not a file");
		return;
	}
	report("file %zu %jd", index, (intmax_t)st.st_size);
	for (left = st.st_size; left > 0;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n <= 0) /* nobody else runs any more: it cannot have shrunk */
			fail(path);
		port_write(buf, (size_t)n);
		left -= n;
	}
	(void)close(fd);
}

int
main(void)
{
	size_t argc, envc, outc, cwdc;
	char **argv, **env, **out, **cwd;
	int status, uevents;

	real_root();
	mount_all();
	uevents = listen_uevents();
	load_modules();
	open_port(uevents);
	(void)close(uevents);
	loopback_up();
	(void)sethostname("box", 3);
	if (access("/dev/kvm", R_OK | W_OK) < 0)
		fail("/dev/kvm");
	argv = slurp_strings("/box/argv", &argc);
	env = slurp_strings("/box/env", &envc);
	out = slurp_strings("/box/out", &outc);
	cwd = slurp_strings("/box/cwd", &cwdc);
	report("ready");
	status = run(argv, env, cwd[0]);
	for (size_t i = 0; i < outc; i++)
		send_file(i, out[i]);
	report("exit %d", status);
	finish();
}
