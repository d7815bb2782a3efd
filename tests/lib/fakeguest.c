/* SPDX-License-Identifier: MIT
 *
 * fakeguest.c - a worker and its guest as one thread of a test program: the
 * other side of a slot's rings, playing the scripts listed in fakepool.h.
 */
#include "tests/lib/fakepool.h"

#include "shm/client.h"
#include "shm/lifeline.h"
#include "shm/slot.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

/* --- responses ----------------------------------------------------------------------- */

static void
publish(struct fake_worker *w)
{
	if (!w->published)
		return;
	w->published = false;
	(void)atomic_fetch_add(&w->chan->rsp_seq, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&w->chan->rsp_sleepers) != 0)
		lifeline_wake(&w->chan->rsp_seq, INT_MAX);
	if (atomic_load(&w->chan->rsp_pollers) != 0)
		AZ(eventfd_write(w->rsp_fd, 1));
}

static void
wait_bell(struct fake_worker *w)
{
	struct pollfd p = {.fd = w->req_fd, .events = POLLIN};
	eventfd_t value;

	(void)poll(&p, 1, -1);
	(void)eventfd_read(p.fd, &value);
}

static uint32_t
lease_tag(const struct fake_worker *w)
{
	return (uint32_t)slot_generation(atomic_load(&w->pool->seg->slot[w->slot].word));
}

static void
respond_tagged(struct fake_worker *w, uint32_t tag, uint32_t stream, uint8_t type, const void *p,
	       size_t len)
{
	const struct ring_rec rec = {
	    .length = (uint32_t)len, .type = type, .stream = stream, .lease = tag};

	while (ring_write(&w->rsp, &rec, p) == -EAGAIN && !atomic_load(&w->stop)) {
		atomic_store(&w->chan->rsp_stalled, 1);
		atomic_thread_fence(memory_order_seq_cst);
		if (ring_space(&w->rsp) >= (ssize_t)len)
			continue;
		w->published = true;
		publish(w);
		wait_bell(w);
	}
	w->published = true;
}

static void
respond(struct fake_worker *w, uint32_t stream, uint8_t type, const void *p, size_t len)
{
	respond_tagged(w, lease_tag(w), stream, type, p, len);
}

void
fakeguest_respond(struct fake_worker *w, uint32_t stream, uint8_t type, const void *p, size_t len)
{
	respond(w, stream, type, p, len);
}

static void
send_exit(struct fake_worker *w, struct fake_stream *s, uint32_t code, uint32_t sig, bool timed_out)
{
	const struct proto_exit e = {
	    .code = code, .signal = sig, .timed_out = timed_out, .elapsed_ns = 12345};

	respond(w, s->id, PROTO_EXIT, &e, sizeof(e));
	atomic_fetch_add(&w->pool->exits, 1);
	free(s->req);
	memset(s, 0, sizeof(*s));
}

static void
say(struct fake_worker *w, const struct fake_stream *s, const char *text)
{
	respond(w, s->id, PROTO_STDOUT, text, strlen(text));
}

static void
grant(struct fake_worker *w, const struct fake_stream *s, uint32_t n)
{
	respond(w, s->id, PROTO_CREDIT, &n, sizeof(n));
}

/* --- the scripts ----------------------------------------------------------------------- */

static const char *
arg(const struct fake_stream *s, uint32_t i)
{
	const char *p = (const char *)s->req + sizeof(struct proto_exec);
	struct proto_exec head;

	memcpy(&head, s->req, sizeof(head));
	AZ(i >= head.argc);
	while (i-- > 0)
		p += strlen(p) + 1;
	return p;
}

static void
script_echo(struct fake_worker *w, struct fake_stream *s)
{
	struct proto_exec head;

	memcpy(&head, s->req, sizeof(head));
	for (uint32_t i = 1; i < head.argc; i++) {
		if (arg(s, i)[0] != '\0')
			say(w, s, arg(s, i));
		say(w, s, i + 1 < head.argc ? " " : "\n");
	}
	send_exit(w, s, 0, 0, false);
}

static void
script_exit(struct fake_worker *w, struct fake_stream *s)
{
	send_exit(w, s, (uint32_t)atoi(arg(s, 1)), 0, false);
}

