/* SPDX-License-Identifier: MIT
 *
 * parts.c - finds worker program, accelerator, kernel and image. Runs in
 * vmpoold before anything else is made, so that it leaves nothing behind.
 */
#include "supervisor/parts.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "shm/install.h"
#include "supervisor/launch.h"

#define PROBE_TIMEOUT_MS 10000

static int
parts_worker(struct parts *in, char *err, size_t errlen)
{
	char path[PATH_MAX];

	install_worker(path, sizeof(path));
	if (access(path, X_OK) < 0 || realpath(path, in->worker) == NULL)
		return fail(errno, err, errlen,
			    "worker program %s: %m (run 'make', or set VMPOOL_WORKER)", path);
	return 0;
}

/* --- which accelerator ----------------------------------------------------------- */

struct answer {
	int fd;
	char text[512];
	size_t len;
};

static bool
answer_read(struct answer *a)
{
	ssize_t n = read(a->fd, a->text + a->len, sizeof(a->text) - 1 - a->len);

	if (n <= 0)
		return false;
	a->len += (size_t)n;
	a->text[a->len] = '\0';
	return a->len < sizeof(a->text) - 1;
}

/* Collect both outputs until both ends are closed. 0 or -ETIMEDOUT. */
static int
parts_collect(struct answer a[2])
{
	uint64_t end = now_ns() + PROBE_TIMEOUT_MS * 1000000ull, now;
	struct pollfd p[2] = {{.fd = a[0].fd, .events = POLLIN}, {.fd = a[1].fd, .events = POLLIN}};

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		now = now_ns();
		if (now >= end)
			return -ETIMEDOUT;
		if (poll(p, 2, (int)((end - now) / 1000000 + 1)) < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < 2; i++)
			if (p[i].fd >= 0 && p[i].revents != 0 && !answer_read(&a[i]))
				p[i].fd = -1;
	}
	return 0;
}

/* Run the worker program, which inherits keep (-1: nothing). */
static int
parts_run(struct answer a[2], const char *const *argv, int keep, int *status)
{
	_cleanup_(closep) int out = -1, errfd = -1;
	struct launch what = {.argv = argv, .keep = {keep}, .nkeep = keep >= 0};
	int pipes[2], r;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -errno;
	a[0].fd = pipes[0];
	what.out = out = pipes[1];
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -errno;
	a[1].fd = pipes[0];
	what.err = errfd = pipes[1];
	r = launch(&what, &pid);
	if (r < 0)
		return r;
	closep(&out);
	closep(&errfd);
	r = parts_collect(a);
	if (r < 0)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		continue;
	return r;
}

/* The test build's null machine (tests/lib/machine_null.c) boots nothing. */
static bool
parts_no_guest(const char *accel)
{
#ifdef VMPOOL_TEST
	return strcmp(accel, "null") == 0;
#else
	(void)accel;
	return false;
#endif
}

/* Ask the worker program: what it says goes into a[0].text, or the reason of its refusal
 * into err. what: for messages. */
static int
parts_ask(struct answer a[2], const char *what, const char *const *argv, int keep, char *err,
	  size_t errlen)
{
	int status = 0, r;

	a[0] = a[1] = (struct answer){.fd = -1};
	r = parts_run(a, argv, keep, &status);
	closep(&a[0].fd);
	closep(&a[1].fd);
	if (r < 0)
		return fail(-r, err, errlen, "%s (%s): %s", what, argv[0], strerror(-r));
	if (!WIFEXITED(status))
		return fail(EIO, err, errlen, "the %s was killed by signal %d", what,
			    WTERMSIG(status));
	if (WEXITSTATUS(status) == 0)
		return 0;
	if (a[1].text[0] == '\0')
		return fail(EIO, err, errlen, "the %s failed", what);
	return fail(EIO, err, errlen, "%.*s", (int)strcspn(a[1].text, "\n"), a[1].text);
}

/* "kvm<TAB>why" */
static int
parts_parse_probe(struct parts *in, char *out, char *err, size_t errlen)
{
	char *tab = strchr(out, '\t'), *nl = strchr(out, '\n');

	if (nl != NULL)
		*nl = '\0';
	if (tab != NULL)
		*tab++ = '\0';
	if (tab == NULL ||
	    (strcmp(out, "kvm") != 0 && strcmp(out, "tcg") != 0 && !parts_no_guest(out)))
		return fail(EPROTO, err, errlen, "the accelerator probe said something unknown");
	(void)snprintf(in->accel, sizeof(in->accel), "%.7s", out);
	(void)snprintf(in->why, sizeof(in->why), "%.255s", tab);
	/* QEMU cannot go back; another one, from the same template, takes its place. */
	in->resets = strcmp(in->accel, "tcg") != 0;
	return 0;
}

