/* SPDX-License-Identifier: MIT
 *
 * client_proc.c - the handle of a command in a VM: its events, its stdin, its
 * descriptor. Runs in clients. (Its stream: client_stream.c.)
 *
 * Output is double-buffered: records are appended to `in` by whichever thread
 * drains the ring, and handed out from `out`, whose bytes stay put until the
 * next call. The command's window bounds both.
 *
 * Descriptors. The worker writes the slot's response eventfd when it publishes
 * anything, but only one reader gets to see that, and that reader may then move
 * other commands' records. So each command that is polled has an eventfd of its
 * own beside it, and whoever moves something to a command writes that. The
 * pool's socket is in the set as well: it hangs up when the supervisor dies; and so is
 * the one of a handle that has joined: it hangs up when the worker dies.
 */
#include "shm/client.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

ssize_t
vmpool_proc_write(struct vmpool_proc *proc, const void *buf, size_t len, int64_t timeout_ms)
{
	uint64_t deadline = client_deadline(timeout_ms);
	struct vmpool_vm *vm;
	size_t n;
	int r;

	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	vm = proc->vm;
	r = conn_enter(vm);
	if (r < 0)
		return r;
	for (;;) {
		uint32_t seq = conn_seq(vm);

		conn_drain(vm, NULL);
		r = proc->open && proc->stdin_open
			? conn_check(vm)
			: client_fail(vm->pool, -EPIPE, "stdin of the command is closed");
		n = MIN(MIN(len, proc->stdin_credit), PROTO_PAYLOAD_MAX);
		if (r < 0 || len == 0)
			break;
		r = n == 0 ? -EAGAIN : conn_send(vm, proc->stream, PROTO_STDIN, 0, buf, n);
		if (r == -EAGAIN)
			r = conn_wait(vm, seq, deadline);
		else if (r == 0)
			break;
		if (r < 0)
			break;
	}
	if (r == 0)
		proc->stdin_credit -= n;
	conn_leave(vm);
	return r < 0 ? r : (ssize_t)n;
}

/* A request about a running command; its end makes it pointless: -ESRCH. */
static int
proc_request(struct vmpool_proc *proc, uint8_t type, uint8_t flags, const void *p, size_t len)
{
	if (!proc->open)
		return client_fail(proc->vm->pool, -ESRCH, "the command has ended");
	return conn_send_wait(proc->vm, proc->stream, type, flags, p, len,
			      client_deadline(CLIENT_SEND_MS));
}

int
vmpool_proc_close_stdin(struct vmpool_proc *proc)
{
	int r;

	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	r = conn_enter(proc->vm);
	if (r < 0)
		return r;
	if (proc->stdin_open) {
		proc->stdin_open = false;
		r = proc_request(proc, PROTO_STDIN, PROTO_F_EOF, NULL, 0);
	}
	conn_leave(proc->vm);
	return r == -ESRCH ? 0 : r;
}

int
vmpool_proc_kill(struct vmpool_proc *proc, int signal)
{
	const uint32_t value = (uint32_t)signal;
	int r;

	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	r = conn_enter(proc->vm);
	if (r < 0)
		return r;
	if (signal < 1 || signal > CLIENT_SIGNAL_MAX)
		r = client_fail(proc->vm->pool, -EINVAL, "%d is not a signal", signal);
	else
		r = proc_request(proc, PROTO_KILL, 0, &value, sizeof(value));
	conn_leave(proc->vm);
	return r;
}

int
vmpool_proc_resize(struct vmpool_proc *proc, unsigned short rows, unsigned short cols)
{
	const struct proto_winsize size = {.rows = rows, .cols = cols};
	int r;

	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	r = conn_enter(proc->vm);
	if (r < 0)
		return r;
	r = proc_request(proc, PROTO_WINSIZE, 0, &size, sizeof(size));
	conn_leave(proc->vm);
	return r;
}

/* --- events ---------------------------------------------------------------------------- */

/* The next thing that is already here. */
static bool
proc_take(struct vmpool_proc *proc, struct vmpool_event *event)
{
	if (proc->out.pos == proc->out.len) {
		struct outq empty = proc->out;

		outq_reset(&empty);
		proc->out = proc->in;
		proc->in = empty;
	}
	if (outq_take(&proc->out, event)) {
		proc->owed += (uint32_t)event->len;
		proc_tend(proc);
		return true;
	}
	if (proc->open || proc->error != 0)
		return false;
	*event = proc->last;
	return true;
}

void
proc_notify(const struct vmpool_proc *proc)
{
	if (proc->event_fd >= 0)
		(void)eventfd_write(proc->event_fd, 1);
}

/* Before looking at what the descriptors stand for, so that later news makes
 * them readable again. */
