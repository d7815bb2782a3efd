/* SPDX-License-Identifier: MIT
 *
 * job_leave.c - the end of a client that had joined a lease: it has gone, or was cut off.
 * Runs in a worker.
 *
 * Its commands are killed in the guest. What they still say is dropped, and the
 * credit for it granted, since they end only after their last output. The port lives on
 * until all have ended, so that their ids stay taken; a guest that does not end them
 * within JOB_LEAVE_NS is ended itself.
 */
#include "worker/job_impl.h"

#include <signal.h>
#include <string.h>

/* What the guest does not have is forgotten at once. */
static void
forget_refused(struct streams *streams)
{
	for (unsigned i = streams->end; i-- > 0;)
		if (streams->at[i].id != 0 && streams->at[i].refused)
			streams_drop(streams, &streams->at[i]);
}

static void
forget_pings(struct job_pings *pings, uint32_t port)
{
	for (unsigned i = 0; i < pings->n; i++) {
		uint8_t *whose = &pings->port[(pings->first + i) % JOB_PINGS];

		if (*whose == port)
			*whose = PORTS_MAX;
	}
}

void
job_leave(struct job *job, struct port *port)
{
	if (port->state != PORT_OPEN)
		return;
	AN(port->index);
	port_close(port);
	forget_refused(&port->streams);
	forget_pings(&job->pings, port->index);
	port->leave_ns = now_ns() + JOB_LEAVE_NS;
	job->leaving++;
}

static void
send(struct job *job, const struct stream *s, uint8_t type, const void *payload, uint32_t length)
{
	const struct proto_hdr hdr = {.length = length, .type = type, .stream = s->id};

	chan_send(&job->chan, &hdr, payload);
}

/* The next thing that is due on a stream, if there is room for it. */
static void
tend(struct job *job, struct stream *s)
{
	const uint32_t signal = SIGKILL;

	/* A request that will not be completed: one more byte does, and makes it wrong
	 * (or a command, which is killed). */
	if (s->sending && chan_room(&job->chan)) {
		send(job, s, PROTO_EXEC, "", 1);
		s->sending = false;
	}
	if (!s->sending && !s->killed && chan_room(&job->chan)) {
		send(job, s, PROTO_KILL, &signal, sizeof(signal));
		s->killed = true;
	}
	if (s->killed && s->out_window <= PROTO_WINDOW / 2 && chan_room(&job->chan)) {
		const uint32_t more = PROTO_WINDOW - (uint32_t)s->out_window;

		send(job, s, PROTO_CREDIT, &more, sizeof(more));
		s->out_window += more;
	}
}

void
job_tend_leavers(struct job *job)
{
	for (unsigned i = 1; i < job->nports && job->leaving > 0; i++) {
		struct port *port = job->port[i];

		if (port == NULL || port->state != PORT_LEAVING)
			continue;
		for (unsigned k = 0; k < port->streams.end; k++)
			if (port->streams.at[k].id != 0)
				tend(job, &port->streams.at[k]);
		if (port->streams.n > 0)
			continue;
		port->state = PORT_GONE;
		job->port[i] = NULL;
		job->leaving--;
	}
	while (job->nports > 1 && job->port[job->nports - 1] == NULL)
		job->nports--;
}
