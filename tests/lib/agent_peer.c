/* SPDX-License-Identifier: MIT
 *
 * agent_peer.c - drives a guest agent over a socketpair. Runs in tests. Owns
 * the agent process and its cgroup directory.
 */
#include "tests/lib/agent_peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

const char *
peer_program(void)
{
	const char *path = getenv("VMPOOL_TEST_AGENT");

	return path != NULL ? path : "build/guest/agent";
}

/* A directory of our own in the first cgroup v2 tree that lets us. */
static bool
make_cgroup(char *dir, size_t len)
{
	char line[1024], type[64], where[512], probe[600];
	FILE *mounts = fopen("/proc/self/mounts", "re");
	bool made = false;

	while (mounts != NULL && !made && fgets(line, sizeof(line), mounts) != NULL) {
		if (sscanf(line, "%*s %511s %63s", where, type) != 2 ||
		    strcmp(type, "cgroup2") != 0)
			continue;
		if (snprintf(dir, len, "%s/vmpool-test-%d", where, (int)getpid()) >= (int)len)
			continue;
		made = mkdir(dir, 0755) == 0;
		(void)snprintf(probe, sizeof(probe), "%.500s/cgroup.kill", dir);
		if (made && access(probe, W_OK) != 0) {
			(void)rmdir(dir);
			made = false;
		}
	}
	if (mounts != NULL)
		(void)fclose(mounts);
	if (!made)
		dir[0] = '\0';
	return made;
}

static void
run_agent(const struct peer *p, int fd)
{
	const char *argv[8] = {"agent", "--fd"};
	char number[16];
	size_t n = 2;

	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* Whatever the test runner left open would look like the agent's leak. */
	(void)dup2(fd, STDERR_FILENO + 1);
	fd = STDERR_FILENO + 1;
	(void)close_range(STDERR_FILENO + 2, ~0u, 0);
	(void)snprintf(number, sizeof(number), "%d", fd);
	argv[n++] = number;
	if (p->cgroup[0] != '\0') {
		argv[n++] = "--cgroup";
		argv[n++] = p->cgroup;
	}
	if (p->renew[0] != '\0') {
		argv[n++] = "--renew";
		argv[n++] = p->renew;
	}
	(void)execv(peer_program(), (char *const *)(uintptr_t)argv);
	_exit(126);
}

static struct peer *
prepare(void)
{
	struct peer *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	if (access(peer_program(), X_OK) != 0)
		fail_msg("no agent at %s: build it or set VMPOOL_TEST_AGENT", peer_program());
	return p;
}

static void
start(struct peer *p)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	p->pid = fork();
	assert_true(p->pid >= 0);
	if (p->pid == 0) {
		(void)close(fds[0]);
		run_agent(p, fds[1]);
	}
	(void)close(fds[1]);
	p->fd = fds[0];
	while (p->ready.version == 0)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
}

struct peer *
peer_new(bool cgroups)
{
	struct peer *p = prepare();

	if (cgroups && !make_cgroup(p->cgroup, sizeof(p->cgroup))) {
		free(p);
		return NULL;
	}
	start(p);
	return p;
}

/* Hang up and reap the agent: its exit status, or -1 if it did not end, or by a
 * signal. */
static int
hang_up(struct peer *p)
{
	struct pollfd w = {.fd = (int)syscall(SYS_pidfd_open, p->pid, 0), .events = POLLIN};
	int got = 0, gone;

	(void)shutdown(p->fd, SHUT_RDWR);
	gone = poll(&w, 1, PEER_TIMEOUT_MS);
	(void)close(w.fd);
	if (gone != 1)
		(void)kill(p->pid, SIGKILL);
	(void)waitpid(p->pid, &got, 0);
	p->pid = -1;
	return gone == 1 && WIFEXITED(got) ? WEXITSTATUS(got) : -1;
}

void
peer_wait_gone(struct peer *p, int status)
{
	assert_int_equal(hang_up(p), status);
}

/* The agent failed to clear its cgroups: do it, so that nothing stays behind. */
static void
clear_cgroup(const char *dir)
{
	char path[600];
	struct dirent *e;
	DIR *d;
	int fd, tries;

	(void)snprintf(path, sizeof(path), "%s/cgroup.kill", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		assert_int_equal(write(fd, "1", 1), 1);
		(void)close(fd);
	}
	for (tries = 0; tries < 200 && rmdir(dir) != 0; tries++) {
		d = opendir(dir);
		while (d != NULL && (e = readdir(d)) != NULL) {
			(void)snprintf(path, sizeof(path), "%.300s/%.255s", dir, e->d_name);
			if (e->d_type == DT_DIR && e->d_name[0] != '.')
				(void)rmdir(path);
		}
		if (d != NULL)
			(void)closedir(d);
		(void)poll(NULL, 0, 10); /* the killed take a moment to go */
	}
}

