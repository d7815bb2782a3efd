/* SPDX-License-Identifier: MIT
 *
 * job_client.c - what a client says: checked, and passed on to the guest. Runs in a
 * worker. Whatever stands in a record was written by somebody else.
 */
#include "worker/job_impl.h"

#include <string.h>

#define SHARE_MIN 2048u /* bytes for which the detour pays */

#define BATCH 32 /* requests taken before the loop looks around */

static bool
ping_add(struct job *job, struct port *port)
{
	struct job_pings *pings = &job->pings;

	if (pings->n == JOB_PINGS)
		return false;
	pings->port[(pings->first + pings->n++) % JOB_PINGS] = (uint8_t)port->index;
	port->pings++;
	return true;
}

/* A new stream of the client's, refused if the guest has none left; NULL: it broke a rule. */
static struct stream *
stream_open(struct job *job, struct port *port, uint32_t client_id)
{
	struct stream *s = streams_take(&port->streams, job->uses++, port->index, client_id);

	if (s == NULL) {
		job_client_broke(job, port, "opened more than %u streams", PROTO_STREAMS_MAX);
		return NULL;
	}
	s->start_ns = now_ns();
	s->refused = job->open == PROTO_STREAMS_MAX;
	job->open += !s->refused;
	return s;
}

/* The first piece of an EXEC opens its stream; its header holds the time-out. */
static struct stream *
exec_open(struct job *job, struct port *port, const struct proto_hdr *hdr)
{
	struct proto_exec exec;
	struct stream *s;

	if (hdr->length < sizeof(exec)) {
		job_client_broke(job, port, "sent a command without a header");
		return NULL;
	}
	memcpy(&exec, job->payload, sizeof(exec));
	s = stream_open(job, port, hdr->stream);
	if (s == NULL || s->refused)
		return s;
	if (exec.timeout_ms != 0)
		s->deadline_ns = s->start_ns + exec.timeout_ms * 1000000ull + JOB_GRACE_NS;
	job_count(job, C_exec_count);
	return s;
}

/* All of a request has come for which the guest has no stream left. */
static void
refuse(struct job *job, struct port *port, struct stream *s)
{
	static const struct {
		struct proto_error error;
		char text[sizeof("too many open streams") - 1];
	} answer = {{.stage = PROTO_STAGE_REQUEST, .err = EAGAIN}, "too many open streams"};
	const struct proto_hdr hdr = {
	    .length = sizeof(answer.error) + sizeof(answer.text),
	    .type = PROTO_ERROR,
	    .stream = s->client_id,
	};

	streams_drop(&port->streams, s);
	job_respond(job, port, &hdr, &answer);
}

/* The stream of a piece that may go to the guest, or NULL. */
static struct stream *
client_exec(struct job *job, struct port *port, const struct proto_hdr *hdr, struct stream *s)
{
	if (s == NULL)
		s = exec_open(job, port, hdr);
	else if (!s->sending)
		job_client_broke(job, port, "reused the open stream %u", hdr->stream);
	if (!job_serves(job, port) || s == NULL)
		return NULL;
	if (s->request_size + hdr->length > PROTO_EXEC_MAX) {
		job_client_broke(job, port, "sent a command of more than %u bytes", PROTO_EXEC_MAX);
		return NULL;
	}
	s->request_size += hdr->length;
	s->sending = (hdr->flags & PROTO_F_MORE) != 0;
	if (!s->refused)
		return s;
	if (!s->sending)
		refuse(job, port, s);
	return NULL;
}

/* A question about the machine: one frame, and one for its answer. Its stream if it may go
 * to the guest, or NULL. */
static struct stream *
client_single(struct job *job, struct port *port, const struct proto_hdr *hdr, struct stream *s)
{
	if (s != NULL) {
		job_client_broke(job, port, "reused the open stream %u", hdr->stream);
		return NULL;
	}
	s = stream_open(job, port, hdr->stream);
	if (s == NULL)
		return NULL;
	s->vmstat = hdr->type == PROTO_VMSTAT;
	s->file = hdr->type == PROTO_FILE;
	if (!s->refused)
		return s;
	refuse(job, port, s);
	return NULL;
}

