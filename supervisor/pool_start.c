/* SPDX-License-Identifier: MIT
 *
 * pool_start.c - starting VMs: how many now, and what to do when they fail.
 * Runs in vmpoold. When to start is policy.c's; making the worker is the fork
 * server's.
 */
#include <inttypes.h>
#include <string.h>

#include "shm/lease.h"
#include "shm/slot.h"
#include "supervisor/pool_impl.h"
#include "supervisor/suplog.h"

/* A pool that never had a VM ends after so many failures in a row, or after one
 * that took so long: whoever started it should hear of it. */
#define HOPELESS_ENDS 3
#define HOPELESS_NS 60000000000ull

/* --- success and failure ---------------------------------------------------------- */

/* Would another try of the same thing end in the same way? */
static bool
pool_start_is_hopeless(const struct pool *pool, int error)
{
	static const int lasting[] = {-ENOENT, -EACCES, -ENOEXEC, -EINVAL, -EFBIG,
				      /* a snapshot's (worker/snapfile.h) */
				      -EPROTONOSUPPORT, -ENODATA, -EBADMSG, -EMEDIUMTYPE};

	if (pool->ever_ready)
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(lasting); i++)
		if (error == lasting[i])
			return true;
	return pool->failing >= HOPELESS_ENDS || now_ns() - pool->opened_ns >= HOPELESS_NS;
}

static void
pool_start_give_up(struct pool *pool, const char *why)
{
	if (pool->hopeless)
		return;
	pool->hopeless = true;
	pool->s.hopeless(pool->s.arg, why);
}

void
pool_start_failed(struct pool *pool, const char *what, const struct child_end *end)
{
	uint64_t pause;

	pool->failing++;
	pool->ramp = policy_ramp(pool->ramp, false, pool->ramp_cap);
	pause = policy_backoff_ns(pool->failing);
	pool->backoff_until_ns = now_ns() + pause;
	pool->backoff.at_ns = pool->backoff_until_ns;
	sup_failing(pool->s.seg, pool->failing, end->why);
	if (pool_start_is_hopeless(pool, end->error)) {
		pool_start_give_up(pool, end->why);
		return;
	}
	suplog(LOG_ERR, "%s: VM failed to start: %s (failure %u in a row, next try in %.1f s)",
	       what, end->why, pool->failing, (double)pause / 1e9);
}

void
pool_start_ok(struct pool *pool, uint32_t slot, uint64_t boot_ns)
{
	suplog(LOG_DEBUG, "slot %u: VM ready in %.0f ms", slot, (double)boot_ns / 1e6);
	if (pool->failing > 0) {
		suplog(LOG_INFO, "VMs start again");
		sup_failing(pool->s.seg, 0, "");
	}
	pool->failing = 0;
	pool->backoff_until_ns = 0;
	pool->ramp = policy_ramp(pool->ramp, true, pool->ramp_cap);
	if (!pool->ever_ready) {
		pool->ever_ready = true;
		pool->s.ready(pool->s.arg);
	}
}

/* --- starting ---------------------------------------------------------------------- */

static void
pool_start_no_descriptors(struct pool *pool, uint32_t slot, int error)
{
	struct child_end end = {.error = error};
	char what[32];

	(void)snprintf(end.why, sizeof(end.why), "no descriptors for it: %s", strerror(-error));
	(void)snprintf(what, sizeof(what), "slot %u", slot);
	if (!pool_copy_gone(pool, slot, error, end.why))
		pool_start_failed(pool, what, &end);
	pool_slot_due(pool, slot, DUE_GONE);
}

int
pool_start_spawn(struct pool *pool, uint32_t slot, uint64_t generation)
{
	struct pool_copy *copy = pool->slot[slot].made_for;
	_cleanup_(closep) int sock = -1;
	struct bell_pair bells;
	int r;

	pool->slot[slot].forked = copy != NULL;
	r = bells_get(pool->s.bells, slot, &bells);
	if (r == 0)
		r = child_begin(pool->children, slot, generation, &sock);
	if (r < 0) {
		pool_start_no_descriptors(pool, slot, r);
		return r;
	}
	r = copy == NULL ? forker_spawn(pool->forker, slot, generation, sock, &bells)
			 : pool_copy_ask_for(copy, pool->forker, slot, generation, sock, &bells);
	/* When the fork server goes down, its end fails this start with the reason. */
	if (r < 0 && r != -ENOTCONN)
		child_spawned(pool->children, slot, generation, 0, -1, r);
	return r;
}

