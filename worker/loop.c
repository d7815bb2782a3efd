/* SPDX-License-Identifier: MIT
 *
 * loop.c - one io_uring as an event loop. Runs in a worker; owns the ring.
 *
 * Completions carry the address of their struct loop_op. Timer updates and
 * cancellations are fire and forget: their own completions carry NULL.
 */
#include "worker/loop.h"

#include <liburing.h>
#include <poll.h>
#include <string.h>

#define LOOP_MAGIC 0x100b100bu

struct loop {
	unsigned magic;
	struct io_uring ring;
	bool (*idle)(void *owner);
	void (*awake)(void *owner);
	void *idle_owner;
	bool stopped;
	int result;
};

_Static_assert(sizeof(((struct loop_op *)0)->due) == sizeof(struct __kernel_timespec),
	       "due is what the kernel reads");

int
loop_new(struct loop **out, unsigned entries, char *err, size_t errlen)
{
	/* Completions are run by the waiting thread itself (6.1); older flags otherwise. */
	static const unsigned flags[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
					 IORING_SETUP_COOP_TASKRUN, 0};
	struct loop *loop = calloc(1, sizeof(*loop));
	int r = -EINVAL;

	if (loop == NULL)
		return fail(ENOMEM, err, errlen, "out of memory for the event loop");
	for (size_t i = 0; i < ARRAY_SIZE(flags) && r == -EINVAL; i++)
		r = io_uring_queue_init(entries, &loop->ring, flags[i]);
	if (r < 0) {
		free(loop);
		return fail(-r, err, errlen,
			    "io_uring is not available: %s (allow it with sysctl "
			    "kernel.io_uring_disabled=0, or in the container's seccomp profile)",
			    strerror(-r));
	}
	loop->magic = LOOP_MAGIC;
	*out = loop;
	return 0;
}

void
loop_free(struct loop *loop)
{
	if (loop == NULL)
		return;
	CHECK_OBJ(loop, LOOP_MAGIC);
	io_uring_queue_exit(&loop->ring);
	loop->magic = 0;
	free(loop);
}

void
loop_op_init(struct loop_op *op, loop_fn *fn, void *owner)
{
	memset(op, 0, sizeof(*op));
	op->fn = fn;
	op->owner = owner;
	op->fd = -1;
}

/* A submission entry; a full queue is handed to the kernel first. */
static struct io_uring_sqe *
next_sqe(struct loop *loop)
{
	struct io_uring_sqe *sqe;

	CHECK_OBJ(loop, LOOP_MAGIC);
	while ((sqe = io_uring_get_sqe(&loop->ring)) == NULL)
		(void)io_uring_submit(&loop->ring);
	return sqe;
}

static void
arm(struct loop_op *op, struct io_uring_sqe *sqe)
{
	assert(!op->armed);
	op->armed = true;
	io_uring_sqe_set_data(sqe, op);
}

void
loop_watch(struct loop *loop, struct loop_op *op, int fd)
{
	struct io_uring_sqe *sqe = next_sqe(loop);

	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	op->watching = true;
	op->fd = fd;
	arm(op, sqe);
}

void
loop_recv(struct loop *loop, struct loop_op *op, int fd, void *buf, size_t len)
{
	struct io_uring_sqe *sqe = next_sqe(loop);

	io_uring_prep_recv(sqe, fd, buf, len, 0);
	arm(op, sqe);
}

void
loop_send(struct loop *loop, struct loop_op *op, int fd, const void *buf, size_t len)
{
	struct io_uring_sqe *sqe = next_sqe(loop);

	io_uring_prep_send(sqe, fd, buf, len, MSG_NOSIGNAL);
	arm(op, sqe);
}

void
loop_timer(struct loop *loop, struct loop_op *op, uint64_t due_ns)
{
	struct io_uring_sqe *sqe = next_sqe(loop);
	struct __kernel_timespec *due = (struct __kernel_timespec *)&op->due;

	op->due_ns = due_ns;
	due->tv_sec = (long long)(due_ns / 1000000000u);
	due->tv_nsec = (long long)(due_ns % 1000000000u);
	if (op->armed) {
		io_uring_prep_timeout_update(sqe, due, (uintptr_t)op, IORING_TIMEOUT_ABS);
		io_uring_sqe_set_data(sqe, NULL);
	} else {
		io_uring_prep_timeout(sqe, due, 0, IORING_TIMEOUT_ABS);
		arm(op, sqe);
	}
}

void
loop_cancel(struct loop *loop, struct loop_op *op)
{
	struct io_uring_sqe *sqe;

	op->watching = false;
	if (!op->armed)
		return;
	sqe = next_sqe(loop);
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

void
loop_on_idle(struct loop *loop, bool (*idle)(void *owner), void (*awake)(void *owner), void *owner)
{
	loop->idle = idle;
	loop->awake = awake;
	loop->idle_owner = owner;
}

static void
complete(struct loop *loop, struct loop_op *op, int res, unsigned cqe_flags)
{
	if (op == NULL)
		return;
	if (!(cqe_flags & IORING_CQE_F_MORE)) {
		op->armed = false;
		/* The kernel may end a multishot poll at any time; that is not an event. */
		if (op->watching && res >= 0)
			loop_watch(loop, op, op->fd);
		/* A timer that was moved as it fired starts again. */
		if (res == -ETIME && op->due_ns > now_ns()) {
			loop_timer(loop, op, op->due_ns);
			return;
		}
	}
	op->fn(op, res);
}

/* Run the functions of all completions that are there; true if there were any. */
static bool
reap(struct loop *loop)
{
	struct io_uring_cqe *cqe;
	bool any = false;

	while (!loop->stopped && io_uring_peek_cqe(&loop->ring, &cqe) == 0) {
		struct loop_op *op = io_uring_cqe_get_data(cqe);
		int res = cqe->res;
		unsigned flags = cqe->flags;

		io_uring_cqe_seen(&loop->ring, cqe);
		complete(loop, op, res, flags);
		any = true;
	}
	return any;
}

int
loop_run(struct loop *loop)
{
	CHECK_OBJ(loop, LOOP_MAGIC);
	loop->stopped = false;
	while (!loop->stopped) {
		if (reap(loop) || loop->stopped)
			continue;
		if (loop->idle != NULL && loop->idle(loop->idle_owner)) {
			/* Busy: hand over what was armed, take what has completed, go on. */
			(void)io_uring_submit_and_get_events(&loop->ring);
			continue;
		}
		int r = io_uring_submit_and_wait(&loop->ring, 1);

		if (loop->awake != NULL)
			loop->awake(loop->idle_owner);
		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
			return r;
	}
	return loop->result;
}

void
loop_stop(struct loop *loop, int result)
{
	CHECK_OBJ(loop, LOOP_MAGIC);
	loop->stopped = true;
	loop->result = result;
}