static void
script_signal(struct fake_worker *w, struct fake_stream *s)
{
	send_exit(w, s, 0, (uint32_t)atoi(arg(s, 1)), false);
}

static void
script_timeout(struct fake_worker *w, struct fake_stream *s)
{
	send_exit(w, s, 0, SIGKILL, true);
}

static void
script_error(struct fake_worker *w, struct fake_stream *s)
{
	struct {
		struct proto_error e;
		char text[16];
	} msg = {.e = {(uint32_t)atoi(arg(s, 1)), (uint32_t)atoi(arg(s, 2))}};

	memcpy(msg.text, "bad \033 text", 10);
	respond(w, s->id, PROTO_ERROR, &msg, sizeof(msg.e) + 10);
	free(s->req);
	memset(s, 0, sizeof(*s));
}

static void
script_partial(struct fake_worker *w, struct fake_stream *s)
{
	say(w, s, "partial");
	publish(w);
	atomic_store(&w->pool->wants_death[w->slot], true);
	AZ(eventfd_write(w->pool->door, 1));
}

static void
script_cheat(struct fake_worker *w, struct fake_stream *s)
{
	static const char bytes[PROTO_WINDOW];

	respond(w, s->id, PROTO_STDOUT, bytes, sizeof(bytes));
	respond(w, s->id, PROTO_STDOUT, bytes, 1);
}

static void
script_credit(struct fake_worker *w, struct fake_stream *s)
{
	grant(w, s, UINT32_MAX);
}

static void
script_badexit(struct fake_worker *w, struct fake_stream *s)
{
	send_exit(w, s, 70000, 0, false);
}

static void
script_badstats(struct fake_worker *w, struct fake_stream *s)
{
	static const struct proto_vmstats stats;

	respond(w, s->id, PROTO_VMSTATS, &stats, sizeof(stats));
}

static void
script_badtype(struct fake_worker *w, struct fake_stream *s)
{
	respond(w, s->id, 200, "x", 1);
}

static void
script_filedone(struct fake_worker *w, struct fake_stream *s)
{
	const struct proto_file_done done = {.err = 0};

	respond(w, s->id, PROTO_FILE_DONE, &done, sizeof(done));
}

static void
script_badpos(struct fake_worker *w, struct fake_stream *s)
{
	(void)s;
	(void)atomic_fetch_add(&w->chan->rsp.tail, 10u << 20);
	w->published = true;
}

static void
script_stale(struct fake_worker *w, struct fake_stream *s)
{
	respond_tagged(w, lease_tag(w) - 1, s->id, PROTO_STDOUT, "stale", 5);
	say(w, s, "fresh");
	send_exit(w, s, 0, 0, false);
}

static void
script_stranger(struct fake_worker *w, struct fake_stream *s)
{
	respond(w, s->id + 1, PROTO_STDOUT, "strange", 7);
	respond(w, s->id + PROTO_STREAMS_MAX, PROTO_STDOUT, "strange", 7);
	say(w, s, "mine");
	send_exit(w, s, 0, 0, false);
}

static void
script_late(struct fake_worker *w, struct fake_stream *s)
{
	uint32_t id = s->id;

	say(w, s, "early");
	send_exit(w, s, 0, 0, false);
	respond(w, id, PROTO_STDOUT, "late", 4);
}

/* Those that go on: see proceed. */
static void
script_flood(struct fake_worker *w, struct fake_stream *s)
{
	(void)w;
	s->left = (uint64_t)atoll(arg(s, 1));
}

static void
script_both(struct fake_worker *w, struct fake_stream *s)
{
	(void)w;
	s->left = 2 * (uint64_t)atoll(arg(s, 1));
}

static void
script_dump(struct fake_worker *w, struct fake_stream *s)
{
	(void)w;
	s->left = s->req_len;
}

static void
script_wait(struct fake_worker *w, struct fake_stream *s)
{
	(void)w;
	(void)s;
}