void
pool_start_numbers(struct pool *pool, struct policy_in *in)
{
	struct seg *seg = pool->s.seg;
	struct shm_head *h = seg->head;
	const struct config *cfg = pool->s.cfg;

	*in = (struct policy_in){
	    .min_idle = cfg->min_idle,
	    .max_idle = cfg->max_idle,
	    .max_total = cfg->max_total,
	    /* Plain figures, written in shm/lease.c under the lock and followed by a
	     * doorbell; clamped, as clients can write them. */
	    .warm_target = atomic_load_explicit(&h->warm_target, memory_order_relaxed),
	    .idle = atomic_load_explicit(&h->count[SLOT_IDLE], memory_order_relaxed),
	    .waiting = atomic_load_explicit(&h->waiting, memory_order_relaxed),
	    .burst = pool->burst.target,
	    .renew = pool->renew,
	    .starting = children_starting(pool->children),
	    .returning = children_in(pool->children, CHILD_CHECKING) +
			 children_in(pool->children, CHILD_RESETTING),
	    .total = children_total(pool->children),
	    .ramp = pool->ramp,
	    .draining = pool->draining || !pool->forker_up || pool->hopeless,
	    .now_ns = now_ns(),
	    .backoff_until_ns = pool->backoff_until_ns,
	};
	in->idle = MIN(in->idle, seg->nslots);
	in->waiting = MIN(in->waiting, seg->nwaiters);
}

int
pool_start_slot(struct pool *pool, uint32_t *slot, uint64_t *generation)
{
	int r = sup_start(pool->s.seg, slot, generation);

	if (r < 0)
		return r;
	if (*slot < pool->s.seg->nslots && child_state(pool->children, *slot) == CHILD_NONE &&
	    pool->slot[*slot].due == 0)
		return 0;
	suplog(LOG_WARNING, "slot %u was changed by others while it had a VM", *slot);
	if (*slot < pool->s.seg->nslots)
		child_kill(pool->children, *slot, "its slot was changed by others");
	return -ESTALE;
}

static int
pool_start_attempt(void *arg)
{
	struct pool *pool = arg;
	struct policy_in in;
	uint64_t generation;
	uint32_t slot, n;
	int r;

	pool_start_numbers(pool, &in);
	if (in.draining || in.now_ns < in.backoff_until_ns || !template_want(pool->template))
		return 0;
	for (n = policy_start(&in); n > 0 && pool->forker_up; n--) {
		r = pool_start_slot(pool, &slot, &generation);
		if (r == -EBUSY)
			return r;
		if (r < 0)
			break;
		if (pool_start_spawn(pool, slot, generation) < 0)
			break;
	}
	return 0;
}

void
pool_start_more(struct pool *pool)
{
	retry_start(pool->s.retry, &pool->refill);
}

static void
pool_start_backoff_over(void *arg)
{
	pool_start_more(arg);
}

void
pool_start_init(struct pool *pool)
{
	pool->opened_ns = pool->ticked_ns = now_ns();
	pool->ramp = 1;
	pool->ramp_cap = 2 * (uint32_t)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
	pool->refill.attempt = pool_start_attempt;
	pool->backoff.fire = pool_start_backoff_over;
	pool->refill.arg = pool->backoff.arg = pool;
	evloop_timer(pool->s.loop, &pool->backoff);
}

/* --- the template --------------------------------------------------------------------- */

void
pool_start_template_ready(void *arg, const char *text, uint64_t took_ns)
{
	struct pool *pool = arg;

	suplog(LOG_INFO, "template ready after %.2f s: %s", (double)took_ns / 1e9, text);
	pool_start_more(pool);
}

void
pool_start_template_failed(void *arg, const struct child_end *end, const char *text)
{
	struct pool *pool = arg;
	const char *snapshot = pool->s.cfg->snapshot;
	struct child_end named = *end;

	pool_log_console(pool, "template", text);
	if (snapshot[0] != '\0')
		(void)snprintf(named.why, sizeof(named.why), "snapshot %.96s: %.140s", snapshot,
			       end->why);
	if (!pool->draining)
		pool_start_failed(pool, "template", &named);
}

/* --- the fork server ---------------------------------------------------------------- */

void
pool_start_forker_down(void *arg, uint32_t failing, const char *why)
{
	struct pool *pool = arg;
	uint32_t before = pool->failing;

	pool->forker_up = false;
	if (!pool->ever_ready && failing >= HOPELESS_ENDS) {
		pool_start_give_up(pool, why);
		return;
	}
	suplog(LOG_ERR, "%s; it will be started again", why);
	children_unanswered(pool->children, why);
	template_forker_down(pool->template, why);
	/* One death is one failure, however many VMs it was to make; even if none:
	 * those who wait for a VM must hear of it. */
	pool->failing = MAX(before, failing);
	sup_failing(pool->s.seg, pool->failing, why);
}

void
pool_start_forker_up(void *arg)
{
	struct pool *pool = arg;

	pool->forker_up = true;
	template_forker_up(pool->template);
	pool_start_more(pool);
}
