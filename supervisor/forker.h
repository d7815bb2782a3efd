/* SPDX-License-Identifier: MIT
 *
 * forker.h - the supervisor's end of the fork server (vmpool-worker fork-server).
 *
 * The fork server makes the workers. It is also the undertaker: when its
 * control socket closes, which is how it learns that the supervisor is dead, it
 * removes the pool's files while it still holds the lock on the pool's name.
 * Hence that socket is closed only when the files are to go, or after the fork
 * server has been reaped.
 */
#ifndef VMPOOL_FORKER_H
#define VMPOOL_FORKER_H

#include <signal.h>
#include <sys/types.h>

#include "shm/ctl.h"
#include "supervisor/bells.h"
#include "supervisor/config.h"
#include "supervisor/evloop.h"
#include "supervisor/parts.h"
#include "supervisor/rundir.h"

struct forker;

struct forker_ops {
	/* The answer to a forker_spawn. On success pid > 0 is our child and pidfd
	 * is the callee's; else error is -errno and pidfd -1. */
	void (*spawned)(void *arg, uint32_t slot, uint64_t generation, pid_t pid, int pidfd,
			int error);
	/* It ended: spawns without an answer get none. Tried `failing` times in a
	 * row without one success; why: one line. It is started again by itself. */
	void (*down)(void *arg, uint32_t failing, const char *why);
	void (*up)(void *arg);
	void *arg;
};

/* Start it. Everything named stays the caller's and must outlive it. */
int forker_open(struct forker **out, struct evloop *loop, const struct config *cfg,
		const struct parts *parts, const struct rundir *dir, int segment_fd,
		const struct forker_ops *ops, char *err, size_t errlen) must_check;

/* Ask for a worker of this slot: sock is its end of the control socket. 0, or
 * -errno. -ENOTCONN: the fork server has ended or is about to; down() will be
 * called. The descriptors are copied. */
int forker_spawn(struct forker *fk, uint32_t slot, uint64_t generation, int sock,
		 const struct bell_pair *bells) must_check;

/* The same for a VM that starts from this template, memory and state by two files. */
int forker_fork(struct forker *fk, uint32_t slot, uint64_t generation, int sock,
		const struct bell_pair *bells, const struct ctl_template *tmpl,
		const int *files) must_check;

/* Ask for a builder: sock is its end of the control socket; the answer is for slot
 * FSRV_BUILDER. Hand over a template: memory and state. Errors as forker_spawn. */
int forker_build(struct forker *fk, int sock) must_check;
int forker_template(struct forker *fk, const struct ctl_template *tmpl, const int *fds) must_check;

/* A child of ours has ended and is about to be reaped: was it the fork server? */
bool forker_ended(struct forker *fk, const siginfo_t *si);

/* Take in the answers that are there, now. */
void forker_answers(struct forker *fk);

/* It does not answer: kill it. */
void forker_kill(struct forker *fk);

/* End it (it removes the pool's files), wait for it at most 2 s, then kill it. */
void forker_close(struct forker *fk);

#endif
