/* SPDX-License-Identifier: MIT
 *
 * qemu_template.c - a QEMU machine that starts from a template. Runs in a
 * worker; owns the socket through which the state goes into QEMU.
 *
 * Memory is a private mapping of the template's file: all machines share the
 * pages that they have not written. The device state goes in as an incoming
 * migration, which leaves out (x-ignore-shared) the memory that is there
 * already. QEMU takes a state once in its life and needs none of the guest's
 * time for it, so that is done ahead, by start; load only lets the machine run.
 *
 * How it fails: the memory is not of the machine's size (refused here), QEMU
 * refuses an option or the state (it ends, its complaint is the reason), the
 * monitor answers with an error or not in time (QEMU is ended, with the reason).
 */
#include "worker/qemu_machine.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define PREPARE_NS 30000000000ull
#define CONTINUE_NS 10000000000ull

json_t *
qemu_capabilities(bool ignore)
{
	return json_pack("{s:[{s:s, s:b}, {s:s, s:b}]}", "capabilities", "capability", "events",
			 "state", 1, "capability", "x-ignore-shared", "state", (int)ignore);
}

/* --- the state's way in ------------------------------------------------------------ */

static void
end_feed(struct qemu_feed *f)
{
	closep(&f->sock);
	closep(&f->state_fd);
}

static void
feed_more(struct machine *m)
{
	struct qemu_feed *f = &m->feed;

	while (f->have == 0 && f->off < f->end) {
		ssize_t n =
		    pread(f->state_fd, f->buf, MIN(sizeof(f->buf), f->end - f->off), (off_t)f->off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			qemu_child_kill(m->child, n == 0 ? "the template's state is truncated"
							 : "the template's state cannot be read");
			end_feed(f);
			return;
		}
		f->off += (uint64_t)n;
		f->have = (size_t)n;
	}
	if (f->have > 0)
		loop_send(m->loop, &f->send, f->sock, f->buf, f->have);
	else
		end_feed(f); /* QEMU notices if it was too short */
}

static void
on_feed(struct loop_op *op, int res)
{
	struct machine *m = op->owner;
	struct qemu_feed *f = &m->feed;
	size_t n;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res <= 0) {
		end_feed(f); /* QEMU reads no further: its end, or its answer, tells why */
		return;
	}
	n = MIN((size_t)res, f->have);
	f->have -= n;
	memmove(f->buf, f->buf + n, f->have);
	feed_more(m);
}

/* --- start ------------------------------------------------------------------------- */

static int
check_template(const struct machine *m, const struct machine_template *t, char *err, size_t errlen)
{
	uint64_t size = (uint64_t)m->cfg.mem_mib << 20;
	struct stat st;

	if (t->mem_off != 0)
		return fail(EINVAL, err, errlen,
			    "QEMU maps a template's memory from offset 0 only");
	if (fstat(t->mem_fd, &st) < 0)
		return fail(errno, err, errlen, "the template's memory: %m");
	if ((uint64_t)st.st_size != size)
		return fail(EINVAL, err, errlen,
			    "the template has %llu MiB of memory, the machine %u MiB",
			    (unsigned long long)st.st_size >> 20, m->cfg.mem_mib);
	if (t->state_len == 0 || t->state_len > QEMU_STATE_MAX)
		return fail(EINVAL, err, errlen, "a template's state of %llu bytes is none",
			    (unsigned long long)t->state_len);
	return 0;
}

/* Keep the state, and make the socket it goes through; *far is QEMU's end. */
static int
open_feed(struct machine *m, const struct machine_template *t, int *far, char *err, size_t errlen)
{
	struct qemu_feed *f = &m->feed;
	int pair[2];

	f->off = t->state_off;
	f->end = t->state_off + t->state_len;
	f->state_fd = fcntl(t->state_fd, F_DUPFD_CLOEXEC, 0);
	if (f->state_fd < 0)
		return fail(errno, err, errlen, "the template's state: %m");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return fail(errno, err, errlen, "socketpair for the state: %m");
	f->sock = pair[0];
	*far = pair[1];
	return 0;
}

static void
prepare(struct machine *m, int incoming)
{
	struct qmp *q = &m->child->qmp;
	char uri[32];

	(void)snprintf(uri, sizeof(uri), "fd:%d", incoming);
	m->stage = QEMU_PREPARES;
	qmp_add(q, "migrate-set-capabilities", qemu_capabilities(true), -1);
	qmp_add_migration(q, "migrate-incoming", json_pack("{s:s}", "uri", uri));
	qmp_run(q, now_ns() + PREPARE_NS);
	feed_more(m);
}

int
qemu_template_start(struct machine *m, const struct machine_template *t, char *err, size_t errlen)
{
	struct qemu_args args = {.role = QEMU_TEMPLATE, .cfg = &m->cfg, .mem = t->mem_fd};
	struct qemu_child_events events = qemu_machine_events;
	_cleanup_(closep) int far = -1;
	int r = check_template(m, t, err, errlen);

	m->templated = true;
	qemu_memory_of(m, t);
	loop_op_init(&m->feed.send, on_feed, m);
	if (r == 0)
		r = open_feed(m, t, &far, err, errlen);
	if (r < 0)
		return r;
	args.incoming = far;
	events.owner = m;
	r = qemu_child_new(&m->child, &args, &m->chan, m->loop, &events, err, errlen);
	if (r == 0)
		prepare(m, far);
	return r;
}

void
qemu_template_fini(struct machine *m)
{
	end_feed(&m->feed);
}

/* --- load, resume ------------------------------------------------------------------- */

static void
go_on(struct machine *m)
{
	m->stage = QEMU_CONTINUES;
	qmp_add(&m->child->qmp, "cont", NULL, -1);
	qmp_run(&m->child->qmp, now_ns() + CONTINUE_NS);
}

void
qemu_template_done(struct machine *m, int error, const char *why)
{
	if (error == -EPIPE)
		qemu_child_kill(m->child, NULL); /* it is ending, and has said why */
	else if (error < 0)
		qemu_child_kill(m->child, why);
	else if (m->stage == QEMU_CONTINUES)
		m->stage = QEMU_RUNS;
	else if (m->loaded)
		go_on(m);
	else
		m->stage = QEMU_PREPARED;
}

int
qemu_template_load(struct machine *m, uint64_t *dirty_pages, char *err, size_t errlen)
{
	CHECK_OBJ(m, QEMU_MAGIC);
	*dirty_pages = 0;
	if (!m->templated)
		return fail(EINVAL, err, errlen, "the machine was not started from a template");
	if (m->loaded)
		return fail(EOPNOTSUPP, err, errlen, "QEMU takes a template's state only once");
	if (m->child->ended)
		return fail(EIO, err, errlen, "%s", m->child->end);
	m->loaded = true;
	/* The owner of a shell need not run the loop before: its patience begins here. */
	if (m->stage == QEMU_PREPARED)
		go_on(m);
	else
		qmp_set_due(&m->child->qmp, now_ns() + PREPARE_NS);
	return 0;
}

int
qemu_template_resume(struct machine *m, char *err, size_t errlen)
{
	CHECK_OBJ(m, QEMU_MAGIC);
	if (m->child->ended)
		return fail(EIO, err, errlen, "%s", m->child->end);
	if (m->stage != QEMU_CAPTURED)
		return fail(EINVAL, err, errlen, "the machine does not stand still");
	go_on(m);
	return 0;
}
