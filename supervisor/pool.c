/* SPDX-License-Identifier: MIT
 *
 * pool.c - the life of VMs, as seen by the supervisor. Runs in vmpoold; owns
 * the worker table and the fork server. Continues in pool_slot.c (changes of the
 * segment) and pool_start.c (starting VMs); the arithmetic is policy.c's.
 *
 * The segment's words are bytes that clients can write. They decide which VM is
 * handed to whom, but never cause more than max_total processes: those are
 * counted in the private table of child.c.
 */
#include <string.h>

#include "shm/lease.h"
#include "shm/slot.h"
#include "supervisor/pool_impl.h"
#include "supervisor/suplog.h"

void
pool_log_console(const struct pool *pool, const char *what, const char *text)
{
	const char *console = strchr(text, '\n');
	char prefix[64];

	/* Of a series of failures the first console says it all. */
	if (console == NULL || pool->failing > 0)
		return;
	(void)snprintf(prefix, sizeof(prefix), "%s: console: ", what);
	suplog_tail(LOG_INFO, prefix, console + 1, 20);
}

/* --- what the worker table says -------------------------------------------------- */

static void
pool_child_spawned(void *arg, uint32_t slot, pid_t pid)
{
	struct pool *pool = arg;

	pool->slot[slot].pid = pid;
	pool_slot_due(pool, slot, DUE_WORKER);
}

static void
pool_child_ready(void *arg, uint32_t slot, uint64_t took_ns)
{
	struct pool *pool = arg;

	pool->slot[slot].boot_ns = took_ns;
	pool_slot_due(pool, slot, DUE_READY);
}

static void
pool_child_reset(void *arg, uint32_t slot, uint64_t pages)
{
	struct pool *pool = arg;

	pool->slot[slot].pages = pages;
	pool_slot_due(pool, slot, DUE_RESET);
}

static void
pool_child_failed(void *arg, uint32_t slot, const char *text)
{
	char what[32];

	(void)snprintf(what, sizeof(what), "slot %u", slot);
	pool_log_console(arg, what, text);
}

static void
pool_child_gone(void *arg, uint32_t slot, const struct child_end *end)
{
	struct pool *pool = arg;
	enum slot_state state = slot_state(pool_slot_word(pool, slot));
	char what[32];

	if (pool_copy_gone(pool, slot, end->error, end->why)) {
		suplog(LOG_WARNING, "slot %u: the copy of a VM did not start: %s", slot, end->why);
	} else if (!end->was_ready && !pool->draining) {
		(void)snprintf(what, sizeof(what), "slot %u", slot);
		pool_start_failed(pool, what, end);
	} else if (state == SLOT_IN_USE || state == SLOT_IDLE) {
		suplog(LOG_WARNING, "slot %u: VM ended while %s: %s", slot,
		       state == SLOT_IN_USE ? "in use" : "idle", end->why);
	} else if (end->checking) {
		suplog(LOG_WARNING, "slot %u: VM ended in a health check: %s", slot, end->why);
	}
	pool_slot_due(pool, slot, DUE_GONE);
}

/* --- what the fork server says ------------------------------------------------------- */

static void
pool_forker_spawned(void *arg, uint32_t slot, uint64_t generation, pid_t pid, int pidfd, int error)
{
	struct pool *pool = arg;

	if (slot == FSRV_BUILDER)
		template_spawned(pool->template, pid, pidfd, error);
	else
		child_spawned(pool->children, slot, generation, pid, pidfd, error);
}

/* --- looking at the slot table ---------------------------------------------------------- */

/* Is its VM put back to the template, or replaced? */
static bool
pool_resets(const struct pool *pool, uint32_t slot)
{
	/* Pairs with the commits in shm/avail.c, by the state word's acquire load. */
	uint32_t why =
	    atomic_load_explicit(&pool->s.seg->slot[slot].resetting, memory_order_relaxed);

	return why == RESETTING_USED && !pool->draining && !pool->slot[slot].forked &&
	       pool->s.parts->resets && strcmp(pool->s.cfg->recycle, "reset") == 0;
}

