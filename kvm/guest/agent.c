/* SPDX-License-Identifier: MIT
 *
 * agent.c - the loop of the guest agent: one thread, one epoll instance. Each
 * turn takes in what came (events, children, frames), gives every command and
 * file operation with work one bounded turn, then writes what is queued. READ FIRST.
 */
#include "kvm/guest/agent.h"
#include "kvm/guest/chan.h"
#include "kvm/guest/cmd.h"
#include "kvm/guest/exec.h"
#include "kvm/guest/file.h"
#include "kvm/guest/poller.h"
#include "kvm/guest/renew.h"
#include "kvm/guest/share.h"
#include "kvm/guest/turn.h"
#include "kvm/guest/vmstat.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

/* Room for whatever one frame of the host can cause to be sent. */
#define ANSWER_MAX 512u
/* Bytes stuck in a full channel are tried again this often, event or none. */
#define RETRY_NS 1000000000ull

static struct chan chan;
static int signal_fd = -1;
static bool signals_pending;
static bool backlog;	 /* frames were read and not acted on, for want of room */
static bool out_watched; /* the channel is watched for room */

static void
chan_event(struct source *s)
{
	(void)s;
	chan_wake(&chan);
}

static void
signal_event(struct source *s)
{
	(void)s;
	signals_pending = true;
}

static struct source chan_source = {chan_event}, signal_source = {signal_event};

void
agent_signals(void)
{
	/* As the kernel has it: all zero is the default action. */
	static const uint64_t dfl[4];
	sigset_t all;
	int sig;

	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	for (sig = 1; sig < NSIG; sig++)
		/* Past libc, which keeps 32 and 33 to itself; KILL and STOP refuse. */
		(void)syscall(SYS_rt_sigaction, sig, dfl, NULL, sizeof(uint64_t));
}

static void
send_ready(void)
{
	struct proto_ready r = {.version = PROTO_VERSION, .vcpus = 1};
	struct sysinfo si;
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		r.vcpus = (uint32_t)CPU_COUNT(&cpus);
	if (sysinfo(&si) == 0)
		r.mem_kib = (uint64_t)si.totalram * si.mem_unit / 1024;
	chan_put(&chan, PROTO_READY, 0, &r, sizeof(r));
}

void
agent_start(int fd, bool port)
{
	chan_init(&chan, fd, port);
	send_ready();
	if (chan_flush(&chan) != 0)
		util_fatal("the channel is gone before it was used");
}

