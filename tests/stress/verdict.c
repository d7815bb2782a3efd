/* SPDX-License-Identifier: MIT
 *
 * verdict.c - when the clients have gone: every VM accounted for, balanced
 * statistics, every invariant of the tables, and nothing has grown.
 */
#include "shm/ctl.h"
#include "tests/lib/testpool.h"
#include "tests/stress/stress.h"
#include "worker/shell.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define QUIET_MS 60000
#define GROWTH_KIB 4096

static uint64_t
stat_value(const struct vmpool_stat *rows, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].name, name) == 0)
			return rows[i].value;
	return UINT64_MAX;
}

/* The numbers that the verdict is about, read together. */
struct numbers {
	uint64_t hit, miss, release, reclaim, idle, in_use, starting, resetting, waiting;
	uint64_t died, spawned, recovered;
	uint32_t rows, dead;
	pid_t worker[256];
};

static bool
read_numbers(struct stress *s, struct numbers *x)
{
	struct vmpool_slot_info *list = NULL;
	struct vmpool_stat *rows = NULL;
	size_t n = 0, slots = 0;

	memset(x, 0, sizeof(*x));
	if (vmpool_stats(s->monitor, &rows, &n) != 0 ||
	    vmpool_list(s->monitor, &list, &slots) != 0) {
		vmpool_stats_free(rows);
		return false;
	}
	x->hit = stat_value(rows, n, "hit_count");
	x->miss = stat_value(rows, n, "miss_count");
	x->release = stat_value(rows, n, "release_count");
	x->reclaim = stat_value(rows, n, "reclaim_count");
	x->idle = stat_value(rows, n, "idle_count");
	x->in_use = stat_value(rows, n, "in_use_count");
	x->starting = stat_value(rows, n, "starting_count");
	x->resetting = stat_value(rows, n, "resetting_count");
	x->waiting = stat_value(rows, n, "waiting_count");
	x->died = stat_value(rows, n, "vm_died_count");
	x->spawned = stat_value(rows, n, "spawn_count");
	x->recovered = stat_value(rows, n, "lock_recovery_count");
	for (size_t i = 0; i < slots; i++) {
		x->dead += strcmp(list[i].state, "dead") == 0;
		if (x->rows < ARRAY_SIZE(x->worker))
			x->worker[x->rows] = list[i].worker_pid;
		x->rows++;
	}
	vmpool_stats_free(rows);
	vmpool_list_free(list);
	return true;
}

/* One that was killed at the very end is started again after a pause. */
static bool
has_fork_server(const struct stress *s)
{
	pid_t pid[512];
	unsigned n = host_children(s->supervisor, pid, ARRAY_SIZE(pid));

	for (unsigned i = 0; i < n; i++)
		if (host_is(pid[i], s->supervisor, "(vmpool-fsrv)"))
			return true;
	return false;
}

static bool
is_quiet(const struct stress *s, const struct numbers *x)
{
	return x->in_use + x->dead + x->starting + x->resetting + x->waiting == 0 &&
	       x->idle >= s->opt.min_idle && has_fork_server(s);
}

static bool
wait_quiet(struct stress *s, struct numbers *x)
{
	uint64_t deadline = now_ns() + QUIET_MS * 1000000ull;

	while (read_numbers(s, x)) {
		if (is_quiet(s, x))
			return true;
		if (now_ns() > deadline)
			break;
		host_reap(s);
		(void)poll(NULL, 0, 5);
	}
	fault(s,
	      "not quiet after %d s: idle %llu, in use %llu, dead %u, starting %llu, resetting "
	      "%llu, waiting %llu, %s",
	      QUIET_MS / 1000, (unsigned long long)x->idle, (unsigned long long)x->in_use, x->dead,
	      (unsigned long long)x->starting, (unsigned long long)x->resetting,
	      (unsigned long long)x->waiting,
	      has_fork_server(s) ? "with a fork server" : "no fork server");
	return false;
}

/* --- the statistics ------------------------------------------------------------------- */

