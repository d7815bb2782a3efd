/* SPDX-License-Identifier: MIT
 *
 * cli_stream.c - moves bytes between a command in a VM and our descriptors from
 * one poll loop. Runs in vmpool.
 *
 * Nothing is lost and nothing piles up: one piece of output is in our hands at
 * a time, and while it cannot be written no more is fetched, which in the end
 * stops the writer in the VM. A pipe is written in pieces that it takes whole
 * when poll says that it has room, so that a slow reader never keeps us from
 * noticing a signal.
 */
#include "shm/cli/cli_stream.h"
#include "shm/cli/cli_tty.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OVERDUE_NS 30000000000ull

/* --- signals -------------------------------------------------------------------------- */

static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

static int
watch_signals(sigset_t *old, bool tty)
{
	struct sigaction sa;
	sigset_t set;

	(void)sigemptyset(&set);
	/* What our parent has us ignore stays ignored. */
	for (size_t i = 0; i < CLI_COUNT(ending); i++)
		if (sigaction(ending[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
			(void)sigaddset(&set, ending[i]);
	if (tty)
		(void)sigaddset(&set, SIGWINCH);
	(void)sigprocmask(SIG_BLOCK, &set, old);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void
stream_die(int signal)
{
	sigset_t set;

	(void)sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, signal);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	(void)raise(signal);
	_exit(128 + signal);
}

/* --- time ------------------------------------------------------------------------------- */

static uint64_t
now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Something has come: whatever we wait for may take as long again. */
static void
not_overdue(struct stream *s)
{
	uint64_t later = now() + OVERDUE_NS;

	if (s->overdue_ns != 0 && s->overdue_ns < later)
		s->overdue_ns = later;
}

static int
poll_ms(const struct stream *s)
{
	uint64_t t = now(), due = s->out_left > 0 ? 0 : s->overdue_ns;

	if (s->dropped)
		return 0;
	if (s->warn_ns != 0 && (due == 0 || s->warn_ns < due))
		due = s->warn_ns;
	if (due == 0)
		return -1;
	if (t >= due)
		return 0;
	t = (due - t) / 1000000 + 1;
	return t < INT_MAX ? (int)t : INT_MAX;
}

/* What became due while nothing came; 0 or an error. */
static int
look_at_clock(struct stream *s)
{
	uint64_t t = now();

	if (s->warn_ns != 0 && t >= s->warn_ns) {
		s->warn_ns = 0;
		/* If it has just ended, its exit says so. */
		s->warned = vmpool_proc_kill(s->proc, s->warn_signal) == 0;
		return 0;
	}
	return s->out_left == 0 && s->overdue_ns != 0 && t >= s->overdue_ns ? VMPOOL_ETIMEDOUT : 0;
}

/* --- output ----------------------------------------------------------------------------- */

static void
take_output(struct stream *s, const struct vmpool_event *event)
{
	uint32_t *limit = &s->out_limit[event->type == VMPOOL_STDERR];

	s->out_fd = event->type == VMPOOL_STDERR ? STDERR_FILENO : STDOUT_FILENO;
	s->out_name = event->type == VMPOOL_STDERR ? "stderr" : "stdout";
	s->out = event->data;
	s->out_left = event->len;
	s->dropped = false;
	if (*limit == UINT32_MAX)
		return;
	if (s->out_left > *limit) {
		s->out_left = *limit;
		s->cut[event->type == VMPOOL_STDERR] = true;
	}
	*limit -= (uint32_t)s->out_left;
	s->dropped = s->out_left == 0;
}

/* Write what poll says there is room for; 0 or enum stream_end. */
static int
write_output(struct stream *s)
{
	struct stat st;
	size_t n = s->out_left;
	ssize_t done;

	/* Only a file surely takes more than that without our sleeping in it. */
	if (n > PIPE_BUF && (fstat(s->out_fd, &st) < 0 || !S_ISREG(st.st_mode)))
		n = PIPE_BUF;
	done = write(s->out_fd, s->out, n);
	if (done >= 0) {
		s->out += done;
		s->out_left -= (size_t)done;
	} else if (errno == EPIPE) {
		s->signal = SIGPIPE;
		return STREAM_SIGNAL;
	} else if (errno != EAGAIN && errno != EINTR) {
		s->out_errno = errno;
		return STREAM_OUTPUT;
	}
	return 0;
}

/* --- input ------------------------------------------------------------------------------- */

static void
read_input(struct stream *s)
{
	ssize_t n = read(STDIN_FILENO, s->in, sizeof(s->in));

	if (n > 0) {
		s->in_off = 0;
		s->in_len = (size_t)n;
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		s->in_open = false;
		/* If the command has ended, its exit says so. */
		(void)vmpool_proc_close_stdin(s->proc);
	}
}

/* Give the VM what it takes now; 0 or a library error. */
static int
push_input(struct stream *s)
{
	while (s->in_off < s->in_len) {
		ssize_t n = vmpool_proc_write(s->proc, s->in + s->in_off, s->in_len - s->in_off, 0);

		if (n == -EAGAIN)
			return 0;
		if (n == -EPIPE) {
			/* Nobody reads it any more; that is no failure. */
			s->in_open = false;
			s->in_off = s->in_len;
			return 0;
		}
		if (n < 0)
			return (int)n;
		s->in_off += (size_t)n;
	}
	return 0;
}

/* --- the loop ----------------------------------------------------------------------------- */

void
stream_init(struct stream *s, struct vmpool_proc *proc, const struct stream_opts *opts)
{
	uint64_t t = now();

	s->proc = proc;
	s->tty = opts->tty;
	s->signal = 0;
	s->out_left = 0;
	s->out_limit[0] = s->out_limit[1] = opts->output_limit;
	s->cut[0] = s->cut[1] = s->dropped = false;
	s->in_open = opts->with_stdin;
	s->in_off = s->in_len = 0;
	s->overdue_ns =
	    opts->timeout_ms == 0 ? 0 : t + (uint64_t)opts->timeout_ms * 1000000 + OVERDUE_NS;
	s->warn_ns = opts->warn_ms == 0 ? 0 : t + (uint64_t)opts->warn_ms * 1000000;
	s->warn_signal = opts->warn_signal;
	s->warned = false;
	s->signal_fd = watch_signals(&s->old_mask, opts->tty);
	(void)sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
}

void
stream_fini(struct stream *s)
{
	if (s->signal_fd >= 0)
		(void)close(s->signal_fd);
	(void)sigprocmask(SIG_SETMASK, &s->old_mask, NULL);
}

/* Fetch events until there is output in hand or nothing more; 0, STREAM_ENDED
 * or an error. */
static int
fetch(struct stream *s, struct vmpool_event *end)
{
	struct vmpool_event event;
	int r;

	if (s->out_left > 0)
		return 0;
	s->dropped = false;
	r = vmpool_proc_next(s->proc, 0, &event);
	if (r == -EAGAIN || r == -EINTR)
		return 0;
	if (r < 0)
		return r;
	not_overdue(s);
	if (event.type == VMPOOL_EXIT || event.type == VMPOOL_TIMEOUT) {
		*end = event;
		return STREAM_ENDED;
	}
	take_output(s, &event);
	return 0;
}

/* A signal has come; 0 if that needs no end. */
static int
take_signal(struct stream *s)
{
	struct signalfd_siginfo si;
	unsigned short rows, cols;

	if (read(s->signal_fd, &si, sizeof(si)) != sizeof(si))
		return 0;
	if (si.ssi_signo == SIGWINCH) {
		cli_tty_size(&rows, &cols);
		/* If the command has ended, its exit says so. */
		(void)vmpool_proc_resize(s->proc, rows, cols);
		return 0;
	}
	s->signal = (int)si.ssi_signo;
	return STREAM_SIGNAL;
}

/* Sleep until something can go on; 0 or an end. */
static int
wait_and_move(struct stream *s, int proc_fd)
{
	const bool in_hand = s->in_off < s->in_len;
	struct pollfd p[] = {
	    {.fd = s->signal_fd, .events = POLLIN},
	    {.fd = s->out_left == 0 ? proc_fd : -1, .events = POLLIN},
	    {.fd = s->out_left > 0 ? s->out_fd : -1, .events = POLLOUT},
	    {.fd = s->in_open && !in_hand ? STDIN_FILENO : -1, .events = POLLIN},
	};
	int r = poll(p, CLI_COUNT(p), poll_ms(s));

	if (r < 0)
		return errno == EINTR ? 0 : -errno;
	r = look_at_clock(s);
	if (r == 0 && p[0].revents != 0)
		r = take_signal(s);
	if (r != 0)
		return r;
	if (p[3].revents != 0)
		read_input(s);
	return p[2].revents != 0 ? write_output(s) : 0;
}

int
stream_run(struct stream *s, struct vmpool_event *end)
{
	int proc_fd = vmpool_proc_fd(s->proc);
	int r = s->signal_fd < 0 ? -EMFILE : proc_fd < 0 ? proc_fd : 0;

	while (r == 0) {
		r = fetch(s, end);
		if (r == 0)
			r = push_input(s);
		if (r == 0)
			r = wait_and_move(s, proc_fd);
	}
	return r;
}
