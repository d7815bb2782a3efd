/* SPDX-License-Identifier: MIT
 *
 * client_lease.c - borrowing VMs and giving them back: libvmpool's face of
 * lease.h. Runs in clients; owns the handles of VMs.
 */
#include "shm/client.h"
#include "shm/lifeline.h"

#include <string.h>

#define ACQUIRE_MS 60000 /* when the caller gives no options */

static unsigned
count_of(const struct vmpool *pool, enum slot_state state)
{
	return atomic_load_explicit(&pool->seg->head->count[state], memory_order_relaxed);
}

static int
fail_start(const struct vmpool *pool)
{
	struct shm_head *head = pool->seg->head;
	char why[sizeof(head->last_failure)];

	client_printable(why, sizeof(why), head->last_failure, sizeof(head->last_failure));
	return client_fail(pool, VMPOOL_ESTART, "VMs fail to start: %s",
			   why[0] != '\0' ? why : "no reason known");
}

static int
fail_capacity(const struct vmpool *pool, int64_t timeout_ms)
{
	return client_fail(
	    pool, VMPOOL_ECAPACITY,
	    "no VM became free within %.1f s (in use %u, starting %u, max-total %u)",
	    timeout_ms > 0 ? (double)timeout_ms / 1000 : 0.0, count_of(pool, SLOT_IN_USE),
	    count_of(pool, SLOT_STARTING),
	    atomic_load_explicit(&pool->seg->head->policy.max_total, memory_order_relaxed));
}

/* What lease.h's errors mean to a caller of the library. */
static int
lease_fail(const struct vmpool *pool, int err, int64_t timeout_ms)
{
	switch (err) {
	case -EAGAIN:
		if (timeout_ms != 0)
			return client_fail(pool, VMPOOL_ECAPACITY, "too many callers wait already");
		return fail_capacity(pool, timeout_ms);
	case -ETIMEDOUT: return fail_capacity(pool, timeout_ms);
	case -EINTR: return client_fail(pool, -EINTR, "interrupted by a signal");
	case -ENOTCONN:
		return client_fail(pool, VMPOOL_ERESTARTED, "the pool's supervisor has died");
	case -ESHUTDOWN: return client_fail(pool, VMPOOL_EDRAINING, "the pool is shutting down");
	case -EIO: return fail_start(pool);
	default: return client_fail(pool, err, "acquire: %s", vmpool_strerror(err));
	}
}

/* --- handles: made once, then used again, and freed with the pool's ----------------- */

static struct vmpool_vm *
vm_new(struct vmpool *pool)
{
	struct vmpool_vm *vm = calloc(1, sizeof(*vm));

	if (vm == NULL)
		return NULL;
	vm->pool = pool;
	AZ(pthread_mutex_init(&vm->lock, NULL));
	AZ(pthread_mutex_lock(&pool->lock));
	vm->next = pool->vms;
	pool->vms = vm;
	AZ(pthread_mutex_unlock(&pool->lock));
	return vm;
}

struct vmpool_vm *
client_vm_get(struct vmpool *pool)
{
	struct vmpool_vm *vm;

	AZ(pthread_mutex_lock(&pool->lock));
	vm = pool->spare;
	if (vm != NULL)
		pool->spare = vm->next_spare;
	AZ(pthread_mutex_unlock(&pool->lock));
	return vm != NULL ? vm : vm_new(pool);
}

void
client_vm_put(struct vmpool_vm *vm)
{
	struct vmpool *pool = vm->pool;

	AZ(pthread_mutex_lock(&pool->lock));
	vm->magic = 0;
	vm->next_spare = pool->spare;
	pool->spare = vm;
	AZ(pthread_mutex_unlock(&pool->lock));
}

void
client_release_all(struct vmpool *pool)
{
	for (struct vmpool_vm *vm = pool->vms; vm != NULL; vm = vm->next)
		if (vm->magic == CLIENT_VM_MAGIC)
			(void)vmpool_release(vm);
}

void
client_free_vms(struct vmpool *pool)
{
	while (pool->vms != NULL) {
		struct vmpool_vm *vm = pool->vms;

		pool->vms = vm->next;
		client_join_end(vm);
		(void)pthread_mutex_destroy(&vm->lock);
		vm->magic = 0;
		free(vm);
	}
}

static struct vmpool_vm *
vm_lent(struct vmpool_vm *vm)
{
	vm->magic = CLIENT_VM_MAGIC;
	vm->shm = &vm->pool->seg->chan[vm->lease.slot];
	return vm;
}

struct vmpool_vm *
client_vm(struct vmpool *pool, const struct lease *lease)
{
	struct vmpool_vm *vm = client_vm_get(pool);

	if (vm == NULL)
		return NULL;
	vm->lease = *lease;
	return vm_lent(vm);
}