static void
proc_quiet(struct vmpool_proc *proc)
{
	struct conn *c = proc->vm->conn;
	eventfd_t value;

	if (proc->event_fd < 0)
		return;
	(void)eventfd_read(proc->event_fd, &value);
	if (eventfd_read(c->rsp_fd, &value) < 0 || !c->stalled)
		return;
	/* It may have meant room for requests, which is news for all. */
	c->stalled = false;
	for (struct vmpool_proc *p = c->procs; p != NULL; p = p->next)
		if (p != proc)
			proc_notify(p);
}

/* The VM has ended, or broken the protocol. */
static int
proc_ended(struct vmpool_proc *proc, int error, struct vmpool_event *event)
{
	if (proc_take(proc, event))
		return 1;
	if (proc->error != 0)
		return client_fail(proc->vm->pool, proc->error, "%s", proc->why);
	return error;
}

static int
proc_overdue(struct vmpool_proc *proc)
{
	return client_fail(proc->vm->pool, VMPOOL_ETIMEDOUT,
			   "the VM has not answered %d s after the command's deadline",
			   CLIENT_BACKSTOP_MS / 1000);
}

int
proc_poll(struct vmpool_proc *proc, uint64_t deadline_ns, bool want_write,
	  struct vmpool_event *event)
{
	struct vmpool_vm *vm = proc->vm;
	/* A caller that was away must not take its own absence for the VM's silence. */
	uint64_t overdue = proc->backstop_ns == LOCK_FOREVER
			       ? LOCK_FOREVER
			       : MAX(proc->backstop_ns, client_deadline(CLIENT_BACKSTOP_MS));

	for (;;) {
		uint32_t seq = conn_seq(vm);
		int r;

		proc_quiet(proc);
		conn_drain(vm, proc);
		if (proc_take(proc, event))
			return 1;
		if (proc->error != 0)
			return proc_ended(proc, proc->error, event);
		if (want_write && proc->stdin_open && proc->stdin_credit > 0)
			return 2;
		r = conn_check(vm);
		if (r < 0)
			return proc_ended(proc, r, event);
		proc_tend(proc);
		r = conn_wait(vm, seq, MIN(deadline_ns, overdue));
		if (r == -EAGAIN && overdue <= deadline_ns)
			return overdue == LOCK_FOREVER ? r : proc_overdue(proc);
		if (r < 0)
			return r;
	}
}

int
vmpool_proc_next(struct vmpool_proc *proc, int64_t timeout_ms, struct vmpool_event *event)
{
	uint64_t deadline = client_deadline(timeout_ms);
	int r;

	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	r = conn_enter(proc->vm);
	if (r < 0)
		return r;
	r = proc_poll(proc, deadline, false, event);
	conn_leave(proc->vm);
	return r < 0 ? r : 0;
}

/* --- descriptors, and the end of the handle ---------------------------------------------- */

static int
poll_add(int set, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP};

	return epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int
poll_open(struct vmpool_proc *proc)
{
	struct vmpool_vm *vm = proc->vm;
	_cleanup_(closep) int set = epoll_create1(EPOLL_CLOEXEC);
	_cleanup_(closep) int ev = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r;

	if (set < 0 || ev < 0)
		return client_fail(vm->pool, -errno, "no descriptor: %s", strerror(errno));
	r = poll_add(set, ev);
	if (r == 0)
		r = poll_add(set, vm->conn->rsp_fd);
	if (r == 0)
		r = poll_add(set, vm->pool->sock);
	if (r == 0 && vm->join.shm != NULL)
		r = poll_add(set, vm->join.life);
	if (r < 0)
		return client_fail(vm->pool, r, "epoll_ctl: %s", strerror(-r));
	proc->event_fd = steal_fd(&ev);
	proc->poll_fd = steal_fd(&set);
	/* Pairs with the load in publish (job.c). What was published before it is
	 * seen because the first poll comes back at once. */
	atomic_store_explicit(&vm->shm->rsp_pollers, 1, memory_order_seq_cst);
	proc_notify(proc);
	return 0;
}

int
vmpool_proc_fd(struct vmpool_proc *proc)
{
	int r;

	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	r = conn_enter(proc->vm);
	if (r < 0)
		return r;
	if (proc->poll_fd < 0)
		r = poll_open(proc);
	conn_leave(proc->vm);
	return r < 0 ? r : proc->poll_fd;
}

void
vmpool_proc_free(struct vmpool_proc *proc)
{
	struct vmpool_vm *vm;

	if (proc == NULL)
		return;
	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	vm = proc->vm;
	if (conn_enter(vm) < 0)
		return;
	if (proc->open && vm->conn->broken == 0) {
		proc_orphan(proc);
		conn_drain(vm, NULL);
	} else {
		proc_destroy(proc);
	}
	conn_leave(vm);
}
