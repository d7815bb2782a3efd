/* SPDX-License-Identifier: MIT
 *
 * policy.h - how many VMs to start and which to end: pure functions of numbers.
 */
#ifndef VMPOOL_POLICY_H
#define VMPOOL_POLICY_H

#include "shm/base.h"

#define POLICY_BACKOFF_FIRST_NS 100000000ull
#define POLICY_BACKOFF_MAX_NS 10000000000ull

struct policy_in {
	uint32_t min_idle, max_idle, max_total;
	uint32_t warm_target; /* what vmpool_warm asked to hold */
	uint32_t burst;	      /* what recent misses ask for, see policy_burst */
	bool renew;	      /* an idle VM that is kept has expired: start its successor */
	uint32_t idle, waiting;
	uint32_t starting;  /* VMs being started now */
	uint32_t returning; /* VMs that will be idle again in a moment */
	uint32_t total;	    /* VMs of any state, those being ended included */
	uint32_t ramp;	    /* how many may be starting at once */
	bool draining;
	uint64_t now_ns, backoff_until_ns;
};

/* How many idle VMs to hold when nobody waits: at most max_idle. */
uint32_t policy_keep(const struct policy_in *in);

/* The refill target after this many misses since the last call, at most `cap`:
 * misses raise it one for one; in each POLICY_BURST_NS without any it loses a
 * quarter, rounded up. elapsed_ns: since the last call. */
#define POLICY_BURST_NS 5000000000ull
struct policy_burst {
	uint32_t target;
	uint64_t quiet_ns; /* time without misses that has not been counted yet */
};
uint32_t policy_burst(struct policy_burst *burst, uint64_t misses, uint32_t cap,
		      uint64_t elapsed_ns);

/* How many VMs to start now. */
uint32_t policy_start(const struct policy_in *in);

/* How many idle VMs are too many for max_idle. */
uint32_t policy_excess(const struct policy_in *in);

/* The pause after `failing` failed starts in a row: 0.1 s doubling to 10 s. */
uint64_t policy_backoff_ns(uint32_t failing);

/* How many may start at once after a success (`ok`) or a failure: 1, 2, 4 ... cap. */
uint32_t policy_ramp(uint32_t ramp, bool ok, uint32_t cap);

/* How long this VM may stay idle: max_idle_time seconds less up to a tenth,
 * always the same for the same VM, so that VMs of one burst do not end at once. */
uint64_t policy_lifetime_ns(uint32_t max_idle_time, uint32_t slot, uint64_t born_ns);

struct policy_vm {
	uint32_t slot;
	uint64_t order;	     /* idle_seq: smaller = longer idle */
	uint64_t expires_ns; /* when its idle time is over */
};

/* Choose the VMs to end: the expired ones beyond the first `keep`, and `excess`
 * more if that is more, oldest first. Sorts vm[]; the chosen are vm[0..returned). */
uint32_t policy_expire(struct policy_vm *vm, uint32_t n, uint32_t keep, uint32_t excess,
		       uint64_t now_ns);

/* Has one of the VMs that are kept expired? Then a successor is started first, and
 * policy_expire ends the old one once there is one more than needed. */
bool policy_renew(const struct policy_vm *vm, uint32_t n, uint64_t now_ns);

#endif
