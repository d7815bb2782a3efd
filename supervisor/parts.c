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

static int
parts_run_probe(struct answer a[2], const char *const *argv, int *status)
{
	_cleanup_(closep) int out = -1, errfd = -1;
	struct launch what = {.argv = argv};
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

/* "kvm<TAB>why" on its stdout; or nothing, and the reason on its stderr. */
static int
parts_parse_probe(struct parts *in, char *out, const char *errtext, int status, char *err,
		  size_t errlen)
{
	char *tab = strchr(out, '\t'), *nl = strchr(out, '\n');

	if (!WIFEXITED(status))
		return fail(EIO, err, errlen, "the accelerator probe was killed by signal %d",
			    WTERMSIG(status));
	if (WEXITSTATUS(status) != 0)
		return fail(EIO, err, errlen, "%.*s", (int)strcspn(errtext, "\n"),
			    *errtext != '\0' ? errtext : "the accelerator probe failed");
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
	struct answer a[2] = {{.fd = -1}, {.fd = -1}};
	int status = 0, r;

	(void)snprintf(option, sizeof(option), "--accel=%s", wanted);
	r = parts_run_probe(a, argv, &status);
	closep(&a[0].fd);
	closep(&a[1].fd);
	if (r < 0)
		return fail(-r, err, errlen, "accelerator probe (%s): %s", in->worker,
			    strerror(-r));
	return parts_parse_probe(in, a[0].text, a[1].text, status, err, errlen);
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

int
parts_find(struct parts *in, const struct config *cfg, char *err, size_t errlen)
{
	int r = parts_worker(in, err, errlen);

	if (r == 0)
		r = parts_probe(in, cfg->accel, err, errlen);
	if (r == 0 && !parts_no_guest(in->accel))
		r = parts_guest(in, cfg, err, errlen);
	return r;
}
