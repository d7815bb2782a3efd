/* SPDX-License-Identifier: MIT
 *
 * policy.c - the pool's arithmetic. Runs in vmpoold; owns nothing, knows no clock.
 */
#include "supervisor/policy.h"

uint32_t
policy_keep(const struct policy_in *in)
{
	return MAX(in->min_idle, MIN(MAX(in->warm_target, in->burst), in->max_idle));
}

uint32_t
policy_burst(struct policy_burst *burst, uint64_t misses, uint32_t cap, uint64_t elapsed_ns)
{
	if (misses > 0) {
		burst->quiet_ns = 0;
		burst->target = (uint32_t)MIN(burst->target + misses, (uint64_t)cap);
		return burst->target;
	}
	burst->quiet_ns += elapsed_ns;
	while (burst->target > 0 && burst->quiet_ns >= POLICY_BURST_NS) {
		burst->target -= (burst->target + 3) / 4;
		burst->quiet_ns -= POLICY_BURST_NS;
	}
	return burst->target = MIN(burst->target, cap);
}

uint32_t
policy_start(const struct policy_in *in)
{
	uint64_t want = (uint64_t)policy_keep(in) + in->waiting + (in->renew ? 1 : 0);
	uint64_t have = (uint64_t)in->idle + in->starting + in->returning;
	uint64_t n;

	if (in->draining || in->now_ns < in->backoff_until_ns || want <= have ||
	    in->total >= in->max_total || in->starting >= in->ramp)
		return 0;
	n = MIN(want - have, (uint64_t)(in->max_total - in->total));
	return (uint32_t)MIN(n, (uint64_t)(in->ramp - in->starting));
}

uint32_t
policy_excess(const struct policy_in *in)
{
	return in->idle > in->max_idle ? in->idle - in->max_idle : 0;
}

uint64_t
policy_backoff_ns(uint32_t failing)
{
	uint64_t ns = POLICY_BACKOFF_FIRST_NS;

	if (failing == 0)
		return 0;
	while (--failing > 0 && ns < POLICY_BACKOFF_MAX_NS)
		ns *= 2;
	return MIN(ns, POLICY_BACKOFF_MAX_NS);
}

uint32_t
policy_ramp(uint32_t ramp, bool ok, uint32_t cap)
{
	return ok ? MIN(ramp * 2, cap) : 1;
}

uint64_t
policy_lifetime_ns(uint32_t max_idle_time, uint32_t slot, uint64_t born_ns)
{
	uint64_t full = (uint64_t)max_idle_time * 1000000000u;
	/* Fibonacci hashing: the top bits of the product are well mixed. */
	uint64_t hash = ((born_ns ^ slot) * 0x9e3779b97f4a7c15ull) >> 54;

	return full - full / 10 * hash / 1024;
}

static int
policy_by_order(const void *a, const void *b)
{
	const struct policy_vm *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

uint32_t
policy_expire(struct policy_vm *vm, uint32_t n, uint32_t keep, uint32_t excess, uint64_t now_ns)
{
	uint32_t spare = n > keep ? n - keep : 0, chosen = 0;
	struct policy_vm tmp;

	qsort(vm, n, sizeof(*vm), policy_by_order);
	for (uint32_t i = 0; i < n && chosen < MAX(spare, excess); i++) {
		if (chosen >= excess && vm[i].expires_ns > now_ns)
			continue;
		tmp = vm[chosen];
		vm[chosen++] = vm[i];
		vm[i] = tmp;
	}
	return chosen;
}

bool
policy_renew(const struct policy_vm *vm, uint32_t n, uint64_t now_ns)
{
	for (uint32_t i = 0; i < n; i++)
		if (vm[i].expires_ns <= now_ns)
			return true;
	return false;
}