/* May this frame go to the guest, and on which of its streams? What belongs to an ended
 * stream is dropped: the client could not know yet. */
static bool
client_frame(struct job *job, struct port *port, struct proto_hdr *hdr)
{
	struct stream *s = hdr->stream == 0 ? NULL : streams_find(&port->streams, hdr->stream);

	if (hdr->type == PROTO_PING)
		return ping_add(job, port);
	if (hdr->type == PROTO_EXEC)
		s = client_exec(job, port, hdr, s);
	else if (hdr->type == PROTO_VMSTAT || hdr->type == PROTO_FILE)
		s = client_single(job, port, hdr, s);
	if (s == NULL || s->refused)
		return false;
	if (hdr->type == PROTO_STDIN && hdr->length > s->in_window) {
		job_client_broke(job, port, "broke the input window of stream %u", hdr->stream);
		return false;
	}
	if (hdr->type == PROTO_STDIN)
		s->in_window -= hdr->length;
	else if (hdr->type == PROTO_CREDIT)
		s->out_window = stream_window(s->out_window, job->payload);
	hdr->stream = s->id;
	return true;
}

/* To the guest; many bytes past the channel, if there is a way. */
static void
pass_on(struct job *job, struct proto_hdr *hdr)
{
	const uint32_t len = hdr->length;

	if (hdr->type == PROTO_STDIN && len >= SHARE_MIN &&
	    share_put(&job->share, job->payload, len)) {
		hdr->flags |= PROTO_F_SHARED;
		hdr->length = sizeof(len);
		chan_send(&job->chan, hdr, &len);
	} else {
		chan_send(&job->chan, hdr, job->payload);
	}
}

static void
request(struct job *job, struct port *port, const struct ring_rec *rec)
{
	struct proto_hdr hdr = {
	    .length = rec->length,
	    .type = rec->type,
	    .flags = rec->flags,
	    .stream = rec->stream,
	};

	if (rec->lease != (uint32_t)job_lease(job))
		return;
	if (rec->type == RING_WORKER_PING) {
		struct proto_hdr pong = {.length = rec->length, .type = RING_WORKER_PONG};

		job_respond(job, port, &pong, job->payload);
	} else if (rec->zero != 0 || !proto_check(&hdr, false) ||
		   (hdr.flags & PROTO_F_SHARED) != 0) { /* between worker and guest only */
		job_client_broke(job, port, "sent a malformed request (type %u, %u bytes)",
				 rec->type, rec->length);
	} else if (client_frame(job, port, &hdr)) {
		pass_on(job, &hdr);
	}
}

/* Must this request wait: for room for the worker's own answer, or for a guest that
 * owes many PONGs? */
static int
must_wait(struct job *job, struct port *port, const struct ring_rec *rec)
{
	int r;

	if (rec->type == PROTO_PING)
		return job->pings.n == JOB_PINGS;
	if (rec->type != RING_WORKER_PING)
		return 0;
	r = port_room(port);
	return r < 0 ? r : r == 0;
}

bool
job_take_requests(struct job *job, struct port *port)
{
	bool moved = false;

	for (int i = 0; i < BATCH && job_serves(job, port); i++) {
		struct ring_rec rec;
		int r, wait = 0;

		if (!job->ready || !chan_room(&job->chan))
			break;
		r = ring_peek(&port->req, &rec);
		if (r == 1)
			wait = must_wait(job, port, &rec);
		if (r == 1 && wait == 0)
			r = ring_read(&port->req, &rec, job->payload);
		if (r < 0 || wait < 0)
			job_client_broke(job, port, "broke its %s ring",
					 r < 0 ? "request" : "response");
		if (r <= 0 || wait != 0)
			break;
		request(job, port, &rec);
		moved = true;
	}
	if (moved && port->state == PORT_OPEN)
		port_taken(port);
	return moved;
}
