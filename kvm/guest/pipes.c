/* SPDX-License-Identifier: MIT
 *
 * pipes.c - makes and closes the pipes and terminals of commands. Runs in the agent;
 * their descriptors belong to the commands.
 */
#include "kvm/guest/pipes.h"
#include "kvm/guest/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define OUTPUT_PIPE (256 << 10)

static void
pipe_close(struct cmd_pipe *p)
{
	poller_close(&p->fd);
	util_closep(&p->child_fd);
}

/* Take these over: fd, which the agent reads or (out) writes, will not block. */
static int
pipe_take(struct cmd *c, struct cmd_pipe *p, int fd, int child_fd, bool out)
{
	int r;

	p->fd = fd;
	p->child_fd = child_fd;
	p->cmd = c;
	p->src.event = cmd_pipe_event;
	p->ready = out; /* it is empty: there is room, and nothing to read */
	p->left = 0;
	p->eof = false;
	p->passed = 0;
	r = fcntl(p->fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : poller_add(p->fd, &p->src, out);
	if (r != 0)
		pipe_close(p);
	return r;
}

/* A pipe whose end `mine` (0: the agent reads, 1: it writes) does not block. */
static int
pipe_open(struct cmd *c, struct cmd_pipe *p, int mine)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	return pipe_take(c, p, fds[mine], fds[!mine], mine == 1);
}

int
pipes_open_output(struct cmd *c)
{
	int r = pipe_open(c, &c->out[0], 0);

	/* What a kernel refuses is not needed: fewer turns of reader and writer. */
	if (r == 0)
		(void)fcntl(c->out[0].fd, F_SETPIPE_SZ, OUTPUT_PIPE);
	return r == 0 ? pipe_open(c, &c->out[1], 0) : r;
}

int
pipes_open_input(struct cmd *c)
{
	return pipe_open(c, &c->in, 1);
}

/* The agent keeps the command's end open, too, until that has ended: a terminal that
 * nobody has open for a moment would read as closed. */
int
pipes_open_tty(struct cmd *c, const struct proto_exec *want)
{
	const struct proto_winsize size = {.rows = want->rows, .cols = want->cols};
	int master, slave, writer, r = tty_open(&master, &slave, &size);

	if (r != 0)
		return r;
	pipe_close(&c->out[0]);
	pipe_close(&c->out[1]);
	c->out[1].eof = true;
	r = pipe_take(c, &c->out[0], master, slave, false);
	if (r != 0)
		return r;
	writer = fcntl(master, F_DUPFD_CLOEXEC, 0);
	return writer < 0 ? -errno : pipe_take(c, &c->in, writer, -1, true);
}

void
pipes_close_input(struct cmd *c)
{
	pipe_close(&c->in);
}

void
pipes_close(struct cmd *c)
{
	pipe_close(&c->in);
	pipe_close(&c->out[0]);
	pipe_close(&c->out[1]);
}
