/* SPDX-License-Identifier: MIT
 *
 * child.h - the workers: a fixed table, one entry per slot.
 *
 *   NONE -> SPAWNING -> STARTING -> READY <-> CHECKING, RESETTING, CAPTURING;
 *                                    READY -> ENDING -> NONE
 *            asked of    booting     serves   killed, or its socket closed;
 *            the fork                         not reaped yet
 *            server
 * Any state goes to NONE when the process has been reaped (or never was).
 *
 * This table is private memory: unlike the segment's slot table nobody else can
 * write it, so it decides what is started, killed and reaped.
 */
#ifndef VMPOOL_CHILD_H
#define VMPOOL_CHILD_H

#include <signal.h>
#include <sys/types.h>

#include "shm/ctl.h"
#include "supervisor/evloop.h"

enum child_state {
	CHILD_NONE = 0,
	CHILD_SPAWNING,
	CHILD_STARTING,
	CHILD_READY,
	CHILD_CHECKING,	 /* told to check its guest's health */
	CHILD_RESETTING, /* told to put its VM back to the template */
	CHILD_CAPTURING, /* told to copy its VM */
	CHILD_ENDING,
	CHILD_STATES,
};

/* How one ended. */
struct child_end {
	bool was_ready; /* it had said READY */
	bool killed;	/* by child_kill */
	bool checking;	/* while it checked its guest's health */
	pid_t pid;	/* 0: there never was a process */
	int error;	/* -errno that it gave with FAILED, or 0 */
	char why[256];	/* one line */
};

struct child_ops {
	void (*spawned)(void *arg, uint32_t slot, pid_t pid);
	void (*ready)(void *arg, uint32_t slot, uint64_t took_ns);
	/* The end of a child_reset: so many memory pages had been written. READY again. */
	void (*reset)(void *arg, uint32_t slot, uint64_t pages);
	/* The end of a child_check: 0, or -errno. READY again. */
	void (*checked)(void *arg, uint32_t slot, int error);
	/* The end of a child_capture: 0 and, for a template, its two files (the callee's to
	 * close); or -errno. text: one line of how, or why. READY again. */
	void (*captured)(void *arg, uint32_t slot, int error, const char *text,
			 const struct ctl_template *tmpl, int fds[2]);
	/* FAILED's text: one line, then console lines. The end follows. */
	void (*failed)(void *arg, uint32_t slot, const char *text);
	/* Reaped; the entry is NONE again. */
	void (*gone)(void *arg, uint32_t slot, const struct child_end *end);
	void *arg;
};

struct children;

int children_new(struct children **out, struct evloop *loop, uint32_t nslots,
		 const struct child_ops *ops) must_check;

/* Kill and reap all that are left, waiting at most timeout_ms; no calls to ops.
 * Returns how many did not end. */
unsigned children_free(struct children *table, int timeout_ms);

/* NONE -> SPAWNING. *worker_sock: the worker's end of its control socket, the
 * caller's to send and close. 0 or -errno. */
int child_begin(struct children *table, uint32_t slot, uint64_t generation,
		int *worker_sock) must_check;

/* The fork server's answer: takes pidfd. One that nobody waits for (another
 * generation, a slot out of range) is killed. error < 0: it was not made. */
void child_spawned(struct children *table, uint32_t slot, uint64_t generation, pid_t pid, int pidfd,
		   int error);

/* The fork server is down: no answer will come to those SPAWNING. */
void children_unanswered(struct children *table, const char *why);

/* A child of ours has ended and is about to be reaped: was it one of these? */
bool children_ended(struct children *table, const siginfo_t *si);

/* READY -> CHECKING: have the guest run a command; checked() or gone() follows, by
 * a deadline. One that cannot be told is killed. */
void child_check(struct children *table, uint32_t slot);
/* READY -> RESETTING: put the VM back to the template; reset() or gone() follows. */
void child_reset(struct children *table, uint32_t slot);

/* READY -> CAPTURING: write the VM of this lease into the file, or (-1) into files of its
 * own; captured() or gone() follows, by a deadline. */
void child_capture(struct children *table, uint32_t slot, uint64_t lease, int file);

/* Tell one that is READY or CAPTURING that a client joins its lease of this generation;
 * fds stay the caller's. -EAGAIN: it is neither, or too busy to hear of it; -errno. */
int child_join(struct children *table, uint32_t slot, uint64_t generation,
	       const int fds[CTL_JOIN_FDS]) must_check;

/* End it, with SIGKILL; why goes into its child_end. Nothing if NONE or ENDING. */
void child_kill(struct children *table, uint32_t slot, const char *why);

/* Once a second: kill the boots that take too long and those whose socket has
 * closed. True if the fork server owes an answer for too long. */
bool children_tick(struct children *table, uint64_t now);

enum child_state child_state(const struct children *table, uint32_t slot);
/* Entries in this state; those not NONE; those SPAWNING or STARTING. */
uint32_t children_in(const struct children *table, enum child_state state);
uint32_t children_total(const struct children *table);
uint32_t children_starting(const struct children *table);

#endif
