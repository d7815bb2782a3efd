/* SPDX-License-Identifier: MIT
 *
 * fakeagent.c - a worker as one thread of a test program, with worker/job.c as
 * it is and the guest's agent as its "machine": a process on this host at the
 * other end of a socket. Owns that process.
 */
#include "tests/lib/agent_peer.h"
#include "tests/lib/fakepool.h"
#include "worker/job.h"

#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct machine {
	int fd;
	bool stuck; /* it takes no more bytes now */
};

static ssize_t
agent_recv(struct machine *m, void *buf, size_t len)
{
	ssize_t n = recv(m->fd, buf, len, MSG_DONTWAIT);

	return n < 0 ? 0 : n;
}

static ssize_t
agent_send(struct machine *m, const void *buf, size_t len)
{
	ssize_t n = send(m->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	m->stuck = n < (ssize_t)len;
	return n < 0 ? 0 : n;
}

static const struct machine_ops ops = {.name = "agent", .recv = agent_recv, .send = agent_send};

static pid_t
start(int fd)
{
	const char *const argv[] = {"agent", "--fd", "3", NULL};
	posix_spawn_file_actions_t act;
	pid_t pid;

	AZ(posix_spawn_file_actions_init(&act));
	AZ(posix_spawn_file_actions_adddup2(&act, fd, 3));
	AZ(posix_spawn_file_actions_addclosefrom_np(&act, 4));
	AZ(posix_spawn(&pid, peer_program(), &act, NULL, (char *const *)(uintptr_t)argv, environ));
	AZ(posix_spawn_file_actions_destroy(&act));
	return pid;
}

static void
sleep_until_news(const struct fake_worker *w, const struct machine *m)
{
	struct pollfd p[] = {{.fd = w->pool->bells[w->slot].req, .events = POLLIN},
			     {.fd = m->fd, .events = m->stuck ? POLLIN | POLLOUT : POLLIN}};
	eventfd_t value;

	(void)poll(p, 2, -1);
	(void)eventfd_read(p[0].fd, &value);
}

void *
fakeagent_run(void *worker)
{
	struct fake_worker *w = worker;
	struct job *job = calloc(1, sizeof(*job));
	struct machine m = {.fd = -1};
	int fds[2];
	pid_t pid;

	AN(job);
	AZ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
	m.fd = fds[0];
	pid = start(fds[1]);
	(void)close(fds[1]);
	job_init(job, w->pool->seg, w->slot, w->pool->bells[w->slot].rsp, &ops, &m);
	while (!atomic_load(&w->stop)) {
		while (job_pump(job))
			continue;
		AZ(strlen(job->failure)); /* nobody here breaks the protocol */
		if (!job_sleep(job))
			continue;
		sleep_until_news(w, &m);
		job_awake(job);
	}
	(void)close(m.fd);
	(void)waitpid(pid, NULL, 0);
	free(job);
	return NULL;
}
