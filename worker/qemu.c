/* SPDX-License-Identifier: MIT
 *
 * qemu.c - a QEMU child process (software emulation) as a worker's machine,
 * for hosts whose KVM cannot run Linux. Runs in a worker; owns the child, the
 * two sockets to it (guest channel, console) and their buffers.
 *
 * The child dies with its worker (PR_SET_PDEATHSIG). Its stderr goes to the
 * console socket, so that QEMU's own complaint is the tail of the console log.
 */
#include "worker/qemu.h"
#include "worker/machine.h"
#include "worker/tsc.h"

#include "kvm/proto.h"
#include "kvm/vm.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define QEMU_MAGIC 0x71656d75u
#define QEMU_BUF (64u << 10)
#define QEMU_CONSOLE (16u << 10)
#define QEMU_TB_MIB 32 /* translated code kept per VM */
/* Emulated `rep movsb` moves a byte at a time: keep the guest from preferring it. */
#define QEMU_CPU "max,-erms"

struct machine {
	unsigned magic;
	pid_t pid;
	int pidfd, chan, console;
	struct loop *loop;
	struct machine_events events;
	struct loop_op exit, recv, send, log;
	bool gone;   /* the process has ended and is reaped */
	bool closed; /* the channel has ended */
	char end[64];
	uint8_t in[QEMU_BUF], out[QEMU_BUF];
	size_t in_off, in_len; /* unread: in[in_off .. in_len) */
	size_t out_len;	       /* unsent: out[0 .. out_len) */
	size_t log_len;
	char text[QEMU_CONSOLE];
	char log_buf[1024];
};

/* --- the console log ---------------------------------------------------------- */

static void
log_append(struct machine *m, const char *buf, size_t len)
{
	if (m->log_len + len > sizeof(m->text)) {
		size_t drop = m->log_len + len - sizeof(m->text);

		memmove(m->text, m->text + drop, m->log_len - drop);
		m->log_len -= drop;
	}
	memcpy(m->text + m->log_len, buf, len);
	m->log_len += len;
}

static bool
log_has(const struct machine *m, const char *what)
{
	return memmem(m->text, m->log_len, what, strlen(what)) != NULL;
}

static size_t
machine_qemu_console(struct machine *m, char *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (len == 0)
		return 0;
	n = MIN(len - 1, m->log_len);
	for (size_t i = 0; i < n; i++) {
		char c = m->text[m->log_len - n + i];

		buf[i] = (char)(c == '\n' || c == '\t' || (c >= ' ' && c <= '~') ? c : '?');
	}
	buf[n] = '\0';
	return n;
}

/* --- events -------------------------------------------------------------------- */

/* QEMU's exit says little; the guest's last words say which end it was. */
static void
name_end(struct machine *m, const siginfo_t *si)
{
	const char *name = NULL;

	if (si->si_code != CLD_EXITED)
		(void)snprintf(m->end, sizeof(m->end), "QEMU killed by signal %d", si->si_status);
	else if (si->si_status != 0)
		(void)snprintf(m->end, sizeof(m->end), "QEMU failed with status %d", si->si_status);
	else if (log_has(m, "Kernel panic"))
		name = "guest panic";
	else if (log_has(m, "reboot: Restarting"))
		name = "guest reboot";
	else if (log_has(m, "reboot: Power down"))
		name = "guest shutdown";
	else
		name = "guest reset";
	if (name != NULL)
		(void)snprintf(m->end, sizeof(m->end), "%s", name);
}

/* Read what the child wrote last; it has ended, so this cannot block. */
static void
drain_console(struct machine *m)
{
	ssize_t n;

	while ((n = recv(m->console, m->log_buf, sizeof(m->log_buf), MSG_DONTWAIT)) > 0)
		log_append(m, m->log_buf, (size_t)n);
}

static void
on_exit_qemu(struct loop_op *op, int res)
{
	struct machine *m = op->owner;
	siginfo_t si = {0};

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res < 0 || m->gone || waitid(P_PID, (id_t)m->pid, &si, WEXITED | WNOHANG) < 0 ||
	    si.si_pid == 0)
		return;
	m->gone = true;
	if (!m->log.armed)
		drain_console(m);
	name_end(m, &si);
	m->events.ended(m->events.owner);
}

static void
on_log(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res <= 0)
		return;
	log_append(m, m->log_buf, (size_t)res);
	loop_recv(m->loop, &m->log, m->console, m->log_buf, sizeof(m->log_buf));
}

