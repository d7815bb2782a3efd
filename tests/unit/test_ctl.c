/* SPDX-License-Identifier: MIT
 *
 * test_ctl.c - packets with descriptors, from good peers and bad ones; paths.
 */
#include "shm/ctl.h"
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

struct pair {
	int a, b;
};

static unsigned
open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	(void)closedir(dir);
	return n;
}

static struct pair
pair_new(void)
{
	int s[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s),
			 0);
	return (struct pair){s[0], s[1]};
}

static void
pair_free(struct pair *p)
{
	closep(&p->a);
	closep(&p->b);
}

static void
there_and_back(void **state)
{
	struct pair p = pair_new();
	struct ctl_request req = {.magic = CTL_MAGIC, .kind = CTL_DOORBELLS, .slot = 7}, got;
	unsigned before = open_fds();

	(void)state;
	assert_int_equal(ctl_recv(p.b, &got, sizeof(got), NULL, 0), -EAGAIN);
	assert_int_equal(ctl_send(p.a, &req, sizeof(req), NULL, 0), 0);
	assert_int_equal(ctl_recv(p.b, &got, sizeof(got), NULL, 0), 0);
	assert_memory_equal(&got, &req, sizeof(req));
	assert_int_equal(open_fds(), before);
	pair_free(&p);
}

