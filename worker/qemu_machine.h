/* SPDX-License-Identifier: MIT
 *
 * qemu_machine.h - what the parts of the software-emulated machine share:
 * qemu.c (channel, start, end), qemu_template.c (load, resume) and
 * qemu_capture.c. Private to them.
 */
#ifndef VMPOOL_QEMU_MACHINE_H
#define VMPOOL_QEMU_MACHINE_H

#include "worker/machine.h"
#include "worker/qemu_child.h"

#define QEMU_MAGIC 0x71656d75u
#define QEMU_BUF (64u << 10)
#define QEMU_STATE_MAX (64ull << 20) /* device state; it has about 60 KB */

/* What the monitor is busy with, or was last. */
enum qemu_stage {
	QEMU_RUNS,	/* boots or runs */
	QEMU_PREPARES,	/* takes in a template's state */
	QEMU_PREPARED,	/* has it, and waits for load */
	QEMU_CONTINUES, /* is told to run */
	QEMU_CAPTURES,
	QEMU_CAPTURED, /* stands still */
};

/* The template's state on its way into QEMU. */
struct qemu_feed {
	int sock, state_fd;
	uint64_t off, end;
	struct loop_op send;
	size_t have;
	uint8_t buf[16u << 10];
};

struct qemu_capture {
	struct machine_capture to;
	struct qemu_child *copy; /* takes over private memory; NULL: memory lies in a file */
	int copy_chan;		 /* connected as the machine's, silent */
	int sock;		 /* where the state comes out */
	struct loop_op recv;
	uint64_t len;
	bool wait;	      /* another script must end first */
	bool sent, taken;     /* the machine, the copy have done their first part */
	bool writes, written; /* the state is being written; the writer says that it is */
	bool eof;	      /* we have it all */
	bool spoke;	      /* the guest sent something meanwhile */
	int error;
	char why[256];
	uint8_t buf[16u << 10];
};

/* The guest's memory as the process of a machine with a template has it mapped. */
struct qemu_memory {
	dev_t dev; /* the template's file */
	ino_t ino;
	uint64_t base; /* address in that process; 0: not to be found */
};

struct machine {
	unsigned magic;
	struct loop *loop;
	struct machine_events events;
	struct qemu_child *child;
	struct machine_config cfg; /* without the template */
	int mem_fd;		   /* memory that is shared with a file, or -1 */
	enum qemu_stage stage;
	bool templated, loaded; /* was started from a template; load was called */
	struct qemu_memory memory;
	int chan;
	struct loop_op recv, send;
	bool closed;	       /* the channel has ended */
	size_t in_off, in_len; /* unread: in[in_off .. in_len) */
	size_t out_len;	       /* unsent: out[0 .. out_len) */
	uint8_t in[QEMU_BUF], out[QEMU_BUF];
	struct qemu_feed feed;
	struct qemu_capture cap;
};

/* Start the child of a machine that is all zero but for loop, events and cfg. */
int qemu_template_start(struct machine *m, const struct machine_template *tmpl, char *err,
			size_t errlen) must_check;
int qemu_template_load(struct machine *m, uint64_t *dirty_pages, char *err, size_t errlen);
int qemu_template_resume(struct machine *m, char *err, size_t errlen);
/* A script of the child has ended; not one of a capture. */
void qemu_template_done(struct machine *m, int error, const char *why);
void qemu_template_fini(struct machine *m);

/* qemu_memory.c: guest memory from outside (machine.h). */
void qemu_memory_of(struct machine *m, const struct machine_template *tmpl);
int qemu_memory_peek(struct machine *m, const struct machine_place *at, unsigned n, void *buf);
int qemu_memory_poke(struct machine *m, const struct machine_place *at, unsigned n,
		     const void *buf);

int qemu_capture_begin(struct machine *m, const struct machine_capture *to, char *err,
		       size_t errlen);
/* A script of the child has ended during a capture. */
void qemu_capture_done(struct machine *m, int error, const char *why);
/* The child has ended during a capture. */
void qemu_capture_ended(struct machine *m);
void qemu_capture_init(struct machine *m);
void qemu_capture_fini(struct machine *m);

/* The events of the machine's child. */
extern const struct qemu_child_events qemu_machine_events;

/* {"capabilities": ...} as migrations of templates need them: ignore, leave out
 * memory that is shared with a file. */
json_t *qemu_capabilities(bool ignore);

#endif
