/* SPDX-License-Identifier: MIT
 *
 * worker.h - one worker: a process that owns one VM and, once it has been given one,
 * a slot.
 */
#ifndef VMPOOL_WORKER_H
#define VMPOOL_WORKER_H

#include "shm/segment.h"
#include "worker/machine.h"

#define WORKER_READY_NS 60000000000ull /* a guest that is not ready by then is hung */

struct worker_config {
	struct seg *seg;
	const struct machine_ops *ops;
	struct machine_config machine;
};

/* Where it works. */
struct worker_place {
	uint32_t slot;
	int control;	       /* SEQPACKET socket to the supervisor, ctl.h */
	int request, response; /* the slot's doorbell eventfds */
};

struct worker;

/* Do all that can be done before the slot is known: with a template, everything but
 * loading its state. 0 or -ENOMEM; other failures are told in worker_serve. */
int worker_prepare(struct worker **out, const struct worker_config *cfg) must_check;

/* Serve the machine's own preparations until sock (an order) can be read. 0; not 0:
 * the machine has ended. */
int worker_wait(struct worker *w, int sock) must_check;

/* Work there until the VM or the supervisor ends, or it is told to stop; frees the
 * worker. Returns the process's exit status. Nothing it started is left when it
 * returns; when it is killed, its QEMU child dies with it. */
int worker_serve(struct worker *w, const struct worker_place *place);

/* Both. A worker without a template boots its machine, and cannot be reset. */
int worker_run(const struct worker_config *cfg, const struct worker_place *place);

#endif
