/* SPDX-License-Identifier: MIT
 *
 * worker.h - one worker: a process that owns one VM and one slot.
 */
#ifndef VMPOOL_WORKER_H
#define VMPOOL_WORKER_H

#include "shm/segment.h"
#include "worker/machine.h"

#define WORKER_BOOT_NS 60000000000ull /* a guest that is not ready by then is hung */

struct worker_config {
	struct seg *seg;
	uint32_t slot;
	int control;	       /* SEQPACKET socket to the supervisor, ctl.h */
	int request, response; /* the slot's doorbell eventfds */
	const struct machine_ops *ops;
	struct machine_config machine;
};

/* Run the worker until its VM or its supervisor ends, or it is told to stop.
 * Returns the process's exit status. Nothing it started is left when it
 * returns; when it is killed, its QEMU child dies with it. */
int worker_run(const struct worker_config *cfg);

#endif