static void
balance(struct stress *s, const struct numbers *x)
{
	uint64_t acquires = x->hit + x->miss, seen = 0, ended = 0;

	for (unsigned i = 0; i < s->opt.clients; i++) {
		const struct stress_party *p = &s->shared->party[i];

		if (atomic_load(&p->generation) != s->generation)
			continue;
		seen += atomic_load(&p->acquired);
		ended += atomic_load(&p->ended);
	}
	if (acquires != x->release + x->reclaim)
		fault(s, "%llu hits + %llu misses, but %llu releases + %llu reclaims",
		      (unsigned long long)x->hit, (unsigned long long)x->miss,
		      (unsigned long long)x->release, (unsigned long long)x->reclaim);
	/* A killed client may have had a lease, or ended one, that it could not count. */
	if (acquires < seen || acquires > seen + s->killed_now)
		fault(s, "%llu acquires were counted; clients had %llu (%u were killed)",
		      (unsigned long long)acquires, (unsigned long long)seen, s->killed_now);
	if (x->release < ended || x->release > ended + s->killed_now)
		fault(s, "%llu releases were counted; clients made %llu (%u were killed)",
		      (unsigned long long)x->release, (unsigned long long)ended, s->killed_now);
	if (x->reclaim > s->killed_now)
		fault(s, "%llu leases were taken back from %u killed clients",
		      (unsigned long long)x->reclaim, s->killed_now);
	if (x->idle + x->in_use + x->resetting + x->starting != x->rows)
		fault(s, "%llu VMs are counted, %u are there",
		      (unsigned long long)(x->idle + x->in_use + x->resetting + x->starting),
		      x->rows);
}

/* The tables, as checkpool knows them, by a client of our own. */
static void
check_tables(struct stress *s)
{
	const struct ctl_request req = {
	    .magic = CTL_MAGIC, .kind = CTL_ATTACH, .format = SHM_FORMAT};
	_cleanup_(closep) int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fds[2] = {-1, -1};
	struct ctl_reply reply;
	const char *bad;
	struct seg *seg;
	char err[256];

	if (ctl_path(addr.sun_path, sizeof(addr.sun_path), "default", ".sock", err, sizeof(err)) <
		0 ||
	    connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    ctl_send(sock, &req, sizeof(req), NULL, 0) < 0 ||
	    ctl_recv(sock, &reply, sizeof(reply), fds, 2) < 0 || fds[0] < 0) {
		fault(s, "cannot attach to look at the tables: %m");
		return;
	}
	closep(&fds[1]);
	if (seg_attach(&seg, fds[0], false, err, sizeof(err)) < 0) {
		fault(s, "%s", err);
		return;
	}
	bad = checkpool(seg);
	if (bad != NULL)
		fault(s, "the tables: %s", bad);
	seg_close(seg);
}

/* --- processes and what they hold ---------------------------------------------------------- */

static void
check_processes(struct stress *s, const struct numbers *x)
{
	pid_t pid[512];
	unsigned n = host_children(s->supervisor, pid, ARRAY_SIZE(pid)), workers = 0, shells = 0;

	for (unsigned i = 0; i < n; i++) {
		workers += host_is(pid[i], s->supervisor, "(vmpool-vm)");
		shells += host_is(pid[i], s->supervisor, "(vmpool-shell)");
	}
	if (workers != x->rows)
		fault(s, "%u VMs, but %u workers", x->rows, workers);
	/* The fork server is the one that is left. */
	if (n != workers + shells + 1 || shells > SHELLS_MAX)
		fault(s, "the supervisor has %u children, %u of them workers, %u shells", n,
		      workers, shells);
	for (uint32_t i = 0; i < x->rows; i++)
		if (!host_is(x->worker[i], s->supervisor, "(vmpool-vm)"))
			fault(s, "worker %d of the list is none", (int)x->worker[i]);
}

static void
check_growth(struct stress *s, const struct numbers *x)
{
	/* Two doorbells for each slot that was ever used (there are more slots than
	 * VMs), a pidfd and a socket for each VM. */
	uint32_t most = s->usage.fds + 2 * 2 * s->opt.max_total + 2 * x->rows;
	struct usage now;

	if (!host_usage(s->supervisor, &now)) {
		fault(s, "nothing is known of the supervisor");
		return;
	}
	if (now.fds > most)
		fault(s, "the supervisor has %u descriptors, %u at its start", now.fds,
		      s->usage.fds);
	if (now.anon_kib > s->usage.anon_kib + GROWTH_KIB)
		fault(s, "the supervisor has %llu KiB of memory, %llu at its start",
		      (unsigned long long)now.anon_kib, (unsigned long long)s->usage.anon_kib);
	printf("  supervisor  %u descriptors (%u at its start), %llu KiB (%llu)\n", now.fds,
	       s->usage.fds, (unsigned long long)now.anon_kib,
	       (unsigned long long)s->usage.anon_kib);
}

void
verdict(struct stress *s)
{
	struct numbers x;

	if (!wait_quiet(s, &x))
		return;
	balance(s, &x);
	check_tables(s);
	check_processes(s, &x);
	check_growth(s, &x);
	printf("  last pool   %llu hits, %llu misses, %llu releases, %llu reclaims; %llu VMs were "
	       "ready, %llu died, %llu idle now; %llu lock repairs\n",
	       (unsigned long long)x.hit, (unsigned long long)x.miss, (unsigned long long)x.release,
	       (unsigned long long)x.reclaim, (unsigned long long)x.spawned,
	       (unsigned long long)x.died, (unsigned long long)x.idle,
	       (unsigned long long)x.recovered);
}