static const struct {
	const char *name;
	void (*start)(struct fake_worker *w, struct fake_stream *s);
} scripts[] = {
    {"echo", script_echo},	   {"exit", script_exit},	{"signal", script_signal},
    {"timeout", script_timeout},   {"error", script_error},	{"partial", script_partial},
    {"cheat", script_cheat},	   {"credit", script_credit},	{"badexit", script_badexit},
    {"badstats", script_badstats}, {"badtype", script_badtype}, {"badpos", script_badpos},
    {"stale", script_stale},	   {"late", script_late},	{"stranger", script_stranger},
    {"flood", script_flood},	   {"both", script_both},	{"dump", script_dump},
    {"cat", script_wait},	   {"sink", script_wait},	{"deaf", script_wait},
    {"sleep", script_wait},	   {"mute", script_wait},	{"stubborn", script_flood},
    {"filedone", script_filedone},
};

/* The next piece of a long output; returns its length. */
static size_t
piece(struct fake_stream *s, uint8_t *buf, uint8_t *type)
{
	size_t n = MIN(s->left, 5000u);

	*type = PROTO_STDOUT;
	if (strcmp(s->script, "both") == 0) {
		n = 1;
		*type = s->sent % 2 == 0 ? PROTO_STDOUT : PROTO_STDERR;
		buf[0] = s->sent % 2 == 0 ? 'o' : 'e';
	} else if (strcmp(s->script, "dump") == 0) {
		n = MIN(n, s->window);
		memcpy(buf, s->req + s->sent, n);
	} else {
		n = MIN(n, s->window);
		for (size_t i = 0; i < n; i++)
			buf[i] = (uint8_t)((s->sent + i) % 251);
	}
	return n;
}

/* Go on with what has bytes to send and a window; true if anything was sent. */
static bool
proceed(struct fake_worker *w, struct fake_stream *s)
{
	uint8_t buf[5000], type;
	size_t n;

	if (s->left > 0 && s->window > 0) {
		n = piece(s, buf, &type);
		respond(w, s->id, type, buf, n);
		s->sent += n;
		s->left -= n;
		s->window -= n;
		if (s->left == 0)
			send_exit(w, s, 0, 0, false);
		return true;
	}
	if (strcmp(s->script, "cat") != 0 || (s->in_len == 0 && !s->eof))
		return false;
	n = MIN(s->in_len, s->window);
	if (n > 0) {
		respond(w, s->id, PROTO_STDOUT, s->in, n);
		memmove(s->in, s->in + n, s->in_len - n);
		s->in_len -= n;
		s->window -= n;
		grant(w, s, (uint32_t)n);
	}
	if (s->in_len == 0 && s->eof)
		send_exit(w, s, 0, 0, false);
	return n > 0;
}

/* --- requests ---------------------------------------------------------------------------- */

static struct fake_stream *
stream_find(struct fake_worker *w, uint32_t id)
{
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		if (w->stream[i].id == id)
			return &w->stream[i];
	return NULL;
}

static void
on_exec(struct fake_worker *w, const struct ring_rec *rec)
{
	struct fake_stream *s = stream_find(w, rec->stream);

	if (s == NULL) {
		s = stream_find(w, 0);
		AN(s);
		s->id = rec->stream;
		s->window = PROTO_WINDOW;
	}
	AZ(s->started);
	s->req = realloc(s->req, s->req_len + rec->length);
	AN(s->req);
	memcpy(s->req + s->req_len, w->payload, rec->length);
	s->req_len += rec->length;
	if ((rec->flags & PROTO_F_MORE) != 0)
		return;
	s->started = true;
	(void)snprintf(s->script, sizeof(s->script), "%s", arg(s, 0));
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++)
		if (strcmp(scripts[i].name, s->script) == 0)
			scripts[i].start(w, s);
}

static void
on_stdin(struct fake_worker *w, const struct ring_rec *rec, struct fake_stream *s)
{
	char text[32];

	s->eof |= (rec->flags & PROTO_F_EOF) != 0;
	s->taken += rec->length;
	if (strcmp(s->script, "cat") == 0) {
		AZ(s->in_len + rec->length > sizeof(s->in)); /* the client kept its window */
		memcpy(s->in + s->in_len, w->payload, rec->length);
		s->in_len += rec->length;
	} else if (strcmp(s->script, "sink") == 0) {
		if (rec->length > 0)
			grant(w, s, rec->length);
		if (s->eof) {
			(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)s->taken);
			say(w, s, text);
			send_exit(w, s, 0, 0, false);
		}
	} else {
		AZ(s->taken > PROTO_WINDOW);
	}
}

