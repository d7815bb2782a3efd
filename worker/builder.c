/* SPDX-License-Identifier: MIT
 *
 * builder.c - from a kernel and an image to a template: boot, warm-up, a last round
 * trip that proves the guest quiescent, capture. Runs in a process of its own, forked
 * by the fork server; owns the machine and the two files that the template is.
 *
 * No client is there yet, and the guest runs nothing but the pool's own image and
 * warm-up command; its frames are checked all the same.
 */
#include "worker/builder.h"
#include "shm/ctl.h"
#include "worker/chan.h"
#include "worker/origin.h"
#include "worker/template.h"

#include <stdarg.h>
#include <string.h>

#define BUILDER_MAGIC 0x0b0117de
#define WARMUP_STREAM 1u
#define SAID_MAX 256u /* the end of what the warm-up command has printed */

enum step { STEP_BOOT, STEP_WARMUP, STEP_QUIET, STEP_CAPTURE };

struct builder {
	int magic;
	const struct builder_config *cfg;
	struct loop *loop;
	struct machine *machine;
	struct loop_op control, timer;
	enum step step;
	uint64_t start_ns, deadline_ns, boot_ns, warmup_ns;
	int fds[TEMPLATE_FILES];
	struct ctl_origin origin;
	size_t said_len;
	char said[SAID_MAX];
	struct chan chan;
};

/* --- how it ends ------------------------------------------------------------------- */

static void printf_like(3, 4) builder_fail(struct builder *b, int error, const char *fmt, ...)
{
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_FAILED, .error = error};
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(msg.text, sizeof(msg.text) - 1, fmt, ap);
	va_end(ap);
	n = MIN(MAX(n, 0), (int)sizeof(msg.text) - 2);
	msg.text[n++] = '\n';
	if (b->machine != NULL)
		(void)b->cfg->ops->console(b->machine, msg.text + n, sizeof(msg.text) - (size_t)n);
	/* Nothing is left to do if even this fails: the exit status speaks. */
	(void)!ctl_send(b->cfg->control, &msg, sizeof(msg), NULL, 0);
	if (b->loop != NULL)
		loop_stop(b->loop, 1);
}

static void
builder_done(struct builder *b, uint64_t state_len)
{
	struct worker_msg msg = {
	    .magic = CTL_MAGIC,
	    .kind = WORKER_TEMPLATE,
	    .took_ns = now_ns() - b->start_ns,
	    .tmpl = {.state_len = state_len, .origin = b->origin},
	};
	char err[256];
	int r = template_seal(b->fds, err, sizeof(err));

	if (r < 0) {
		builder_fail(b, r, "%s", err);
		return;
	}

	(void)snprintf(msg.text, sizeof(msg.text), "booted in %.0f ms%s", (double)b->boot_ns / 1e6,
		       b->cfg->warmup == NULL ? "" : ", ");
	if (b->cfg->warmup != NULL)
		(void)snprintf(msg.text + strlen(msg.text), 64, "warmed up in %.0f ms",
			       (double)b->warmup_ns / 1e6);
	loop_stop(b->loop,
		  ctl_send(b->cfg->control, &msg, sizeof(msg), b->fds, TEMPLATE_FILES) < 0);
}

/* --- the steps ------------------------------------------------------------------------ */

static void
builder_step(struct builder *b, enum step step, uint64_t limit_ns)
{
	b->step = step;
	b->deadline_ns = now_ns() + limit_ns;
	loop_timer(b->loop, &b->timer, b->deadline_ns);
}

static void
builder_quiet(struct builder *b)
{
	const struct proto_hdr hdr = {.type = PROTO_PING};

	chan_send(&b->chan, &hdr, "");
	builder_step(b, STEP_QUIET, BUILDER_BOOT_NS);
}

static void
builder_capture(struct builder *b)
{
	const struct machine_capture to = {.mem_fd = -1, .state_fd = b->fds[TEMPLATE_STATE]};
	char err[256];
	int r;

	builder_step(b, STEP_CAPTURE, BUILDER_CAPTURE_NS);
	r = b->cfg->ops->capture(b->machine, &to, err, sizeof(err));
	if (r < 0)
		builder_fail(b, r, "capturing the template: %s", err);
}