static void
clear_renew(const char *dir)
{
	static const char *const files[] = {"boot_id", "machine-id"};
	char path[128];
	size_t i;

	for (i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		(void)unlink(path);
	}
	assert_int_equal(rmdir(dir), 0); /* nothing else is left in there */
}

void
peer_free(struct peer *p, int status)
{
	int got = p->pid > 0 ? hang_up(p) : status;
	bool clean = true;
	size_t i;

	(void)close(p->fd);
	agent_pages_close(&p->pages);
	if (p->cgroup[0] != '\0' && rmdir(p->cgroup) != 0) {
		clear_cgroup(p->cgroup);
		clean = false;
	}
	if (p->renew[0] != '\0')
		clear_renew(p->renew);
	for (i = 0; i <= PEER_STREAMS; i++) {
		free(p->run[i].out);
		free(p->run[i].err);
	}
	free(p);
	assert_int_equal(got, status);
	assert_true(clean); /* the agent has left processes or cgroups behind */
}

int
peer_setup(void **state)
{
	*state = peer_new(false);
	return 0;
}

int
peer_setup_cgroups(void **state)
{
	*state = peer_new(true);
	return 0;
}

int
peer_setup_renew(void **state)
{
	struct peer *p = prepare();

	(void)strcpy(p->renew, "/tmp/test_agent.XXXXXX");
	assert_non_null(mkdtemp(p->renew));
	start(p);
	*state = p;
	return 0;
}

int
peer_teardown(void **state)
{
	if (*state != NULL)
		peer_free(*state, 0);
	return 0;
}

void
peer_send_raw(struct peer *p, const void *bytes, size_t len)
{
	const char *at = bytes;
	ssize_t n;

	while (len > 0) {
		n = send(p->fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) {
			/* It may wait for us to read first. */
			struct pollfd w = {.fd = p->fd, .events = POLLOUT};

			(void)peer_step(p, 0);
			(void)poll(&w, 1, 1);
			continue;
		}
		if (n <= 0)
			fail_msg("send to the agent: %s", strerror(errno));
		at += n;
		len -= (size_t)n;
	}
}

void
peer_send(struct peer *p, uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
	  size_t len)
{
	struct proto_hdr h = {
	    .length = (uint32_t)len, .type = type, .flags = flags, .stream = stream};
	unsigned char frame[sizeof(h) + PROTO_PAYLOAD_MAX];

	assert_true(len <= PROTO_PAYLOAD_MAX);
	memcpy(frame, &h, sizeof(h));
	if (len > 0)
		memcpy(frame + sizeof(h), payload, len);
	peer_send_raw(p, frame, sizeof(h) + len);
}

static size_t
add_string(unsigned char *to, size_t at, const char *s)
{
	size_t n = strlen(s) + 1;

	if (to != NULL)
		memcpy(to + at, s, n);
	return at + n;
}

/* Lay the request out in to, or only measure it (NULL). */
static size_t
lay_out(unsigned char *to, const struct peer_exec *e)
{
	struct proto_exec h = e->want;
	size_t at = sizeof(h);

	h.timeout_ms = e->timeout_ms;
	h.flags = e->flags;

	for (; e->argv[h.argc] != NULL; h.argc++)
		at = add_string(to, at, e->argv[h.argc]);
	for (; e->env != NULL && e->env[h.envc] != NULL; h.envc++)
		at = add_string(to, at, e->env[h.envc]);
	for (; e->unset != NULL && e->unset[h.unsetc] != NULL; h.unsetc++)
		at = add_string(to, at, e->unset[h.unsetc]);
	at = add_string(to, at, e->cwd != NULL ? e->cwd : "");
	at = add_string(to, at, e->user != NULL ? e->user : "");
	h.size = (uint32_t)at;
	if (to != NULL)
		memcpy(to, &h, sizeof(h));
	return at;
}

unsigned char *
peer_encode(const struct peer_exec *e, size_t *len)
{
	unsigned char *bytes;

	*len = lay_out(NULL, e);
	bytes = malloc(*len);
	assert_non_null(bytes);
	(void)lay_out(bytes, e);
	return bytes;
}