static void
descriptors_travel(void **state)
{
	struct pair p = pair_new();
	struct ctl_reply reply = {.magic = CTL_MAGIC, .kind = CTL_ATTACHED, .client = 3}, got;
	unsigned before = open_fds();

	(void)state;
	for (unsigned n = 0; n <= CTL_FDS; n++) {
		int out[CTL_FDS], in[CTL_FDS] = {99, 99, 99, 99, 99};
		struct stat sa, sb;

		for (unsigned i = 0; i < n; i++)
			out[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_int_equal(ctl_send(p.a, &reply, sizeof(reply), out, n), 0);
		assert_int_equal(ctl_recv(p.b, &got, sizeof(got), in, CTL_FDS), 0);
		for (unsigned i = 0; i < CTL_FDS; i++) {
			if (i >= n) {
				assert_int_equal(in[i], -1);
				continue;
			}
			assert_int_equal(fcntl(in[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
			assert_int_equal(fstat(in[i], &sa), 0);
			assert_int_equal(fstat(out[i], &sb), 0);
			assert_true(sa.st_rdev == sb.st_rdev);
			closep(&in[i]);
			closep(&out[i]);
		}
		assert_int_equal(open_fds(), before);
	}
	assert_int_equal(ctl_send(p.a, &reply, sizeof(reply), (int[CTL_FDS + 1]){0}, CTL_FDS + 1),
			 -EINVAL);
	pair_free(&p);
}

static void
too_many_descriptors(void **state)
{
	struct pair p = pair_new();
	struct ctl_reply reply = {.magic = CTL_MAGIC}, got;
	int out[4] = {p.a, p.a, p.b, p.b}, in[2];
	unsigned before = open_fds();

	(void)state;
	for (unsigned want = 0; want < 3; want++) {
		assert_int_equal(ctl_send(p.a, &reply, sizeof(reply), out, want + 1), 0);
		assert_int_equal(ctl_recv(p.b, &got, sizeof(got), in, MIN(want, 2u)), -EPROTO);
		assert_int_equal(open_fds(), before);
	}
	pair_free(&p);
}

/* More than the control buffer takes: the kernel cuts, we refuse, nothing leaks. */
static void
truncated_descriptors(void **state)
{
	struct pair p = pair_new();
	union {
		char buf[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct ctl_request req = {0}, got;
	struct iovec iov = {.iov_base = &req, .iov_len = sizeof(req)};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
	unsigned before = open_fds();
	int in[4];

	(void)state;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(64 * sizeof(int));
	for (unsigned i = 0; i < 64; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &p.a, sizeof(int));
	assert_int_equal(sendmsg(p.a, &mh, 0), sizeof(req));
	assert_int_equal(ctl_recv(p.b, &got, sizeof(got), in, 4), -EPROTO);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(in[i], -1);
	assert_int_equal(open_fds(), before);
	pair_free(&p);
}

static void
wrong_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, sizeof(struct ctl_request) - 1,
				       sizeof(struct ctl_request) + 1, 10000};
	struct pair p = pair_new();
	struct ctl_request got;
	char bytes[10000] = {0};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), in[4];
	unsigned before = open_fds();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		/* An empty packet without descriptors looks like the end. */
		assert_int_equal(ctl_send(p.a, bytes, sizes[i], &fd, 1), 0);
		assert_int_equal(ctl_recv(p.b, &got, sizeof(got), in, 4), -EPROTO);
		assert_int_equal(in[0], -1);
		assert_int_equal(open_fds(), before);
	}
	closep(&fd);
	pair_free(&p);
}

static void
peer_gone(void **state)
{
	struct pair p = pair_new();
	struct ctl_request req = {0};

	(void)state;
	closep(&p.b);
	/* No SIGPIPE: this test would be dead. */
	assert_int_equal(ctl_send(p.a, &req, sizeof(req), NULL, 0), -EPIPE);
	assert_int_equal(ctl_recv(p.a, &req, sizeof(req), NULL, 0), -EPIPE);
	pair_free(&p);
	p = pair_new();
	assert_int_equal(ctl_send(p.a, &req, sizeof(req), NULL, 0), 0);
	closep(&p.a);
	/* What was sent before the end still arrives. */
	assert_int_equal(ctl_recv(p.b, &req, sizeof(req), NULL, 0), 0);
	assert_int_equal(ctl_recv(p.b, &req, sizeof(req), NULL, 0), -EPIPE);
	pair_free(&p);
}

static void
full_socket(void **state)
{
	struct pair p = pair_new();
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_FAILED};
	int r = 0;

	(void)state;
	for (unsigned i = 0; i < 10000 && r == 0; i++)
		r = ctl_send(p.a, &msg, sizeof(msg), NULL, 0);
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(ctl_recv(p.b, &msg, sizeof(msg), NULL, 0), 0);
	assert_int_equal(ctl_send(p.a, &msg, sizeof(msg), NULL, 0), 0);
	pair_free(&p);
}

static void
environment(const char *rundir, const char *xdg)
{
	(void)unsetenv("VMPOOL_RUNDIR");
	(void)unsetenv("XDG_RUNTIME_DIR");
	if (rundir != NULL)
		(void)setenv("VMPOOL_RUNDIR", rundir, 1);
	if (xdg != NULL)
		(void)setenv("XDG_RUNTIME_DIR", xdg, 1);
}

static void
runtime_directory(void **state)
{
	char buf[64], err[256];

	(void)state;
	environment(NULL, NULL);
	assert_int_equal(ctl_rundir(buf, sizeof(buf), err, sizeof(err)), 0);
	assert_string_equal(buf, "/run/vmpool");
	environment(NULL, "/run/user/1");
	assert_int_equal(ctl_rundir(buf, sizeof(buf), err, sizeof(err)), 0);
	assert_string_equal(buf, "/run/user/1/vmpool");
	environment("/x", "/run/user/1");
	assert_int_equal(ctl_rundir(buf, sizeof(buf), err, sizeof(err)), 0);
	assert_string_equal(buf, "/x");
	environment("", "");
	assert_int_equal(ctl_rundir(buf, sizeof(buf), err, sizeof(err)), 0);
	assert_string_equal(buf, "/run/vmpool");
	assert_int_equal(ctl_rundir(buf, 5, err, sizeof(err)), -ENAMETOOLONG);
	assert_non_null(strstr(err, "too long"));
}

static void
paths(void **state)
{
	static const char *const bad[] = {
	    "",	    ".",
	    "..",   ".hidden",
	    "a/b",  "a b",
	    "a\nb", "\xc3\xa9",
	    "a*",   "0123456789012345678901234567890123456789012345678901234567890123"};
	const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	char buf[256], err[256], dir[200];

	(void)state;
	environment("/r", NULL);
	assert_int_equal(ctl_path(buf, sizeof(buf), "a-B_9.x", ".sock", err, sizeof(err)), 0);
	assert_string_equal(buf, "/r/a-B_9.x.sock");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		err[0] = '\0';
		assert_int_equal(ctl_path(buf, sizeof(buf), bad[i], ".pid", err, sizeof(err)),
				 -EINVAL);
		assert_non_null(strstr(err, "bad pool name"));
	}
	/* As long as a socket's path may be, and one more. */
	memset(dir, 'd', sizeof(dir));
	dir[0] = '/';
	dir[max - strlen("/n.sock")] = '\0';
	environment(dir, NULL);
	assert_int_equal(ctl_path(buf, sizeof(buf), "n", ".sock", err, sizeof(err)), 0);
	assert_int_equal(strlen(buf), max);
	assert_int_equal(ctl_path(buf, sizeof(buf), "nn", ".sock", err, sizeof(err)),
			 -ENAMETOOLONG);
	assert_non_null(strstr(err, "longer"));
	assert_int_equal(ctl_path(buf, 10, "n", ".sock", err, sizeof(err)), -ENAMETOOLONG);
	environment(NULL, NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(there_and_back),
	    cmocka_unit_test(descriptors_travel),
	    cmocka_unit_test(too_many_descriptors),
	    cmocka_unit_test(truncated_descriptors),
	    cmocka_unit_test(wrong_sizes),
	    cmocka_unit_test(peer_gone),
	    cmocka_unit_test(full_socket),
	    cmocka_unit_test(runtime_directory),
	    cmocka_unit_test(paths),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
