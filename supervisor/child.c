/* SPDX-License-Identifier: MIT
 *
 * child.c - the table of workers. Runs in vmpoold; owns each worker's pidfd and
 * the supervisor's end of its control socket, and decides when it is killed.
 */
#include "supervisor/child.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "shm/ctl.h"

#define CHILDREN_MAGIC 0x3d8e51c7u
#define SPAWN_LIMIT_NS 10000000000ull	 /* for the fork server's answer */
#define START_LIMIT_NS 90000000000ull	 /* the worker's own boot deadline is shorter */
#define CHECK_LIMIT_NS 15000000000ull	 /* the worker's own deadline is shorter */
#define CAPTURE_LIMIT_NS 300000000000ull /* to the end of the disk's work */
#define END_LIMIT_NS 1000000000ull	 /* from a closed socket to the end */

struct child {
	struct children *table;
	enum child_state state;
	bool killed, was_ready, checking;
	bool takes_files; /* CAPTURING into files of the worker's */
	pid_t pid;
	int pidfd, sock;
	uint64_t generation;
	uint64_t deadline_ns; /* 0 = none */
	int error;
	char why[256]; /* "" = only the exit status says */
	struct ev_source src;
};

/* Children that ended before the fork server's word of them was read. */
#define EARLY_ENDS 16u

struct children {
	unsigned magic;
	struct evloop *loop;
	uint32_t nslots, count[CHILD_STATES];
	struct child_ops ops;
	siginfo_t early[EARLY_ENDS]; /* the newest, in a ring */
	unsigned nearly;
	struct child child[];
};

static uint32_t
child_slot(const struct child *c)
{
	return (uint32_t)(c - c->table->child);
}

static void
child_set_state(struct child *c, enum child_state state)
{
	c->table->count[c->state]--;
	c->table->count[state]++;
	c->state = state;
}

/* Text of others, made one printable line. */
static void
child_line(char *out, size_t len, const char *text)
{
	size_t n = MIN(strcspn(text, "\n"), len - 1);

	for (size_t i = 0; i < n; i++)
		out[i] = text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
	out[n] = '\0';
}

static void
child_no_socket(struct child *c)
{
	if (c->sock < 0)
		return;
	evloop_del(c->table->loop, &c->src);
	closep(&c->sock);
}

/* Off the table, then tell: the callee may use the slot anew. */
static void
child_gone(struct child *c, const char *status)
{
	struct children *table = c->table;
	struct child_end end = {
	    .was_ready = c->was_ready,
	    .killed = c->killed,
	    .checking = c->checking,
	    .pid = c->pid,
	    .error = c->error,
	};

	child_line(end.why, sizeof(end.why), c->why[0] != '\0' ? c->why : status);
	child_no_socket(c);
	closep(&c->pidfd);
	c->pid = 0;
	child_set_state(c, CHILD_NONE);
	table->ops.gone(table->ops.arg, child_slot(c), &end);
}

/* --- what a worker says ------------------------------------------------------- */

/* It has done what it was told to. */
static void
child_answered(struct child *c)
{
	c->deadline_ns = 0;
	c->checking = false;
	child_set_state(c, CHILD_READY);
}

/* Its VM was captured, or not; takes the files. */
static int
child_captured(struct child *c, const struct worker_msg *msg, int fds[2])
{
	struct children *table = c->table;
	char line[256];

	if (c->state != CHILD_CAPTURING || msg->error > 0 ||
	    (msg->error == 0 && c->takes_files) != (fds[1] >= 0))
		return -EPROTO;
	child_line(line, sizeof(line), msg->text);
	child_answered(c);
	table->ops.captured(table->ops.arg, child_slot(c), msg->error, line, &msg->tmpl, fds);
	fds[0] = fds[1] = -1;
	return 0;
}

