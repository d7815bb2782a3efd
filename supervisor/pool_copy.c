/* SPDX-License-Identifier: MIT
 *
 * pool_copy.c - copies of borrowed VMs that clients ask for: a snapshot into a file, or
 * another VM that goes on from there, lent to the same client (a fork). Runs in vmpoold;
 * owns the copies under way.
 *
 *   pool_copy -> the worker captures its VM -> pool_copy_captured -> a snapshot is done
 *     a fork: -> a slot and a worker of its own -> DUE_READY -> lent, done
 *
 * A forked VM holds what a lease has left in it: it is never idle, never reset, and ended
 * when it is given back. Whoever asked may leave at any time; what was begun then ends by
 * itself.
 */
#include <string.h>

#include "shm/lease.h"
#include "shm/slot.h"
#include "supervisor/pool_impl.h"
#include "supervisor/suplog.h"

struct pool_copy {
	struct pool *pool;
	struct pool_copy_ask ask;
	bool fork;	/* not a snapshot */
	bool forgotten; /* nobody waits any more */
	struct ctl_template tmpl;
	int fds[2]; /* a fork's, between capture and spawn */
	struct retry_op start;
};

static void
pool_copy_free(struct pool_copy *c)
{
	closep(&c->fds[0]);
	closep(&c->fds[1]);
	free(c);
}

/* It has ended: tell who waits. */
static void
pool_copy_done(struct pool_copy *c, int error, const char *text, uint32_t slot, uint64_t word)
{
	if (error < 0 && !c->forgotten)
		suplog(LOG_INFO, "slot %u: not copied: %s", c->ask.slot, text);
	if (!c->forgotten)
		c->ask.done(c->ask.arg, error, text, slot, word);
	pool_copy_free(c);
}

void
pool_copy_forget(struct pool_copy *c)
{
	c->forgotten = true;
}

/* --- from the request to the capture -------------------------------------------------- */

static int
pool_copy_check(const struct pool *pool, const struct pool_copy_ask *ask, char *err, size_t errlen)
{
	uint64_t word;

	if (ask->slot >= pool->s.seg->nslots)
		return fail(EINVAL, err, errlen, "there is no slot %u", ask->slot);
	word = pool_slot_word(pool, ask->slot);
	if (slot_state(word) != SLOT_IN_USE || slot_generation(word) != ask->lease)
		return fail(ESTALE, err, errlen, "the lease on slot %u has ended", ask->slot);
	if (child_state(pool->children, ask->slot) == CHILD_CAPTURING)
		return fail(EBUSY, err, errlen, "the VM in slot %u is being copied already",
			    ask->slot);
	if (child_state(pool->children, ask->slot) != CHILD_READY)
		return fail(EIO, err, errlen, "the VM in slot %u has ended", ask->slot);
	if (pool->draining)
		return fail(ESHUTDOWN, err, errlen, "the pool is shutting down");
	return 0;
}

static int pool_copy_start_attempt(void *arg);

int
pool_copy(struct pool *pool, const struct pool_copy_ask *ask, struct pool_copy **out, char *err,
	  size_t errlen)
{
	struct pool_copy *c;
	int r;

	CHECK_OBJ(pool, POOL_MAGIC);
	r = pool_copy_check(pool, ask, err, errlen);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	*c = (struct pool_copy){.pool = pool, .ask = *ask, .fork = ask->file < 0, .fds = {-1, -1}};
	c->start.attempt = pool_copy_start_attempt;
	c->start.arg = c;
	pool->slot[ask->slot].captured_for = c;
	child_capture(pool->children, ask->slot, ask->lease, ask->file);
	/* The worker has it now. */
	c->ask.file = -1;
	*out = c;
	return 0;
}

void
pool_copy_captured(void *arg, uint32_t slot, int error, const char *text,
		   const struct ctl_template *tmpl, int fds[2])
{
	struct pool *pool = arg;
	struct pool_copy *c = pool->slot[slot].captured_for;

	pool->slot[slot].captured_for = NULL;
	if (c == NULL) {
		closep(&fds[0]);
		closep(&fds[1]);
		return;
	}
	c->fds[0] = fds[0];
	c->fds[1] = fds[1];
	c->tmpl = *tmpl;
	if (error == 0)
		suplog(LOG_DEBUG, "slot %u: copied: %s", slot, text);
	if (error < 0 || !c->fork)
		pool_copy_done(c, error, text, slot, 0);
	else
		retry_start(pool->s.retry, &c->start);
}

/* --- a fork's own VM --------------------------------------------------------------------- */

static int
pool_copy_start_attempt(void *arg)
{
	struct pool_copy *c = arg;
	struct pool *pool = c->pool;
	uint64_t generation;
	uint32_t slot;
	int r;

	if (c->forgotten || pool->draining || !pool->forker_up) {
		pool_copy_done(c, -ESHUTDOWN, "the pool starts no VMs now", 0, 0);
		return 0;
	}
	r = pool_start_slot(pool, &slot, &generation);
	if (r == -EBUSY)
		return r;
	if (r < 0) {
		pool_copy_done(c, r == -ENOSPC ? -EUSERS : r,
			       r == -ENOSPC ? "the pool has max-total VMs: no room for a copy"
					    : "no slot for the copy",
			       0, 0);
		return 0;
	}
	pool->slot[slot].made_for = c;
	(void)pool_start_spawn(pool, slot, generation);
	return 0;
}

int
pool_copy_ask_for(struct pool_copy *c, struct forker *forker, uint32_t slot, uint64_t generation,
		  int sock, const struct bell_pair *bells)
{
	return forker_fork(forker, slot, generation, sock, bells, &c->tmpl, c->fds);
}

int
pool_copy_lend(struct pool *pool, uint32_t slot, uint64_t boot_ns)
{
	struct pool_copy *c = pool->slot[slot].made_for;
	uint64_t word;
	int r = c->forgotten ? -ESRCH : sup_lend(pool->s.seg, slot, c->ask.client, boot_ns, &word);

	if (r == -EBUSY)
		return r;
	pool->slot[slot].made_for = NULL;
	if (r == 0) {
		/* No sign of a burst: nobody else will ask for such a VM. */
		pool->misses++;
		pool_copy_done(c, 0, "", slot, word);
	} else {
		child_kill(pool->children, slot, "nobody waits for it any more");
		pool_copy_done(c, -ESRCH, "the client has left", 0, 0);
	}
	return 0;
}

/* --- the end ---------------------------------------------------------------------------------- */

bool
pool_copy_gone(struct pool *pool, uint32_t slot, int error, const char *why)
{
	struct pool_slot *ps = &pool->slot[slot];
	struct pool_copy *from = ps->captured_for, *to = ps->made_for;

	ps->captured_for = ps->made_for = NULL;
	if (from != NULL)
		pool_copy_done(from, -EIO, why, 0, 0);
	if (to != NULL)
		pool_copy_done(to, error < 0 ? error : -EIO, why, 0, 0);
	return to != NULL;
}

void
pool_copy_fini(struct pool *pool)
{
	for (uint32_t i = 0; i < pool->s.seg->nslots; i++) {
		if (pool->slot[i].captured_for != NULL)
			pool_copy_free(pool->slot[i].captured_for);
		if (pool->slot[i].made_for != NULL)
			pool_copy_free(pool->slot[i].made_for);
	}
}
