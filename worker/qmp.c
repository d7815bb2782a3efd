/* SPDX-License-Identifier: MIT
 *
 * qmp.c - the protocol of QEMU's monitor. Runs in a worker; owns the socket.
 *
 * Greeting, qmp_capabilities, then one command at a time. Commands are short and
 * QEMU always reads them, so they are sent at once; a socket that does not take
 * one whole is an error, not a reason to wait.
 *
 * How a step fails: QEMU answers with an error (its own words are the reason), a
 * migration ends as failed (then query-migrate is asked for the reason), the
 * deadline passes, QEMU hangs up, or it sends what is no QMP.
 */
#include "worker/qmp.h"

#include <string.h>
#include <sys/socket.h>

#define QMP_MAGIC 0x716d7031u

/* --- the end of a script --------------------------------------------------------- */

static void
drop_steps(struct qmp *q)
{
	for (unsigned i = 0; i < q->steps; i++) {
		json_decref(q->step[i].command);
		closep(&q->step[i].fd);
	}
	q->steps = q->at = 0;
	q->incomplete = false;
}

static void
finish(struct qmp *q, int error, const char *why)
{
	if (!q->running)
		return;
	q->running = false;
	loop_cancel(q->loop, &q->timer);
	drop_steps(q);
	q->done(q->owner, error, why);
}

void
qmp_hang_up(struct qmp *q, int error, const char *why)
{
	CHECK_OBJ(q, QMP_MAGIC);
	if (!q->hung_up && q->fd >= 0)
		(void)shutdown(q->fd, SHUT_RDWR); /* ends the receive in flight, too */
	q->hung_up = true;
	finish(q, error, why);
}

static void
broken(struct qmp *q, const char *what)
{
	char why[128];

	(void)snprintf(why, sizeof(why), "QEMU's monitor %s", what);
	qmp_hang_up(q, -EPROTO, why);
}

static const char *
command_name(const struct qmp *q)
{
	if (!q->negotiated)
		return "qmp_capabilities";
	if (q->asking || q->at >= q->steps)
		return "query-migrate";
	return json_string_value(json_object_get(q->step[q->at].command, "execute"));
}

/* --- sending ---------------------------------------------------------------------- */

/* One message, with a descriptor beside it if fd >= 0. 0 or -errno. */
static int
send_text(struct qmp *q, const char *text, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	n = sendmsg(q->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EAGAIN;
}

static void
send_command(struct qmp *q, const json_t *command, int fd)
{
	_cleanup_(freep) char *text = json_dumps(command, JSON_COMPACT);
	int r = text != NULL ? send_text(q, text, strlen(text), fd) : -ENOMEM;
	char why[128];

	q->waiting = true;
	if (r == 0)
		return;
	(void)snprintf(why, sizeof(why), "cannot send %s to QEMU: %s", command_name(q),
		       strerror(-r));
	qmp_hang_up(q, r, why);
}

static void
send_plain(struct qmp *q, const char *name)
{
	json_t *command = json_pack("{s:s}", "execute", name);

	send_command(q, command, -1);
	json_decref(command);
}

/* Send the command of the present step, or end the script behind its last one. */
static void
begin_step(struct qmp *q)
{
	struct qmp_step *s = &q->step[q->at];

	if (q->at == q->steps) {
		finish(q, 0, NULL);
		return;
	}
	q->migration = QMP_MIGRATION_OPEN;
	send_command(q, s->command, s->fd);
	closep(&s->fd);
}

/* --- receiving -------------------------------------------------------------------- */

/* The step goes on while its command or its migration does. */
static void
check_step(struct qmp *q)
{
	if (!q->running || q->waiting)
		return;
	if (q->step[q->at].migrates && q->migration == QMP_MIGRATION_OPEN)
		return;
	if (q->step[q->at].migrates && q->migration == QMP_MIGRATION_FAILED) {
		q->asking = true;
		send_plain(q, "query-migrate");
		return;
	}
	q->at++;
	begin_step(q);
}

static void
on_event(struct qmp *q, const json_t *msg)
{
	const char *name = json_string_value(json_object_get(msg, "event"));
	const char *status =
	    json_string_value(json_object_get(json_object_get(msg, "data"), "status"));

	if (name == NULL || strcmp(name, "MIGRATION") != 0 || status == NULL)
		return;
	if (strcmp(status, "completed") == 0)
		q->migration = QMP_MIGRATION_DONE;
	else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0)
		q->migration = QMP_MIGRATION_FAILED;
	check_step(q);
}

static void
on_return(struct qmp *q, const json_t *value)
{
	const char *desc = json_string_value(json_object_get(value, "error-desc"));
	char why[256];

	if (q->asking) {
		q->asking = false;
		(void)snprintf(why, sizeof(why), "QEMU's migration failed: %s",
			       desc != NULL ? desc : "it does not say why");
		finish(q, -EIO, why);
	} else if (!q->negotiated) {
		q->negotiated = true;
		begin_step(q);
	} else {
		check_step(q);
	}
}

static void
on_error(struct qmp *q, const json_t *error)
{
	const char *desc = json_string_value(json_object_get(error, "desc"));
	const char *name = command_name(q);
	char why[256];

	(void)snprintf(why, sizeof(why), "QEMU refused %s: %s", name != NULL ? name : "a command",
		       desc != NULL ? desc : "it does not say why");
	q->asking = false;
	finish(q, -EIO, why);
}

