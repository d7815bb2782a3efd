/* SPDX-License-Identifier: MIT
 *
 * client_conn.c - the client's end of a VM's channel. Runs in clients; owns the
 * producer side of the request ring and the consumer side of the response ring
 * for as long as the lease lasts, in which vm->lock serialises the threads.
 *
 * Any thread that waits takes whatever is in the response ring and puts it
 * where it belongs, its own or not. So nobody depends on another thread's
 * running, and a thread that waits for room in the request ring cannot block
 * the worker, which may be waiting for room in the response ring.
 *
 * Sleeping and waking. The worker publishes records, then increments rsp_seq,
 * then wakes sleepers if there are any. A thread reads rsp_seq first, then
 * looks at the ring and at its own queue, then sleeps only if rsp_seq is still
 * the same. Records that another thread moved meanwhile were published, so
 * rsp_seq changes after our reading of it and the sleep ends.
 */
#include "shm/client.h"
#include "shm/lifeline.h"
#include "shm/slot.h"

#include <string.h>
#include <sys/eventfd.h>

/* No drain takes more than a full ring's worth of records, so that a worker
 * that keeps writing cannot hold a thread here. */
#define DRAIN_MAX (SHM_RING_SIZE / sizeof(struct ring_rec))

static uint32_t
lease_tag(const struct vmpool_vm *vm)
{
	return (uint32_t)slot_generation(vm->lease.word);
}

/* --- opening and closing ---------------------------------------------------------- */

static int
conn_open(struct vmpool_vm *vm, const struct bells *bells)
{
	struct shm_chan *shm = vm->shm;
	struct conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return client_fail(vm->pool, -ENOMEM, "out of memory");
	ring_init_producer(&c->req, &shm->req, shm->req_data);
	ring_init_consumer(&c->rsp, &shm->rsp, shm->rsp_data);
	c->req_fd = bells->req;
	c->rsp_fd = bells->rsp;
	/* An earlier borrower may have left them; the worker only reads them. */
	atomic_store_explicit(&shm->rsp_sleepers, 0, memory_order_relaxed);
	atomic_store_explicit(&shm->rsp_pollers, 0, memory_order_relaxed);
	vm->conn = c;
	return 0;
}

void
conn_free(struct vmpool_vm *vm)
{
	struct conn *c = vm->conn;

	if (c == NULL)
		return;
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		if (c->stream[i] != NULL && c->stream[i]->orphan)
			proc_destroy(c->stream[i]);
	while (c->procs != NULL) {
		struct vmpool_proc *proc = c->procs;

		c->procs = proc->next;
		proc_destroy(proc);
	}
	free(c);
	vm->conn = NULL;
}

int
conn_enter(struct vmpool_vm *vm)
{
	struct bells bells;
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = client_enter(vm->pool, true);
	if (r < 0)
		return r;
	AZ(pthread_mutex_lock(&vm->lock));
	if (vm->conn != NULL)
		return 0;
	/* Not under vm->lock: this may wait for the supervisor. */
	AZ(pthread_mutex_unlock(&vm->lock));
	bells = vm->join.bells;
	if (vm->join.shm == NULL)
		r = client_bells(vm->pool, vm->lease.slot, &bells);
	if (r < 0)
		return r;
	AZ(pthread_mutex_lock(&vm->lock));
	if (vm->conn == NULL)
		r = conn_open(vm, &bells);
	if (r < 0)
		AZ(pthread_mutex_unlock(&vm->lock));
	return r;
}

void
conn_leave(struct vmpool_vm *vm)
{
	AZ(pthread_mutex_unlock(&vm->lock));
}

/* --- errors ------------------------------------------------------------------------ */

void
conn_break(struct vmpool_vm *vm, int code, const char *fmt, ...)
{
	struct conn *c = vm->conn;
	va_list ap;

	if (c->broken != 0)
		return;
	c->broken = code;
	va_start(ap, fmt);
	(void)vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	for (struct vmpool_proc *proc = c->procs; proc != NULL; proc = proc->next)
		proc_notify(proc);
}

static _Atomic uint32_t *
worker_life(const struct vmpool_vm *vm)
{
	return &vm->pool->seg->slot[vm->lease.slot].life;
}

/* Does a channel that has joined still have its worker? What happens to the slot is told
 * to the holder's channel only. */
