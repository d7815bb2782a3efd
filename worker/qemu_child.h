/* SPDX-License-Identifier: MIT
 *
 * qemu_child.h - one QEMU process: its start, monitor, console log and end.
 * The machine of a worker has one; a second one helps while it is captured.
 */
#ifndef VMPOOL_QEMU_CHILD_H
#define VMPOOL_QEMU_CHILD_H

#include "worker/qemu_args.h"
#include "worker/qmp.h"

#include <signal.h>

#define QEMU_CONSOLE (16u << 10)

struct qemu_child_events {
	/* A script of the monitor has ended (qmp.h). */
	qmp_done_fn *done;
	/* The process has ended and is reaped; `end` says how. */
	void (*ended)(void *owner);
	void *owner;
};

struct qemu_child {
	unsigned magic;
	pid_t pid;
	int pidfd, console;
	struct loop *loop;
	struct qemu_child_events events;
	struct loop_op exit, log;
	struct qmp qmp;
	bool gone, ended; /* reaped; and its last words are read */
	siginfo_t status;
	char end[256];
	size_t log_len;
	char text[QEMU_CONSOLE];
	char log_buf[1024];
};

/* Start QEMU in that role; args.mem and .incoming are inherited, *chan becomes our
 * end of the guest channel. 0, or -errno with err; nothing is left behind then. */
int qemu_child_new(struct qemu_child **out, struct qemu_args *args, int *chan, struct loop *loop,
		   const struct qemu_child_events *events, char *err, size_t errlen) must_check;

/* End it; why (not NULL) will be its end's name. events.ended comes as always. */
void qemu_child_kill(struct qemu_child *child, const char *why);
/* Ended, and no operation in flight: it may be freed although the loop runs on. */
bool qemu_child_idle(const struct qemu_child *child);
/* The loop must not run afterwards, or qemu_child_idle must hold. */
void qemu_child_free(struct qemu_child *child);

/* The newest console output, as machine.h has it. */
size_t qemu_child_console(struct qemu_child *child, char *buf, size_t len);

#endif