static int
parts_probe(struct parts *in, const char *wanted, char *err, size_t errlen)
{
	char option[32];
	const char *argv[] = {in->worker, "probe", option, NULL};
	struct answer a[2];
	int r;

	(void)snprintf(option, sizeof(option), "--accel=%s", wanted);
	r = parts_ask(a, "accelerator probe", argv, -1, err, errlen);
	return r < 0 ? r : parts_parse_probe(in, a[0].text, err, errlen);
}

/* --- kernel and image ------------------------------------------------------------ */

static int
parts_check_file(char *out, const char *what, const char *path, const char *remedy, char *err,
		 size_t errlen)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(errno, err, errlen, "%s %s: %m%s", what, path, remedy);
	if (!S_ISREG(st.st_mode))
		return fail(EINVAL, err, errlen, "%s %s: not a regular file%s", what, path, remedy);
	if (realpath(path, out) == NULL)
		return fail(errno, err, errlen, "%s %s: %m%s", what, path, remedy);
	return 0;
}

static int
parts_guest(struct parts *in, const struct config *cfg, char *err, size_t errlen)
{
	const char *kernel = strcmp(in->accel, "kvm") == 0 ? "vmlinux" : "bzImage";
	char path[PATH_MAX];
	int r;

	install_guest(path, sizeof(path), kernel);
	r = cfg->kernel[0] != '\0'
		? parts_check_file(in->kernel, "kernel", cfg->kernel, "", err, errlen)
		: parts_check_file(in->kernel, "guest kernel", path,
				   " (run 'make guest', or give --kernel FILE)", err, errlen);
	if (r < 0)
		return r;
	install_guest(path, sizeof(path), "initramfs");
	return cfg->image[0] != '\0'
		   ? parts_check_file(in->image, "image", cfg->image, "", err, errlen)
		   : parts_check_file(in->image, "guest image", path,
				      " (run 'make guest', or give --image FILE)", err, errlen);
}

/* --- snapshot ---------------------------------------------------------------------- */

/* VMs map the file for as long as they live: nobody else may write it. */
static int
parts_open_snapshot(struct parts *in, const char *path, char *err, size_t errlen)
{
	struct stat st;

	in->snapshot_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (in->snapshot_fd < 0 || fstat(in->snapshot_fd, &st) < 0)
		return fail(errno, err, errlen, "snapshot %s: %m", path);
	if (!S_ISREG(st.st_mode))
		return fail(EINVAL, err, errlen, "snapshot %s: not a regular file", path);
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 022) != 0)
		return fail(EPERM, err, errlen,
			    "snapshot %s: others may write it, while VMs run from it (chown it, or "
			    "chmod go-w)",
			    path);
	return 0;
}

/* Memory and processors are the snapshot's; who asks for others is told. */
static int
parts_snapshot(struct parts *in, const struct config *cfg, char *err, size_t errlen)
{
	char option[32], why[512];
	const char *argv[] = {in->worker, "peek", option, NULL};
	struct answer a[2];
	int r = parts_open_snapshot(in, cfg->snapshot, err, errlen);

	if (r < 0)
		return r;
	(void)snprintf(option, sizeof(option), "--snapshot-fd=%d", in->snapshot_fd);
	r = parts_ask(a, "look at it", argv, in->snapshot_fd, why, sizeof(why));
	if (r < 0)
		return fail(-r, err, errlen, "snapshot %s: %s", cfg->snapshot, why);
	if (sscanf(a[0].text, "%u\t%u\n", &in->memory_mib, &in->vcpus) != 2)
		return fail(EPROTO, err, errlen, "the worker program said something unknown");
	if (cfg->memory_given && cfg->memory_mib != in->memory_mib)
		return fail(EINVAL, err, errlen,
			    "snapshot %s: made with another memory size: %u MiB, --memory says %u",
			    cfg->snapshot, in->memory_mib, cfg->memory_mib);
	if (cfg->vcpus_given && cfg->vcpus != in->vcpus)
		return fail(EINVAL, err, errlen,
			    "snapshot %s: made with another number of vCPUs: %u, --vcpus says %u",
			    cfg->snapshot, in->vcpus, cfg->vcpus);
	return 0;
}

void
parts_close(struct parts *in)
{
	closep(&in->snapshot_fd);
}

int
parts_find(struct parts *in, const struct config *cfg, char *err, size_t errlen)
{
	int r = parts_worker(in, err, errlen);

	in->snapshot_fd = -1;
	in->memory_mib = cfg->memory_mib;
	in->vcpus = cfg->vcpus;
	if (r == 0)
		r = parts_probe(in, cfg->accel, err, errlen);
	if (r == 0 && !parts_no_guest(in->accel))
		r = parts_guest(in, cfg, err, errlen);
	if (r == 0 && cfg->snapshot[0] != '\0')
		r = parts_snapshot(in, cfg, err, errlen);
	return r;
}
