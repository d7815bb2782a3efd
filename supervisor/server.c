/* SPDX-License-Identifier: MIT
 *
 * server.c - serves clients on the pool's socket. Runs in vmpoold; owns the
 * connections. A connection that has attached is a client: its end, however it
 * comes, takes the client's leases back.
 *
 * Peers are other people's programs: a message of the wrong shape, a second
 * ATTACH, or a peer that does not fetch its replies ends that connection, and
 * nothing here waits for any of them.
 */
#include "supervisor/server.h"

#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "shm/ctl.h"
#include "shm/lease.h"
#include "supervisor/join.h"
#include "supervisor/suplog.h"

#define SERVER_MAGIC 0x2ad3c86eu
#define SERVER_CONNS (SHM_CLIENTS + 64u) /* monitors and strangers besides the clients */
#define SILENT_NS 5000000000ull		 /* from connect to the first request */

enum conn_state {
	CONN_NEW,
	CONN_ATTACHING, /* waits for the pool lock */
	CONN_CLIENT,
	CONN_MONITOR,
	CONN_COPYING, /* waits for a snapshot or a fork */
	CONN_LEAVING, /* socket closed; its leases wait for the pool lock */
};

struct conn {
	struct server *srv;
	enum conn_state state;
	int fd;
	pid_t pid;
	uint32_t client;
	uint64_t since_ns;
	struct ctl_request join; /* kind: 0, or that of a JOIN that waits for the pool lock */
	struct ev_source src;
	struct retry_op op;
	struct pool_copy *copy; /* COPYING */
	struct conn *next, **prev;
};

struct server {
	unsigned magic;
	struct server_setup s;
	struct ev_source listen;
	bool paused; /* out of descriptors: accepting again at the next tick */
	unsigned nconns;
	struct conn *conns;
};

static void
conn_free(struct conn *c)
{
	*c->prev = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	c->srv->nconns--;
	free(c);
}

static int
conn_leave_attempt(void *arg)
{
	struct conn *c = arg;
	struct server *srv = c->srv;
	int r = sup_client_gone(srv->s.seg, c->client);

	if (r == -EBUSY)
		return r;
	if (r < 0)
		suplog(LOG_WARNING, "client %u (pid %d): its leases could not be taken back: %s",
		       c->client, (int)c->pid, strerror(-r));
	conn_free(c);
	srv->s.client_gone(srv->s.arg);
	return 0;
}

static void
conn_close(struct conn *c)
{
	struct server *srv = c->srv;

	evloop_del(srv->s.loop, &c->src);
	closep(&c->fd);
	retry_cancel(srv->s.retry, &c->op);
	if (c->copy != NULL)
		pool_copy_forget(c->copy);
	if (c->state != CONN_CLIENT) {
		conn_free(c);
		return;
	}
	suplog(LOG_DEBUG, "client %u (pid %d) has left", c->client, (int)c->pid);
	c->state = CONN_LEAVING;
	c->op.attempt = conn_leave_attempt;
	retry_start(srv->s.retry, &c->op);
}

/* --- requests ------------------------------------------------------------------ */

static void
conn_reply(struct conn *c, struct ctl_reply *reply, const int *fds, unsigned nfds)
{
	reply->magic = CTL_MAGIC;
	reply->generation = c->srv->s.seg->head->generation;
	if (ctl_send(c->fd, reply, sizeof(*reply), fds, nfds) < 0)
		conn_close(c);
}

static void printf_like(3, 4) conn_refuse(struct conn *c, int error, const char *fmt, ...)
{
	struct ctl_reply reply = {.kind = CTL_REFUSED, .error = error};
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(reply.text, sizeof(reply.text), fmt, ap);
	va_end(ap);
	suplog(LOG_DEBUG, "pid %d refused: %s", (int)c->pid, reply.text);
	conn_reply(c, &reply, NULL, 0);
}

