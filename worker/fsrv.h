/* SPDX-License-Identifier: MIT
 *
 * fsrv.h - the fork server: a small single-threaded process that makes workers.
 *
 * It is started by the supervisor with the pool's machine configuration, maps
 * the segment once, forks a builder that makes the template (BUILD, ctl.h), holds
 * that (TEMPLATE), and forks a worker for each SPAWN message; some ahead of demand
 * (shell.h). The builder and the workers are the supervisor's own children (CLONE_PARENT), so that
 * who decides is who reaps. When the supervisor's end of the socket closes, by whatever death, it
 * removes the files it was told to and ends.
 */
#ifndef VMPOOL_FSRV_H
#define VMPOOL_FSRV_H

#include "worker/worker.h"

struct fsrv_config {
	int control;	    /* SEQPACKET socket to the supervisor */
	pid_t supervisor;   /* workers die when this process does */
	int lock;	    /* held until the files are removed; -1 = none. Not for workers */
	const char *remove; /* paths to remove at the end, separated by ':'; NULL = none */
	const char *warmup; /* for the builder; NULL = none */
	int snapshot;	    /* for the builder: take this file into use; -1 = none */
	struct worker_config worker; /* seg, ops and machine filled in, but for its template */
};

/* Serve until the supervisor is gone. Exit status. */
int fsrv_run(const struct fsrv_config *cfg);

#endif
