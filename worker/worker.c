/* SPDX-License-Identifier: MIT
 *
 * worker.c - the life of one worker: boot, ready, serve, end. Runs in a process
 * of its own, forked by the fork server; owns the loop, the machine and the
 * job. Every end, expected or not, goes through worker_end with a reason.
 */
#include "worker/worker.h"
#include "shm/ctl.h"
#include "worker/job.h"

#include <poll.h>
#include <string.h>

#define WORKER_MAGIC 0x30a7e401u
#define WORKER_SMALL_MIB 64u /* Linux with a busybox image has trouble below that */

struct worker {
	unsigned magic;
	const struct worker_config *cfg;
	struct loop *loop;
	struct machine *machine;
	struct loop_op control, doorbell, timer;
	uint64_t start_ns;
	bool announced; /* READY was sent */
	struct job job;
};

/* --- telling the supervisor ------------------------------------------------------ */

/* The supervisor reads all it is sent; if it does not, ending is what it will see. */
static void
tell(struct worker *w, const struct worker_msg *msg)
{
	if (ctl_send(w->cfg->control, msg, sizeof(*msg), NULL, 0) < 0)
		loop_stop(w->loop, 1);
}

static void
tell_ready(struct worker *w)
{
	struct worker_msg msg = {
	    .magic = CTL_MAGIC,
	    .kind = WORKER_READY,
	    .boot_ns = now_ns() - w->start_ns,
	};

	w->announced = true;
	tell(w, &msg);
}

/* Say how the health check ended: error is 0 when it passed. */
static void
tell_checked(struct worker *w, int error)
{
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_CHECKED, .error = error};

	w->job.check = CHECK_NONE;
	tell(w, &msg);
}

static void
tell_failed(int control, struct machine *machine, const struct machine_ops *ops, int error,
	    const char *why)
{
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_FAILED, .error = error};
	int n = snprintf(msg.text, sizeof(msg.text), "%s\n", why);

	if (machine != NULL && n > 0 && (size_t)n < sizeof(msg.text))
		(void)ops->console(machine, msg.text + n, sizeof(msg.text) - (size_t)n);
	/* Nothing is left to do if even this fails: the exit status speaks. */
	(void)!ctl_send(control, &msg, sizeof(msg), NULL, 0);
}

static void
worker_end(struct worker *w, int error, const char *why)
{
	tell_failed(w->cfg->control, w->machine, w->cfg->ops, error, why);
	loop_stop(w->loop, 1);
}

/* --- events ------------------------------------------------------------------------ */

static void
on_control(struct loop_op *op, int res)
{
	struct worker *w = op->owner;
	struct pollfd p = {.fd = w->cfg->control, .events = POLLIN};
	struct worker_msg msg;
	int r = MIN(res, 0);

	CHECK_OBJ(w, WORKER_MAGIC);
	/* One event may stand for several messages; the socket itself blocks. */
	while (r == 0 && poll(&p, 1, 0) == 1) {
		r = ctl_recv(w->cfg->control, &msg, sizeof(msg), NULL, 0);
		if (r == 0 && (msg.magic != CTL_MAGIC || msg.kind != WORKER_CHECK))
			r = -EPIPE;
		if (r == 0 && job_check(&w->job) < 0)
			tell_checked(w, -EBUSY);
	}
	if (r < 0)
		loop_stop(w->loop, 0);
}

/* What rings only wakes the loop: before it sleeps again it pumps (on_idle). */
static void
on_doorbell(struct loop_op *op, int res)
{
	struct worker *w = op->owner;

	CHECK_OBJ(w, WORKER_MAGIC);
	if (res < 0 && res != -ECANCELED)
		worker_end(w, res, "cannot watch the request doorbell");
}

static void
on_channel(void *owner)
{
	struct worker *w = owner;

	CHECK_OBJ(w, WORKER_MAGIC);
}

