/* SPDX-License-Identifier: MIT
 *
 * qemu_capture.c - writes down what a QEMU machine is: memory into a file, the
 * state of CPU and devices into another. Runs in a worker; owns the socket where
 * the state comes out and, for a while, a second QEMU.
 *
 * Memory that lies in a file (booted with machine_config.mem_fd) is there
 * already: stop, and migrate the rest to us (x-ignore-shared).
 *
 * Private memory (a machine started from a template) cannot be left out of a
 * migration. So it migrates whole into a second QEMU, which never runs the guest
 * and whose memory is the file to fill; that one then writes its state:
 *
 *   machine ── stop, migrate ──► copy (memory: to.mem_fd) ── migrate ──► to.state_fd
 *
 * The machine stands still from the first command on. Everything ends by the
 * deadline of a script or with a process, and captured is told once all has.
 */
#include "worker/qemu_machine.h"
#include "worker/qemu_sparse.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define CAPTURE_NS 60000000000ull /* for each of at most two scripts */

static void advance(struct machine *m);

/* --- the end ------------------------------------------------------------------------ */

static void
cap_fail(struct machine *m, int error, const char *why)
{
	struct qemu_capture *c = &m->cap;

	if (c->error != 0)
		return;
	c->error = error;
	(void)snprintf(c->why, sizeof(c->why), "%s", why);
}

/* Has the guest sent anything that the captured state no longer has? */
static bool
guest_spoke(const struct machine *m)
{
	char byte;

	return m->cap.spoke || recv(m->chan, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void
finish(struct machine *m)
{
	struct qemu_capture *c = &m->cap;
	int fd = c->to.mem_fd >= 0 ? c->to.mem_fd : m->mem_fd, r;

	if (c->error == 0 && guest_spoke(m))
		cap_fail(m, -EBUSY, "the guest sent something while it was captured");
	if (c->error == 0) {
		r = qemu_sparse(fd, (uint64_t)m->cfg.mem_mib << 20);
		if (r < 0)
			cap_fail(m, r, "cannot leave the zero pages out of the memory file");
	}
	closep(&c->sock);
	closep(&c->copy_chan);
	m->stage = QEMU_CAPTURED;
	m->events.captured(m->events.owner, c->error, c->error == 0 ? c->len : 0, c->why);
}

/* --- the state's way out --------------------------------------------------------------- */

static void
want_state(struct machine *m)
{
	loop_recv(m->loop, &m->cap.recv, m->cap.sock, m->cap.buf, sizeof(m->cap.buf));
}

static void
write_state(struct machine *m, size_t len)
{
	struct qemu_capture *c = &m->cap;
	char why[128];
	ssize_t n;

	if (c->len + len > QEMU_STATE_MAX) {
		cap_fail(m, -EFBIG, "QEMU's state has no end");
		return;
	}
	for (size_t at = 0; at < len; at += (size_t)n) {
		n = pwrite(c->to.state_fd, c->buf + at, len - at,
			   (off_t)(c->to.state_off + c->len + at));
		if (n <= 0) {
			(void)snprintf(why, sizeof(why), "cannot write the state: %s",
				       strerror(n < 0 ? errno : ENOSPC));
			cap_fail(m, n < 0 ? -errno : -ENOSPC, why);
			return;
		}
	}
	c->len += len;
}

static void
on_state(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res > 0 && m->cap.error == 0)
		write_state(m, (size_t)res);
	if (res > 0 && m->cap.error == 0)
		want_state(m);
	else
		m->cap.eof = true;
	advance(m);
}

/* Add to a script what makes QEMU write its state to us. */
static int
add_write(struct machine *m, struct qmp *q)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	m->cap.sock = pair[0];
	qmp_add(q, "migrate-set-capabilities", qemu_capabilities(true), -1);
	qmp_add(q, "getfd", json_pack("{s:s}", "fdname", "state"), pair[1]);
	qmp_add_migration(q, "migrate", json_pack("{s:s}", "uri", "fd:state"));
	m->cap.writes = true;
	return 0;
}

/* --- the copy --------------------------------------------------------------------------- */

static void
on_copy_done(void *owner, int error, const char *why)
{
	struct machine *m = owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (error == -EPIPE)
		qemu_child_kill(m->cap.copy, NULL); /* its end will say why */
	else if (error < 0)
		cap_fail(m, error, why);
	else if (m->cap.writes)
		m->cap.written = true;
	else
		m->cap.taken = true;
	advance(m);
}

static void
on_copy_ended(void *owner)
{
	struct machine *m = owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	/* When it fails by itself, its own words are the reason, not what came of it. */
	if (!m->cap.written && (m->cap.error == 0 || m->cap.copy->status.si_code == CLD_EXITED)) {
		m->cap.error = 0;
		cap_fail(m, -EIO, m->cap.copy->end);
	}
	advance(m);
}

/* Start the second QEMU; *far becomes the end where the machine's memory goes in. */
static int
start_copy(struct machine *m, int *far, char *err, size_t errlen)
{
	const struct qemu_child_events events = {on_copy_done, on_copy_ended, m};
	struct qemu_capture *c = &m->cap;
	struct qemu_args args = {.role = QEMU_COPY, .cfg = &m->cfg, .mem = c->to.mem_fd};
	int pair[2], r;
	char uri[32];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return fail(errno, err, errlen, "socketpair for the memory: %m");
	_cleanup_(closep) int near = pair[0];
	_cleanup_(closep) int incoming = pair[1];

	args.incoming = incoming;
	r = qemu_child_new(&c->copy, &args, &c->copy_chan, m->loop, &events, err, errlen);
	if (r < 0)
		return r;
	(void)snprintf(uri, sizeof(uri), "fd:%d", incoming);
	qmp_add(&c->copy->qmp, "migrate-set-capabilities", qemu_capabilities(false), -1);
	qmp_add_migration(&c->copy->qmp, "migrate-incoming", json_pack("{s:s}", "uri", uri));
	qmp_run(&c->copy->qmp, now_ns() + CAPTURE_NS);
	*far = steal_fd(&near);
	return 0;
}

