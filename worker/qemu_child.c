/* SPDX-License-Identifier: MIT
 *
 * qemu_child.c - one QEMU process. Runs in a worker; owns the process, its
 * console socket and its monitor.
 *
 * The child dies with its worker (PR_SET_PDEATHSIG). Its stderr goes to the
 * console socket, so that QEMU's own complaint is the tail of the console log.
 */
#include "worker/qemu_child.h"
#include "worker/qemu.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CHILD_MAGIC 0x71636864u

/* --- the console log ---------------------------------------------------------- */

static void
log_append(struct qemu_child *c, const char *buf, size_t len)
{
	if (c->log_len + len > sizeof(c->text)) {
		size_t drop = c->log_len + len - sizeof(c->text);

		memmove(c->text, c->text + drop, c->log_len - drop);
		c->log_len -= drop;
	}
	memcpy(c->text + c->log_len, buf, len);
	c->log_len += len;
}

static bool
log_has(const struct qemu_child *c, const char *what)
{
	return memmem(c->text, c->log_len, what, strlen(what)) != NULL;
}

static bool
printable(char c)
{
	return c >= ' ' && c <= '~';
}

size_t
qemu_child_console(struct qemu_child *c, char *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(c, CHILD_MAGIC);
	if (len == 0)
		return 0;
	n = MIN(len - 1, c->log_len);
	for (size_t i = 0; i < n; i++) {
		char ch = c->text[c->log_len - n + i];

		buf[i] = (char)(ch == '\n' || ch == '\t' || printable(ch) ? ch : '?');
	}
	buf[n] = '\0';
	return n;
}

/* --- the end -------------------------------------------------------------------- */

/* QEMU's first complaint says what is wrong, the later ones what came of it. */
static bool
complaint(const struct qemu_child *c, char *out, size_t outlen)
{
	static const char prefix[] = QEMU_PROGRAM ": ";
	const char *p = c->text, *end = c->text + c->log_len;
	size_t n = 0;

	while ((p = memmem(p, (size_t)(end - p), prefix, sizeof(prefix) - 1)) != NULL) {
		p += sizeof(prefix) - 1;
		if ((size_t)(end - p) < 8 || memcmp(p, "warning:", 8) != 0)
			break;
	}
	if (p == NULL)
		return false;
	for (; p < end && *p != '\n' && *p != '\r' && n + 1 < outlen; p++)
		out[n++] = (char)(printable(*p) ? *p : '?');
	out[n] = '\0';
	return n > 0;
}

/* QEMU's exit says little; the guest's last words say which end it was. */
static void
name_end(struct qemu_child *c)
{
	const siginfo_t *si = &c->status;
	char text[200];

	if (c->end[0] != '\0')
		return;
	if (si->si_code != CLD_EXITED)
		(void)snprintf(c->end, sizeof(c->end), "QEMU killed by signal %d", si->si_status);
	else if (si->si_status != 0 && complaint(c, text, sizeof(text)))
		(void)snprintf(c->end, sizeof(c->end), "QEMU failed: %s", text);
	else if (si->si_status != 0)
		(void)snprintf(c->end, sizeof(c->end), "QEMU failed with status %d", si->si_status);
	else
		(void)snprintf(c->end, sizeof(c->end), "%s",
			       log_has(c, "Kernel panic")	  ? "guest panic"
			       : log_has(c, "reboot: Restarting") ? "guest reboot"
			       : log_has(c, "reboot: Power down") ? "guest shutdown"
								  : "guest reset");
}

/* Take what the child wrote last; it has ended, so this cannot block. */
static void
end_child(struct qemu_child *c)
{
	ssize_t n;

	if (c->ended)
		return;
	while ((n = recv(c->console, c->log_buf, sizeof(c->log_buf), MSG_DONTWAIT)) > 0)
		log_append(c, c->log_buf, (size_t)n);
	c->ended = true;
	name_end(c);
	qmp_hang_up(&c->qmp, -EIO, c->end);
	c->events.ended(c->events.owner);
}

static void
on_exit_child(struct loop_op *op, int res)
{
	struct qemu_child *c = op->owner;

	CHECK_OBJ(c, CHILD_MAGIC);
	if (res < 0 || c->gone || waitid(P_PID, (id_t)c->pid, &c->status, WEXITED | WNOHANG) < 0 ||
	    c->status.si_pid == 0)
		return;
	c->gone = true;
	loop_cancel(c->loop, &c->exit);
	/* A read in flight may hold the last words: they are whole when it is over. */
	if (c->log.armed)
		loop_cancel(c->loop, &c->log);
	else
		end_child(c);
}