static void
on_ended(void *owner)
{
	struct worker *w = owner;
	uint32_t mib = w->cfg->machine.mem_mib;
	char why[256];
	int n;

	CHECK_OBJ(w, WORKER_MAGIC);
	n = snprintf(why, sizeof(why), "%s", w->cfg->ops->end(w->machine));
	if (!w->announced && n > 0 && (size_t)n < sizeof(why))
		(void)snprintf(why + n, sizeof(why) - (size_t)n, " while booting%s",
			       mib < WORKER_SMALL_MIB ? "; its memory may be too small" : "");
	worker_end(w, -EIO, why);
}

static void
on_timer(struct loop_op *op, int res)
{
	struct worker *w = op->owner;
	char why[96];

	CHECK_OBJ(w, WORKER_MAGIC);
	if (res != -ETIME)
		return;
	if (!w->announced) {
		(void)snprintf(why, sizeof(why), "hung boot: the agent was not ready after %llu s",
			       WORKER_BOOT_NS / 1000000000u);
		worker_end(w, -ETIMEDOUT, why);
		return;
	}
	job_expire(&w->job, now_ns());
}

/* Before the loop sleeps: look at what has changed, move what can be moved. */
static bool
on_idle(void *owner)
{
	struct worker *w = owner;
	bool busy = !job_sleep(&w->job);
	uint64_t due = w->announced ? job_deadline(&w->job) : w->start_ns + WORKER_BOOT_NS;

	if (w->job.ready && !w->announced)
		tell_ready(w);
	if (w->job.check == CHECK_PASSED || w->job.check == CHECK_FAILED)
		tell_checked(w, w->job.check == CHECK_PASSED ? 0 : -EIO);
	if (w->job.failure[0] != '\0') {
		worker_end(w, -EPROTO, w->job.failure);
		return true;
	}
	if (due != 0 && (!w->timer.armed || w->timer.due_ns != due))
		loop_timer(w->loop, &w->timer, due);
	else if (due == 0 && w->timer.armed)
		loop_cancel(w->loop, &w->timer);
	return busy;
}

static void
on_awake(void *owner)
{
	struct worker *w = owner;

	job_awake(&w->job);
}

/* --- from start to end --------------------------------------------------------------- */

static int
worker_start(struct worker *w, char *err, size_t errlen)
{
	const struct worker_config *cfg = w->cfg;
	const struct machine_events events = {.channel = on_channel, .ended = on_ended, .owner = w};
	int r = loop_new(&w->loop, 64, err, errlen);

	if (r == 0)
		r = cfg->ops->start(&w->machine, &cfg->machine, w->loop, &events, err, errlen);
	if (r < 0)
		return r;
	job_init(&w->job, cfg->seg, cfg->slot, cfg->response, cfg->ops, w->machine);
	loop_op_init(&w->control, on_control, w);
	loop_op_init(&w->doorbell, on_doorbell, w);
	loop_op_init(&w->timer, on_timer, w);
	loop_watch(w->loop, &w->control, cfg->control);
	loop_watch(w->loop, &w->doorbell, cfg->request);
	loop_on_idle(w->loop, on_idle, on_awake, w);
	return 0;
}

int
worker_run(const struct worker_config *cfg)
{
	struct worker *w = calloc(1, sizeof(*w));
	char err[512];
	int r;

	if (w == NULL) {
		tell_failed(cfg->control, NULL, cfg->ops, -ENOMEM, "out of memory");
		return 1;
	}
	w->magic = WORKER_MAGIC;
	w->cfg = cfg;
	w->start_ns = now_ns();
	r = worker_start(w, err, sizeof(err));
	if (r < 0)
		tell_failed(cfg->control, NULL, cfg->ops, r, err);
	else
		r = loop_run(w->loop);
	loop_free(w->loop);
	cfg->ops->free(w->machine);
	free(w);
	return r == 0 ? 0 : 1;
}