static void
write_copy(struct machine *m)
{
	int r = add_write(m, &m->cap.copy->qmp);

	if (r < 0) {
		cap_fail(m, r, "no socket for the state");
		advance(m);
		return;
	}
	qmp_run(&m->cap.copy->qmp, now_ns() + CAPTURE_NS);
	want_state(m);
}

/* --- one capture -------------------------------------------------------------------------- */

static void
begin(struct machine *m)
{
	struct qmp *q = &m->child->qmp;
	char err[256];
	int far, r;

	qmp_add(q, "stop", NULL, -1);
	if (m->cap.to.mem_fd >= 0) {
		r = start_copy(m, &far, err, sizeof(err));
		if (r == 0) {
			qmp_add(q, "migrate-set-capabilities", qemu_capabilities(false), -1);
			/* Its default would take a second for 128 MiB. */
			qmp_add(q, "migrate-set-parameters",
				json_pack("{s:I}", "max-bandwidth", (json_int_t)1 << 40), -1);
			qmp_add(q, "getfd", json_pack("{s:s}", "fdname", "copy"), far);
			qmp_add_migration(q, "migrate", json_pack("{s:s}", "uri", "fd:copy"));
		}
	} else {
		r = add_write(m, q);
		(void)snprintf(err, sizeof(err), "no socket for the state");
		if (r == 0)
			want_state(m);
	}
	if (r < 0)
		cap_fail(m, r, err);
	qmp_run(q, now_ns() + CAPTURE_NS);
}

/* Do what can be done next, whatever has just ended. */
static void
advance(struct machine *m)
{
	struct qemu_capture *c = &m->cap;
	bool over = c->error != 0 || (c->written && c->eof);

	if (m->stage != QEMU_CAPTURES)
		return;
	if (!over) {
		if (c->copy != NULL && c->sent && c->taken && !c->writes)
			write_copy(m);
		return;
	}
	if (c->copy != NULL && !c->copy->ended)
		qemu_child_kill(c->copy, NULL);
	else if (m->child->qmp.running)
		return;
	else if (c->recv.armed)
		(void)shutdown(c->sock, SHUT_RDWR);
	else
		finish(m);
}

void
qemu_capture_done(struct machine *m, int error, const char *why)
{
	struct qemu_capture *c = &m->cap;

	if (error == -EPIPE)
		qemu_child_kill(m->child, NULL); /* its end will say why */
	else if (error < 0)
		cap_fail(m, error, why);
	else if (c->wait)
		begin(m);
	else if (c->copy == NULL)
		c->written = true;
	else
		c->sent = true;
	c->wait = false;
	advance(m);
}

void
qemu_capture_ended(struct machine *m)
{
	cap_fail(m, -EIO, m->child->end);
	advance(m);
}

static int
check_target(const struct machine *m, const struct machine_capture *to, char *err, size_t errlen)
{
	uint64_t size = (uint64_t)m->cfg.mem_mib << 20;
	struct stat st;

	if (to->mem_fd < 0 && m->mem_fd < 0)
		return fail(EINVAL, err, errlen,
			    "the machine's memory is private: it needs a file");
	if (to->mem_fd < 0)
		return 0;
	if (to->mem_off != 0)
		return fail(EINVAL, err, errlen, "QEMU writes memory to offset 0 only");
	if (fstat(to->mem_fd, &st) < 0 ||
	    ((uint64_t)st.st_size < size && ftruncate(to->mem_fd, (off_t)size) < 0))
		return fail(errno, err, errlen, "the file for the memory: %m");
	return 0;
}

/* Forget the capture before this one. */
static int
reset(struct machine *m, char *err, size_t errlen)
{
	struct qemu_capture *c = &m->cap;

	if (c->recv.armed || (c->copy != NULL && !qemu_child_idle(c->copy)))
		return fail(EBUSY, err, errlen, "the capture before has not quite ended");
	qemu_capture_fini(m);
	qemu_capture_init(m);
	return 0;
}

int
qemu_capture_begin(struct machine *m, const struct machine_capture *to, char *err, size_t errlen)
{
	int r;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (m->child->ended)
		return fail(EIO, err, errlen, "%s", m->child->end);
	if (m->stage != QEMU_RUNS && m->stage != QEMU_CONTINUES)
		return fail(EINVAL, err, errlen, "the machine does not run");
	if (m->out_len > 0 || m->in_off < m->in_len)
		return fail(EBUSY, err, errlen, "bytes are under way in the guest channel");
	r = reset(m, err, errlen);
	if (r == 0)
		r = check_target(m, to, err, errlen);
	if (r < 0)
		return r;
	m->cap.to = *to;
	m->stage = QEMU_CAPTURES;
	m->cap.wait = m->child->qmp.running;
	if (!m->cap.wait)
		begin(m);
	return 0;
}

void
qemu_capture_init(struct machine *m)
{
	struct qemu_capture *c = &m->cap;

	memset(c, 0, offsetof(struct qemu_capture, buf));
	c->copy_chan = c->sock = -1;
	loop_op_init(&c->recv, on_state, m);
}

void
qemu_capture_fini(struct machine *m)
{
	qemu_child_free(m->cap.copy);
	m->cap.copy = NULL;
	closep(&m->cap.sock);
	closep(&m->cap.copy_chan);
}
