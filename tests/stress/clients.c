/* SPDX-License-Identifier: MIT
 *
 * clients.c - the client processes of a stress test: started, started again when
 * they have been killed, watched for calls that do not return.
 */
#include "tests/stress/stress.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define FINISH_MS 60000

/* In the client: nothing may grow in it either. */
static int
be_client(struct stress *s, unsigned i, uint32_t seed, pid_t parent)
{
	struct stress_party *party = &s->shared->party[i];
	struct usage before, after;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		return 1;
	/* The monitor is its parent's: a client must not inherit it. */
	vmpool_detach(s->monitor);
	(void)host_usage(getpid(), &before);
	if (!stress_body(party, &s->shared->plan, seed))
		return 1;
	(void)host_usage(getpid(), &after);
	if (after.fds == before.fds)
		return 0;
	(void)snprintf(party->complaint, sizeof(party->complaint),
		       "%u descriptors after the last detach, %u before", after.fds, before.fds);
	atomic_store(&party->failed, 1);
	return 1;
}

static void
start(struct stress *s, unsigned i)
{
	uint32_t seed = stress_dice(&s->dice);
	pid_t parent = getpid();

	atomic_store(&s->shared->party[i].overdue_ns, 0);
	s->client[i] = fork();
	if (s->client[i] == 0)
		_exit(be_client(s, i, seed, parent));
	if (s->client[i] < 0) {
		s->client[i] = 0;
		fault(s, "cannot fork: %m");
	}
}

void
clients_start(struct stress *s)
{
	for (unsigned i = 0; i < s->opt.clients; i++)
		if (s->client[i] == 0)
			start(s, i);
}

bool
clients_ended(struct stress *s, pid_t pid, int status)
{
	for (unsigned i = 0; i < s->opt.clients; i++) {
		struct stress_party *party = &s->shared->party[i];

		if (s->client[i] != pid)
			continue;
		s->client[i] = 0;
		if (atomic_exchange(&party->failed, 0) != 0)
			fault(s, "client %u: %s", i, party->complaint);
		else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
			fault(s, "client %u died of signal %d", i, WTERMSIG(status));
		else if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
			fault(s, "client %u ended with status %d", i, WEXITSTATUS(status));
		return true;
	}
	return false;
}

void
clients_look(struct stress *s)
{
	uint64_t now = now_ns();

	for (unsigned i = 0; i < s->opt.clients; i++) {
		struct stress_party *party = &s->shared->party[i];
		uint64_t overdue = atomic_load(&party->overdue_ns);

		if (s->client[i] == 0 || overdue == 0 || overdue > now)
			continue;
		fault(s, "client %u (pid %d) hangs in %s", i, (int)s->client[i],
		      stress_call_name(atomic_load(&party->present)));
		(void)kill(s->client[i], SIGKILL);
		atomic_store(&party->overdue_ns, 0);
	}
}

static unsigned
running(const struct stress *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->opt.clients; i++)
		n += s->client[i] != 0;
	return n;
}

bool
clients_finish(struct stress *s)
{
	uint64_t deadline = now_ns() + FINISH_MS * 1000000ull;

	atomic_store(&s->shared->plan.stop, 1);
	while (running(s) > 0 && now_ns() < deadline) {
		host_reap(s);
		clients_look(s);
		(void)poll(NULL, 0, 2);
	}
	if (running(s) == 0)
		return true;
	fault(s, "%u clients do not end", running(s));
	for (unsigned i = 0; i < s->opt.clients; i++)
		if (s->client[i] != 0)
			(void)kill(s->client[i], SIGKILL);
	while (running(s) > 0) {
		host_reap(s);
		(void)poll(NULL, 0, 2);
	}
	return false;
}

uint64_t
clients_sum(const struct stress *s, size_t offset)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < s->opt.clients; i++) {
		const char *party = (const char *)&s->shared->party[i];

		sum += atomic_load((const _Atomic uint64_t *)(const void *)(party + offset));
	}
	return sum;
}
