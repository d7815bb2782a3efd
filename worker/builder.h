/* SPDX-License-Identifier: MIT
 *
 * builder.h - makes a template: a process that boots one guest, warms it up, and
 * writes down what it is then.
 */
#ifndef VMPOOL_BUILDER_H
#define VMPOOL_BUILDER_H

#include "worker/machine.h"

#define BUILDER_BOOT_NS 60000000000ull	  /* a guest that is not ready by then is hung */
#define BUILDER_WARMUP_NS 300000000000ull /* for the warm-up command */
#define BUILDER_CAPTURE_NS 60000000000ull

struct builder_config {
	int control; /* SEQPACKET socket to the supervisor, ctl.h */
	const struct machine_ops *ops;
	struct machine_config machine; /* tmpl and mem_fd are the builder's own */
	const char *warmup;	       /* run by /bin/sh -c in the guest; NULL: nothing */
	int snapshot;		       /* take this file into use instead (adopt.h); -1: none */
};

/* Build, and hand the template to the supervisor (WORKER_TEMPLATE, or WORKER_FAILED
 * with the reason). Returns the process's exit status. Every step has a deadline. */
int builder_run(const struct builder_config *cfg);

#endif
