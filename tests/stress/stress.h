/* SPDX-License-Identifier: MIT
 *
 * stress.h - a real pool under stress: what the files of this folder share.
 *
 *   stress.c   options, the run, the report
 *   host.c     the supervisor's process: start, kill, restart; what orphans it leaves
 *   clients.c  the client processes
 *   chaos.c    who is killed or stopped, and when
 *   verdict.c  is everything as it must be, now that it is quiet?
 *
 * All of it runs in one process, the parent (or subreaper) of everything else.
 */
#ifndef VMPOOL_TESTS_STRESS_H
#define VMPOOL_TESTS_STRESS_H

#include "tests/lib/stress_body.h"

#include <sys/types.h>

#define CLIENTS_MAX 64u
#define STOPPED_MAX 32u
#define ACTS_MAX 16u

struct options {
	uint32_t seconds, clients, cycles, seed, touch, act_ms, patience_ms, command_ms;
	uint32_t min_idle, max_idle, max_total;
	const char *accel, *vmpoold, *acts, *log;
	bool quiet;
};

/* Of one process. */
struct usage {
	uint32_t fds;
	uint64_t anon_kib;
};

struct stress {
	struct options opt;
	uint32_t dice;
	char dir[64];
	int notify;
	uint64_t began_ns;
	struct shared {
		struct stress_plan plan;
		struct stress_party party[CLIENTS_MAX];
	} * shared;

	pid_t supervisor;
	uint64_t supervisor_since_ns;
	struct vmpool *monitor;
	uint64_t generation;
	struct usage usage; /* of the supervisor, when it had just become ready */
	uint32_t restarts;

	pid_t client[CLIENTS_MAX];
	uint32_t killed_clients, killed_now; /* all in all; since the last restart */

	struct stopped {
		int pidfd; /* -1 = free */
		uint64_t until_ns;
	} stopped[STOPPED_MAX];
	uint32_t acts[ACTS_MAX]; /* how often */

	uint32_t faults;
};

/* Something that must not be: said at once, and in the report. */
void fault(struct stress *s, const char *fmt, ...) printf_like(2, 3);

/* host.c. host_start waits until the pool serves; false: it never does. */
bool host_start(struct stress *s);
/* The supervisor has been killed or told to end: wait for it and for all that it
 * leaves, 20 s. Returns its wait status, or -1 (a fault). */
int host_end(struct stress *s);
/* Reap what has ended; its end was expected if expected(pid). */
void host_reap(struct stress *s);
bool host_usage(pid_t pid, struct usage *out);
/* Processes whose parent is pid, at most max; how many. */
unsigned host_children(pid_t pid, pid_t *out, unsigned max);
bool host_is(pid_t pid, pid_t parent, const char *name);

/* clients.c */
void clients_start(struct stress *s);
bool clients_ended(struct stress *s, pid_t pid, int status);
void clients_look(struct stress *s); /* has anyone hung or complained? */
bool clients_finish(struct stress *s);
uint64_t clients_sum(const struct stress *s, size_t offset);
#define CLIENTS_SUM(s, field) clients_sum(s, offsetof(struct stress_party, field))

/* chaos.c */
bool chaos_init(struct stress *s);
bool chaos_act(struct stress *s); /* false: the pool could not be restarted */
void chaos_continue(struct stress *s, uint64_t now);
void chaos_report(const struct stress *s);

/* verdict.c */
void verdict(struct stress *s);

#endif