static bool
conn_format_fits(struct conn *c, const struct ctl_request *req)
{
	if (req->format == SHM_FORMAT)
		return true;
	conn_refuse(c, -EMEDIUMTYPE,
		    "the pool was built with another segment layout (%016" PRIx64
		    ", this program has %016" PRIx64 "): use programs of one build",
		    (uint64_t)SHM_FORMAT, req->format);
	return false;
}

static int
conn_attach_attempt(void *arg)
{
	struct conn *c = arg;
	struct server *srv = c->srv;
	struct ctl_reply reply = {.kind = CTL_ATTACHED};
	int fds[] = {srv->s.seg->fd, srv->s.bells->door};
	int r;

	r = sup_client_new(srv->s.seg, (uint32_t)c->pid, &c->client);
	if (r == -EBUSY)
		return r;
	if (r < 0) {
		c->state = CONN_NEW;
		conn_refuse(c, r,
			    r == -ENOSPC ? "the pool has too many clients"
					 : "the pool cannot take a client now");
		return 0;
	}
	c->state = CONN_CLIENT;
	suplog(LOG_DEBUG, "client %u is pid %d", c->client, (int)c->pid);
	reply.client = c->client;
	conn_reply(c, &reply, fds, 2);
	return 0;
}

static void
conn_attach(struct conn *c, const struct ctl_request *req)
{
	if (c->state != CONN_NEW) {
		conn_close(c);
		return;
	}
	if (!conn_format_fits(c, req))
		return;
	if (c->pid <= 0) {
		/* The pool lock names its holder by a thread id of this namespace. */
		conn_refuse(c, -EPERM, "clients must be in the pool's PID namespace");
		return;
	}
	c->state = CONN_ATTACHING;
	c->op.attempt = conn_attach_attempt;
	retry_start(c->srv->s.retry, &c->op);
}

static void
conn_monitor(struct conn *c, const struct ctl_request *req)
{
	struct ctl_reply reply = {.kind = CTL_ATTACHED, .client = SHM_NO_CLIENT};
	_cleanup_(closep) int fd = -1;

	if (c->state != CONN_NEW) {
		conn_close(c);
		return;
	}
	if (!conn_format_fits(c, req))
		return;
	fd = seg_read_only_fd(c->srv->s.seg);
	if (fd < 0) {
		conn_refuse(c, fd, "no read-only view of the segment: %s", strerror(-fd));
		return;
	}
	c->state = CONN_MONITOR;
	conn_reply(c, &reply, &fd, 1);
}

static void
conn_doorbells(struct conn *c, const struct ctl_request *req)
{
	struct ctl_reply reply = {.kind = CTL_DOORBELLS};
	struct bell_pair bells;
	int r;

	if (c->state != CONN_CLIENT) {
		conn_close(c);
		return;
	}
	if (req->slot >= c->srv->s.seg->nslots) {
		conn_refuse(c, -EINVAL, "there is no slot %" PRIu32, req->slot);
		return;
	}
	r = bells_get(c->srv->s.bells, req->slot, &bells);
	if (r < 0) {
		conn_refuse(c, r, "no doorbells for slot %" PRIu32 ": %s", req->slot, strerror(-r));
		return;
	}
	conn_reply(c, &reply, (int[]){bells.request, bells.response}, 2);
}

/* The answer to SNAPSHOT or FORK; the connection has no other purpose. */
static void
conn_copied(void *arg, int error, const char *text, uint32_t slot, uint64_t word)
{
	struct conn *c = arg;
	struct ctl_reply reply = {
	    .magic = CTL_MAGIC, .kind = CTL_OK, .error = error, .slot = slot, .word = word};

	c->copy = NULL;
	if (error < 0)
		reply.kind = CTL_REFUSED;
	else if (word != 0)
		reply.kind = CTL_FORKED;
	(void)snprintf(reply.text, sizeof(reply.text), "%s", text);
	/* A client that has left meanwhile has had its leases taken back, or will. */
	(void)!ctl_send(c->fd, &reply, sizeof(reply), NULL, 0);
	conn_close(c);
}

static bool
conn_is_client(const struct conn *c, uint32_t client)
{
	for (const struct conn *o = c->srv->conns; o != NULL; o = o->next)
		if (o->state == CONN_CLIENT && o->client == client && o->pid == c->pid)
			return true;
	return false;
}