void
peer_exec(struct peer *p, uint32_t stream, const struct peer_exec *e)
{
	size_t len, at, n;
	unsigned char *bytes = peer_encode(e, &len);

	for (at = 0; at < len; at += n) {
		n = len - at < PROTO_PAYLOAD_MAX ? len - at : PROTO_PAYLOAD_MAX;
		peer_send(p, PROTO_EXEC, at + n < len ? PROTO_F_MORE : 0, stream, bytes + at, n);
	}
	free(bytes);
}

void
peer_sh(struct peer *p, uint32_t stream, const char *script, uint32_t flags)
{
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	struct peer_exec e = {.argv = argv, .flags = flags};

	peer_exec(p, stream, &e);
}

void
peer_file(struct peer *p, uint32_t stream, const struct peer_file *f)
{
	const char *strings[] = {f->path, f->other, f->root};
	unsigned char bytes[sizeof(f->head) + 3 * (PROTO_PATH_MAX + 1)];
	size_t at = sizeof(f->head), i;

	memcpy(bytes, &f->head, sizeof(f->head));
	for (i = 0; i < 3; i++)
		at = add_string(bytes, at, strings[i] != NULL ? strings[i] : "");
	peer_send(p, PROTO_FILE, 0, stream, bytes, at);
}

void
peer_grant(struct peer *p, uint32_t stream, uint32_t bytes)
{
	peer_send(p, PROTO_CREDIT, 0, stream, &bytes, sizeof(bytes));
}

void
peer_kill(struct peer *p, uint32_t stream, uint32_t sig)
{
	peer_send(p, PROTO_KILL, 0, stream, &sig, sizeof(sig));
}

void
peer_stdin(struct peer *p, uint32_t stream, const void *bytes, size_t len, bool eof)
{
	struct peer_run *r = &p->run[stream];
	const char *at = bytes;
	size_t n, room;

	do {
		while ((room = PROTO_WINDOW + r->in_given - r->in_spent) == 0 && r->ends == 0)
			assert_true(peer_step(p, PEER_TIMEOUT_MS));
		n = len < room ? len : room;
		n = n < PROTO_PAYLOAD_MAX ? n : PROTO_PAYLOAD_MAX;
		peer_send(p, PROTO_STDIN, eof && n == len ? PROTO_F_EOF : 0, stream, at, n);
		r->in_spent += n;
		at += n;
		len -= n;
	} while (len > 0 && r->ends == 0);
}

static void
keep(struct peer *p, const struct proto_hdr *h, const unsigned char *bytes)
{
	struct peer_run *r = &p->run[h->stream];
	char **text = h->type == PROTO_STDOUT ? &r->out : &r->err;
	size_t *len = h->type == PROTO_STDOUT ? &r->out_len : &r->err_len;

	*text = realloc(*text, *len + h->length + 1);
	assert_non_null(*text);
	memcpy(*text + *len, bytes, h->length);
	*len += h->length;
	(*text)[*len] = '\0';
	if (!r->no_grant)
		peer_grant(p, h->stream, h->length);
}

/* Output that is in the pages. */
static void
keep_shared(struct peer *p, const struct proto_hdr *said, const unsigned char *count)
{
	unsigned char bytes[PROTO_PAYLOAD_MAX];
	struct proto_hdr h = *said;

	assert_true(p->shares > 0);
	memcpy(&h.length, count, sizeof(h.length));
	assert_true(h.length > 0 && h.length <= sizeof(bytes));
	agent_pages_take(&p->pages, bytes, h.length);
	if (!p->tells_nothing)
		agent_pages_tell(&p->pages);
	p->shared += h.length;
	keep(p, &h, bytes);
}

