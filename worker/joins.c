/* SPDX-License-Identifier: MIT
 *
 * joins.c - joining and leaving of clients. Runs in a worker; owns, for each client
 * that has joined, the mapping of its channel, its doorbells, and our end of the
 * socket by whose closing either side sees that the other is gone.
 *
 * A client ends in steps, each when joins_tend finds that the one before is done: its
 * port is not OPEN -> descriptors closed, mapping gone -> port GONE and no operation of
 * the loop in flight -> freed.
 */
#include "worker/joins.h"
#include "shm/joined.h"

#include <string.h>

#define JOINED_MAGIC 0x1013edu

struct joined {
	unsigned magic;
	struct joins *joins;
	struct port port;
	struct shm_chan *shm; /* NULL: let go of */
	int request, response, life;
	struct loop_op bell, hangup;
	struct joined *next;
};

void
joins_init(struct joins *joins, struct loop *loop, struct job *job)
{
	*joins = (struct joins){.loop = loop, .job = job};
}

/* What rings only wakes the loop: before it sleeps again the job pumps. */
static void
on_bell(struct loop_op *op, int res)
{
	struct joined *j = op->owner;

	CHECK_OBJ(j, JOINED_MAGIC);
	if (res < 0 && res != -ECANCELED)
		job_leave(j->joins->job, &j->port);
}

/* Nothing is ever said on that socket: that it can be read is the client's end. */
static void
on_hangup(struct loop_op *op, int res)
{
	struct joined *j = op->owner;

	CHECK_OBJ(j, JOINED_MAGIC);
	if (res != -ECANCELED)
		job_leave(j->joins->job, &j->port);
}

/* Map the channel and make it a port: 0, or what the client is told. */
static int
open_port(struct joined *j, uint64_t generation, int chan)
{
	struct job *job = j->joins->job;
	int r;

	if (job_lease(job) != generation)
		return -ESTALE;
	r = joined_map(&j->shm, chan);
	if (r < 0)
		return r;
	r = job_join(job, &j->port, j->shm, j->response);
	if (r < 0)
		joined_unmap(j->shm);
	return r;
}

static void
tell(int life, int error)
{
	const struct ctl_joined msg = {.magic = CTL_MAGIC, .error = error};

	/* If it is gone already, its end of the socket says so. */
	(void)!ctl_send(life, &msg, sizeof(msg), NULL, 0);
}

static void
close_fds(struct joined *j)
{
	closep(&j->request);
	closep(&j->response);
	closep(&j->life);
}

void
joins_add(struct joins *joins, uint64_t generation, int fds[CTL_JOIN_FDS])
{
	_cleanup_(closep) int chan = steal_fd(&fds[CTL_JOIN_CHAN]);
	struct joined *j = calloc(1, sizeof(*j));
	int r;

	if (j == NULL) {
		tell(fds[CTL_JOIN_LIFE], -ENOMEM);
		return;
	}
	j->magic = JOINED_MAGIC;
	j->joins = joins;
	j->request = steal_fd(&fds[CTL_JOIN_REQUEST]);
	j->response = steal_fd(&fds[CTL_JOIN_RESPONSE]);
	j->life = steal_fd(&fds[CTL_JOIN_LIFE]);
	r = open_port(j, generation, chan);
	tell(j->life, r);
	if (r < 0) {
		close_fds(j);
		free(j);
		return;
	}
	loop_op_init(&j->bell, on_bell, j);
	loop_op_init(&j->hangup, on_hangup, j);
	loop_watch(joins->loop, &j->bell, j->request);
	loop_watch(joins->loop, &j->hangup, j->life);
	j->next = joins->first;
	joins->first = j;
}

/* Nobody is at the other end any more. */
static void
let_go(struct joined *j)
{
	loop_cancel(j->joins->loop, &j->bell);
	loop_cancel(j->joins->loop, &j->hangup);
	close_fds(j);
	joined_unmap(j->shm);
	j->shm = NULL;
}

static void
joined_free(struct joined *j)
{
	port_fini(&j->port);
	j->magic = 0;
	free(j);
}

void
joins_tend(struct joins *joins)
{
	struct joined **link = &joins->first, *j;

	while ((j = *link) != NULL) {
		if (j->port.state != PORT_OPEN && j->shm != NULL)
			let_go(j);
		if (j->port.state != PORT_GONE || j->bell.armed || j->hangup.armed) {
			link = &j->next;
			continue;
		}
		*link = j->next;
		joined_free(j);
	}
}

void
joins_fini(struct joins *joins)
{
	struct joined *j;

	while ((j = joins->first) != NULL) {
		joins->first = j->next;
		close_fds(j);
		if (j->shm != NULL)
			joined_unmap(j->shm);
		joined_free(j);
	}
}
