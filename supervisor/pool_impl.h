/* SPDX-License-Identifier: MIT
 *
 * pool_impl.h - private to pool.c, pool_slot.c and pool_start.c, which together
 * are the pool as the supervisor sees it.
 */
#ifndef VMPOOL_POOL_IMPL_H
#define VMPOOL_POOL_IMPL_H

#include "supervisor/policy.h"
#include "supervisor/pool.h"
#include "supervisor/template.h"

#define POOL_MAGIC 0x90e2b1f7u

/* Changes of a slot in the segment that are still to be made, in this order. */
enum {
	DUE_WORKER = 1,	    /* note the worker's pid */
	DUE_READY = 2,	    /* STARTING -> IDLE or IN_USE */
	DUE_EVICT = 4,	    /* IDLE -> RESETTING, then end it */
	DUE_RESET = 8,	    /* RESETTING -> IDLE or IN_USE: it was put back to the template */
	DUE_HEALTHY = 16,   /* ... its health check passed */
	DUE_UNHEALTHY = 32, /* ... or did not: end it */
	DUE_GONE = 64,	    /* the worker is no more */
};

struct pool_slot {
	struct pool *pool;
	struct retry_op op;
	unsigned due;
	uint64_t boot_ns, pages;
	pid_t pid;
	struct pool_copy *captured_for; /* a copy of this VM is being made */
	struct pool_copy *made_for;	/* this VM is being made of a copy */
	bool forked;			/* ... and was: never idle, never reset */
};

struct pool {
	unsigned magic;
	struct pool_setup s;
	struct children *children;
	struct forker *forker;
	struct template *template;
	bool forker_up, draining, drained;
	struct retry_op drain, check;
	uint64_t recycles;    /* when the last health check was begun */
	struct policy_vm *vm; /* nslots entries to sort in */
	struct pool_slot *slot;

	/* pool_start.c */
	bool ever_ready, hopeless;
	uint32_t ramp, ramp_cap, failing;
	bool renew;		    /* a kept idle VM has expired */
	struct policy_burst burst;  /* the refill target that recent misses ask for */
	uint64_t misses, ticked_ns; /* at the last tick */
	uint64_t opened_ns, backoff_until_ns;
	struct ev_timer backoff;
	struct retry_op refill;
};

/* --- pool.c ------------------------------------------------------------------------------ */

/* Log the console lines that follow the first line of text. */
void pool_log_console(const struct pool *pool, const char *what, const char *text);

/* --- pool_copy.c: snapshots and forks ------------------------------------------------ */

/* The worker's answer; arg is the pool. Takes fds. */
void pool_copy_captured(void *arg, uint32_t slot, int error, const char *text,
			const struct ctl_template *tmpl, int fds[2]);
/* The fork server is to make this copy's worker: as forker_spawn. */
int pool_copy_ask_for(struct pool_copy *c, struct forker *forker, uint32_t slot,
		      uint64_t generation, int sock, const struct bell_pair *bells) must_check;
/* The slot's VM, made for a copy, is ready: lend it. 0 or -EBUSY. */
int pool_copy_lend(struct pool *pool, uint32_t slot, uint64_t boot_ns) must_check;
/* The slot's worker is gone: copies that need it fail. True: it was made for one. */
bool pool_copy_gone(struct pool *pool, uint32_t slot, int error, const char *why);
void pool_copy_fini(struct pool *pool);

/* --- pool_check.c: health checks ---------------------------------------------------- */

void pool_check_init(struct pool *pool);
/* Begin a health check if one is due and none is under way. */
void pool_check_due(struct pool *pool);
/* The worker's answer: 0, or why the VM is not healthy. */
void pool_check_answer(void *arg, uint32_t slot, int error);

/* --- pool_slot.c: changes of the segment ---------------------------------------- */

void pool_slot_init(struct pool *pool);
/* Make this change, now or when the pool lock is free. */
void pool_slot_due(struct pool *pool, uint32_t slot, unsigned what);
/* The slot's present state word. */
uint64_t pool_slot_word(const struct pool *pool, uint32_t slot);

/* --- pool_start.c: starting VMs ---------------------------------------------------- */

void pool_start_init(struct pool *pool);
/* Start what policy wants started. */
void pool_start_more(struct pool *pool);
/* A slot for a VM: as sup_start; -ESTALE: the segment is not what it was. */
int pool_start_slot(struct pool *pool, uint32_t *slot, uint64_t *generation) must_check;
/* Have the slot's worker made. What fails is counted and undone here. */
int pool_start_spawn(struct pool *pool, uint32_t slot, uint64_t generation);
/* The numbers that policy goes by, now. */
void pool_start_numbers(struct pool *pool, struct policy_in *in);
/* A VM is ready; or it ended before it was. */
void pool_start_ok(struct pool *pool, uint32_t slot, uint64_t boot_ns);
void pool_start_failed(struct pool *pool, const char *what, const struct child_end *end);
/* The template's and the fork server's callbacks; arg is the pool. */
void pool_start_template_ready(void *arg, const char *text, uint64_t took_ns);
void pool_start_template_failed(void *arg, const struct child_end *end, const char *text);
void pool_start_forker_down(void *arg, uint32_t failing, const char *why);
void pool_start_forker_up(void *arg);

#endif