static void
want_recv(struct machine *m)
{
	if (m->recv.armed || m->closed || m->in_off < m->in_len)
		return;
	m->in_off = m->in_len = 0;
	loop_recv(m->loop, &m->recv, m->chan, m->in, sizeof(m->in));
}

static void
on_recv(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res <= 0) {
		m->closed = true; /* the exit of the child tells the rest */
		return;
	}
	m->in_len = (size_t)res;
	m->events.channel(m->events.owner);
}

static void
want_send(struct machine *m)
{
	if (!m->send.armed && !m->closed && m->out_len > 0)
		loop_send(m->loop, &m->send, m->chan, m->out, m->out_len);
}

static void
on_send(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res < 0) {
		m->closed = true;
		return;
	}
	m->out_len -= (size_t)res;
	memmove(m->out, m->out + res, m->out_len);
	want_send(m);
	m->events.channel(m->events.owner);
}

/* --- the machine's operations ---------------------------------------------------- */

static ssize_t
machine_qemu_recv(struct machine *m, void *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(m, QEMU_MAGIC);
	n = MIN(len, m->in_len - m->in_off);
	memcpy(buf, m->in + m->in_off, n);
	m->in_off += n;
	want_recv(m);
	return (ssize_t)n;
}

static ssize_t
machine_qemu_send(struct machine *m, const void *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(m, QEMU_MAGIC);
	/* The kernel reads out[] while a send is in flight: only append behind it. */
	n = MIN(len, sizeof(m->out) - m->out_len);
	memcpy(m->out + m->out_len, buf, n);
	m->out_len += n;
	want_send(m);
	return (ssize_t)n;
}

static const char *
machine_qemu_end(struct machine *m)
{
	CHECK_OBJ(m, QEMU_MAGIC);
	return m->gone ? m->end : NULL;
}

static void
machine_qemu_free(struct machine *m)
{
	if (m == NULL)
		return;
	CHECK_OBJ(m, QEMU_MAGIC);
	if (m->pid > 0 && !m->gone) {
		(void)kill(m->pid, SIGKILL);
		(void)waitpid(m->pid, NULL, 0);
	}
	closep(&m->pidfd);
	closep(&m->chan);
	closep(&m->console);
	m->magic = 0;
	free(m);
}

/* --- starting the child ------------------------------------------------------------ */

struct qemu_args {
	char mem[16], smp[16], accel[64], chan[64], console[64], port[96], append[256];
};

static void
format_args(struct qemu_args *a, const struct machine_config *cfg, int chan, int console)
{
	uint32_t khz = tsc_khz();

	(void)snprintf(a->mem, sizeof(a->mem), "%uM", cfg->mem_mib);
	(void)snprintf(a->smp, sizeof(a->smp), "%u", cfg->vcpus);
	(void)snprintf(a->accel, sizeof(a->accel), "tcg,thread=multi,tb-size=%d", QEMU_TB_MIB);
	(void)snprintf(a->chan, sizeof(a->chan), "socket,id=chan,fd=%d", chan);
	(void)snprintf(a->console, sizeof(a->console), "socket,id=console,fd=%d", console);
	(void)snprintf(a->port, sizeof(a->port), "virtserialport,chardev=chan,nr=1,name=%s",
		       PROTO_PORT_NAME);
	/* A busy host spoils the guest's calibration of its clock: tell it (tsc.c). lpj
	 * is for a HZ of 250, which both kernels have. With several processors it would
	 * distrust the TSC, and fall back to a clock of 4 ms. */
	(void)snprintf(a->append, sizeof(a->append),
		       "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable "
		       "tsc_early_khz=%u "
		       "lpj=%llu random.trust_cpu=on",
		       khz, khz * 1000ull / 250);
}