static void
on_message(struct qmp *q, const json_t *msg)
{
	const json_t *value = json_object_get(msg, "return"),
		     *error = json_object_get(msg, "error");

	if (json_object_get(msg, "QMP") != NULL && !q->greeted) {
		q->greeted = true;
		send_plain(q, "qmp_capabilities");
	} else if (json_object_get(msg, "event") != NULL && q->greeted) {
		on_event(q, msg);
	} else if ((value != NULL || error != NULL) && q->waiting) {
		q->waiting = false;
		if (value != NULL)
			on_return(q, value);
		else
			on_error(q, error);
	} else {
		broken(q, "sent what nobody asked for");
	}
}

/* Act on every whole line; what is left of the last one moves to the front. */
static void
take_lines(struct qmp *q)
{
	char *line = q->in, *end = q->in + q->have, *nl;

	q->taking = true;
	while (!q->hung_up && (nl = memchr(line, '\n', (size_t)(end - line))) != NULL) {
		json_error_t where;
		json_t *msg = json_loadb(line, (size_t)(nl - line), 0, &where);

		if (json_is_object(msg))
			on_message(q, msg);
		else
			broken(q, "sent what is not JSON");
		json_decref(msg);
		line = nl + 1;
	}
	q->have = (size_t)(end - line);
	memmove(q->in, line, q->have);
	q->taking = false;
	if (q->have == sizeof(q->in))
		broken(q, "sent a line without end");
}

static void
want_recv(struct qmp *q)
{
	if (!q->recv.armed && !q->taking && !q->hung_up)
		loop_recv(q->loop, &q->recv, q->fd, q->in + q->have, sizeof(q->in) - q->have);
}

static void
on_recv(struct loop_op *op, int res)
{
	struct qmp *q = op->owner;

	CHECK_OBJ(q, QMP_MAGIC);
	if (q->hung_up)
		return;
	if (res <= 0) {
		qmp_hang_up(q, -EPIPE, "QEMU has closed its monitor");
		return;
	}
	q->have += (size_t)res;
	take_lines(q);
	want_recv(q);
}

static void
on_timer(struct loop_op *op, int res)
{
	struct qmp *q = op->owner;
	const char *name;
	char why[128];

	CHECK_OBJ(q, QMP_MAGIC);
	if (!q->running)
		return;
	if (q->hung_up) {
		finish(q, -EPIPE, "QEMU has closed its monitor");
		return;
	}
	if (q->incomplete) {
		finish(q, -ENOMEM, "out of memory for a command to QEMU");
		return;
	}
	if (res != -ETIME) { /* cancelled with the script before this one */
		loop_timer(q->loop, &q->timer, q->timer.due_ns);
		return;
	}
	name = command_name(q);
	(void)snprintf(why, sizeof(why), "QEMU did not complete %s in time",
		       !q->greeted || name == NULL ? "its start" : name);
	/* Whatever it says later would be taken for the answer to another command. */
	qmp_hang_up(q, -ETIMEDOUT, why);
}

/* --- scripts ----------------------------------------------------------------------- */

void
qmp_init(struct qmp *q, struct loop *loop, int fd, qmp_done_fn *done, void *owner)
{
	memset(q, 0, offsetof(struct qmp, in));
	q->magic = QMP_MAGIC;
	q->loop = loop;
	q->fd = fd;
	q->done = done;
	q->owner = owner;
	loop_op_init(&q->recv, on_recv, q);
	loop_op_init(&q->timer, on_timer, q);
}

void
qmp_fini(struct qmp *q)
{
	CHECK_OBJ(q, QMP_MAGIC);
	drop_steps(q);
	closep(&q->fd);
	q->magic = 0;
}

static void
add(struct qmp *q, const char *name, json_t *arguments, int fd, bool migrates)
{
	json_t *command = arguments != NULL
			      ? json_pack("{s:s, s:o}", "execute", name, "arguments", arguments)
			      : json_pack("{s:s}", "execute", name);

	CHECK_OBJ(q, QMP_MAGIC);
	assert(!q->running);
	if (command == NULL || q->steps == QMP_STEPS) {
		q->incomplete = true;
		json_decref(command);
		closep(&fd);
		return;
	}
	q->step[q->steps++] = (struct qmp_step){command, fd, migrates};
}

void
qmp_add(struct qmp *q, const char *name, json_t *arguments, int fd)
{
	add(q, name, arguments, fd, false);
}

void
qmp_add_migration(struct qmp *q, const char *name, json_t *arguments)
{
	add(q, name, arguments, -1, true);
}

void
qmp_run(struct qmp *q, uint64_t due_ns)
{
	CHECK_OBJ(q, QMP_MAGIC);
	assert(!q->running);
	q->running = true;
	q->at = 0;
	/* A script that cannot run ends from the loop as well: its deadline has passed. */
	loop_timer(q->loop, &q->timer, q->hung_up || q->incomplete ? 1 : due_ns);
	if (q->hung_up || q->incomplete)
		return;
	want_recv(q);
	if (q->negotiated)
		begin_step(q);
}

void
qmp_set_due(struct qmp *q, uint64_t due_ns)
{
	CHECK_OBJ(q, QMP_MAGIC);
	if (q->running && !q->hung_up && !q->incomplete)
		loop_timer(q->loop, &q->timer, due_ns);
}

bool
qmp_idle(const struct qmp *q)
{
	CHECK_OBJ(q, QMP_MAGIC);
	return !q->recv.armed && !q->timer.armed;
}
