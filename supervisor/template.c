/* SPDX-License-Identifier: MIT
 *
 * template.c - has the template made, keeps it, hands it on. Runs in vmpoold; owns
 * the builder's pidfd and control socket, and the template's descriptors.
 */
#include "supervisor/template.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "shm/ctl.h"

#define TEMPLATE_MAGIC 0x7e3b1a7eu
#define BUILD_LIMIT_NS 600000000000ull /* the builder's own deadlines are shorter */

struct template
{
	unsigned magic;
	struct evloop *loop;
	struct forker *forker;
	struct template_ops ops;
	bool building, told; /* told: the builder has said TEMPLATE or FAILED */
	pid_t pid;	     /* of the builder, 0 = not known yet */
	int pidfd, sock;
	uint64_t deadline_ns;
	struct ev_source src;
	int fds[2]; /* memory, state; -1: there is no template */
	uint64_t took_ns;
	struct ctl_template tmpl;
	int error;
	char text[CTL_TEXT * 3];
};

int
template_new(struct template **out, struct evloop *loop, struct forker *forker,
	     const struct template_ops *ops)
{
	struct template *t = calloc(1, sizeof(*t));

	*out = t;
	if (t == NULL)
		return -ENOMEM;
	t->magic = TEMPLATE_MAGIC;
	t->loop = loop;
	t->forker = forker;
	t->ops = *ops;
	t->pidfd = t->sock = t->fds[0] = t->fds[1] = -1;
	return 0;
}

/* --- handing on ------------------------------------------------------------------------ */

static int
template_hand_on(struct template *t)
{
	return t->building || t->fds[0] < 0 ? -ENOENT
					    : forker_template(t->forker, &t->tmpl, t->fds);
}

/* --- the builder -------------------------------------------------------------------------- */

static void
template_no_socket(struct template *t)
{
	if (t->sock < 0)
		return;
	evloop_del(t->loop, &t->src);
	closep(&t->sock);
}

/* The builder is no more, or never was. */
static void
template_over(struct template *t, const char *why)
{
	struct child_end end = {.pid = t->pid, .error = t->error};

	template_no_socket(t);
	closep(&t->pidfd);
	t->pid = 0;
	t->building = false;
	if (t->fds[0] >= 0) {
		/* A fork server that has ended meanwhile gets it when it is up again. */
		(void)!template_hand_on(t);
		t->ops.ready(t->ops.arg, t->text, t->took_ns);
		return;
	}
	(void)snprintf(end.why, sizeof(end.why), "%.*s", (int)strcspn(t->text, "\n"), t->text);
	if (end.why[0] == '\0')
		(void)snprintf(end.why, sizeof(end.why), "%s", why);
	t->ops.failed(t->ops.arg, &end, t->text);
}

/* One message of the builder: 0, -EAGAIN, or an error that ends the conversation. */
static int
template_message(struct template *t)
{
	struct worker_msg msg;
	int fds[2] = {-1, -1};
	int r = ctl_recv(t->sock, &msg, sizeof(msg), fds, 2);

	if (r < 0)
		return r;
	msg.text[sizeof(msg.text) - 1] = '\0';
	if (msg.magic == CTL_MAGIC && !t->told && msg.kind == WORKER_TEMPLATE && fds[1] >= 0) {
		t->fds[0] = fds[0];
		t->fds[1] = fds[1];
		t->tmpl = msg.tmpl;
		t->took_ns = msg.took_ns;
	} else {
		closep(&fds[0]);
		closep(&fds[1]);
		if (msg.magic != CTL_MAGIC || t->told || msg.kind != WORKER_FAILED ||
		    msg.error >= 0)
			return -EPROTO;
		t->error = msg.error;
	}
	t->told = true;
	memcpy(t->text, msg.text, sizeof(t->text));
	return 0;
}

static void
template_kill(struct template *t)
{
	if (t->pidfd >= 0)
		(void)pidfd_send_signal(t->pidfd, SIGKILL, NULL, 0);
}

