/* SPDX-License-Identifier: MIT
 *
 * pump.c - moves bytes for one command, a bounded amount per turn, so that no
 * stream starves another and a reader that stops granting credit stops the
 * writer: its pipe fills, and it blocks in write(2). Runs in the agent; owns
 * nothing.
 */
#include "kvm/guest/pump.h"
#include "kvm/guest/tty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A read counts as this many bytes at least: many tiny ones end a turn too. */
#define READ_COST 1024u
/* More than the kernel keeps of a terminal's output. */
#define TTY_LEFT (256u << 10)

int
pump_accept(struct cmd *c, const uint8_t *bytes, size_t len, bool eof)
{
	if (len > c->in_window)
		return -EPROTO;
	c->in_window -= len;
	if (c->in.fd < 0 || c->in_eof) {
		c->in_grant += len; /* nobody reads it; the sender must not wait */
		return 0;
	}
	c->in_eof = eof;
	if (len == 0)
		return 0;
	if (c->in_buf == NULL) {
		c->in_buf = malloc(PROTO_WINDOW);
		if (c->in_buf == NULL)
			util_fatal("no memory for standard input");
	}
	if (c->in_head + c->in_len + len > PROTO_WINDOW) {
		memmove(c->in_buf, c->in_buf + c->in_head, c->in_len);
		c->in_head = 0;
	}
	memcpy(c->in_buf + c->in_head + c->in_len, bytes, len);
	c->in_len += len;
	return 0;
}

/* All is written, and no more will come. */
static void
end_stdin(struct cmd *c)
{
	if (c->tty && c->in.fd >= 0 && tty_type_eof(c->in.fd) == -EAGAIN)
		c->in.ready = false;
	else
		poller_close(&c->in.fd);
}

static void
write_stdin(struct cmd *c)
{
	ssize_t n;

	while (c->in.fd >= 0 && c->in.ready && c->in_len > 0) {
		n = write(c->in.fd, c->in_buf + c->in_head, c->in_len);
		if (n >= 0) {
			c->in_head += (size_t)n;
			c->in_len -= (size_t)n;
			c->in_grant += (size_t)n;
		} else if (errno == EAGAIN) {
			c->in.ready = false;
		} else { /* EPIPE: it reads no more, so neither do we keep it */
			c->in_grant += c->in_len;
			c->in_len = 0;
			poller_close(&c->in.fd);
		}
	}
	if (c->in_len > 0)
		return;
	c->in_head = 0;
	if (c->in_eof)
		end_stdin(c);
}

/* Credit goes back in quarters of the window, or when all there was is written:
 * few frames, and the sender never waits for nothing. */
static void
grant_stdin(struct cmd *c, struct chan *chan)
{
	uint32_t n = (uint32_t)c->in_grant;

	if (n == 0 || c->in_eof || (c->in_len > 0 && n < PROTO_WINDOW / 4))
		return;
	chan_put(chan, PROTO_CREDIT, c->stream, &n, sizeof(n));
	c->in_window += n;
	c->in_grant = 0;
}

/* Read p until it is empty, the turn's share is used up, or the credit is. */
static bool
read_output(struct cmd *c, struct cmd_pipe *p, uint8_t type, struct chan *chan)
{
	size_t share = PROTO_PAYLOAD_MAX, want;
	ssize_t n;

	while (p->ready && !p->eof) {
		want = MIN(MIN((uint64_t)share, c->credit), PROTO_PAYLOAD_MAX);
		if (c->state == CMD_DRAINING)
			want = MIN(want, p->left);
		if (want == 0 || !chan_has_data_room(chan))
			return c->credit > 0 && (c->state != CMD_DRAINING || p->left > 0);
		n = chan_pass(chan, type, c->stream, p->fd, want, &p->passed);
		if (n > 0) {
			c->credit -= (uint64_t)n;
			share -= MIN(share, MAX((size_t)n, READ_COST));
			p->left -= MIN(p->left, (size_t)n);
		} else if (n == -EAGAIN) {
			p->ready = false;
			p->left = 0;
		} else {
			p->eof = true;
		}
	}
	return false;
}

void
pump_drain(struct cmd *c)
{
	size_t i;
	int n;

	for (i = 0; i < ARRAY_SIZE(c->out); i++) {
		struct cmd_pipe *p = &c->out[i];

		n = 0;
		if (!p->eof && ioctl(p->fd, FIONREAD, &n) < 0)
			n = 0;
		/* A terminal does not say how much is on its way, but ends by itself. */
		p->left = c->tty ? TTY_LEFT : (size_t)n;
		p->ready = true;
	}
}

static bool
is_drained(const struct cmd_pipe *p)
{
	return p->eof || p->left == 0;
}

static void
send_exit(struct cmd *c, struct chan *chan)
{
	struct proto_exit e = {.timed_out = c->timed_out, .elapsed_ns = c->elapsed_ns};

	if (WIFSIGNALED(c->status))
		e.signal = (uint32_t)WTERMSIG(c->status);
	else
		e.code = (uint32_t)WEXITSTATUS(c->status);
	chan_put(chan, PROTO_EXIT, c->stream, &e, sizeof(e));
	c->state = CMD_DONE;
	c->deadline_ns = UINT64_MAX;
}

bool
pump_turn(struct cmd *c, struct chan *chan)
{
	bool more;

	if (c->state == CMD_BACKGROUND)
		return pump_discard(c);
	write_stdin(c);
	grant_stdin(c, chan);
	more = read_output(c, &c->out[0], PROTO_STDOUT, chan);
	more |= read_output(c, &c->out[1], PROTO_STDERR, chan);
	/* Past its deadline it does not wait for a reader that may never come. */
	if (c->timed_out && c->credit == 0)
		c->out[0].left = c->out[1].left = 0;
	if (c->state == CMD_DRAINING && is_drained(&c->out[0]) && is_drained(&c->out[1]))
		send_exit(c, chan);
	return more;
}

bool
pump_discard(struct cmd *c)
{
	static uint8_t dropped[64u << 10];
	bool more = false;
	unsigned tries;
	ssize_t n;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(c->out); i++) {
		struct cmd_pipe *p = &c->out[i];

		for (tries = 0; tries < 4 && p->ready && !p->eof; tries++) {
			n = read(p->fd, dropped, sizeof(dropped));
			if (n < 0 && errno == EAGAIN)
				p->ready = false;
			else if (n <= 0)
				p->eof = true;
		}
		more |= p->ready && !p->eof;
	}
	return more;
}