static int
child_said(struct child *c, const struct worker_msg *msg)
{
	struct children *table = c->table;

	if (msg->kind == WORKER_READY && c->state == CHILD_STARTING) {
		c->was_ready = true;
		c->deadline_ns = 0;
		child_set_state(c, CHILD_READY);
		table->ops.ready(table->ops.arg, child_slot(c), msg->took_ns);
		return 0;
	}
	if (msg->kind == WORKER_READY && c->state == CHILD_RESETTING) {
		child_answered(c);
		table->ops.reset(table->ops.arg, child_slot(c), msg->pages);
		return 0;
	}
	if (msg->kind == WORKER_CHECKED && c->state == CHILD_CHECKING && msg->error <= 0) {
		child_answered(c);
		table->ops.checked(table->ops.arg, child_slot(c), msg->error);
		return 0;
	}
	if (msg->kind != WORKER_FAILED || msg->error >= 0)
		return -EPROTO;
	if (c->error == 0 && !c->killed) {
		c->error = msg->error;
		child_line(c->why, sizeof(c->why), msg->text);
		table->ops.failed(table->ops.arg, child_slot(c), msg->text);
	}
	return 0;
}

static int
child_message(struct child *c)
{
	struct worker_msg msg;
	int fds[2], r;

	r = ctl_recv(c->sock, &msg, sizeof(msg), fds, 2);
	if (r < 0)
		return r;
	msg.text[sizeof(msg.text) - 1] = '\0';
	if (msg.magic != CTL_MAGIC || msg.zero != 0)
		r = -EPROTO;
	else if (msg.kind == WORKER_CAPTURED)
		r = child_captured(c, &msg, fds);
	else
		r = fds[0] >= 0 ? -EPROTO : child_said(c, &msg);
	closep(&fds[0]);
	closep(&fds[1]);
	return r;
}

static void
child_readable(void *arg, uint32_t events)
{
	struct child *c = arg;
	int r;

	(void)events;
	r = child_message(c);
	if (r == 0 || r == -EAGAIN)
		return;
	child_no_socket(c);
	if (r == -EPROTO) {
		child_kill(c->table, child_slot(c), "its worker sent something unknown");
		return;
	}
	/* The end itself is reported by SIGCHLD; the tick makes sure that it comes. */
	if (c->state != CHILD_ENDING) {
		child_set_state(c, CHILD_ENDING);
		c->deadline_ns = now_ns() + END_LIMIT_NS;
	}
}

/* --- life ---------------------------------------------------------------------- */

int
children_new(struct children **out, struct evloop *loop, uint32_t nslots,
	     const struct child_ops *ops)
{
	struct children *table = calloc(1, sizeof(*table) + nslots * sizeof(struct child));

	*out = table;
	if (table == NULL)
		return -ENOMEM;
	table->magic = CHILDREN_MAGIC;
	table->loop = loop;
	table->nslots = nslots;
	table->ops = *ops;
	table->count[CHILD_NONE] = nslots;
	for (uint32_t i = 0; i < nslots; i++) {
		table->child[i].table = table;
		table->child[i].pidfd = table->child[i].sock = -1;
		table->child[i].src.ready = child_readable;
		table->child[i].src.arg = &table->child[i];
	}
	return 0;
}

int
child_begin(struct children *table, uint32_t slot, uint64_t generation, int *worker_sock)
{
	struct child *c;
	int r;

	CHECK_OBJ(table, CHILDREN_MAGIC);
	AN(slot < table->nslots);
	c = &table->child[slot];
	AN(c->state == CHILD_NONE);
	r = ctl_pair(&c->sock, worker_sock);
	if (r < 0)
		return r;
	c->src.fd = c->sock;
	c->generation = generation;
	c->killed = c->was_ready = c->checking = false;
	c->error = 0;
	c->why[0] = '\0';
	c->deadline_ns = now_ns() + SPAWN_LIMIT_NS;
	child_set_state(c, CHILD_SPAWNING);
	return 0;
}

/* The end of a child, whose last words are still in the socket. */
static void
child_ended(struct child *c, const siginfo_t *si)
{
	char status[64];

	while (c->sock >= 0 && !c->killed && child_message(c) == 0)
		continue;
	if (si->si_code == CLD_EXITED)
		(void)snprintf(status, sizeof(status), "its worker exited with status %d",
			       si->si_status);
	else
		(void)snprintf(status, sizeof(status), "its worker was killed by signal %d (%s)",
			       si->si_status, strsignal(si->si_status));
	child_gone(c, status);
}