static void
take(struct peer *p, const struct proto_hdr *h, const unsigned char *bytes)
{
	struct peer_run *r = &p->run[h->stream];
	uint32_t n;

	assert_int_equal(r->ends, 0); /* nothing comes after a stream's end */
	switch (h->type) {
	case PROTO_READY: memcpy(&p->ready, bytes, sizeof(p->ready)); break;
	case PROTO_PONG:
		memcpy(p->pong, bytes, h->length);
		p->pongs++;
		break;
	case PROTO_RENEWED:
		memcpy(&p->renewed, bytes, sizeof(p->renewed));
		p->renewals++;
		break;
	case PROTO_STDOUT:
	case PROTO_STDERR:
		if ((h->flags & PROTO_F_SHARED) != 0)
			keep_shared(p, h, bytes);
		else
			keep(p, h, bytes);
		break;
	case PROTO_SHARE:
		agent_pages_close(&p->pages);
		agent_pages_open(&p->pages, p->pid, bytes);
		p->shares++;
		break;
	case PROTO_CREDIT:
		memcpy(&n, bytes, sizeof(n));
		r->in_given += n;
		break;
	case PROTO_EXIT:
		memcpy(&r->exit, bytes, sizeof(r->exit));
		r->exited = true;
		r->ends++;
		break;
	case PROTO_VMSTATS:
		memcpy(&r->stats, bytes, sizeof(r->stats));
		r->ends++;
		break;
	case PROTO_FILE_DONE:
		memcpy(&r->done, bytes, sizeof(r->done));
		r->filed = true;
		r->ends++;
		break;
	default:
		memcpy(&r->error, bytes, sizeof(r->error));
		memcpy(r->text, bytes + sizeof(r->error), h->length - sizeof(r->error));
		r->ends++;
		break;
	}
}

/* Take the first whole frame out of what was read. */
static bool
take_buffered(struct peer *p)
{
	unsigned char payload[PROTO_PAYLOAD_MAX];
	struct proto_hdr h;

	if (p->in_len < sizeof(h))
		return false;
	memcpy(&h, p->in, sizeof(h));
	assert_true(proto_check(&h, true));
	assert_true(h.stream <= PEER_STREAMS);
	if (p->in_len < sizeof(h) + h.length)
		return false;
	memcpy(payload, p->in + sizeof(h), h.length);
	p->in_len -= sizeof(h) + h.length;
	memmove(p->in, p->in + sizeof(h) + h.length, p->in_len);
	/* Last, for it may send, and so come here again. */
	take(p, &h, payload);
	return true;
}

bool
peer_step(struct peer *p, int timeout_ms)
{
	struct pollfd w = {.fd = p->fd, .events = POLLIN};
	ssize_t n;

	while (!take_buffered(p)) {
		if (poll(&w, 1, timeout_ms) == 0)
			return false;
		n = read(p->fd, p->in + p->in_len, sizeof(p->in) - p->in_len);
		if (n <= 0)
			fail_msg("the agent has hung up");
		p->in_len += (size_t)n;
	}
	return true;
}

struct peer_run *
peer_wait(struct peer *p, uint32_t stream)
{
	struct peer_run *r = &p->run[stream];

	while (r->ends == 0) {
		if (!peer_step(p, PEER_TIMEOUT_MS))
			fail_msg("stream %u does not end: '%s'", stream, r->out);
	}
	return r;
}

struct peer_run *
peer_wait_output(struct peer *p, uint32_t stream, size_t out, size_t err)
{
	struct peer_run *r = &p->run[stream];

	while (r->out_len < out || r->err_len < err) {
		if (r->ends > 0 || !peer_step(p, PEER_TIMEOUT_MS))
			fail_msg("stream %u sent %zu and %zu bytes", stream, r->out_len,
				 r->err_len);
	}
	return r;
}

void
peer_ping(struct peer *p)
{
	unsigned before = p->pongs;

	peer_send(p, PROTO_PING, 0, 0, "ping", 4);
	while (p->pongs == before)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
	assert_memory_equal(p->pong, "ping", 4);
}

void
peer_renew(struct peer *p, const struct proto_renew *r)
{
	peer_renew_so(p, r, 0);
}

void
peer_renew_so(struct peer *p, const struct proto_renew *r, uint8_t flags)
{
	unsigned before = p->renewals;

	peer_send(p, PROTO_RENEW, flags, 0, r, sizeof(*r));
	while (p->renewals == before)
		assert_true(peer_step(p, PEER_TIMEOUT_MS));
}

size_t
peer_open_pids(const char *text, int *fds, size_t max)
{
	size_t n = 0;
	char *end;
	long pid;

	for (; *text != '\0' && n < max; text = end + 1) {
		pid = strtol(text, &end, 10);
		assert_true(pid > 1 && *end == '\n');
		fds[n] = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
		assert_true(fds[n] >= 0);
		n++;
	}
	return n;
}

void
peer_assert_die(int *fds, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		struct pollfd w = {.fd = fds[i], .events = POLLIN};

		if (poll(&w, 1, PEER_TIMEOUT_MS) != 1)
			fail_msg("process %zu of %zu lives on", i + 1, n);
		(void)close(fds[i]);
	}
}
