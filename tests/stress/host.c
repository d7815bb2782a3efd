/* SPDX-License-Identifier: MIT
 *
 * host.c - the supervisor's process in a stress test. Owns the runtime directory,
 * the socket on which the supervisor says that it is ready, and the monitor.
 */
#include "tests/stress/stress.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define READY_MS 300000 /* an emulated guest on a busy machine */
#define END_MS 20000
#define ORPHANS_MS 5000

static void
be_vmpoold(const struct stress *s)
{
	const struct options *o = &s->opt;
	char min[16], max[16], total[16];
	const char *argv[] = {o->vmpoold, "--foreground", "--accel", o->accel,	    "--min-idle",
			      min,	  "--max-idle",	  max,	     "--max-total", total,
			      NULL};
	int log = open(o->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)snprintf(min, sizeof(min), "%u", o->min_idle);
	(void)snprintf(max, sizeof(max), "%u", o->max_idle);
	(void)snprintf(total, sizeof(total), "%u", o->max_total);
	if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
		_exit(99);
	(void)execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(99);
}

/* READY=1 has come (true), or the supervisor has ended, or nothing came. */
static bool
wait_ready(struct stress *s, int pidfd)
{
	struct pollfd p[] = {{.fd = s->notify, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
	char text[64] = "";

	while (strncmp(text, "READY=1", 7) != 0) {
		if (poll(p, 2, READY_MS) <= 0 || p[0].revents == 0)
			return false;
		memset(text, 0, sizeof(text));
		(void)!recv(s->notify, text, sizeof(text) - 1, 0);
	}
	return true;
}

static bool
watch(struct stress *s)
{
	struct vmpool_info info;

	vmpool_detach(s->monitor);
	s->monitor = NULL;
	if (vmpool_monitor(&s->monitor, NULL) != 0 || vmpool_info(s->monitor, &info) != 0) {
		fault(s, "a new pool cannot be watched: %s", vmpool_error(s->monitor));
		return false;
	}
	s->generation = info.generation;
	return host_usage(s->supervisor, &s->usage);
}

bool
host_start(struct stress *s)
{
	int pidfd;
	bool ok;

	s->supervisor = fork();
	if (s->supervisor == 0)
		be_vmpoold(s);
	pidfd = pidfd_open(s->supervisor, 0);
	ok = s->supervisor > 0 && pidfd >= 0 && wait_ready(s, pidfd);
	closep(&pidfd);
	if (!ok) {
		fault(s, "the pool does not become ready, see %s", s->opt.log);
		if (s->supervisor > 0 && kill(s->supervisor, SIGKILL) == 0)
			(void)host_end(s);
		s->supervisor = 0;
		return false;
	}
	s->supervisor_since_ns = now_ns();
	s->killed_now = 0;
	return watch(s);
}

/* --- ends ----------------------------------------------------------------------------- */

/* Everything that lost its supervisor is our child now. */
static bool
orphans_left(struct stress *s)
{
	pid_t pid[256];
	unsigned n = host_children(getpid(), pid, ARRAY_SIZE(pid));

	for (unsigned i = 0; i < n; i++) {
		bool client = false;

		for (unsigned k = 0; k < s->opt.clients; k++)
			client |= s->client[k] == pid[i];
		if (!client && pid[i] != s->supervisor)
			return true;
	}
	return false;
}

void
host_reap(struct stress *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (clients_ended(s, pid, status))
			continue;
		if (pid == s->supervisor) {
			s->supervisor = 0;
			fault(s, "the supervisor ended by itself (wait status 0x%x), see %s",
			      (unsigned)status, s->opt.log);
		}
	}
}

int
host_end(struct stress *s)
{
	int pidfd = pidfd_open(s->supervisor, 0), status = -1;
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	uint64_t deadline;

	if (poll(&p, 1, END_MS) != 1) {
		fault(s, "the supervisor does not end within %d s", END_MS / 1000);
		(void)kill(s->supervisor, SIGKILL);
	}
	closep(&pidfd);
	(void)waitpid(s->supervisor, &status, 0);
	s->supervisor = 0;
	deadline = now_ns() + ORPHANS_MS * 1000000ull;
	while (orphans_left(s) && now_ns() < deadline) {
		host_reap(s);
		(void)poll(NULL, 0, 1);
	}
	if (orphans_left(s))
		fault(s, "workers or a fork server outlive their supervisor by %d s",
		      ORPHANS_MS / 1000);
	return status;
}

/* --- what /proc says ---------------------------------------------------------------------- */

static bool
read_proc(pid_t pid, const char *name, char *buf, size_t len)
{
	char path[64];
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, buf, len - 1);
	closep(&fd);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0;
}

bool
host_usage(pid_t pid, struct usage *out)
{
	char path[64], status[4096], *anon;
	struct dirent *e;
	DIR *d;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	out->fds = 0;
	while (d != NULL && (e = readdir(d)) != NULL)
		out->fds += e->d_name[0] != '.';
	if (d != NULL)
		(void)closedir(d);
	if (!read_proc(pid, "status", status, sizeof(status)))
		return false;
	anon = strstr(status, "RssAnon:");
	out->anon_kib = anon != NULL ? strtoull(anon + 8, NULL, 10) : 0;
	return d != NULL;
}

unsigned
host_children(pid_t pid, pid_t *out, unsigned max)
{
	char name[48], text[8192], *at = text, *end;
	unsigned n = 0;

	(void)snprintf(name, sizeof(name), "task/%d/children", (int)pid);
	if (!read_proc(pid, name, text, sizeof(text)))
		return 0;
	for (; n < max; at = end) {
		long v = strtol(at, &end, 10);

		if (end == at)
			break;
		out[n++] = (pid_t)v;
	}
	return n;
}

bool
host_is(pid_t pid, pid_t parent, const char *name)
{
	char text[512], *paren;

	if (!read_proc(pid, "stat", text, sizeof(text)))
		return false;
	paren = strrchr(text, ')');
	/* "PID (NAME) STATE PPID ..." */
	return paren != NULL && strlen(paren) > 4 && paren[2] != 'Z' &&
	       strtol(paren + 3, NULL, 10) == parent && strstr(text, name) != NULL;
}
