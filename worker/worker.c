/* SPDX-License-Identifier: MIT
 *
 * worker.c - the life of one worker: boot, ready, serve, end. Runs in a process
 * of its own, forked by the fork server; owns the loop, the machine and the
 * job. Every end, expected or not, goes through worker_end with a reason.
 */
#include "worker/worker.h"
#include "shm/ctl.h"
#include "worker/copy.h"
#include "worker/job.h"
#include "worker/joins.h"

#include <poll.h>
#include <string.h>

#define WORKER_MAGIC 0x30a7e401u

struct worker {
	unsigned magic;
	struct worker_config cfg;
	struct worker_place place;
	struct loop *loop;
	struct machine *machine;
	struct loop_op order, control, doorbell, timer;
	uint64_t start_ns; /* when it was told to become ready */
	uint64_t pages;	   /* that the last reset put back */
	bool announced;	   /* READY was sent */
	int error;	   /* of worker_prepare, and why */
	char err[512];
	struct job job;
	struct copy copy;
	struct joins joins;
};

/* --- telling the supervisor ------------------------------------------------------ */

/* The supervisor reads all it is sent; if it does not, ending is what it will see. */
static void
tell(struct worker *w, const struct worker_msg *msg)
{
	if (ctl_send(w->place.control, msg, sizeof(*msg), NULL, 0) < 0)
		loop_stop(w->loop, 1);
}

