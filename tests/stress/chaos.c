/* SPDX-License-Identifier: MIT
 *
 * chaos.c - who is killed or stopped in a stress test, and when. Whoever is to be
 * hit is held by a pidfd first and looked at afterwards, so that no stranger is.
 */
#include "tests/stress/stress.h"

#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#define STOP_MS_MAX 400u
#define RESTART_PAUSE_NS 3000000000ull /* a pool lives that long before it is killed again */

static bool kill_client(struct stress *s);
static bool stop_client(struct stress *s);
static bool kill_worker(struct stress *s);
static bool stop_worker(struct stress *s);
static bool kill_fork_server(struct stress *s);
static bool stop_supervisor(struct stress *s);
static bool reload(struct stress *s);
static bool kill_supervisor(struct stress *s);
static bool end_supervisor(struct stress *s);

static const struct act {
	const char *name;
	uint32_t weight;
	bool (*run)(struct stress *s); /* false: nobody was there to be hit */
} acts[] = {
    {"kill-client", 20, kill_client},
    {"stop-client", 20, stop_client},
    {"kill-worker", 20, kill_worker},
    {"stop-worker", 20, stop_worker},
    {"kill-fork-server", 3, kill_fork_server},
    {"stop-supervisor", 3, stop_supervisor},
    {"reload", 3, reload},
    {"kill-supervisor", 3, kill_supervisor},
    {"end-supervisor", 1, end_supervisor},
};
_Static_assert(ARRAY_SIZE(acts) <= ACTS_MAX, "counted in struct stress");

static bool
chosen(const struct stress *s, size_t i)
{
	const char *list = s->opt.acts, *at;
	size_t len = strlen(acts[i].name);

	if (strcmp(list, "all") == 0)
		return true;
	for (at = list; (at = strstr(at, acts[i].name)) != NULL; at += len)
		if ((at == list || at[-1] == ',') && (at[len] == '\0' || at[len] == ','))
			return true;
	return false;
}

bool
chaos_init(struct stress *s)
{
	bool any = strcmp(s->opt.acts, "none") == 0;

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		any |= chosen(s, i);
	for (size_t i = 0; i < STOPPED_MAX; i++)
		s->stopped[i].pidfd = -1;
	return any;
}

/* --- hitting ------------------------------------------------------------------------- */

static bool
hit(pid_t pid, pid_t parent, const char *name, int sig)
{
	int pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
	bool ok =
	    pidfd >= 0 && host_is(pid, parent, name) && pidfd_send_signal(pidfd, sig, NULL, 0) == 0;

	closep(&pidfd);
	return ok;
}

/* Stop it for a while. */
static bool
stop(struct stress *s, pid_t pid, pid_t parent, const char *name)
{
	uint32_t ms = 1 + stress_dice(&s->dice) % STOP_MS_MAX;

	for (size_t i = 0; i < STOPPED_MAX; i++) {
		struct stopped *st = &s->stopped[i];

		if (st->pidfd >= 0)
			continue;
		st->pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
		if (st->pidfd < 0 || !host_is(pid, parent, name) ||
		    pidfd_send_signal(st->pidfd, SIGSTOP, NULL, 0) < 0) {
			closep(&st->pidfd);
			return false;
		}
		st->until_ns = now_ns() + ms * 1000000ull;
		return true;
	}
	return false;
}

void
chaos_continue(struct stress *s, uint64_t now)
{
	for (size_t i = 0; i < STOPPED_MAX; i++) {
		struct stopped *st = &s->stopped[i];

		if (st->pidfd < 0 || st->until_ns > now)
			continue;
		/* It may have been killed meanwhile. */
		(void)pidfd_send_signal(st->pidfd, SIGCONT, NULL, 0);
		closep(&st->pidfd);
	}
}

static unsigned
any_client(struct stress *s)
{
	return stress_dice(&s->dice) % s->opt.clients;
}

static pid_t
any_child(struct stress *s, const char *name)
{
	pid_t pid[256];
	unsigned n = host_children(s->supervisor, pid, ARRAY_SIZE(pid)), k;

	k = n > 0 ? stress_dice(&s->dice) % n : 0;
	for (unsigned i = 0; i < n; i++)
		if (host_is(pid[(i + k) % n], s->supervisor, name))
			return pid[(i + k) % n];
	return 0;
}

static bool
kill_client(struct stress *s)
{
	if (!hit(s->client[any_client(s)], getpid(), "stress", SIGKILL))
		return false;
	s->killed_clients++;
	s->killed_now++;
	return true;
}

static bool
stop_client(struct stress *s)
{
	return stop(s, s->client[any_client(s)], getpid(), "stress");
}

static bool
kill_worker(struct stress *s)
{
	return hit(any_child(s, "(vmpool-vm)"), s->supervisor, "(vmpool-vm)", SIGKILL);
}

static bool
stop_worker(struct stress *s)
{
	return stop(s, any_child(s, "(vmpool-vm)"), s->supervisor, "(vmpool-vm)");
}

static bool
kill_fork_server(struct stress *s)
{
	return hit(any_child(s, "(vmpool-fsrv)"), s->supervisor, "(vmpool-fsrv)", SIGKILL);
}

static bool
stop_supervisor(struct stress *s)
{
	return stop(s, s->supervisor, getpid(), "vmpoold");
}

static bool
reload(struct stress *s)
{
	return hit(s->supervisor, getpid(), "vmpoold", SIGHUP);
}

static bool
replace(struct stress *s, int sig)
{
	if (now_ns() < s->supervisor_since_ns + RESTART_PAUSE_NS ||
	    !hit(s->supervisor, getpid(), "vmpoold", sig))
		return false;
	chaos_continue(s, UINT64_MAX);
	(void)host_end(s);
	s->restarts++;
	(void)host_start(s);
	return true;
}

static bool
kill_supervisor(struct stress *s)
{
	return replace(s, SIGKILL);
}

static bool
end_supervisor(struct stress *s)
{
	return replace(s, SIGTERM);
}

/* --- choosing --------------------------------------------------------------------------- */

bool
chaos_act(struct stress *s)
{
	uint32_t total = 0, k;

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		total += chosen(s, i) ? acts[i].weight : 0;
	if (total == 0)
		return true;
	k = stress_dice(&s->dice) % total;
	for (size_t i = 0; i < ARRAY_SIZE(acts); i++) {
		if (!chosen(s, i))
			continue;
		if (k < acts[i].weight) {
			s->acts[i] += acts[i].run(s);
			break;
		}
		k -= acts[i].weight;
	}
	return s->supervisor != 0;
}

void
chaos_report(const struct stress *s)
{
	printf("  acts      ");
	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		printf("%s%s %u", i == 0 ? "" : ", ", acts[i].name, s->acts[i]);
	printf("\n");
}