/* How it ended, if it was reaped before its pid was known here; else NULL. */
static const siginfo_t *
child_early_end(const struct children *table, pid_t pid, int pidfd)
{
	static const siginfo_t unknown = {.si_code = CLD_EXITED};
	siginfo_t si;

	if (waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 ||
	    errno != ECHILD)
		return NULL;
	for (unsigned i = 0; i < EARLY_ENDS; i++)
		if (table->early[i].si_pid == pid)
			return &table->early[i];
	return &unknown;
}

void
child_spawned(struct children *table, uint32_t slot, uint64_t generation, pid_t pid, int pidfd,
	      int error)
{
	const siginfo_t *early;
	struct child *c = NULL;

	CHECK_OBJ(table, CHILDREN_MAGIC);
	if (slot < table->nslots)
		c = &table->child[slot];
	if (c == NULL || c->pid != 0 || c->generation != generation ||
	    (c->state != CHILD_SPAWNING && c->state != CHILD_ENDING)) {
		if (pidfd >= 0) {
			(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
			(void)close(pidfd);
		}
		return;
	}
	if (error < 0) {
		c->error = error;
		(void)snprintf(c->why, sizeof(c->why), "the fork server cannot make a worker: %s",
			       strerror(-error));
		child_gone(c, "");
		return;
	}
	c->pid = pid;
	c->pidfd = pidfd;
	if (c->killed)
		(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	else
		child_set_state(c, CHILD_STARTING);
	c->deadline_ns = now_ns() + (c->killed ? END_LIMIT_NS : START_LIMIT_NS);
	early = child_early_end(table, pid, pidfd);
	if (early != NULL) {
		child_ended(c, early);
		return;
	}
	if (!c->killed && evloop_add(table->loop, &c->src, EPOLLIN) < 0)
		child_kill(table, slot, "its worker's socket cannot be watched");
	if (!c->killed)
		table->ops.spawned(table->ops.arg, slot, pid);
}

void
children_unanswered(struct children *table, const char *why)
{
	CHECK_OBJ(table, CHILDREN_MAGIC);
	for (uint32_t i = 0; i < table->nslots; i++)
		if (table->child[i].state != CHILD_NONE && table->child[i].pid == 0)
			child_gone(&table->child[i], why);
}

bool
children_ended(struct children *table, const siginfo_t *si)
{
	struct child *c = NULL;

	CHECK_OBJ(table, CHILDREN_MAGIC);
	for (uint32_t i = 0; i < table->nslots && c == NULL; i++)
		if (table->child[i].pid != 0 && table->child[i].pid == si->si_pid)
			c = &table->child[i];
	if (c == NULL) {
		table->early[table->nearly++ % EARLY_ENDS] = *si;
		return false;
	}
	child_ended(c, si);
	return true;
}

/* READY -> state: tell it, and expect its answer within the limit. */
static void
child_tell(struct child *c, struct worker_msg *msg, int file, enum child_state state,
	   uint64_t limit_ns)
{
	AN(c->state == CHILD_READY);
	msg->magic = CTL_MAGIC;
	child_set_state(c, state);
	c->deadline_ns = now_ns() + limit_ns;
	if (ctl_send(c->sock, msg, sizeof(*msg), &file, file >= 0) < 0)
		child_kill(c->table, child_slot(c), "its worker cannot be told anything");
}

void
child_check(struct children *table, uint32_t slot)
{
	struct worker_msg msg = {.kind = WORKER_CHECK};

	CHECK_OBJ(table, CHILDREN_MAGIC);
	AN(slot < table->nslots);
	table->child[slot].checking = true;
	child_tell(&table->child[slot], &msg, -1, CHILD_CHECKING, CHECK_LIMIT_NS);
}

void
child_reset(struct children *table, uint32_t slot)
{
	struct worker_msg msg = {.kind = WORKER_RESET};

	CHECK_OBJ(table, CHILDREN_MAGIC);
	AN(slot < table->nslots);
	child_tell(&table->child[slot], &msg, -1, CHILD_RESETTING, START_LIMIT_NS);
}

void
child_capture(struct children *table, uint32_t slot, uint64_t lease, int file)
{
	struct worker_msg msg = {.kind = WORKER_CAPTURE, .lease = lease};

	CHECK_OBJ(table, CHILDREN_MAGIC);
	AN(slot < table->nslots);
	table->child[slot].takes_files = file < 0;
	child_tell(&table->child[slot], &msg, file, CHILD_CAPTURING, CAPTURE_LIMIT_NS);
}

int
child_join(struct children *table, uint32_t slot, uint64_t generation, const int fds[CTL_JOIN_FDS])
{
	const struct worker_msg msg = {
	    .magic = CTL_MAGIC, .kind = WORKER_JOIN, .lease = generation};

	enum child_state state = child_state(table, slot);

	if (state != CHILD_READY && state != CHILD_CAPTURING)
		return -EAGAIN;
	return ctl_send(table->child[slot].sock, &msg, sizeof(msg), fds, CTL_JOIN_FDS);
}

void
child_kill(struct children *table, uint32_t slot, const char *why)
{
	struct child *c;

	CHECK_OBJ(table, CHILDREN_MAGIC);
	AN(slot < table->nslots);
	c = &table->child[slot];
	if (c->state == CHILD_NONE || c->killed)
		return;
	c->killed = true;
	if (c->why[0] == '\0')
		child_line(c->why, sizeof(c->why), why);
	child_set_state(c, CHILD_ENDING);
	if (c->pidfd >= 0) {
		(void)pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
		c->deadline_ns = 0;
	}
}

/* What one whose deadline has passed did not do. */
static const char *
child_overdue(enum child_state state)
{
	switch (state) {
	case CHILD_STARTING: return "no sign of life in 90 s";
	case CHILD_RESETTING: return "not reset in 90 s";
	case CHILD_CHECKING: return "no answer to a health check in 15 s";
	case CHILD_CAPTURING: return "not copied in 300 s";
	default: return "its worker closed its socket";
	}
}

bool
children_tick(struct children *table, uint64_t now)
{
	bool stuck = false;
	struct child *c;

	CHECK_OBJ(table, CHILDREN_MAGIC);
	for (uint32_t i = 0; i < table->nslots; i++) {
		c = &table->child[i];
		if (c->state == CHILD_NONE || c->deadline_ns == 0 || now < c->deadline_ns)
			continue;
		if (c->pid == 0)
			stuck = true;
		else
			child_kill(table, i, child_overdue(c->state));
	}
	return stuck;
}

unsigned
children_free(struct children *table, int timeout_ms)
{
	uint64_t end = now_ns() + (uint64_t)timeout_ms * 1000000u, now;
	unsigned left = 0;
	struct child *c;
	struct pollfd p;

	if (table == NULL)
		return 0;
	CHECK_OBJ(table, CHILDREN_MAGIC);
	for (uint32_t i = 0; i < table->nslots; i++)
		child_kill(table, i, "the pool ends");
	for (uint32_t i = 0; i < table->nslots; i++) {
		c = &table->child[i];
		child_no_socket(c);
		if (c->pidfd < 0)
			continue;
		now = now_ns();
		p = (struct pollfd){.fd = c->pidfd, .events = POLLIN};
		if (poll(&p, 1, now < end ? (int)((end - now) / 1000000) : 0) == 1)
			(void)waitpid(c->pid, NULL, __WALL);
		else
			left++;
		closep(&c->pidfd);
	}
	table->magic = 0;
	free(table);
	return left;
}

enum child_state
child_state(const struct children *table, uint32_t slot)
{
	CHECK_OBJ(table, CHILDREN_MAGIC);
	return slot < table->nslots ? table->child[slot].state : CHILD_NONE;
}

uint32_t
children_in(const struct children *table, enum child_state state)
{
	CHECK_OBJ(table, CHILDREN_MAGIC);
	return table->count[state];
}

uint32_t
children_total(const struct children *table)
{
	return table->nslots - children_in(table, CHILD_NONE);
}

uint32_t
children_starting(const struct children *table)
{
	return children_in(table, CHILD_SPAWNING) + children_in(table, CHILD_STARTING);
}