static void
tell_ready(struct worker *w)
{
	struct worker_msg msg = {
	    .magic = CTL_MAGIC,
	    .kind = WORKER_READY,
	    .took_ns = now_ns() - w->start_ns,
	    .pages = w->pages,
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

/* Say how the copy of the VM ended; a fork's goes with its two files. */
static void
tell_captured(struct worker *w, struct worker_msg *msg, int error, const int *fds)
{
	msg->magic = CTL_MAGIC;
	msg->kind = WORKER_CAPTURED;
	msg->error = error;
	if (ctl_send(w->place.control, msg, sizeof(*msg), fds,
		     error == 0 && fds[0] >= 0 ? TEMPLATE_FILES : 0) < 0)
		loop_stop(w->loop, 1);
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
	tell_failed(w->place.control, w->machine, w->cfg.ops, error, why);
	loop_stop(w->loop, 1);
}

/* --- events ------------------------------------------------------------------------ */

/* Put the machine into its template's state, and have the guest renew itself. */
static void
worker_load(struct worker *w)
{
	const struct worker_config *cfg = &w->cfg;
	char err[256];
	int r;

	w->announced = false;
	w->start_ns = now_ns();
	r = cfg->ops->load(w->machine, &w->pages, err, sizeof(err));
	if (r < 0) {
		worker_end(w, r, err);
		return;
	}
	/* The slot is nobody's until READY: what a former lease left in the rings goes, and
	 * who had joined it. */
	job_fini(&w->job);
	ring_chan_reset(&cfg->seg->chan[w->place.slot]);
	job_init(&w->job, cfg->seg, w->place.slot, w->place.response, cfg->ops, w->machine);
	job_renew(&w->job);
}

/* Copy the VM: the answer follows, unless it is no at once. */
static void
worker_copy(struct worker *w, const struct worker_msg *msg, int *file)
{
	struct worker_msg no = {.error = 0};
	int r = copy_begin(&w->copy, &w->cfg, &w->job, w->machine, msg->lease, file, no.text,
			   sizeof(no.text));

	if (r < 0)
		tell_captured(w, &no, r, (int[]){-1});
}

static int
worker_told(struct worker *w, const struct worker_msg *msg, int fds[CTL_JOIN_FDS])
{
	if (msg->magic != CTL_MAGIC || !w->announced)
		return -EPROTO;
	if (msg->kind == WORKER_JOIN && fds[CTL_JOIN_FDS - 1] >= 0) {
		joins_add(&w->joins, msg->lease, fds);
		return 0;
	}
	if (w->copy.busy)
		return -EPROTO;
	if (msg->kind == WORKER_CAPTURE) {
		worker_copy(w, msg, &fds[0]);
		return 0;
	}
	if (msg->kind == WORKER_CHECK) {
		if (job_check(&w->job) < 0)
			tell_checked(w, -EBUSY);
		return 0;
	}
	if (msg->kind != WORKER_RESET || w->cfg.machine.tmpl == NULL || !w->cfg.ops->resets)
		return -EPROTO;
	worker_load(w);
	return 0;
}

static void
on_control(struct loop_op *op, int res)
{
	struct worker *w = op->owner;
	struct pollfd p = {.fd = w->place.control, .events = POLLIN};
	struct worker_msg msg;
	int fds[CTL_JOIN_FDS], r = MIN(res, 0);

	CHECK_OBJ(w, WORKER_MAGIC);
	/* One event may stand for several messages; the socket itself blocks. */
	while (r == 0 && poll(&p, 1, 0) == 1) {
		r = ctl_recv(w->place.control, &msg, sizeof(msg), fds, CTL_JOIN_FDS);
		if (r == 0)
			r = worker_told(w, &msg, fds);
		for (unsigned i = 0; i < CTL_JOIN_FDS; i++)
			closep(&fds[i]);
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
	uint32_t mib = w->cfg.machine.mem_mib;
	char why[256];
	int n;

	CHECK_OBJ(w, WORKER_MAGIC);
	n = snprintf(why, sizeof(why), "%s", w->cfg.ops->end(w->machine));
	if (!w->announced && n > 0 && (size_t)n < sizeof(why))
		(void)snprintf(why + n, sizeof(why) - (size_t)n, " while starting%s",
			       mib < MACHINE_SMALL_MIB ? "; its memory may be too small" : "");
	worker_end(w, -EIO, why);
}

static void
on_captured(void *owner, int error, uint64_t state_len, const char *why)
{
	struct worker *w = owner;
	struct worker_msg msg = {.took_ns = 0};
	int fds[TEMPLATE_FILES] = {-1, -1};
	int r;

	CHECK_OBJ(w, WORKER_MAGIC);
	r = copy_captured(&w->copy, error, state_len, why, &msg.tmpl, fds, msg.text,
			  sizeof(msg.text));
	tell_captured(w, &msg, r, fds);
	template_close(fds);
}

/* Go on with a copy of the VM, if one is being made. */
static void
worker_pump_copy(struct worker *w)
{
	struct worker_msg no = {.error = 0};
	int r = copy_pump(&w->copy, no.text, sizeof(no.text));

	if (r < 0)
		tell_captured(w, &no, r, (int[]){-1});
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
		(void)snprintf(why, sizeof(why), "hung start: the agent was not ready after %llu s",
			       WORKER_READY_NS / 1000000000u);
		worker_end(w, -ETIMEDOUT, why);
		return;
	}
	job_expire(&w->job, now_ns());
}

static uint64_t
worker_due(const struct worker *w)
{
	uint64_t job = job_deadline(&w->job), copy = copy_deadline(&w->copy);

	if (!w->announced)
		return w->start_ns + WORKER_READY_NS;
	return copy == 0 || (job != 0 && job < copy) ? job : copy;
}

/* Before the loop sleeps: look at what has changed, move what can be moved. */
static bool
on_idle(void *owner)
{
	struct worker *w = owner;
	bool copying = w->copy.busy, busy = !job_sleep(&w->job);
	uint64_t due;

	joins_tend(&w->joins);
	if (w->job.ready && !w->announced)
		tell_ready(w);
	if (w->job.check == CHECK_PASSED || w->job.check == CHECK_FAILED)
		tell_checked(w, w->job.check == CHECK_PASSED ? 0 : -EIO);
	if (w->job.failure[0] != '\0') {
		worker_end(w, -EPROTO, w->job.failure);
		return true;
	}
	worker_pump_copy(w);
	/* Requests have waited for the end of the copy. */
	busy |= copying && !w->copy.busy;
	due = worker_due(w);
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

int
worker_prepare(struct worker **out, const struct worker_config *cfg)
{
	struct worker *w = calloc(1, sizeof(*w));
	const struct machine_events events = {
	    .channel = on_channel, .ended = on_ended, .captured = on_captured, .owner = w};

	*out = w;
	if (w == NULL)
		return -ENOMEM;
	w->magic = WORKER_MAGIC;
	w->cfg = *cfg;
	/* A machine that ends before there is a place has nobody to tell. */
	w->place = (struct worker_place){.control = -1, .request = -1, .response = -1};
	w->copy = (struct copy){.file = -1, .fds = {-1, -1}};
	w->start_ns = now_ns();
	w->error = loop_new(&w->loop, 64, w->err, sizeof(w->err));
	if (w->error == 0)
		w->error = cfg->ops->start(&w->machine, &w->cfg.machine, w->loop, &events, w->err,
					   sizeof(w->err));
	return 0;
}

static void
on_order(struct loop_op *op, int res)
{
	struct worker *w = op->owner;

	CHECK_OBJ(w, WORKER_MAGIC);
	if (res != -ECANCELED)
		loop_stop(w->loop, 0);
}

int
worker_wait(struct worker *w, int sock)
{
	int r;

	CHECK_OBJ(w, WORKER_MAGIC);
	/* What failed in worker_prepare is told in worker_serve. */
	if (w->error < 0)
		return 0;
	loop_op_init(&w->order, on_order, w);
	loop_watch(w->loop, &w->order, sock);
	r = loop_run(w->loop);
	loop_cancel(w->loop, &w->order);
	return r;
}

static void
worker_begin(struct worker *w)
{
	const struct worker_config *cfg = &w->cfg;

	job_init(&w->job, cfg->seg, w->place.slot, w->place.response, cfg->ops, w->machine);
	joins_init(&w->joins, w->loop, &w->job);
	loop_op_init(&w->control, on_control, w);
	loop_op_init(&w->doorbell, on_doorbell, w);
	loop_op_init(&w->timer, on_timer, w);
	loop_watch(w->loop, &w->control, w->place.control);
	loop_watch(w->loop, &w->doorbell, w->place.request);
	loop_on_idle(w->loop, on_idle, on_awake, w);
	if (cfg->machine.tmpl != NULL)
		worker_load(w);
}

int
worker_serve(struct worker *w, const struct worker_place *place)
{
	int r = w->error;

	CHECK_OBJ(w, WORKER_MAGIC);
	w->place = *place;
	if (r < 0) {
		tell_failed(place->control, NULL, w->cfg.ops, r, w->err);
	} else {
		worker_begin(w);
		r = loop_run(w->loop);
		job_fini(&w->job);
		joins_fini(&w->joins);
	}
	loop_free(w->loop);
	copy_fini(&w->copy);
	w->cfg.ops->free(w->machine);
	w->magic = 0;
	free(w);
	return r == 0 ? 0 : 1;
}

int
worker_run(const struct worker_config *cfg, const struct worker_place *place)
{
	struct worker *w;

	return worker_prepare(&w, cfg) < 0 ? 1 : worker_serve(w, place);
}