static void
builder_warmup(struct builder *b)
{
	struct {
		struct proto_exec exec;
		char strings[PROTO_PAYLOAD_MAX - sizeof(struct proto_exec)];
	} request = {.exec = {.argc = 3, .timeout_ms = BUILDER_WARMUP_NS / 1000000u}};
	struct proto_hdr hdr = {.type = PROTO_EXEC, .stream = WARMUP_STREAM};
	/* Three arguments; no directory, no user. */
	int n = snprintf(request.strings, sizeof(request.strings), "/bin/sh%c-c%c%s%c%c", 0, 0,
			 b->cfg->warmup, 0, 0);

	if (n < 0 || (size_t)n >= sizeof(request.strings)) {
		builder_fail(b, -E2BIG, "warm-up command: longer than %zu bytes",
			     sizeof(request.strings));
		return;
	}
	hdr.length = request.exec.size = (uint32_t)sizeof(request.exec) + (uint32_t)n + 1;
	chan_send(&b->chan, &hdr, &request);
	/* The guest ends it by its time-out; this is for a guest that does not. */
	builder_step(b, STEP_WARMUP, BUILDER_WARMUP_NS + BUILDER_BOOT_NS);
}

/* --- what the guest says ---------------------------------------------------------------- */

/* Keep the end of what the warm-up command prints, and let it go on. */
static void
builder_heard(struct builder *b, const struct proto_hdr *hdr, const uint8_t *payload)
{
	const struct proto_hdr credit = {
	    .length = sizeof(hdr->length), .type = PROTO_CREDIT, .stream = WARMUP_STREAM};
	size_t take = MIN(hdr->length, SAID_MAX), keep = MIN(b->said_len, SAID_MAX - take);

	memmove(b->said, b->said + b->said_len - keep, keep);
	memcpy(b->said + keep, payload + hdr->length - take, take);
	b->said_len = keep + take;
	if (chan_room(&b->chan))
		chan_send(&b->chan, &credit, &hdr->length);
}

/* The last line that the warm-up command has printed, fit to be shown. */
static const char *
builder_last_line(struct builder *b, char *line, size_t len)
{
	size_t end = b->said_len, start, n;

	while (end > 0 && (b->said[end - 1] == '\n' || b->said[end - 1] == '\r'))
		end--;
	for (start = end; start > 0 && b->said[start - 1] != '\n';)
		start--;
	n = MIN(end - start, len - 1);
	for (size_t i = 0; i < n; i++)
		line[i] = b->said[start + i] < 0x20 || b->said[start + i] == 0x7f
			      ? '?'
			      : b->said[start + i];
	line[n] = '\0';
	return line;
}

static void
builder_warmed(struct builder *b, const struct proto_hdr *hdr, const uint8_t *payload)
{
	struct proto_exit ended = {.code = 127};
	char line[SAID_MAX], how[64];

	if (hdr->type == PROTO_EXIT)
		memcpy(&ended, payload, sizeof(ended));
	if (ended.code == 0 && ended.signal == 0 && ended.timed_out == 0) {
		b->warmup_ns = now_ns() - b->start_ns - b->boot_ns;
		builder_quiet(b);
		return;
	}
	if (ended.timed_out != 0)
		(void)snprintf(how, sizeof(how), "timed out after %llu s",
			       BUILDER_WARMUP_NS / 1000000000u);
	else if (ended.signal != 0)
		(void)snprintf(how, sizeof(how), "was ended by signal %u", ended.signal);
	else
		(void)snprintf(how, sizeof(how), "exited with status %u", ended.code);
	builder_fail(b, -EINVAL, "warm-up command %s: %s", how,
		     builder_last_line(b, line, sizeof(line)));
}

static void
builder_booted(struct builder *b, const uint8_t *payload)
{
	struct proto_ready ready;

	memcpy(&ready, payload, sizeof(ready));
	if (ready.version != PROTO_VERSION) {
		builder_fail(b, -EPROTO, "the image's agent speaks protocol %u, this worker %u",
			     ready.version, PROTO_VERSION);
		return;
	}
	b->boot_ns = now_ns() - b->start_ns;
	if (b->cfg->warmup != NULL)
		builder_warmup(b);
	else
		builder_quiet(b);
}

static void
builder_frame(struct builder *b, const struct proto_hdr *hdr, const uint8_t *payload)
{
	bool warming = b->step == STEP_WARMUP && hdr->stream == WARMUP_STREAM;

	if (b->step == STEP_BOOT && hdr->type == PROTO_READY)
		builder_booted(b, payload);
	else if (warming && (hdr->type == PROTO_STDOUT || hdr->type == PROTO_STDERR))
		builder_heard(b, hdr, payload);
	else if (warming && (hdr->type == PROTO_EXIT || hdr->type == PROTO_ERROR))
		builder_warmed(b, hdr, payload);
	else if (warming && hdr->type == PROTO_CREDIT)
		return;
	else if (b->step == STEP_QUIET && hdr->type == PROTO_PONG)
		builder_capture(b);
	else
		builder_fail(b, -EPROTO, "guest broke the protocol (type %u)", hdr->type);
}

