/* SPDX-License-Identifier: MIT
 *
 * machine_null.c - a machine without a VM: a guest that is played inside the
 * worker's process. Runs in workers of the test build only; there the
 * accelerator is called "null", and nothing chooses it by itself.
 *
 * It speaks kvm/proto.h as the agent does and keeps its windows. It is ready at
 * once, and knows these programs, whatever their path:
 *   true            echo ARGS...        cat: stdin to stdout
 *   yes, flood      print without end, as far as they are given credit
 *   sleep, hang     do nothing; like the former, until KILL or their time-out
 *   mkdir           succeeds once in a machine's life, as for a fixed name
 *   poweroff, crash end the machine
 * The guest does nothing while the worker calls: a bell (eventfd) lets it run
 * from the worker's loop, as a real one would run beside it.
 */
#include "kvm/proto.h"
#include "worker/chan.h"
#include "worker/machine.h"

#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#define NULL_MAGIC 0x4e0c1d2bu
#define FRAME_MAX (sizeof(struct proto_hdr) + PROTO_PAYLOAD_MAX)
#define ROOM (2 * FRAME_MAX) /* no step of the guest says more than two frames */

struct stream {
	uint32_t id; /* 0 = free */
	uint8_t *request;
	size_t request_len;
	const struct program *program; /* NULL: the request is not complete yet */
	uint32_t argc, args_off;       /* what follows argv[0] in the request */
	uint64_t start_ns, deadline_ns;
	uint64_t window; /* bytes it may still print */
	bool eof;
	size_t in_len;
	uint8_t in[PROTO_WINDOW]; /* cat: not printed yet */
};

struct machine {
	unsigned magic;
	struct loop *loop;
	struct machine_events events;
	int bell;
	bool rung;
	bool ended;
	bool marked;	  /* mkdir has run */
	bool born_marked; /* ... in the template */
	struct loop_op run, timer;
	size_t in_len, out_off, out_len;
	uint8_t in[2 * FRAME_MAX], out[2 * ROOM];
	struct stream stream[PROTO_STREAMS_MAX];
};

struct program {
	const char *name;
	/* One step, of at most two frames; true if anything has happened. */
	bool (*step)(struct machine *m, struct stream *s);
};

/* --- what the guest says ------------------------------------------------------------ */

static size_t
room(struct machine *m)
{
	if (m->out_off > 0) {
		m->out_len -= m->out_off;
		memmove(m->out, m->out + m->out_off, m->out_len);
		m->out_off = 0;
	}
	return sizeof(m->out) - m->out_len;
}

static void
say(struct machine *m, uint8_t type, uint32_t stream, const void *payload, size_t len)
{
	const struct proto_hdr hdr = {.length = (uint32_t)len, .type = type, .stream = stream};

	assert(proto_check(&hdr, true));
	assert(room(m) >= sizeof(hdr) + len);
	memcpy(m->out + m->out_len, &hdr, sizeof(hdr));
	memcpy(m->out + m->out_len + sizeof(hdr), payload, len);
	m->out_len += sizeof(hdr) + len;
}

static void
stream_free(struct stream *s)
{
	free(s->request);
	s->request = NULL;
	s->request_len = s->in_len = 0;
	s->program = NULL;
	s->eof = false;
	s->id = 0;
}

static void
say_exit(struct machine *m, struct stream *s, uint32_t code, uint32_t sig, bool timed_out)
{
	const struct proto_exit e = {.code = code,
				     .signal = sig,
				     .timed_out = timed_out,
				     .elapsed_ns = now_ns() - s->start_ns};

	say(m, PROTO_EXIT, s->id, &e, sizeof(e));
	stream_free(s);
}

static void
say_error(struct machine *m, struct stream *s, enum proto_stage stage, int err)
{
	const struct proto_error e = {.stage = stage, .err = (uint32_t)err};

	say(m, PROTO_ERROR, s->id, &e, sizeof(e));
	stream_free(s);
}

static void
print(struct machine *m, struct stream *s, const void *bytes, size_t len)
{
	say(m, PROTO_STDOUT, s->id, bytes, len);
	s->window -= len;
}

/* --- the programs ---------------------------------------------------------------------- */

static bool
step_true(struct machine *m, struct stream *s)
{
	say_exit(m, s, 0, 0, false);
	return true;
}