static void
on_kill(struct fake_worker *w, struct fake_stream *s)
{
	uint32_t sig;

	atomic_fetch_add(&w->pool->kills, 1);
	memcpy(&sig, w->payload, sizeof(sig));
	if (strcmp(s->script, "mute") != 0 && strcmp(s->script, "stubborn") != 0)
		send_exit(w, s, 0, sig, false);
}

/* Every window change is told back as text. */
static void
on_winsize(struct fake_worker *w, const struct fake_stream *s)
{
	struct proto_winsize size;
	char text[32];

	memcpy(&size, w->payload, sizeof(size));
	(void)snprintf(text, sizeof(text), "%u x %u\n", size.rows, size.cols);
	say(w, s, text);
}

static void
on_vmstat(struct fake_worker *w, const struct ring_rec *rec)
{
	static const struct proto_vmstats stats = {.uptime_ns = 1,
						   .cpu_ns = 2,
						   .mem_total = 3,
						   .mem_used = 4,
						   .page_faults = 5,
						   .major_faults = 6,
						   .bytes_in = 7,
						   .bytes_out = 8,
						   .processes = 9,
						   .commands = 10};

	if (!atomic_load(&w->pool->silent_pings))
		respond(w, rec->stream, PROTO_VMSTATS, &stats, sizeof(stats));
}

static void
on_request(struct fake_worker *w, const struct ring_rec *rec)
{
	struct fake_stream *s;
	uint32_t more;

	AZ(rec->lease != lease_tag(w));
	if (rec->type == RING_WORKER_PING || rec->type == PROTO_PING) {
		if (rec->type == RING_WORKER_PING || !atomic_load(&w->pool->silent_pings))
			respond(w, 0, rec->type == PROTO_PING ? PROTO_PONG : RING_WORKER_PONG,
				w->payload, rec->length);
		return;
	}
	if (rec->type == PROTO_VMSTAT) {
		on_vmstat(w, rec);
		return;
	}
	if (rec->type == PROTO_EXEC) {
		on_exec(w, rec);
		return;
	}
	if (rec->type == PROTO_FILE) {
		fakefile_request(w, rec);
		return;
	}
	s = stream_find(w, rec->stream);
	if (s == NULL)
		return;
	switch (rec->type) {
	case PROTO_STDIN: on_stdin(w, rec, s); break;
	case PROTO_KILL: on_kill(w, s); break;
	case PROTO_WINSIZE: on_winsize(w, s); break;
	case PROTO_CREDIT:
		memcpy(&more, w->payload, sizeof(more));
		s->window += more;
		AZ(s->window > CLIENT_WINDOW); /* more than was consumed */
		atomic_fetch_add(&w->pool->credits, 1);
		break;
	default: AZ(rec->type); break;
	}
}

static bool
pump(struct fake_worker *w)
{
	struct ring_rec rec;
	bool moved = false;

	atomic_store(&w->parked, atomic_load(&w->paused));
	if (atomic_load(&w->parked))
		return false;
	for (size_t i = 0; i < PROTO_STREAMS_MAX; i++)
		if (w->stream[i].started)
			moved |= proceed(w, &w->stream[i]);
	while (!atomic_load(&w->stop) && !atomic_load(&w->paused) &&
	       ring_read(&w->req, &rec, w->payload) == 1) {
		on_request(w, &rec);
		moved = true;
	}
	if (moved && atomic_exchange(&w->chan->req_stalled, 0) != 0)
		w->published = true;
	publish(w);
	return moved;
}

void *
fakeguest_run(void *worker)
{
	struct fake_worker *w = worker;

	while (!atomic_load(&w->stop)) {
		if (pump(w))
			continue;
		atomic_store(&w->chan->worker_asleep, 1);
		atomic_thread_fence(memory_order_seq_cst);
		if (!pump(w) && !atomic_load(&w->stop))
			wait_bell(w);
		atomic_store(&w->chan->worker_asleep, 0);
	}
	return NULL;
}