static void
conn_copy(struct conn *c, const struct ctl_request *req, int file)
{
	const struct pool_copy_ask ask = {
	    .slot = req->slot,
	    .lease = req->lease,
	    .file = file,
	    .client = req->client,
	    .done = conn_copied,
	    .arg = c,
	};
	struct server *srv = c->srv;
	char err[256];
	int r;

	if (c->state != CONN_NEW || (req->kind == CTL_SNAPSHOT) != (file >= 0)) {
		conn_close(c);
		return;
	}
	if (!conn_format_fits(c, req))
		return;
	if (req->kind == CTL_FORK && !conn_is_client(c, req->client)) {
		conn_refuse(c, -EPERM, "client %u is not of this process", req->client);
		return;
	}
	c->state = CONN_COPYING;
	r = srv->s.copy(srv->s.arg, &ask, &c->copy, err, sizeof(err));
	if (r < 0)
		conn_refuse(c, r, "%s", err);
}

/* The worker hears of it first; if it takes no notice, the client sees its end of the
 * socket close. */
static int
conn_join_open(struct conn *c, struct join *join)
{
	struct server *srv = c->srv;
	int fds[CTL_JOIN_FDS], r = join_open(join);

	if (r < 0)
		return r;
	join_fds(join, true, fds);
	return srv->s.join(srv->s.arg, c->join.slot, c->join.lease, fds);
}

static int
conn_join_attempt(void *arg)
{
	struct conn *c = arg;
	struct ctl_reply reply = {.kind = CTL_JOIN};
	_cleanup_(join_close) struct join join = {-1, -1, -1, -1, -1};
	int fds[CTL_JOIN_FDS], r;

	r = sup_join(c->srv->s.seg, c->join.slot, c->join.lease);
	if (r == -EBUSY)
		return r;
	if (r == 0)
		r = conn_join_open(c, &join);
	c->join.kind = 0;
	if (r < 0) {
		conn_refuse(c, r, "slot %" PRIu32 ": %s", c->join.slot,
			    r == -ESTALE   ? "that lease has ended"
			    : r == -EAGAIN ? "its VM is busy"
					   : strerror(-r));
		return 0;
	}
	join_fds(&join, false, fds);
	conn_reply(c, &reply, fds, CTL_JOIN_FDS);
	return 0;
}

static void
conn_join(struct conn *c, const struct ctl_request *req)
{
	if (c->state != CONN_CLIENT) {
		conn_close(c);
		return;
	}
	c->join = *req;
	c->op.attempt = conn_join_attempt;
	retry_start(c->srv->s.retry, &c->op);
}

static void
conn_stop(struct conn *c, const struct ctl_request *req)
{
	struct ctl_reply reply = {.kind = CTL_OK};
	struct server *srv = c->srv;
	pid_t pid = c->pid;

	/* Told first: the reply may close the connection. */
	srv->s.stop(srv->s.arg, pid, req->drain_ms);
	conn_reply(c, &reply, NULL, 0);
}

static void
conn_readable(void *arg, uint32_t events)
{
	struct conn *c = arg;
	_cleanup_(closep) int file = -1;
	struct ctl_request req;
	int r;

	(void)events;
	r = ctl_recv(c->fd, &req, sizeof(req), &file, 1);
	if (r == -EAGAIN)
		return;
	/* A client has one request under way at a time. */
	if (r < 0 || req.magic != CTL_MAGIC || c->join.kind != 0) {
		if (r != -EPIPE && r != -ECONNRESET)
			suplog(LOG_INFO, "pid %d sent something unknown and was cut off",
			       (int)c->pid);
		conn_close(c);
		return;
	}
	switch (req.kind) {
	case CTL_ATTACH: conn_attach(c, &req); break;
	case CTL_MONITOR: conn_monitor(c, &req); break;
	case CTL_DOORBELLS: conn_doorbells(c, &req); break;
	case CTL_STOP: conn_stop(c, &req); break;
	case CTL_SNAPSHOT:
	case CTL_FORK: conn_copy(c, &req, file); break;
	case CTL_JOIN: conn_join(c, &req); break;
	default:
		suplog(LOG_INFO, "pid %d sent something unknown and was cut off", (int)c->pid);
		conn_close(c);
	}
}