/* The arguments lie in the request one behind the other: NULs become blanks. */
static bool
step_echo(struct machine *m, struct stream *s)
{
	uint8_t *at = s->request + s->args_off, *end = s->request + s->request_len;
	uint8_t text[1024];
	size_t n = 0;

	if (s->window == 0)
		return false;
	if (s->argc == 0)
		text[n++] = '\n';
	for (; n < MIN(sizeof(text), s->window) && s->argc > 0 && at < end; at++) {
		s->argc -= *at == '\0';
		text[n++] = *at != '\0' ? *at : s->argc > 0 ? ' ' : '\n';
	}
	s->args_off = (uint32_t)(at - s->request);
	if (n > 0)
		print(m, s, text, n);
	if (s->argc == 0 || at == end)
		say_exit(m, s, 0, 0, false);
	return true;
}

static bool
step_cat(struct machine *m, struct stream *s)
{
	uint32_t n = (uint32_t)MIN(s->in_len, s->window);

	if (n > 0) {
		print(m, s, s->in, n);
		s->in_len -= n;
		memmove(s->in, s->in + n, s->in_len);
		say(m, PROTO_CREDIT, s->id, &n, sizeof(n));
		return true;
	}
	if (s->in_len > 0 || !s->eof)
		return false;
	say_exit(m, s, 0, 0, false);
	return true;
}

static bool
step_yes(struct machine *m, struct stream *s)
{
	char text[4096];

	if (s->window == 0)
		return false;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = i % 2 == 0 ? 'y' : '\n';
	print(m, s, text, MIN(sizeof(text), s->window));
	return true;
}

static bool
step_sleep(struct machine *m, struct stream *s)
{
	(void)m;
	(void)s;
	return false;
}

static bool
step_mkdir(struct machine *m, struct stream *s)
{
	say_exit(m, s, m->marked, 0, false);
	m->marked = true;
	return true;
}

static bool
step_poweroff(struct machine *m, struct stream *s)
{
	stream_free(s);
	m->ended = true;
	return false;
}

static const struct program programs[] = {
    {"true", step_true},      {"echo", step_echo},   {"cat", step_cat},
    {"yes", step_yes},	      {"flood", step_yes},   {"sleep", step_sleep},
    {"hang", step_sleep},     {"mkdir", step_mkdir}, {"poweroff", step_poweroff},
    {"crash", step_poweroff},
};

/* --- what the guest hears ---------------------------------------------------------------- */

static struct stream *
stream_find(struct machine *m, uint32_t id)
{
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		if (m->stream[i].id == id)
			return &m->stream[i];
	return NULL;
}

static const struct program *
program_find(const char *path)
{
	const char *slash = strrchr(path, '/');

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		if (strcmp(programs[i].name, slash != NULL ? slash + 1 : path) == 0)
			return &programs[i];
	return NULL;
}

/* All of the request is there, and comes from somebody who may be anybody. */
static void
start(struct machine *m, struct stream *s)
{
	struct proto_exec exec;
	size_t name;

	if (s->request_len <= sizeof(exec) || s->request[s->request_len - 1] != '\0') {
		say_error(m, s, PROTO_STAGE_REQUEST, EINVAL);
		return;
	}
	memcpy(&exec, s->request, sizeof(exec));
	if (exec.size != s->request_len || exec.argc == 0) {
		say_error(m, s, PROTO_STAGE_REQUEST, EINVAL);
		return;
	}
	name = strlen((char *)s->request + sizeof(exec));
	s->program = program_find((char *)s->request + sizeof(exec));
	s->argc = exec.argc - 1;
	s->args_off = (uint32_t)(sizeof(exec) + name + 1);
	s->eof |= (exec.flags & PROTO_EXEC_STDIN) == 0;
	s->start_ns = now_ns();
	s->deadline_ns = exec.timeout_ms == 0 ? 0 : s->start_ns + exec.timeout_ms * 1000000ull;
	if (s->program == NULL)
		say_error(m, s, PROTO_STAGE_EXEC, ENOENT);
}

static void
hear_exec(struct machine *m, const struct proto_hdr *hdr, const uint8_t *payload)
{
	struct stream *s = stream_find(m, hdr->stream);

	if (s == NULL) {
		s = stream_find(m, 0);
		assert(s != NULL);
		s->id = hdr->stream;
		s->window = PROTO_WINDOW;
	}
	assert(s->program == NULL && s->request_len + hdr->length <= PROTO_EXEC_MAX);
	s->request = realloc(s->request, s->request_len + hdr->length);
	assert(s->request != NULL);
	memcpy(s->request + s->request_len, payload, hdr->length);
	s->request_len += hdr->length;
	if ((hdr->flags & PROTO_F_MORE) == 0)
		start(m, s);
}