/* In the child: only the two sockets and stdio survive. */
static void __attribute__((noreturn))
exec_qemu(const struct machine_config *cfg, const struct qemu_args *a, int chan, int console,
	  pid_t parent)
{
	const char *argv[] = {QEMU_PROGRAM,
			      "-nodefaults",
			      "-no-user-config",
			      "-display",
			      "none",
			      "-no-reboot",
			      "-M",
			      "microvm,acpi=on,rtc=on",
			      "-cpu",
			      QEMU_CPU,
			      "-accel",
			      a->accel,
			      "-m",
			      a->mem,
			      "-smp",
			      a->smp,
			      "-kernel",
			      cfg->kernel,
			      "-initrd",
			      cfg->image,
			      "-append",
			      a->append,
			      "-chardev",
			      a->chan,
			      "-chardev",
			      a->console,
			      "-serial",
			      "chardev:console",
			      "-device",
			      "virtio-serial-device",
			      "-device",
			      a->port,
			      NULL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (getppid() != parent || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
	    dup2(console, 2) < 0 || fcntl(chan, F_SETFD, 0) < 0 || fcntl(console, F_SETFD, 0) < 0)
		_exit(126);
	(void)execvp(argv[0], (char *const *)argv);
	_exit(127);
}

static int
spawn_qemu(struct machine *m, const struct machine_config *cfg, int chan, int console, char *err,
	   size_t errlen)
{
	pid_t parent = getpid();
	struct qemu_args args;

	format_args(&args, cfg, chan, console);
	m->pid = fork();
	if (m->pid == 0)
		exec_qemu(cfg, &args, chan, console, parent);
	if (m->pid < 0)
		return fail(errno, err, errlen, "cannot fork for QEMU: %m");
	m->pidfd = (int)syscall(SYS_pidfd_open, m->pid, 0);
	if (m->pidfd < 0)
		return fail(errno, err, errlen, "pidfd_open for QEMU: %m");
	return 0;
}

static int
start_child(struct machine *m, const struct machine_config *cfg, char *err, size_t errlen)
{
	const struct vm_config files = {
	    .kernel = cfg->kernel,
	    .initrd = cfg->image,
	    .mem_mib = cfg->mem_mib,
	};
	int chan[2], console[2], r;

	/* QEMU's own words about a bad kernel or image help nobody. */
	r = qemu_check(err, errlen);
	if (r == 0)
		r = vm_check(&files, err, errlen);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, chan) < 0)
		return fail(errno, err, errlen, "socketpair for the guest channel: %m");
	m->chan = chan[0];
	_cleanup_(closep) int chan_far = chan[1];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0)
		return fail(errno, err, errlen, "socketpair for the console: %m");
	m->console = console[0];
	_cleanup_(closep) int console_far = console[1];

	return spawn_qemu(m, cfg, chan_far, console_far, err, errlen);
}

static int
machine_qemu_start(struct machine **out, const struct machine_config *cfg, struct loop *loop,
		   const struct machine_events *events, char *err, size_t errlen)
{
	struct machine *m = calloc(1, sizeof(*m));
	int r;

	if (m == NULL)
		return fail(ENOMEM, err, errlen, "out of memory for the machine");
	m->magic = QEMU_MAGIC;
	m->pidfd = m->chan = m->console = -1;
	m->loop = loop;
	m->events = *events;
	loop_op_init(&m->exit, on_exit_qemu, m);
	loop_op_init(&m->recv, on_recv, m);
	loop_op_init(&m->send, on_send, m);
	loop_op_init(&m->log, on_log, m);
	r = start_child(m, cfg, err, errlen);
	if (r < 0) {
		machine_qemu_free(m);
		return r;
	}
	loop_watch(loop, &m->exit, m->pidfd);
	loop_recv(loop, &m->log, m->console, m->log_buf, sizeof(m->log_buf));
	want_recv(m);
	*out = m;
	return 0;
}

int
qemu_check(char *err, size_t errlen)
{
	const char *path = getenv("PATH");
	_cleanup_(freep) char *copy = strdup(path != NULL ? path : "/usr/bin:/bin");
	char *save = NULL, file[4096];

	if (copy == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	for (char *dir = strtok_r(copy, ":", &save); dir != NULL;
	     dir = strtok_r(NULL, ":", &save)) {
		(void)snprintf(file, sizeof(file), "%s/%s", dir, QEMU_PROGRAM);
		if (access(file, X_OK) == 0)
			return 0;
	}
	return fail(ENOENT, err, errlen, "%s is not installed (apt-get install qemu-system-x86)",
		    QEMU_PROGRAM);
}

const struct machine_ops machine_qemu = {
    .name = "tcg",
    .start = machine_qemu_start,
    .recv = machine_qemu_recv,
    .send = machine_qemu_send,
    .end = machine_qemu_end,
    .console = machine_qemu_console,
    .free = machine_qemu_free,
};