static int
open_signals(void)
{
	static const int sigs[] = {SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGPWR};
	sigset_t set;
	size_t i;

	sigemptyset(&set);
	for (i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaddset(&set, sigs[i]);
	signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return signal_fd < 0 ? -errno : poller_add(signal_fd, &signal_source, false);
}

static void
set_up(const char *cgroup_dir)
{
	int r = poller_init();

	if (r == 0)
		r = poller_add(chan.fd, &chan_source, false);
	if (r == 0)
		r = open_signals();
	if (r == 0)
		r = group_init(cgroup_dir);
	if (r == 0)
		r = cmd_init();
	if (r != 0)
		util_fatal("cannot set up the loop: %s", strerror(-r));
	file_init(&chan);
}

static void
tear_down(void)
{
	exec_fini();
	file_fini();
	cmd_fini();
	group_fini();
}

/* What init(1) does for poweroff and reboot, which send it signals. */
static void
machine_signal(int sig)
{
	if (getpid() != 1) {
		util_log("ended by signal %d", sig);
		tear_down();
		_exit(1);
	}
	sync();
	if (sig == SIGUSR1)
		(void)reboot(RB_HALT_SYSTEM);
	else
		(void)reboot(sig == SIGUSR2 || sig == SIGPWR ? RB_POWER_OFF : RB_AUTOBOOT);
	util_log("the kernel refused to stop the machine: %s", strerror(errno));
}

static void
take_signals(void)
{
	struct signalfd_siginfo si[8];
	ssize_t n, i;
	pid_t pid;
	int status;

	signals_pending = false;
	while ((n = read(signal_fd, si, sizeof(si))) > 0) {
		for (i = 0; i < n / (ssize_t)sizeof(si[0]); i++) {
			if (si[i].ssi_signo != SIGCHLD)
				machine_signal((int)si[i].ssi_signo);
		}
	}
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		cmd_reaped(pid, status);
}

/* The host broke the protocol: end that stream, once, whatever state it is in. */
static void
violation(uint32_t stream, int err, const char *text)
{
	struct file *f = file_find(stream);
	struct cmd *c = cmd_find(stream);

	if (stream == 0)
		util_fatal("channel: %s", text);
	if (exec_refuse(stream, err, text))
		return;
	if (c != NULL)
		cmd_abort(c);
	if (f != NULL)
		file_abort(f);
	chan_put_error(&chan, stream, PROTO_STAGE_REQUEST, err, text);
}

static void
kill_frame(struct cmd *c, uint32_t sig)
{
	if (sig >= NSIG)
		violation(c->stream, EPROTO, "KILL with a signal that does not exist");
	else if (sig != 0)
		cmd_signal(c, (int)sig);
}

static void
renew_frame(const struct proto_hdr *h, const uint8_t *payload)
{
	struct proto_renewed done;
	struct proto_renew renew;

	memcpy(&renew, payload, sizeof(renew));
	renew_run(&renew, &done);
	share_offer((h->flags & PROTO_F_SHARE) != 0);
	chan.in_bytes = chan.out_bytes = 0;
	chan_put(&chan, PROTO_RENEWED, 0, &done, sizeof(done));
}

/* A file operation begins; its stream must be free. */
static void
file_open(const struct proto_hdr *h, const uint8_t *payload)
{
	static const char busy[] = "the stream is in use: what ran on it was ended";

	if (exec_refuse(h->stream, EBUSY, busy))
		return;
	if (cmd_find(h->stream) != NULL || file_find(h->stream) != NULL)
		violation(h->stream, EBUSY, busy);
	else if (cmd_count() + file_count() >= PROTO_STREAMS_MAX)
		chan_put_error(&chan, h->stream, PROTO_STAGE_REQUEST, EAGAIN,
			       "too many open streams");
	else
		file_request(h->stream, payload, h->length);
}

static void
file_frame(struct file *f, const struct proto_hdr *h, const uint8_t *payload)
{
	bool eof = (h->flags & PROTO_F_EOF) != 0;
	uint32_t n;

	switch (h->type) {
	case PROTO_STDIN: file_stdin(f, payload, h->length, eof); break;
	case PROTO_CREDIT:
		memcpy(&n, payload, sizeof(n));
		file_credit(f, n);
		break;
	case PROTO_KILL: /* whatever the signal, there is nobody to catch it */
		file_cancel(f, ECANCELED);
		break;
	default: break;
	}
}

static void
vmstat_frame(uint32_t stream)
{
	struct proto_vmstats s = {
	    .bytes_in = chan.in_bytes, .bytes_out = chan.out_bytes, .commands = cmd_count()};

	if (exec_refuse(stream, EBUSY, "the stream is in use"))
		return;
	if (cmd_find(stream) != NULL || file_find(stream) != NULL) {
		violation(stream, EBUSY, "the stream is in use");
		return;
	}
	vmstat_read(&s);
	chan_put(&chan, PROTO_VMSTATS, stream, &s, sizeof(s));
}

static void
resize_frame(const struct cmd *c, const uint8_t *payload)
{
	struct proto_winsize size;

	memcpy(&size, payload, sizeof(size));
	cmd_resize(c, &size);
}

static void
cmd_frame(struct cmd *c, const struct proto_hdr *h, const uint8_t *payload)
{
	uint32_t n;

	if (h->type == PROTO_STDIN) {
		if (cmd_stdin(c, payload, h->length, (h->flags & PROTO_F_EOF) != 0) != 0)
			violation(h->stream, EPROTO, "STDIN beyond the window");
		return;
	}
	if (h->type == PROTO_WINSIZE) {
		resize_frame(c, payload);
		return;
	}
	memcpy(&n, payload, sizeof(n));
	if (h->type == PROTO_KILL)
		kill_frame(c, n);
	else
		cmd_credit(c, n);
}

static void
take_frame(const struct proto_hdr *h, const uint8_t *payload)
{
	struct file *f;
	struct cmd *c;

	switch (h->type) {
	case PROTO_PING: chan_put(&chan, PROTO_PONG, 0, payload, h->length); return;
	case PROTO_RENEW: renew_frame(h, payload); return;
	case PROTO_EXEC: exec_piece(&chan, h, payload); return;
	case PROTO_FILE: file_open(h, payload); return;
	case PROTO_VMSTAT: vmstat_frame(h->stream); return;
	default: break;
	}
	c = cmd_find(h->stream);
	f = c == NULL ? file_find(h->stream) : NULL;
	/* If it is neither, it has just ended; the host does not know yet. */
	if (c != NULL)
		cmd_frame(c, h, payload);
	else if (f != NULL)
		file_frame(f, h, payload);
}

/* STDIN whose bytes are in the shared pages. */
static void
take_shared(const struct proto_hdr *said, const uint8_t *payload)
{
	struct proto_hdr h = *said;
	const uint8_t *bytes;

	memcpy(&h.length, payload, sizeof(h.length));
	bytes = share_next(h.length);
	if (bytes == NULL)
		util_fatal("channel: %u bytes in pages that are not shared", h.length);
	take_frame(&h, bytes);
	share_taken(h.length);
	chan.in_bytes += h.length;
}

/* Read and act on frames while answers have room. False: the peer is gone. */
static bool
take_frames(void)
{
	const uint8_t *payload;
	struct proto_hdr h = {.type = 0};
	int r = chan_fill(&chan), kind = 0;

	while (chan_has_room(&chan, ANSWER_MAX) && (kind = chan_next(&chan, &h, &payload)) > 0) {
		if (kind != 1)
			violation(h.stream, EPROTO, "a frame that its type does not allow");
		else if ((h.flags & PROTO_F_SHARED) != 0)
			take_shared(&h, payload);
		else
			take_frame(&h, payload);
	}
	backlog = kind > 0;
	if (kind < 0)
		util_fatal("channel: type %u, length %u is no frame", h.type, h.length);
	if (r != 0 && r != -ECONNRESET)
		util_fatal("channel: %s", strerror(-r));
	return r == 0;
}

static uint64_t
next_wake(uint64_t deadline)
{
	bool input = backlog || chan.readable;

	if (turn_runnable(&chan) || (input && chan_has_room(&chan, ANSWER_MAX)))
		return 0;
	if (chan_pending(&chan))
		return MIN(deadline, util_now_ns() + RETRY_NS);
	return deadline;
}

/* Output is watched only while it is stuck: a port wakes its poller for every
 * buffer that the host has consumed. */
static int
send_frames(void)
{
	int r = chan_flush(&chan);

	if (r == 0 && chan_pending(&chan) != out_watched) {
		out_watched = !out_watched;
		poller_set_out(chan.fd, &chan_source, out_watched);
	}
	return r;
}

/* Turn after turn. 0: the peer has gone; or -errno of the channel. */
static int
loop(void)
{
	uint64_t deadline = UINT64_MAX;
	int r = 0;

	while (r == 0) {
		poller_wait(next_wake(deadline));
		if (signals_pending)
			take_signals();
		if (!take_frames())
			return 0;
		turn_run_all(&chan);
		deadline = cmd_expire();
		r = send_frames();
		cmd_tidy();
	}
	return r == -EPIPE || r == -ECONNRESET ? 0 : r;
}

void
agent_serve(const char *cgroup_dir)
{
	int r;

	set_up(cgroup_dir);
	r = loop();
	if (r != 0)
		util_fatal("channel: %s", strerror(-r));
	tear_down();
}
