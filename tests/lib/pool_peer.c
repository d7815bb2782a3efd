/* SPDX-License-Identifier: MIT
 *
 * pool_peer.c - runs a supervisor for tests, in a directory of its own. Owns
 * that directory and the socket on which the supervisor says that it is ready.
 */
#include "tests/lib/pool_peer.h"

#include "shm/base.h"
#include "shm/vmpool.h"
#include "supervisor/service.h"
#include "tests/lib/null_worker.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#define DEADLINE_MS 20000
#define ARGS_MAX 24

static char dir[64];
static char self[PATH_MAX];
static int notify = -1;
static unsigned running; /* supervisors that no test has waited for yet */

void
pool_peer_role(int argc, char **argv)
{
	if (strcmp(argv[0], "vmpoold") == 0)
		exit(service_main(argc, argv));
	if (null_worker_wanted(argc, argv))
		exit(null_worker_main(argc, argv));
}

const char *
pool_peer_path(const char *name)
{
	static char path[4][PATH_MAX];
	static unsigned turn;

	turn = (turn + 1) % 4;
	(void)snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

void
pool_peer_write(const char *name, const char *text)
{
	FILE *f = fopen(pool_peer_path(name), "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

int
pool_peer_setup(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)state;
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return -1;
	(void)snprintf(dir, sizeof(dir), "/tmp/vmpool-test-XXXXXX");
	if (mkdtemp(dir) == NULL || mkdir(pool_peer_path("run"), 0700) < 0)
		return -1;
	pool_peer_write("vmlinux", "");
	pool_peer_write("bzImage", "");
	pool_peer_write("initramfs", "");
	pool_peer_write("log", "");
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", dir);
	notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify < 0 || bind(notify, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -1;
	/* Whoever loses its supervisor must not be lost to us. */
	return prctl(PR_SET_CHILD_SUBREAPER, 1) +
	       setenv("VMPOOL_RUNDIR", pool_peer_path("run"), 1) + setenv("VMPOOL_GUEST", dir, 1) +
	       setenv("VMPOOL_WORKER", self, 1) + setenv("NOTIFY_SOCKET", addr.sun_path, 1) +
	       unsetenv("VMPOOL_NULL");
}

/* Names in the runtime directory, for the message; how many. */
static unsigned
pool_peer_left(char *names, size_t len)
{
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir(pool_peer_path("run"));

	names[0] = '\0';
	while (d != NULL && (e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		(void)snprintf(names + strlen(names), len - strlen(names), "%.80s ", e->d_name);
	}
	if (d != NULL)
		(void)closedir(d);
	return n;
}

/* Every child of ours, which includes the orphans of all that we have started. */
static void
pool_peer_kill_all(void)
{
	char path[64];
	pid_t pid;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	while (f != NULL && fscanf(f, "%d", &pid) == 1)
		(void)kill(pid, SIGKILL);
	if (f != NULL)
		(void)fclose(f);
}

/* Wait until no child is left; false if some had to be killed. */
static bool
pool_peer_reap_all(void)
{
	uint64_t end = now_ns() + (running > 0 ? 0 : DEADLINE_MS * 1000000ull);
	bool clean = true;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		if (pid == 0 && now_ns() > end) {
			pool_peer_kill_all();
			clean = false;
		}
		if (pid == 0)
			(void)poll(NULL, 0, 2);
	}
	running = 0;
	return clean;
}

int
pool_peer_teardown(void **state)
{
	static const char *const files[] = {"vmlinux", "bzImage", "initramfs", "log",
					    "mode",    "notify",  "conf",      "run"};
	char names[1024];
	int r = 0;

	(void)state;
	if (!pool_peer_reap_all()) {
		print_error("processes were left behind:\n%s", pool_peer_log());
		r = -1;
	} else if (pool_peer_left(names, sizeof(names)) > 0) {
		print_error("files were left behind: %s\n%s", names, pool_peer_log());
		r = -1;
	}
	(void)unlink(pool_peer_path("run/default.sock"));
	(void)unlink(pool_peer_path("run/default.pid"));
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
		(void)remove(pool_peer_path(files[i]));
	closep(&notify);
	return rmdir(dir) + r;
}

/* --- the supervisor's process ------------------------------------------------------ */

pid_t
pool_peer_run(const char *null, ...)
{
	const char *argv[ARGS_MAX] = {"vmpoold"};
	unsigned n = 1;
	va_list ap;
	pid_t pid;
	int fd;

	va_start(ap, null);
	while (n < ARGS_MAX - 1 && (argv[n] = va_arg(ap, const char *)) != NULL)
		n++;
	va_end(ap);
	pid = fork();
	assert_true(pid >= 0);
	if (pid > 0) {
		running++;
		return pid;
	}
	fd = open(pool_peer_path("log"), O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
		_exit(99);
	if (null != NULL)
		(void)setenv("VMPOOL_NULL", null, 1);
	(void)execv(self, (char *const *)(uintptr_t)argv);
	_exit(99);
}

void
pool_peer_ready(pid_t pid)
{
	int pidfd = pidfd_open(pid, 0);
	struct pollfd p[] = {{.fd = notify, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
	char text[64] = "";

	assert_true(pidfd >= 0);
	while (strcmp(text, "READY=1") != 0) {
		if (poll(p, 2, DEADLINE_MS) <= 0 || p[0].revents == 0)
			fail_msg("the pool does not become ready:\n%s", pool_peer_log());
		memset(text, 0, sizeof(text));
		assert_true(recv(notify, text, sizeof(text) - 1, 0) > 0);
	}
	assert_int_equal(close(pidfd), 0);
}

pid_t
pool_peer_start(const char *min_idle)
{
	pid_t pid = pool_peer_run(NULL, "--min-idle", min_idle, NULL);

	pool_peer_ready(pid);
	return pid;
}

int
pool_peer_status(pid_t pid)
{
	struct pollfd p = {.fd = pidfd_open(pid, 0), .events = POLLIN};
	int status;

	assert_true(p.fd >= 0);
	if (poll(&p, 1, DEADLINE_MS) != 1) {
		(void)kill(pid, SIGKILL);
		fail_msg("the supervisor does not end:\n%s", pool_peer_log());
	}
	assert_int_equal(close(p.fd), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	running -= running > 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

int
pool_peer_stop(pid_t pid)
{
	assert_int_equal(kill(pid, SIGTERM), 0);
	return pool_peer_status(pid);
}

const char *
pool_peer_log(void)
{
	static char text[65536];
	int fd = open(pool_peer_path("log"), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	text[n > 0 ? n : 0] = '\0';
	closep(&fd);
	return text;
}

bool
pool_peer_log_says(const char *words)
{
	return strstr(pool_peer_log(), words) != NULL;
}

/* --- looking ---------------------------------------------------------------------------- */

void
pool_peer_wait(unsigned n, const char *what)
{
	if (n * 5 > DEADLINE_MS)
		fail_msg("not in %d s: %s\n%s", DEADLINE_MS / 1000, what, pool_peer_log());
	(void)poll(NULL, 0, 5);
}

long
pool_peer_stat(const char *name)
{
	struct vmpool_stat *rows;
	struct vmpool *pool;
	long value = -1;
	size_t n;

	if (vmpool_monitor(&pool, NULL) < 0)
		return -1;
	if (vmpool_stats(pool, &rows, &n) == 0) {
		for (size_t i = 0; i < n; i++)
			if (strcmp(rows[i].name, name) == 0)
				value = (long)rows[i].value;
		vmpool_stats_free(rows);
	}
	vmpool_detach(pool);
	return value;
}

unsigned
pool_peer_workers(pid_t *pids, unsigned max)
{
	struct vmpool_slot_info *rows;
	struct vmpool *pool;
	unsigned found = 0;
	size_t n;

	if (vmpool_monitor(&pool, NULL) < 0)
		return 0;
	if (vmpool_list(pool, &rows, &n) == 0) {
		for (size_t i = 0; i < n && found < max; i++)
			if (rows[i].worker_pid > 0)
				pids[found++] = rows[i].worker_pid;
		vmpool_list_free(rows);
	}
	vmpool_detach(pool);
	return found;
}

bool
pool_peer_alive(pid_t pid)
{
	char path[64], line[256] = "", *p;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return false;
	(void)!fgets(line, sizeof(line), f);
	(void)fclose(f);
	p = strrchr(line, ')');
	return p != NULL && p[1] == ' ' && p[2] != 'Z' && p[2] != 'X';
}