static void
hear_stdin(struct stream *s, const struct proto_hdr *hdr, const uint8_t *payload)
{
	s->eof |= (hdr->flags & PROTO_F_EOF) != 0;
	/* The worker lets nobody exceed the window. */
	assert(hdr->length <= sizeof(s->in) - s->in_len);
	memcpy(s->in + s->in_len, payload, hdr->length);
	s->in_len += hdr->length;
}

static void
hear(struct machine *m, const struct proto_hdr *hdr, const uint8_t *payload)
{
	const struct proto_renewed renewed = {.wall_ns = chan_wall_ns()};
	const struct proto_vmstats stats = {.processes = 1};
	const struct proto_file_done no_files = {.err = ENOSYS};
	struct stream *s = hdr->stream == 0 ? NULL : stream_find(m, hdr->stream);
	uint32_t value = 0;

	assert(proto_check(hdr, false));
	memcpy(&value, payload, MIN(sizeof(value), hdr->length));
	if (hdr->type == PROTO_PING)
		say(m, PROTO_PONG, 0, payload, hdr->length);
	else if (hdr->type == PROTO_RENEW)
		say(m, PROTO_RENEWED, 0, &renewed, sizeof(renewed));
	else if (hdr->type == PROTO_VMSTAT)
		say(m, PROTO_VMSTATS, hdr->stream, &stats, sizeof(stats));
	else if (hdr->type == PROTO_EXEC)
		hear_exec(m, hdr, payload);
	else if (hdr->type == PROTO_FILE)
		say(m, PROTO_FILE_DONE, hdr->stream, &no_files, sizeof(no_files));
	else if (s == NULL)
		return; /* it has ended meanwhile */
	else if (hdr->type == PROTO_STDIN)
		hear_stdin(s, hdr, payload);
	else if (hdr->type == PROTO_CREDIT)
		s->window += value;
	else if (hdr->type == PROTO_KILL && value >= 1 && value < (uint32_t)NSIG &&
		 s->program != NULL)
		say_exit(m, s, 0, value, false);
}

static bool
hear_next(struct machine *m)
{
	struct proto_hdr hdr;

	if (m->in_len < sizeof(hdr))
		return false;
	memcpy(&hdr, m->in, sizeof(hdr));
	assert(hdr.length <= PROTO_PAYLOAD_MAX);
	if (m->in_len < sizeof(hdr) + hdr.length)
		return false;
	hear(m, &hdr, m->in + sizeof(hdr));
	m->in_len -= sizeof(hdr) + hdr.length;
	memmove(m->in, m->in + sizeof(hdr) + hdr.length, m->in_len);
	return true;
}

/* --- its time ------------------------------------------------------------------------------ */

static void
expire(struct machine *m)
{
	uint64_t now = now_ns(), due = 0;

	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++) {
		struct stream *s = &m->stream[i];

		if (s->program == NULL || s->deadline_ns == 0)
			continue;
		if (s->deadline_ns <= now && room(m) >= ROOM)
			say_exit(m, s, 0, SIGKILL, true);
		else if (due == 0 || s->deadline_ns < due)
			due = s->deadline_ns;
	}
	if (due > now && (!m->timer.armed || m->timer.due_ns != due))
		loop_timer(m->loop, &m->timer, due);
}

/* Until there is nothing to do, or no room to say it. */
static void
guest_run(struct machine *m)
{
	bool moved = true;

	while (moved && !m->ended) {
		moved = false;
		while (room(m) >= ROOM && hear_next(m))
			moved = true;
		for (size_t i = 0; i < PROTO_STREAMS_MAX && !m->ended; i++)
			if (m->stream[i].program != NULL && room(m) >= ROOM)
				moved |= m->stream[i].program->step(m, &m->stream[i]);
	}
	expire(m);
	if (m->ended)
		m->events.ended(m->events.owner);
	else
		m->events.channel(m->events.owner);
}

static void
on_run(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, NULL_MAGIC);
	if (res < 0 || m->ended)
		return;
	m->rung = false;
	guest_run(m);
}

static void
on_timer(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, NULL_MAGIC);
	if (res == -ETIME && !m->ended)
		guest_run(m);
}

static void
ring(struct machine *m)
{
	if (m->rung)
		return;
	m->rung = true;
	AZ(eventfd_write(m->bell, 1));
}

