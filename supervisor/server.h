/* SPDX-License-Identifier: MIT
 *
 * server.h - the pool's UNIX socket: attach, doorbells, stop, copies of VMs (messages:
 * shm/ctl.h).
 */
#ifndef VMPOOL_SERVER_H
#define VMPOOL_SERVER_H

#include "supervisor/bells.h"
#include "supervisor/pool.h"
#include "supervisor/retry.h"

struct server;

struct server_setup {
	struct evloop *loop;
	struct seg *seg;
	struct retry *retry;
	struct bells *bells;
	int listen_fd; /* stays the caller's */
	/* A client's leases have ended with it. */
	void (*client_gone)(void *arg);
	/* A client joins the lease of this generation: tell the slot's worker (pool_join). */
	int (*join)(void *arg, uint32_t slot, uint64_t generation, const int *fds);
	/* Someone asks the pool to stop, waiting drain_ms for leases to end. */
	void (*stop)(void *arg, pid_t pid, uint32_t drain_ms);
	/* Someone wants a copy of a VM: as pool_copy. */
	int (*copy)(void *arg, const struct pool_copy_ask *ask, struct pool_copy **out, char *err,
		    size_t errlen);
	void *arg;
};

int server_open(struct server **out, const struct server_setup *setup) must_check;

/* Close every connection; nothing more is done for the clients' leases. */
void server_close(struct server *srv);

/* Is a process of this id attached as a client? */
bool server_has_client(const struct server *srv, pid_t pid);

/* Once a second: cut off those who connect and say nothing. */
void server_tick(struct server *srv, uint64_t now);

#endif
