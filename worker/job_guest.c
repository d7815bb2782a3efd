/* SPDX-License-Identifier: MIT
 *
 * job_guest.c - what the guest says: checked against its streams and their windows,
 * and passed on to the client whose stream it is. Runs in a worker. A guest that breaks
 * a rule loses its machine.
 */
#include "shm/stat.h"
#include "worker/job_impl.h"

#include <limits.h>
#include <string.h>

static void
stream_end(struct job *job, struct port *port, struct stream *s, const struct proto_hdr *hdr,
	   const uint8_t *payload)
{
	struct proto_exit ended = {.code = 1};

	if (hdr->type == PROTO_EXIT)
		memcpy(&ended, payload, sizeof(ended));
	if (s->client_id == 0) {
		job->check = ended.code == 0 && ended.signal == 0 ? CHECK_PASSED : CHECK_FAILED;
	} else if (hdr->type == PROTO_EXIT) {
		if (ended.timed_out != 0)
			job_count(job, C_exec_timeout_count);
		hist_add(&job->shm->hist[H_exec_ns], now_ns() - s->start_ns);
	}
	streams_drop(&port->streams, s);
	job->open--;
}

/* May a stream of this kind have such a frame? Any can be refused by an ERROR. */
static bool
stream_knows(const struct stream *s, uint8_t type)
{
	if (type == PROTO_ERROR)
		return true;
	if (s->vmstat)
		return type == PROTO_VMSTATS;
	if (s->file)
		return type == PROTO_STDOUT || type == PROTO_CREDIT || type == PROTO_FILE_DONE;
	return type != PROTO_VMSTATS && type != PROTO_FILE_DONE;
}

/* Is this frame something the guest may say now? Then hdr gets the client's stream. */
static bool
guest_stream_frame(struct job *job, struct port *port, struct proto_hdr *hdr,
		   const uint8_t *payload)
{
	struct stream *s = port == NULL ? NULL : streams_find_guest(&port->streams, hdr->stream);

	if (s == NULL || !stream_knows(s, hdr->type))
		return false;
	hdr->stream = s->client_id;
	switch (hdr->type) {
	case PROTO_STDOUT:
	case PROTO_STDERR:
		if (hdr->length > s->out_window)
			return false;
		s->out_window -= hdr->length;
		return true;
	case PROTO_CREDIT: s->in_window = stream_window(s->in_window, payload); return true;
	default: /* EXIT, ERROR, VMSTATS, FILE_DONE */
		stream_end(job, port, s, hdr, payload);
		return true;
	}
}

/* The bytes of a data frame that came past the channel become its payload. */
static bool
fetch_shared(struct job *job, struct proto_hdr *hdr, const uint8_t **payload)
{
	uint32_t len;

	if ((hdr->flags & PROTO_F_SHARED) == 0)
		return true;
	memcpy(&len, *payload, sizeof(len));
	if (share_take(&job->share, job->shared, len) < 0)
		return false;
	*payload = job->shared;
	hdr->length = len;
	hdr->flags = 0;
	return true;
}

/* A PONG: whose PING was the oldest? PORTS_MAX: of one that has gone. False: nobody's. */
static bool
guest_pong(struct job *job, uint32_t *port)
{
	struct job_pings *pings = &job->pings;

	if (pings->n == 0)
		return false;
	*port = pings->port[pings->first];
	pings->first = (pings->first + 1) % JOB_PINGS;
	pings->n--;
	if (*port < PORTS_MAX)
		job->port[*port]->pings--;
	return true;
}

/* READY comes from a machine that was booted for this job alone, RENEWED from one
 * that was started from a template. */
static void
guest_ready(struct job *job, const uint8_t *payload)
{
	struct proto_ready ready;

	memcpy(&ready, payload, sizeof(ready));
	if (job->ready || job->renewing)
		job_fail(job, "guest broke the protocol (READY a second time)");
	else if (ready.version != PROTO_VERSION)
		job_fail(job, "the image's agent speaks protocol %u, this worker %u", ready.version,
			 PROTO_VERSION);
	else
		job->ready = true;
}

static void
guest_renewed(struct job *job, const uint8_t *payload)
{
	struct proto_renewed renewed;

	memcpy(&renewed, payload, sizeof(renewed));
	if (!job->renewing) {
		job_fail(job, "guest broke the protocol (RENEWED without RENEW)");
		return;
	}
	job->renewing = false;
	if (renewed.failed != 0) {
		job_fail(job, "guest could not renew its identity (step %u: %s)", renewed.failed,
			 strerror((int)(renewed.err & INT_MAX)));
		return;
	}
	job->ready = true;
	/* A guest that is always late is as good as it gets. */
	if ((int64_t)(chan_wall_ns() - renewed.wall_ns) > JOB_LATE_NS &&
	    job->renewals < JOB_RENEWALS)
		job_renew(job);
}

void
job_guest_frame(struct job *job, const struct proto_hdr *said, const uint8_t *payload)
{
	uint32_t port = stream_port(said->stream);
	struct proto_hdr hdr = *said;
	bool legal;

	if (hdr.type == PROTO_SHARE) {
		if (!share_open(&job->share, payload))
			job_fail(job, "guest broke the protocol (SHARE)");
		return;
	}
	if (hdr.type == PROTO_READY || hdr.type == PROTO_RENEWED) {
		(hdr.type == PROTO_READY ? guest_ready : guest_renewed)(job, payload);
		return;
	}
	if (hdr.stream == 0) {
		legal = guest_pong(job, &port);
		/* No other PING is under way then. */
		if (legal && job->quiet == QUIET_ASKED)
			job->quiet = QUIET_YES;
	} else {
		legal = fetch_shared(job, &hdr, &payload) &&
			guest_stream_frame(job, job->port[port], &hdr, payload);
	}
	if (!legal)
		job_fail(job, "guest broke the protocol (type %u, %u bytes, stream %u)", said->type,
			 said->length, said->stream);
	else if (port < PORTS_MAX && (hdr.stream != 0 || said->stream == 0))
		job_respond(job, job->port[port], &hdr, payload);
}