static int
join_check(const struct vmpool_vm *vm)
{
	if (lifeline_severed(worker_life(vm)))
		return -EOWNERDEAD;
	/* Pairs with port_close in the worker, by rsp_seq, which grows afterwards. */
	return atomic_load_explicit(&vm->shm->worker_asleep, memory_order_relaxed) ==
		       SHM_CHAN_CLOSED
		   ? -ECONNABORTED
		   : 0;
}

/* lease_check, and for a channel that has joined more than that. */
static int
vm_check(const struct vmpool_vm *vm)
{
	int r = lease_check(vm->pool->seg, &vm->lease), ended;

	if (r < 0 || vm->join.shm == NULL)
		return r;
	r = join_check(vm);
	/* If the lease, or the supervisor, has ended, that came first, and says more. */
	ended = r < 0 ? lease_check(vm->pool->seg, &vm->lease) : 0;
	return ended < 0 ? ended : r;
}

int
conn_check(struct vmpool_vm *vm)
{
	int r = vm->conn->broken == 0 ? vm_check(vm) : 0;

	/* What the VM said before it ended still counts. */
	if (r < 0)
		conn_drain(vm, NULL);
	switch (r) {
	case 0: break;
	case -EOWNERDEAD:
		conn_break(vm, VMPOOL_EVMDIED, "the VM in slot %u died", vm->lease.slot);
		break;
	case -ENOTCONN: conn_break(vm, VMPOOL_ERESTARTED, "the pool's supervisor has died"); break;
	case -ECONNABORTED:
		conn_break(
		    vm, VMPOOL_EPROTOCOL,
		    "cut off from the VM in slot %u: output was left unread, or a rule broken",
		    vm->lease.slot);
		break;
	default: conn_break(vm, VMPOOL_ERELEASED, "the lease has ended"); break;
	}
	if (vm->conn->broken != 0)
		return client_fail(vm->pool, vm->conn->broken, "%s", vm->conn->why);
	return 0;
}

/* --- sending ----------------------------------------------------------------------- */

static void
ring_bell(const struct conn *c)
{
	(void)eventfd_write(c->req_fd, 1);
}

int
conn_send(struct vmpool_vm *vm, uint32_t stream, uint8_t type, uint8_t flags, const void *p,
	  size_t len)
{
	struct conn *c = vm->conn;
	const struct ring_rec rec = {
	    .length = (uint32_t)len,
	    .type = type,
	    .flags = flags,
	    .stream = stream,
	    .lease = lease_tag(vm),
	};
	int r = ring_write(&c->req, &rec, p);

	if (r == -EAGAIN) {
		/* Ask to be woken, then look again. The worker takes requests first and
		 * exchanges this word afterwards (pump_requests in job.c). */
		c->stalled = true;
		(void)atomic_exchange_explicit(&vm->shm->req_stalled, 1, memory_order_seq_cst);
		r = ring_write(&c->req, &rec, p);
	}
	if (r == -EAGAIN)
		return r;
	if (r < 0) {
		conn_break(vm, VMPOOL_EPROTOCOL, "the request ring was tampered with");
		return client_fail(vm->pool, c->broken, "%s", c->why);
	}
	/* Pairs with the fence in job_sleep: either the worker sees the new tail, or
	 * we see that it sleeps. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&vm->shm->worker_asleep, memory_order_relaxed) != 0)
		ring_bell(c);
	return 0;
}

int
conn_send_wait(struct vmpool_vm *vm, uint32_t stream, uint8_t type, uint8_t flags, const void *p,
	       size_t len, uint64_t deadline_ns)
{
	for (;;) {
		uint32_t seq = conn_seq(vm);
		int r;

		conn_drain(vm, NULL);
		r = conn_check(vm);
		if (r == 0)
			r = conn_send(vm, stream, type, flags, p, len);
		if (r != -EAGAIN)
			return r;
		/* Half a request cannot be taken back: a signal does not end this wait. */
		r = conn_wait(vm, seq, deadline_ns);
		if (r == -EAGAIN)
			return client_fail(vm->pool, VMPOOL_ETIMEDOUT,
					   "the VM in slot %u takes no requests", vm->lease.slot);
	}
}

/* --- receiving ---------------------------------------------------------------------- */