/* --- what callers do ------------------------------------------------------------------ */

int
client_acquire(const struct vmpool *pool, int64_t timeout_ms, struct lease *out)
{
	uint64_t start;

	if (lease_try(pool->seg, pool->client, out) == 0)
		return 0;
	start = now_ns();
	return lease_acquire(pool->seg, pool->client, pool->kick_fd, start,
			     timeout_ms == 0 ? LOCK_TRY : client_deadline_from(start, timeout_ms),
			     out);
}

int
vmpool_acquire(struct vmpool *pool, const struct vmpool_acquire_opts *opts, struct vmpool_vm **out)
{
	int64_t timeout_ms = opts != NULL ? opts->timeout_ms : ACQUIRE_MS;
	struct vmpool_vm *vm;
	int r;

	*out = NULL;
	r = client_enter(pool, true);
	if (r < 0)
		return r;
	vm = client_vm_get(pool);
	if (vm == NULL)
		return client_fail(pool, -ENOMEM, "out of memory");
	r = client_acquire(pool, timeout_ms, &vm->lease);
	if (r < 0) {
		client_vm_put(vm);
		return lease_fail(pool, r, timeout_ms);
	}
	*out = vm_lent(vm);
	return 0;
}

int
vmpool_release(struct vmpool_vm *vm)
{
	struct vmpool *pool;
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	pool = vm->pool;
	/* In a forked child other threads' locks may be held for ever. */
	r = client_enter(pool, true);
	if (r < 0)
		return r;
	conn_free(vm);
	if (vm->join.shm != NULL) {
		client_join_end(vm);
		client_vm_put(vm);
		return 0;
	}
	r = lifeline_alive(pool->seg) ? lease_release(pool->seg, &vm->lease, pool->kick_fd)
				      : -ENOTCONN;
	client_vm_put(vm);
	switch (r) {
	case 0: return 0;
	case -EOWNERDEAD: return client_fail(pool, VMPOOL_EVMDIED, "the VM died under its lease");
	case -ESTALE: return client_fail(pool, VMPOOL_ERELEASED, "the lease had ended already");
	case -ENOTCONN:
		return client_fail(pool, VMPOOL_ERESTARTED, "the pool's supervisor has died");
	case -ETIMEDOUT: return client_fail(pool, VMPOOL_ETIMEDOUT, "the pool's lock is stuck");
	default: return client_fail(pool, r, "release: %s", vmpool_strerror(r));
	}
}

unsigned
vmpool_slot(const struct vmpool_vm *vm)
{
	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	return vm->lease.slot;
}

/* Until target VMs are idle; 0, -ETIMEDOUT, or an error of the library. */
static int
warm_wait(struct vmpool *pool, unsigned target, uint64_t deadline)
{
	struct shm_head *head = pool->seg->head;

	for (;;) {
		/* What happens after this wakes the wait below (lease.h). */
		uint32_t seq = lease_change_expect(pool->seg);
		int r;

		if (!lifeline_alive(pool->seg))
			return lease_fail(pool, -ENOTCONN, 0);
		if (count_of(pool, SLOT_IDLE) >= target)
			return 0;
		if (atomic_load_explicit(&head->failing, memory_order_relaxed) >= LEASE_FAILING)
			return fail_start(pool);
		if (atomic_load_explicit(&head->state, memory_order_relaxed) == POOL_DRAINING)
			return lease_fail(pool, -ESHUTDOWN, 0);
		r = lifeline_wait(pool->seg, &head->change_seq, seq, deadline);
		if (r == -ETIMEDOUT)
			return r;
		if (r < 0)
			return lease_fail(pool, r, 0);
	}
}

int
vmpool_warm(struct vmpool *pool, unsigned count, int64_t timeout_ms)
{
	uint64_t deadline = client_deadline(timeout_ms);
	unsigned max_idle, target, before, after;
	int r;

	r = client_enter(pool, true);
	if (r < 0)
		return r;
	max_idle = atomic_load_explicit(&pool->seg->head->policy.max_idle, memory_order_relaxed);
	target = MIN(count, max_idle);
	before = count_of(pool, SLOT_IDLE);
	r = lease_set_warm(pool->seg, target, pool->kick_fd);
	if (r == -ETIMEDOUT)
		return client_fail(pool, VMPOOL_ETIMEDOUT, "the pool's lock is stuck");
	if (r < 0)
		return lease_fail(pool, r, 0);
	r = warm_wait(pool, target, deadline);
	if (r < 0 && r != -ETIMEDOUT)
		return r;
	after = count_of(pool, SLOT_IDLE);
	return after > before ? (int)MIN(after - before, count) : 0;
}
