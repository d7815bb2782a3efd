/* SPDX-License-Identifier: MIT
 *
 * pool.h - what vmpoold does with its VMs: refill, discard, expire, drain.
 */
#ifndef VMPOOL_POOL_H
#define VMPOOL_POOL_H

#include "supervisor/bells.h"
#include "supervisor/child.h"
#include "supervisor/config.h"
#include "supervisor/forker.h"
#include "supervisor/parts.h"
#include "supervisor/retry.h"
#include "supervisor/rundir.h"

struct pool;

struct pool_setup {
	struct evloop *loop;
	struct seg *seg;
	struct retry *retry;
	struct bells *bells;
	const struct config *cfg; /* may change under us; then call pool_policy */
	const struct parts *parts;
	const struct rundir *dir;
	/* The first VM is ready (or none is wanted). */
	void (*ready)(void *arg);
	/* Before any VM was ready: a failure that trying again does not change, or
	 * several in a row. The pool has given up. */
	void (*hopeless)(void *arg, const char *why);
	/* Draining, and no lease is left. */
	void (*drained)(void *arg);
	void *arg;
};

/* Start the fork server; VMs follow from the event loop. 0 or -errno with err. */
int pool_open(struct pool **out, const struct pool_setup *setup, char *err,
	      size_t errlen) must_check;

/* Kill and reap every worker, then end the fork server, which removes the pool's files. */
void pool_close(struct pool *pool);

/* Put the configuration's numbers into the segment and act on them. */
void pool_policy(struct pool *pool);

/* Look at the slot table and do what it asks for. For doorbells, and whenever
 * leases may have ended. */
void pool_look(struct pool *pool);

/* Tell the slot's worker of a client that joins its lease: child_join. */
int pool_join(struct pool *pool, uint32_t slot, uint64_t generation,
	      const int fds[CTL_JOIN_FDS]) must_check;

/* Once a second. */
void pool_tick(struct pool *pool);

/* Start no more VMs, end the idle ones, tell when no lease is left. */
void pool_drain(struct pool *pool);

/* A client wants a copy of the VM that it has borrowed. */
struct pool_copy;
struct pool_copy_ask {
	uint32_t slot;
	uint64_t lease; /* generation */
	int file;	/* the snapshot's; -1: another VM, lent to client (a fork) */
	uint32_t client;
	/* Once, from the event loop: 0, and a fork's slot and lease word; or -errno with a
	 * line of why. */
	void (*done)(void *arg, int error, const char *text, uint32_t slot, uint64_t word);
	void *arg;
};

/* Begin: 0, and done follows; or -errno with err. *out is valid until then. */
int pool_copy(struct pool *pool, const struct pool_copy_ask *ask, struct pool_copy **out, char *err,
	      size_t errlen) must_check;
/* Nobody waits for it any more: done is not called. */
void pool_copy_forget(struct pool_copy *copy);

/* A child of ours has ended and is about to be reaped: was it one of the pool's? */
bool pool_child_ended(struct pool *pool, const siginfo_t *si);

#endif