static void
receive_pong(struct conn *c, const struct ring_rec *rec)
{
	uint64_t nonce;

	if (rec->length != sizeof(nonce))
		return;
	memcpy(&nonce, c->payload, sizeof(nonce));
	for (struct conn_ping *ping = c->pings; ping != NULL; ping = ping->next)
		if (ping->nonce == nonce)
			ping->answered = true;
}

static void
receive(struct vmpool_vm *vm, const struct ring_rec *rec, const struct vmpool_proc *caller)
{
	struct conn *c = vm->conn;
	const struct proto_hdr hdr = {
	    .length = rec->length,
	    .type = rec->type,
	    .flags = rec->flags,
	    .zero = rec->zero,
	    .stream = rec->stream,
	};
	struct vmpool_proc *proc;

	/* Left over from an earlier lease of this VM. */
	if (rec->lease != lease_tag(vm))
		return;
	if (rec->type == RING_WORKER_PONG || (rec->type == PROTO_PONG && rec->stream == 0)) {
		receive_pong(c, rec);
		return;
	}
	if (!proto_check(&hdr, true)) {
		conn_break(vm, VMPOOL_EPROTOCOL,
			   "the VM sent a malformed frame (type %u, %u bytes)", rec->type,
			   rec->length);
		return;
	}
	proc = c->stream[rec->stream % PROTO_STREAMS_MAX];
	if (proc == NULL || proc->stream != rec->stream)
		return;
	if (!proc_receive(proc, rec, c->payload))
		conn_break(vm, VMPOOL_EPROTOCOL,
			   "the VM broke the protocol of stream %u (type %u, %u bytes)",
			   rec->stream, rec->type, rec->length);
	else if (proc->orphan && !proc->open)
		proc_destroy(proc);
	else if (proc != caller)
		proc_notify(proc);
}

uint32_t
conn_seq(const struct vmpool_vm *vm)
{
	/* Pairs with the release increment in publish (job.c). */
	return atomic_load_explicit(&vm->shm->rsp_seq, memory_order_acquire);
}

/* Commands without a handle are killed, and their output is let run dry. */
static void
tend_orphans(struct conn *c)
{
	for (size_t i = 0; i < PROTO_STREAMS_MAX && c->orphans > 0; i++)
		if (c->stream[i] != NULL && c->stream[i]->orphan)
			proc_tend(c->stream[i]);
}

void
conn_drain(struct vmpool_vm *vm, const struct vmpool_proc *caller)
{
	struct conn *c = vm->conn;
	struct ring_rec rec;
	int r = 0;

	for (unsigned n = 0; n < DRAIN_MAX && c->broken == 0; n++) {
		r = ring_read(&c->rsp, &rec, c->payload);
		if (r <= 0)
			break;
		receive(vm, &rec, caller);
	}
	if (r < 0)
		conn_break(vm, VMPOOL_EPROTOCOL, "the response ring was tampered with");
	tend_orphans(c);
	/* The worker stores 1, then looks at the ring once more (response_room in
	 * job.c); the exchange orders our taking before our looking at the word. */
	if (atomic_exchange_explicit(&vm->shm->rsp_stalled, 0, memory_order_seq_cst) != 0)
		ring_bell(c);
}

int
conn_wait(struct vmpool_vm *vm, uint32_t seq, uint64_t deadline_ns)
{
	int r;

	if (deadline_ns != LOCK_FOREVER && now_ns() >= deadline_ns)
		return -EAGAIN;
	/* Announce the sleeper before the kernel compares rsp_seq; pairs with the
	 * fence in publish (job.c), which increments rsp_seq before it looks here. */
	(void)atomic_fetch_add_explicit(&vm->shm->rsp_sleepers, 1, memory_order_seq_cst);
	AZ(pthread_mutex_unlock(&vm->lock));
	r = lifeline_wait_worker(vm->pool->seg, &vm->shm->rsp_seq, seq,
				 vm->join.shm != NULL ? worker_life(vm) : NULL, deadline_ns);
	AZ(pthread_mutex_lock(&vm->lock));
	(void)atomic_fetch_sub_explicit(&vm->shm->rsp_sleepers, 1, memory_order_relaxed);
	switch (r) {
	case -ETIMEDOUT: return -EAGAIN;
	case -EINTR: return -EINTR;
	default: return 0;
	}
}