static void
on_log(struct loop_op *op, int res)
{
	struct qemu_child *c = op->owner;

	CHECK_OBJ(c, CHILD_MAGIC);
	if (res > 0)
		log_append(c, c->log_buf, (size_t)res);
	if (c->gone)
		end_child(c);
	else if (res > 0)
		loop_recv(c->loop, &c->log, c->console, c->log_buf, sizeof(c->log_buf));
}

void
qemu_child_kill(struct qemu_child *c, const char *why)
{
	CHECK_OBJ(c, CHILD_MAGIC);
	if (c->gone)
		return;
	if (why != NULL && c->end[0] == '\0')
		(void)snprintf(c->end, sizeof(c->end), "%s", why);
	(void)kill(c->pid, SIGKILL);
}

bool
qemu_child_idle(const struct qemu_child *c)
{
	CHECK_OBJ(c, CHILD_MAGIC);
	return c->ended && !c->exit.armed && !c->log.armed && qmp_idle(&c->qmp);
}

void
qemu_child_free(struct qemu_child *c)
{
	if (c == NULL)
		return;
	CHECK_OBJ(c, CHILD_MAGIC);
	if (c->pid > 0 && !c->gone) {
		(void)kill(c->pid, SIGKILL);
		(void)waitpid(c->pid, NULL, 0);
	}
	qmp_fini(&c->qmp);
	closep(&c->pidfd);
	closep(&c->console);
	c->magic = 0;
	free(c);
}

/* --- the start --------------------------------------------------------------------- */

/* In the child: only what args names and stdio survive. */
static void __attribute__((noreturn)) exec_qemu(const struct qemu_args *a, pid_t parent)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fds[5];
	unsigned n = qemu_args_fds(a, fds);
	sigset_t none;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (getppid() != parent || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
	    dup2(a->console, 2) < 0)
		_exit(126);
	for (unsigned i = 0; i < n; i++)
		if (fcntl(fds[i], F_SETFD, 0) < 0)
			_exit(126);
	(void)execvp(a->argv[0], (char *const *)(uintptr_t)a->argv);
	_exit(127);
}

/* The sockets: ours into the child and *chan, the others into args and far. */
static int
make_sockets(struct qemu_child *c, struct qemu_args *a, int *chan, int far[3], char *err,
	     size_t errlen)
{
	int *const near[3] = {chan, &c->console, &c->qmp.fd}, pair[2];
	int *const named[3] = {&a->chan, &a->console, &a->qmp};

	for (int i = 0; i < 3; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return fail(errno, err, errlen, "sockets for QEMU: %m");
		*near[i] = pair[0];
		*named[i] = far[i] = pair[1];
	}
	return 0;
}

static int
fork_qemu(struct qemu_child *c, struct qemu_args *a, char *err, size_t errlen)
{
	pid_t parent = getpid();
	int r = qemu_args_make(a, err, errlen);

	if (r < 0)
		return r;
	c->pid = fork();
	if (c->pid == 0)
		exec_qemu(a, parent);
	if (c->pid < 0)
		return fail(errno, err, errlen, "cannot fork for QEMU: %m");
	c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	if (c->pidfd < 0)
		return fail(errno, err, errlen, "pidfd_open for QEMU: %m");
	return 0;
}

static int
spawn(struct qemu_child *c, struct qemu_args *a, int *chan, char *err, size_t errlen)
{
	int far[3] = {-1, -1, -1};
	int r = make_sockets(c, a, chan, far, err, errlen);

	if (r == 0)
		r = fork_qemu(c, a, err, errlen);
	for (size_t i = 0; i < ARRAY_SIZE(far); i++)
		closep(&far[i]);
	return r;
}

int
qemu_child_new(struct qemu_child **out, struct qemu_args *a, int *chan, struct loop *loop,
	       const struct qemu_child_events *events, char *err, size_t errlen)
{
	struct qemu_child *c = calloc(1, sizeof(*c));
	int r;

	if (c == NULL)
		return fail(ENOMEM, err, errlen, "out of memory for a QEMU");
	c->magic = CHILD_MAGIC;
	c->pidfd = c->console = -1;
	c->loop = loop;
	c->events = *events;
	loop_op_init(&c->exit, on_exit_child, c);
	loop_op_init(&c->log, on_log, c);
	qmp_init(&c->qmp, loop, -1, events->done, events->owner);
	*chan = -1;
	r = spawn(c, a, chan, err, errlen);
	if (r < 0) {
		closep(chan);
		qemu_child_free(c);
		return r;
	}
	loop_watch(loop, &c->exit, c->pidfd);
	loop_recv(loop, &c->log, c->console, c->log_buf, sizeof(c->log_buf));
	*out = c;
	return 0;
}