/* --- connections ------------------------------------------------------------------- */

static int
server_admit(struct server *srv, int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	struct conn *c;
	int r;

	if (srv->nconns >= SERVER_CONNS)
		return -EUSERS;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		return -errno;
	/* The file's mode says the same; it could have been changed. */
	if (who.uid != 0 && who.uid != geteuid())
		return -EPERM;
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return -ENOMEM;
	c->srv = srv;
	c->fd = c->src.fd = fd;
	c->pid = who.pid;
	c->since_ns = now_ns();
	c->src.ready = conn_readable;
	c->src.arg = c->op.arg = c;
	r = evloop_add(srv->s.loop, &c->src, EPOLLIN);
	if (r < 0) {
		free(c);
		return r;
	}
	c->next = srv->conns;
	c->prev = &srv->conns;
	if (c->next != NULL)
		c->next->prev = &c->next;
	srv->conns = c;
	srv->nconns++;
	return 0;
}

static void
server_acceptable(void *arg, uint32_t events)
{
	struct server *srv = arg;
	struct ctl_reply reply = {.magic = CTL_MAGIC, .kind = CTL_REFUSED};
	int fd, r;

	(void)events;
	fd = accept4(srv->s.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
			return;
		/* The connection stays in the queue and would wake us for ever. */
		suplog(LOG_WARNING, "cannot accept a connection: %m");
		evloop_del(srv->s.loop, &srv->listen);
		srv->paused = true;
		return;
	}
	r = server_admit(srv, fd);
	if (r == 0)
		return;
	reply.error = r;
	(void)snprintf(reply.text, sizeof(reply.text), "%s",
		       r == -EUSERS  ? "the pool has too many connections"
		       : r == -EPERM ? "the pool belongs to another user"
				     : strerror(-r));
	(void)!ctl_send(fd, &reply, sizeof(reply), NULL, 0);
	(void)close(fd);
}

int
server_open(struct server **out, const struct server_setup *setup)
{
	struct server *srv = calloc(1, sizeof(*srv));
	int r;

	*out = NULL;
	if (srv == NULL)
		return -ENOMEM;
	srv->magic = SERVER_MAGIC;
	srv->s = *setup;
	srv->listen.fd = setup->listen_fd;
	srv->listen.ready = server_acceptable;
	srv->listen.arg = srv;
	r = evloop_add(setup->loop, &srv->listen, EPOLLIN);
	if (r < 0) {
		free(srv);
		return r;
	}
	*out = srv;
	return 0;
}

void
server_close(struct server *srv)
{
	struct conn *c;

	if (srv == NULL)
		return;
	CHECK_OBJ(srv, SERVER_MAGIC);
	evloop_del(srv->s.loop, &srv->listen);
	while ((c = srv->conns) != NULL) {
		retry_cancel(srv->s.retry, &c->op);
		closep(&c->fd);
		conn_free(c);
	}
	srv->magic = 0;
	free(srv);
}

bool
server_has_client(const struct server *srv, pid_t pid)
{
	CHECK_OBJ(srv, SERVER_MAGIC);
	for (const struct conn *c = srv->conns; c != NULL; c = c->next)
		if (c->pid == pid && (c->state == CONN_CLIENT || c->state == CONN_LEAVING))
			return true;
	return false;
}

void
server_tick(struct server *srv, uint64_t now)
{
	struct conn *c, *next;

	CHECK_OBJ(srv, SERVER_MAGIC);
	if (srv->paused && evloop_add(srv->s.loop, &srv->listen, EPOLLIN) == 0)
		srv->paused = false;
	for (c = srv->conns; c != NULL; c = next) {
		next = c->next;
		if (c->state == CONN_NEW && now - c->since_ns >= SILENT_NS)
			conn_close(c);
	}
}
