/* SPDX-License-Identifier: MIT
 *
 * null_worker.c - a vmpool-worker without machines, for tests of the supervisor
 * and the segment. Runs as the fork server and as its workers.
 */
#include "tests/lib/null_worker.h"

#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "shm/ctl.h"

static const char *mode = "ready";
static char from_file[128];

/* "file:PATH": the mode is what stands there at each SPAWN. */
static void
null_mode(void)
{
	const char *env = getenv("VMPOOL_NULL");
	FILE *f;

	if (env == NULL)
		return;
	mode = env;
	if (strncmp(env, "file:", 5) != 0)
		return;
	f = fopen(env + 5, "re");
	if (f != NULL && fgets(from_file, sizeof(from_file), f) != NULL)
		from_file[strcspn(from_file, "\n")] = '\0';
	mode = from_file;
	if (f != NULL)
		(void)fclose(f);
}

/* "Capture": a byte into the file, or two empty files. Mode "busy": the VM is not at rest;
 * "stuck": no answer; "torn": the worker dies of it. */
static int
null_capture(int sock, struct worker_msg *msg, int file)
{
	int fds[] = {-1, -1}, r;

	null_mode();
	if (strcmp(mode, "stuck") == 0)
		return 0;
	if (strcmp(mode, "torn") == 0)
		_exit(5);
	msg->kind = WORKER_CAPTURED;
	if (strcmp(mode, "busy") == 0) {
		msg->error = -EBUSY;
		(void)snprintf(msg->text, sizeof(msg->text), "commands run in it");
	} else if (file >= 0) {
		msg->error = write(file, "!", 1) == 1 ? 0 : -errno;
	} else {
		fds[0] = memfd_create("null", MFD_CLOEXEC);
		fds[1] = memfd_create("null", MFD_CLOEXEC);
	}
	r = ctl_send(sock, msg, sizeof(*msg), fds, fds[1] >= 0 ? 2 : 0);
	closep(&fds[0]);
	closep(&fds[1]);
	return r;
}

/* Serve until STOP or the supervisor's end; who joins hears one word, and no more. Mode "sick": no
 * health check passes; "silent": none is answered. */
static void
null_serve(int sock)
{
	const struct ctl_joined hello = {.magic = CTL_MAGIC};
	struct worker_msg msg;
	int fds[CTL_JOIN_FDS], r;

	while (ctl_recv(sock, &msg, sizeof(msg), fds, CTL_JOIN_FDS) == 0 &&
	       msg.kind != WORKER_STOP) {
		r = 0;
		if (msg.kind == WORKER_JOIN)
			(void)!ctl_send(fds[CTL_JOIN_LIFE], &hello, sizeof(hello), NULL, 0);
		else if (msg.kind == WORKER_CAPTURE)
			r = null_capture(sock, &msg, fds[0]);
		for (unsigned i = 0; i < CTL_JOIN_FDS; i++)
			closep(&fds[i]);
		if (r < 0)
			return;
		if (msg.kind == WORKER_RESET) {
			msg.kind = WORKER_READY;
			if (ctl_send(sock, &msg, sizeof(msg), NULL, 0) < 0)
				return;
			continue;
		}
		if (msg.kind != WORKER_CHECK || strcmp(mode, "silent") == 0)
			continue;
		msg.kind = WORKER_CHECKED;
		msg.error = strcmp(mode, "sick") == 0 ? -EIO : 0;
		if (ctl_send(sock, &msg, sizeof(msg), NULL, 0) < 0)
			return;
	}
}

/* Mode "nocopy": one that goes on from a copy ends at once. */
static _Noreturn void
null_worker(int sock, pid_t supervisor, bool copy)
{
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_READY, .took_ns = 1};
	const char *text;
	int r;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != supervisor || strcmp(mode, "exit") == 0)
		_exit(3);
	if (strncmp(mode, "fail:", 5) == 0) {
		text = strchr(mode + 5, ':');
		msg.kind = WORKER_FAILED;
		msg.error = -atoi(mode + 5);
		(void)snprintf(msg.text, sizeof(msg.text), "%s", text != NULL ? text + 1 : "");
	}
	if (strcmp(mode, "nocopy") == 0 && copy)
		_exit(6);
	if (strcmp(mode, "garbage") == 0)
		r = ctl_send(sock, "rubbish", 7, NULL, 0);
	else if (strcmp(mode, "hang") == 0)
		r = 0;
	else
		r = ctl_send(sock, &msg, sizeof(msg), NULL, 0);
	if (r < 0 || msg.kind == WORKER_FAILED || strcmp(mode, "die") == 0)
		_exit(1);
	null_serve(sock);
	_exit(0);
}