/* --- events ------------------------------------------------------------------------------- */

static bool
on_idle(void *owner)
{
	struct builder *b = owner;
	const uint8_t *payload;
	struct proto_hdr hdr;
	bool moved = false;
	int r = 0, err = 0;

	CHECK_OBJ(b, BUILDER_MAGIC);
	while (b->step != STEP_CAPTURE && (r = chan_recv(&b->chan, &hdr, &payload)) == 1) {
		builder_frame(b, &hdr, payload);
		moved = true;
	}
	if (b->step != STEP_CAPTURE)
		moved |= chan_flush(&b->chan, &err);
	if (r < 0 || err < 0)
		builder_fail(b, -EPROTO, "guest broke the channel");
	return moved;
}

static void
on_awake(void *owner)
{
	(void)owner;
}

static void
on_channel(void *owner)
{
	struct builder *b = owner;

	CHECK_OBJ(b, BUILDER_MAGIC);
}

static void
on_ended(void *owner)
{
	struct builder *b = owner;

	builder_fail(b, -EIO, "%s while %s%s", b->cfg->ops->end(b->machine),
		     b->step == STEP_BOOT ? "booting" : "the template was made",
		     b->step == STEP_BOOT && b->cfg->machine.mem_mib < MACHINE_SMALL_MIB
			 ? "; its memory may be too small"
			 : "");
}

static void
on_captured(void *owner, int error, uint64_t state_len, const char *why)
{
	struct builder *b = owner;

	if (error < 0)
		builder_fail(b, error, "capturing the template: %s", why);
	else
		builder_done(b, state_len);
}

static void
on_timer(struct loop_op *op, int res)
{
	static const char *const late[] = {
	    [STEP_BOOT] = "hung boot: the agent was not ready in time",
	    [STEP_WARMUP] = "warm-up command: the guest did not end it at its time-out",
	    [STEP_QUIET] = "the agent does not answer",
	    [STEP_CAPTURE] = "capturing the template takes too long",
	};
	struct builder *b = op->owner;

	CHECK_OBJ(b, BUILDER_MAGIC);
	if (res == -ETIME && now_ns() >= b->deadline_ns)
		builder_fail(b, -ETIMEDOUT, "%s", late[b->step]);
}

/* The supervisor says nothing to a builder: this is its end. */
static void
on_control(struct loop_op *op, int res)
{
	struct builder *b = op->owner;

	CHECK_OBJ(b, BUILDER_MAGIC);
	(void)res;
	loop_stop(b->loop, 1);
}

/* --- from start to end ------------------------------------------------------------------------ */

static int
builder_start(struct builder *b, char *err, size_t errlen)
{
	const struct machine_events events = {
	    .channel = on_channel, .ended = on_ended, .captured = on_captured, .owner = b};
	struct machine_config mc = b->cfg->machine;
	int r = template_make(b->fds, mc.mem_mib, err, errlen);

	if (r == 0)
		r = origin_find(&b->origin, b->cfg->ops, &mc, err, errlen);
	if (r == 0)
		r = loop_new(&b->loop, 64, err, errlen);
	mc.mem_fd = b->fds[TEMPLATE_MEM];
	mc.tmpl = NULL;
	if (r == 0)
		r = b->cfg->ops->start(&b->machine, &mc, b->loop, &events, err, errlen);
	if (r < 0)
		return r;
	chan_init(&b->chan, b->cfg->ops, b->machine);
	loop_op_init(&b->control, on_control, b);
	loop_op_init(&b->timer, on_timer, b);
	loop_watch(b->loop, &b->control, b->cfg->control);
	loop_on_idle(b->loop, on_idle, on_awake, b);
	builder_step(b, STEP_BOOT, BUILDER_BOOT_NS);
	return 0;
}

int
builder_run(const struct builder_config *cfg)
{
	static struct builder b;
	char err[512];
	int r;

	b = (struct builder){
	    .magic = BUILDER_MAGIC, .cfg = cfg, .start_ns = now_ns(), .fds = {-1, -1}};
	r = builder_start(&b, err, sizeof(err));
	if (r < 0)
		builder_fail(&b, r, "%s", err);
	else
		r = loop_run(b.loop);
	loop_free(b.loop);
	cfg->ops->free(b.machine);
	template_close(b.fds);
	return r == 0 ? 0 : 1;
}
