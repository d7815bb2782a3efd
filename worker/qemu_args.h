/* SPDX-License-Identifier: MIT
 *
 * qemu_args.h - the command line of a QEMU child: one machine, in three roles.
 */
#ifndef VMPOOL_QEMU_ARGS_H
#define VMPOOL_QEMU_ARGS_H

#include "worker/machine.h"

#define QEMU_ARGS_MAX 48
#define QEMU_ARGS_TEXT 4096
/* Emulated `rep movsb` moves a byte at a time: keep the guest from preferring it. */
#define QEMU_CPU "max,-erms"

enum qemu_role {
	QEMU_BOOT,     /* boots the kernel; memory private, or shared on mem */
	QEMU_TEMPLATE, /* waits for its state; memory is a private mapping of mem */
	QEMU_COPY,     /* waits for memory and state of another; memory shared on mem */
};

struct qemu_args {
	enum qemu_role role;
	const struct machine_config *cfg; /* of mem_fd and tmpl only role and mem count here */
	int chan, console, qmp;		  /* the child's ends of its sockets */
	int mem;			  /* guest memory, or -1 (QEMU_BOOT only) */
	int incoming;			  /* where the state comes from, or -1 (QEMU_BOOT) */
	const char *argv[QEMU_ARGS_MAX];
	unsigned argc;
	size_t used;
	char text[QEMU_ARGS_TEXT];
};

/* Make argv from the fields before it. 0, or -E2BIG with err: a path is too long. */
int qemu_args_make(struct qemu_args *args, char *err, size_t errlen) must_check;

/* The descriptors that the child inherits: n of them (at most 5). */
unsigned qemu_args_fds(const struct qemu_args *args, int fds[5]);

#endif