/* A template of nothing. Mode "nobuild:ERRNO:TEXT": it fails. */
static _Noreturn void
null_builder(int sock)
{
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_TEMPLATE, .took_ns = 1};
	int fds[] = {memfd_create("null", MFD_CLOEXEC), memfd_create("null", MFD_CLOEXEC)};
	const char *text;

	if (strncmp(mode, "nobuild:", 8) == 0) {
		text = strchr(mode + 8, ':');
		msg.kind = WORKER_FAILED;
		msg.error = -atoi(mode + 8);
		(void)snprintf(msg.text, sizeof(msg.text), "%s", text != NULL ? text + 1 : "");
	}
	_exit(ctl_send(sock, &msg, sizeof(msg), fds, msg.kind == WORKER_FAILED ? 0 : 2) < 0);
}

/* As the real one: the worker is the supervisor's child, not ours. */
static pid_t
null_clone(int *pidfd)
{
	struct clone_args args = {
	    .flags = CLONE_PARENT | CLONE_PIDFD,
	    .pidfd = (uintptr_t)pidfd,
	};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int
null_spawn(int control, int lock, const struct fsrv_request *req, const int *fds, pid_t supervisor)
{
	struct fsrv_spawned ans = {
	    .magic = CTL_MAGIC,
	    .slot = req->slot,
	    .generation = req->generation,
	};
	int pidfd = -1, r;

	null_mode();
	if ((strcmp(mode, "nofork") == 0 && req->kind == FSRV_SPAWN) ||
	    (strcmp(mode, "nocopyfork") == 0 && req->kind == FSRV_FORK)) {
		ans.error = -EAGAIN;
		return ctl_send(control, &ans, sizeof(ans), NULL, 0);
	}
	ans.pid = null_clone(&pidfd);
	if (ans.pid == 0) {
		(void)close(control);
		(void)close(lock);
		if (req->kind == FSRV_BUILD)
			null_builder(fds[0]);
		null_worker(fds[0], supervisor, req->kind == FSRV_FORK);
	}
	if (ans.pid < 0) {
		ans.error = -errno;
		ans.pid = 0;
	}
	r = ctl_send(control, &ans, sizeof(ans), &pidfd, pidfd >= 0 ? 1 : 0);
	closep(&pidfd);
	return r;
}

static void
null_remove(char *paths)
{
	char *save = NULL;

	for (char *p = strtok_r(paths, ":", &save); p != NULL; p = strtok_r(NULL, ":", &save))
		(void)unlink(p);
}

static char *
null_option(int argc, char **argv, const char *name)
{
	size_t len = strlen(name);

	for (int i = 2; i < argc; i++)
		if (strncmp(argv[i], name, len) == 0)
			return argv[i] + len;
	fprintf(stderr, "null_worker: no %s\n", name);
	exit(2);
}

bool
null_worker_wanted(int argc, char **argv)
{
	return argc >= 2 && (strcmp(argv[1], "probe") == 0 || strcmp(argv[1], "fork-server") == 0);
}

int
null_worker_main(int argc, char **argv)
{
	struct fsrv_request req;
	int control, lock, fds[CTL_FDS], r;
	pid_t supervisor;

	null_mode();
	if (argc >= 2 && strcmp(argv[1], "probe") == 0) {
		if (strcmp(mode, "noaccel") == 0) {
			fprintf(stderr, "no accelerator today\n");
			return 1;
		}
		printf("tcg\tnull machine, for tests\n");
		return 0;
	}
	control = atoi(null_option(argc, argv, "--control-fd="));
	lock = atoi(null_option(argc, argv, "--lock-fd="));
	supervisor = atoi(null_option(argc, argv, "--supervisor-pid="));
	if (strcmp(mode, "crash") == 0) {
		fprintf(stderr, "null_worker: crash as told\n");
		return 4;
	}
	for (;;) {
		r = ctl_recv(control, &req, sizeof(req), fds, CTL_FDS);
		if (r == 0 && req.kind != FSRV_TEMPLATE)
			r = null_spawn(control, lock, &req, fds, supervisor);
		if (r < 0)
			break;
		for (unsigned i = 0; i < CTL_FDS; i++)
			closep(&fds[i]);
	}
	null_remove(null_option(argc, argv, "--remove="));
	return 0;
}