/* One slot: does its state need something done? */
static void
pool_look_at(struct pool *pool, uint32_t slot)
{
	enum slot_state state = slot_state(pool_slot_word(pool, slot));
	enum child_state child = child_state(pool->children, slot);

	if (pool->slot[slot].due != 0)
		return;
	if (child == CHILD_NONE) {
		/* A VM without a worker: no VM. */
		if (state == SLOT_STARTING || state == SLOT_IDLE || state == SLOT_IN_USE ||
		    state == SLOT_RESETTING)
			pool_slot_due(pool, slot, DUE_GONE);
	} else if (child == CHILD_READY) {
		if (state == SLOT_RESETTING && pool_resets(pool, slot))
			child_reset(pool->children, slot);
		else if (state == SLOT_RESETTING)
			child_kill(pool->children, slot, "it was used");
		else if (state != SLOT_IDLE && state != SLOT_IN_USE)
			child_kill(pool->children, slot, "its slot was changed by others");
		else if (state == SLOT_IDLE && (pool->draining || pool->slot[slot].forked))
			pool_slot_due(pool, slot, DUE_EVICT);
	} else if ((child == CHILD_CHECKING || child == CHILD_RESETTING) &&
		   state != SLOT_RESETTING) {
		child_kill(pool->children, slot, "its slot was changed by others");
	}
}

static void
pool_drained(struct pool *pool)
{
	if (!pool->draining || pool->drained)
		return;
	for (uint32_t i = 0; i < pool->s.seg->nslots; i++)
		if (slot_state(pool_slot_word(pool, i)) == SLOT_IN_USE)
			return;
	pool->drained = true;
	pool->s.drained(pool->s.arg);
}

void
pool_look(struct pool *pool)
{
	CHECK_OBJ(pool, POOL_MAGIC);
	for (uint32_t i = 0; i < pool->s.seg->nslots; i++)
		pool_look_at(pool, i);
	pool_check_due(pool);
	pool_start_more(pool);
	pool_drained(pool);
}

int
pool_join(struct pool *pool, uint32_t slot, uint64_t generation, const int fds[CTL_JOIN_FDS])
{
	CHECK_OBJ(pool, POOL_MAGIC);
	return child_join(pool->children, slot, generation, fds);
}

/* --- expiry -------------------------------------------------------------------------------- */

static void
pool_expire(struct pool *pool)
{
	struct seg *seg = pool->s.seg;
	struct policy_vm *vm = pool->vm;
	struct policy_in in;
	uint64_t since, born;
	uint32_t n = 0;

	for (uint32_t i = 0; i < seg->nslots; i++) {
		if (slot_state(pool_slot_word(pool, i)) != SLOT_IDLE || pool->slot[i].due != 0)
			continue;
		since = atomic_load_explicit(&seg->slot[i].since_ns, memory_order_relaxed);
		born = atomic_load_explicit(&seg->slot[i].born_ns, memory_order_relaxed);
		vm[n++] = (struct policy_vm){
		    .slot = i,
		    .order = atomic_load_explicit(&seg->slot[i].idle_seq, memory_order_relaxed),
		    .expires_ns = since + policy_lifetime_ns(pool->s.cfg->max_idle_time, i, born),
		};
	}
	pool_start_numbers(pool, &in);
	in.idle = n;
	n = policy_expire(vm, n, policy_keep(&in), policy_excess(&in), in.now_ns);
	for (uint32_t i = 0; i < n; i++)
		pool_slot_due(pool, vm[i].slot, DUE_EVICT);
	pool->renew = policy_renew(vm + n, in.idle - n, in.now_ns);
}

/* Misses since the last tick raise the refill target. */
static void
pool_burst(struct pool *pool)
{
	/* A plain figure of the segment, see pool_start_numbers. */
	uint64_t misses =
	    atomic_load_explicit(&pool->s.seg->head->counter[C_miss_count], memory_order_relaxed);
	uint64_t now = now_ns();

	(void)policy_burst(&pool->burst, misses - MIN(misses, pool->misses), pool->s.cfg->max_idle,
			   now - pool->ticked_ns);
	pool->misses = misses;
	pool->ticked_ns = now;
}

void
pool_tick(struct pool *pool)
{
	CHECK_OBJ(pool, POOL_MAGIC);
	pool_burst(pool);
	template_tick(pool->template, now_ns());
	if (children_tick(pool->children, now_ns())) {
		suplog(LOG_ERR, "the fork server does not answer; ending it");
		forker_kill(pool->forker);
	}
	if (!pool->draining)
		pool_expire(pool);
	/* A client killed between its change and its ring left us unaware. */
	pool_look(pool);
}

/* --- life ----------------------------------------------------------------------------------- */

static int
pool_drain_attempt(void *arg)
{
	struct pool *pool = arg;
	int r = sup_drain(pool->s.seg);

	if (r == -EBUSY)
		return r;
	pool_look(pool);
	return 0;
}