static void
template_readable(void *arg, uint32_t events)
{
	struct template *t = arg;
	int r;

	CHECK_OBJ(t, TEMPLATE_MAGIC);
	(void)events;
	r = template_message(t);
	if (r == 0 || r == -EAGAIN)
		return;
	/* Its end is reported by SIGCHLD, and tells the rest. */
	template_no_socket(t);
	template_kill(t);
}

static int
template_ask(struct template *t)
{
	_cleanup_(closep) int theirs = -1;
	int r = ctl_pair(&t->sock, &theirs);

	t->src = (struct ev_source){.fd = t->sock, .ready = template_readable, .arg = t};
	if (r == 0)
		r = evloop_add(t->loop, &t->src, EPOLLIN);
	if (r < 0) {
		closep(&t->sock);
		return r;
	}
	return forker_build(t->forker, theirs);
}

bool
template_want(struct template *t)
{
	int r;

	CHECK_OBJ(t, TEMPLATE_MAGIC);
	/* What the builder has sent counts once it has ended, and has been handed on. */
	if (t->building || t->fds[0] >= 0)
		return !t->building;
	t->building = true;
	t->told = false;
	t->error = 0;
	t->text[0] = '\0';
	t->deadline_ns = now_ns() + BUILD_LIMIT_NS;
	r = template_ask(t);
	if (r == -ENOTCONN) {
		/* No fork server: it will be asked for again when there is one. */
		template_no_socket(t);
		t->building = false;
	} else if (r < 0) {
		t->error = r;
		template_over(t, strerror(-r));
	}
	return false;
}

/* The builder has ended: its last words are still in the socket. */
static void
template_end(struct template *t, const char *how)
{
	while (t->sock >= 0 && template_message(t) == 0)
		continue;
	template_over(t, how);
}

void
template_spawned(struct template *t, pid_t pid, int pidfd, int error)
{
	siginfo_t si;

	CHECK_OBJ(t, TEMPLATE_MAGIC);
	if (!t->building || t->pid != 0) {
		if (pidfd >= 0)
			(void)pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
		closep(&pidfd);
		return;
	}
	if (error < 0) {
		t->error = error;
		template_over(t, strerror(-error));
		return;
	}
	t->pid = pid;
	t->pidfd = pidfd;
	/* It may have been reaped before it was known here. */
	if (waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 &&
	    errno == ECHILD)
		template_end(t, "the process that makes the template ended");
}

bool
template_ended(struct template *t, const siginfo_t *si)
{
	char how[128];

	CHECK_OBJ(t, TEMPLATE_MAGIC);
	if (t->pid == 0 || si->si_pid != t->pid)
		return false;
	(void)snprintf(how, sizeof(how), "the process that makes the template ended (%s %d)",
		       si->si_code == CLD_EXITED ? "status" : "signal", si->si_status);
	template_end(t, how);
	return true;
}

void
template_forker_down(struct template *t, const char *why)
{
	CHECK_OBJ(t, TEMPLATE_MAGIC);
	if (t->building && t->pid == 0)
		template_over(t, why);
}

void
template_forker_up(struct template *t)
{
	CHECK_OBJ(t, TEMPLATE_MAGIC);
	(void)!template_hand_on(t);
}

void
template_tick(struct template *t, uint64_t now)
{
	CHECK_OBJ(t, TEMPLATE_MAGIC);
	if (t->building && now >= t->deadline_ns)
		template_kill(t);
}

void
template_free(struct template *t, int timeout_ms)
{
	struct pollfd p;

	if (t == NULL)
		return;
	CHECK_OBJ(t, TEMPLATE_MAGIC);
	template_no_socket(t);
	template_kill(t);
	p = (struct pollfd){.fd = t->pidfd, .events = POLLIN};
	if (t->pidfd >= 0 && poll(&p, 1, timeout_ms) == 1)
		(void)waitpid(t->pid, NULL, __WALL);
	closep(&t->pidfd);
	closep(&t->fds[0]);
	closep(&t->fds[1]);
	t->magic = 0;
	free(t);
}
