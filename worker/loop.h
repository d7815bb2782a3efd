/* SPDX-License-Identifier: MIT
 *
 * loop.h - the worker's event loop, and the only file that names io_uring.
 *
 * An operation is a struct loop_op embedded in its owner; it is armed by one of
 * the calls below and stays the owner's. Its function runs from loop_run, never
 * from the arming call. All functions belong to the loop's one thread.
 */
#ifndef VMPOOL_LOOP_H
#define VMPOOL_LOOP_H

#include "shm/base.h"

struct loop;
struct loop_op;

/* res: bytes moved, poll events, or -errno; -ECANCELED after loop_cancel. */
typedef void loop_fn(struct loop_op *op, int res);

struct loop_op {
	loop_fn *fn;
	void *owner;
	bool armed;	 /* in flight: do not arm again, do not free */
	bool watching;	 /* a loop_watch: stays armed until cancelled */
	int fd;		 /* watched descriptor, for arming it again */
	uint64_t due_ns; /* timer: absolute deadline, lives as long as the operation */
	struct {
		long long sec, nsec;
	} due;
};

/* entries: operations in flight at most, roughly. 0 or -errno with err
 * (-ENOSYS, -EPERM: io_uring is not available here, with the remedy). */
int loop_new(struct loop **out, unsigned entries, char *err, size_t errlen) must_check;
void loop_free(struct loop *loop);

void loop_op_init(struct loop_op *op, loop_fn *fn, void *owner);

/* Call fn whenever fd becomes readable (an edge: an eventfd need not be read),
 * until cancelled. fn's res is the poll mask, or -errno when watching failed. */
void loop_watch(struct loop *loop, struct loop_op *op, int fd);
/* One recv or send on a stream socket; the buffer stays valid until fn runs. */
void loop_recv(struct loop *loop, struct loop_op *op, int fd, void *buf, size_t len);
void loop_send(struct loop *loop, struct loop_op *op, int fd, const void *buf, size_t len);
/* Call fn with -ETIME at an absolute CLOCK_MONOTONIC time. Arming an armed timer moves it. */
void loop_timer(struct loop *loop, struct loop_op *op, uint64_t due_ns);
/* Cancel if armed; fn runs later with -ECANCELED. */
void loop_cancel(struct loop *loop, struct loop_op *op);

/* fn is asked before the loop would sleep; true: there is work, do not sleep.
 * awake runs when it has slept. One pair per loop. */
void loop_on_idle(struct loop *loop, bool (*idle)(void *owner), void (*awake)(void *owner),
		  void *owner);

/* Run until loop_stop; returns the value given there. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop, int result);

#endif