void
pool_drain(struct pool *pool)
{
	CHECK_OBJ(pool, POOL_MAGIC);
	if (pool->draining)
		return;
	pool->draining = true;
	retry_start(pool->s.retry, &pool->drain);
}

void
pool_policy(struct pool *pool)
{
	struct shm_policy *p = &pool->s.seg->head->policy;
	const struct config *cfg = pool->s.cfg;

	CHECK_OBJ(pool, POOL_MAGIC);
	/* Read, each by itself, by shm/lease.c and the monitors. */
	atomic_store_explicit(&p->min_idle, cfg->min_idle, memory_order_relaxed);
	atomic_store_explicit(&p->max_idle, cfg->max_idle, memory_order_relaxed);
	atomic_store_explicit(&p->max_total, cfg->max_total, memory_order_relaxed);
	atomic_store_explicit(&p->max_idle_time, cfg->max_idle_time, memory_order_relaxed);
	atomic_store_explicit(&p->health_interval, cfg->health_interval, memory_order_relaxed);
	atomic_store_explicit(&p->recycle, strcmp(cfg->recycle, "reset") == 0,
			      memory_order_relaxed);
	pool_start_more(pool);
}

static int
pool_new(struct pool **out, const struct pool_setup *setup)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	uint32_t n = setup->seg->nslots;

	*out = pool;
	if (pool == NULL)
		return -ENOMEM;
	pool->magic = POOL_MAGIC;
	pool->s = *setup;
	pool->drain.attempt = pool_drain_attempt;
	pool->drain.arg = pool;
	pool->vm = calloc(n, sizeof(*pool->vm));
	pool->slot = calloc(n, sizeof(*pool->slot));
	if (pool->vm == NULL || pool->slot == NULL)
		return -ENOMEM;
	pool_slot_init(pool);
	pool_start_init(pool);
	pool_check_init(pool);
	return 0;
}

int
pool_open(struct pool **out, const struct pool_setup *setup, char *err, size_t errlen)
{
	struct child_ops child_ops = {
	    .spawned = pool_child_spawned,
	    .ready = pool_child_ready,
	    .reset = pool_child_reset,
	    .checked = pool_check_answer,
	    .captured = pool_copy_captured,
	    .failed = pool_child_failed,
	    .gone = pool_child_gone,
	};
	struct forker_ops forker_ops = {
	    .spawned = pool_forker_spawned,
	    .down = pool_start_forker_down,
	    .up = pool_start_forker_up,
	};
	struct template_ops template_ops = {
	    .ready = pool_start_template_ready,
	    .failed = pool_start_template_failed,
	};
	struct pool *pool = NULL;
	int r;

	r = pool_new(&pool, setup);
	if (r == 0) {
		child_ops.arg = forker_ops.arg = template_ops.arg = pool;
		r = children_new(&pool->children, setup->loop, setup->seg->nslots, &child_ops);
	}
	if (r < 0)
		(void)fail(-r, err, errlen, "out of memory");
	else
		r = forker_open(&pool->forker, setup->loop, setup->cfg, setup->parts, setup->dir,
				setup->seg->fd, &forker_ops, err, errlen);
	if (r == 0 && template_new(&pool->template, setup->loop, pool->forker, &template_ops) < 0)
		r = fail(ENOMEM, err, errlen, "out of memory");
	if (r < 0) {
		pool_close(pool);
		return r;
	}
	pool->forker_up = true;
	*out = pool;
	pool_policy(pool);
	if (setup->cfg->min_idle == 0)
		setup->ready(setup->arg);
	return 0;
}

void
pool_close(struct pool *pool)
{
	unsigned left;

	if (pool == NULL)
		return;
	CHECK_OBJ(pool, POOL_MAGIC);
	left = children_free(pool->children, 5000);
	if (left > 0)
		suplog(LOG_ERR, "%u workers did not end in 5 s", left);
	template_free(pool->template, 5000);
	forker_close(pool->forker);
	if (pool->slot != NULL)
		pool_copy_fini(pool);
	free(pool->vm);
	free(pool->slot);
	pool->magic = 0;
	free(pool);
}

bool
pool_child_ended(struct pool *pool, const siginfo_t *si)
{
	CHECK_OBJ(pool, POOL_MAGIC);
	if (forker_ended(pool->forker, si) || template_ended(pool->template, si) ||
	    children_ended(pool->children, si))
		return true;
	/* A worker may end before we have read that it was made. */
	forker_answers(pool->forker);
	return template_ended(pool->template, si) || children_ended(pool->children, si);
}
