/* SPDX-License-Identifier: MIT
 *
 * qmp.h - scripts of commands for QEMU's monitor (QMP: JSON over a socket).
 *
 * A script is a few commands, run one after the other, each when the one before
 * has succeeded; some go on until the migration they began has ended. A script
 * ends exactly once, by its last command, a refusal, or its deadline. What comes
 * from QEMU is bounded (QMP_LINE) and checked; whoever breaks the protocol is
 * hung up on. All functions belong to the loop's thread.
 */
#ifndef VMPOOL_QMP_H
#define VMPOOL_QMP_H

#include "worker/loop.h"

#include <jansson.h>

#define QMP_STEPS 8u
#define QMP_LINE (32u << 10) /* longest message from QEMU */

/* error 0, or -errno with one line of why. */
typedef void qmp_done_fn(void *owner, int error, const char *why);

struct qmp_step {
	json_t *command;
	int fd;	       /* goes with the command (for getfd); -1: none */
	bool migrates; /* lasts until the migration has ended */
};

enum qmp_migration { QMP_MIGRATION_OPEN, QMP_MIGRATION_DONE, QMP_MIGRATION_FAILED };

struct qmp {
	unsigned magic;
	struct loop *loop;
	int fd;
	qmp_done_fn *done;
	void *owner;
	struct loop_op recv, timer;
	bool greeted, negotiated; /* QEMU has introduced itself; and takes commands */
	bool hung_up;
	bool running, waiting; /* a script runs; a command is unanswered */
	bool asking;	       /* the unanswered command is query-migrate, for the reason */
	bool incomplete;       /* a step did not fit, or memory ran out */
	enum qmp_migration migration;
	struct qmp_step step[QMP_STEPS];
	unsigned steps, at;
	bool taking; /* `in` is being read: no receive into it */
	size_t have;
	char in[QMP_LINE];
};

/* Takes over fd, a stream socket to the monitor. Nothing is read before the first script. */
void qmp_init(struct qmp *qmp, struct loop *loop, int fd, qmp_done_fn *done, void *owner);
/* The loop must not run afterwards, or qmp_idle must hold. */
void qmp_fini(struct qmp *qmp);

/* Add to the script, which is not running, a command with its arguments (a
 * reference given away; NULL = none), and a descriptor that goes with it (given
 * away too; -1 = none). What cannot be added fails the script when it runs. */
void qmp_add(struct qmp *qmp, const char *command, json_t *arguments, int fd);
/* The same, for a command that begins a migration: the step ends with that. It
 * needs the capability "events". */
void qmp_add_migration(struct qmp *qmp, const char *command, json_t *arguments);

/* Run what was added; done is told the end, from the loop. */
void qmp_run(struct qmp *qmp, uint64_t due_ns);
/* Another deadline for the running script, if one runs; until the loop has seen the
 * old one it may even have passed. */
void qmp_set_due(struct qmp *qmp, uint64_t due_ns);

/* QEMU is gone, or nothing more is wanted of it: a running script fails. */
void qmp_hang_up(struct qmp *qmp, int error, const char *why);
/* No operation is in flight: the struct may go although the loop runs on. */
bool qmp_idle(const struct qmp *qmp);

#endif