/* --- the machine's operations ----------------------------------------------------------- */

static ssize_t
machine_null_recv(struct machine *m, void *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(m, NULL_MAGIC);
	n = MIN(len, m->out_len - m->out_off);
	memcpy(buf, m->out + m->out_off, n);
	m->out_off += n;
	if (n > 0)
		ring(m);
	return (ssize_t)n;
}

static ssize_t
machine_null_send(struct machine *m, const void *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(m, NULL_MAGIC);
	n = MIN(len, sizeof(m->in) - m->in_len);
	memcpy(m->in + m->in_len, buf, n);
	m->in_len += n;
	if (n > 0)
		ring(m);
	return (ssize_t)n;
}

static const char *
machine_null_end(struct machine *m)
{
	CHECK_OBJ(m, NULL_MAGIC);
	return m->ended ? "guest shutdown" : NULL;
}

static size_t
machine_null_console(struct machine *m, char *buf, size_t len)
{
	CHECK_OBJ(m, NULL_MAGIC);
	if (len == 0)
		return 0;
	(void)snprintf(buf, len, "null guest: %s\n", m->ended ? "power down" : "up");
	return strlen(buf);
}

static void
machine_null_free(struct machine *m)
{
	if (m == NULL)
		return;
	CHECK_OBJ(m, NULL_MAGIC);
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		stream_free(&m->stream[i]);
	closep(&m->bell);
	m->magic = 0;
	free(m);
}

static int
machine_null_start(struct machine **out, const struct machine_config *cfg, struct loop *loop,
		   const struct machine_events *events, char *err, size_t errlen)
{
	const struct proto_ready ready = {
	    .version = PROTO_VERSION, .vcpus = cfg->vcpus, .mem_kib = (uint64_t)cfg->mem_mib << 10};
	struct machine *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return fail(ENOMEM, err, errlen, "out of memory for the machine");
	m->magic = NULL_MAGIC;
	m->loop = loop;
	m->events = *events;
	m->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->bell < 0) {
		free(m);
		return fail(errno, err, errlen, "eventfd: %m");
	}
	loop_op_init(&m->run, on_run, m);
	loop_op_init(&m->timer, on_timer, m);
	loop_watch(loop, &m->run, m->bell);
	if (cfg->tmpl != NULL) {
		char state[5] = "";

		(void)!pread(cfg->tmpl->state_fd, state, sizeof(state),
			     (off_t)cfg->tmpl->state_off);
		m->born_marked = state[4] == 'M';
	} else {
		say(m, PROTO_READY, 0, &ready, sizeof(ready));
		ring(m);
	}
	*out = m;
	return 0;
}

/* A machine without memory has one page that its guest writes. */
static int
machine_null_load(struct machine *m, uint64_t *dirty_pages, char *err, size_t errlen)
{
	CHECK_OBJ(m, NULL_MAGIC);
	(void)err;
	(void)errlen;
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		stream_free(&m->stream[i]);
	m->in_len = m->out_len = m->out_off = 0;
	m->marked = m->born_marked;
	m->ended = false;
	*dirty_pages = 1;
	return 0;
}

static int
machine_null_capture(struct machine *m, const struct machine_capture *to, char *err, size_t errlen)
{
	CHECK_OBJ(m, NULL_MAGIC);
	if (pwrite(to->state_fd, m->marked ? "nullM" : "null-", 5, (off_t)to->state_off) != 5)
		return fail(errno, err, errlen, "writing the state: %m");
	m->events.captured(m->events.owner, 0, 5, "");
	return 0;
}

static int
machine_null_resume(struct machine *m, char *err, size_t errlen)
{
	CHECK_OBJ(m, NULL_MAGIC);
	(void)err;
	(void)errlen;
	return 0;
}

static int
machine_null_identify(uint32_t vcpus, uint8_t cpu[16], uint32_t *tsc_khz, char *err, size_t errlen)
{
	(void)vcpus;
	(void)cpu;
	(void)err;
	(void)errlen;
	*tsc_khz = 0;
	return 0;
}

const struct machine_ops machine_null = {
    .identify = machine_null_identify,
    .name = "null",
    .shells = 1,
    .resets = true,
    .start = machine_null_start,
    .load = machine_null_load,
    .capture = machine_null_capture,
    .resume = machine_null_resume,
    .recv = machine_null_recv,
    .send = machine_null_send,
    .end = machine_null_end,
    .console = machine_null_console,
    .free = machine_null_free,
};
