/* SPDX-License-Identifier: MIT
 *
 * cmd.c - the life of commands: made ready ahead of need, started, killed,
 * reaped, put away. Runs in the agent. Owns all struct cmd, their descriptors
 * and groups. What flows through their pipes is pump.c's.
 */
#include "kvm/guest/cmd.h"
#include "kvm/guest/pipes.h"
#include "kvm/guest/pump.h"
#include "kvm/guest/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CMD_MAGIC 0x0c0dd123u
/* Spares are made when there are fewer. One takes as long as a good part of a
 * command: as long as one is left, the commands that run come first. */
#define SPARES_IDLE 2u
#define SPARES_BUSY 1u
#define SPARES_HIGH 4u /* kept when commands end */
/* Ended commands with processes left: beyond this the oldest loses its pipes,
 * so that descriptors cannot run out. Its processes stay. */
#define BACKGROUND_MAX 64u

static struct cmd_list live = TAILQ_HEAD_INITIALIZER(live); /* with a stream, or DONE */
static struct cmd_list spares = TAILQ_HEAD_INITIALIZER(spares);
static struct cmd_list background = TAILQ_HEAD_INITIALIZER(background);
static unsigned nlive, nspares, nbackground, ndone;
static bool look_at_background; /* a process has ended since the last look */
static int null_fd = -1;

static void
enqueue(struct cmd *c)
{
	CHECK_OBJ(c, CMD_MAGIC);
	turn_queue(&c->turn);
}

void
cmd_pipe_event(struct source *s)
{
	struct cmd_pipe *p = owner_of(s, struct cmd_pipe, src);

	p->ready = true;
	if (p->cmd->state != CMD_SPARE)
		enqueue(p->cmd);
}

static void
cmd_free(struct cmd *c)
{
	assert(!c->turn.queued);
	pipes_close(c);
	group_free(&c->group);
	free(c->in_buf);
	c->magic = 0;
	free(c);
}

/* Make a spare of c, which has a group and no pipes. */
static int
make_spare(struct cmd *c)
{
	int r;

	c->state = CMD_SPARE;
	c->timed_out = c->in_eof = false;
	c->in_head = c->in_len = c->in_grant = 0;
	c->in_window = c->credit = PROTO_WINDOW;
	r = pipes_open_output(c);
	if (r != 0) {
		cmd_free(c);
		return r;
	}
	TAILQ_INSERT_TAIL(&spares, c, list);
	nspares++;
	return 0;
}

static bool
run_turn(struct turn *t, struct chan *to)
{
	struct cmd *c = owner_of(t, struct cmd, turn);
	bool more = pump_turn(c, to);

	if (c->state != CMD_DONE)
		return more;
	ndone++;
	return false;
}

static int
add_spare(void)
{
	struct cmd *c = calloc(1, sizeof(*c));
	int r;

	if (c == NULL)
		return -ENOMEM;
	c->magic = CMD_MAGIC;
	c->turn.run = run_turn;
	c->in.fd = c->in.child_fd = -1;
	c->out[0].fd = c->out[0].child_fd = c->out[1].fd = c->out[1].child_fd = -1;
	r = group_new(&c->group);
	if (r == 0)
		return make_spare(c);
	free(c);
	return r;
}

/* Failure is no matter here: the next command that needs one says so. */
static void
add_spares(unsigned min)
{
	while (nspares < min && add_spare() == 0)
		continue;
}

int
cmd_init(void)
{
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd < 0)
		return -errno;
	add_spares(SPARES_IDLE);
	return 0;
}

struct cmd *
cmd_find(uint32_t stream)
{
	struct cmd *c;

	TAILQ_FOREACH(c, &live, list)
	{
		if (c->stream == stream && c->state != CMD_DONE)
			return c;
	}
	return NULL;
}

unsigned
cmd_count(void)
{
	return nlive - ndone;
}

static void
set_running(struct cmd *c, uint32_t stream, const struct spawn *s)
{
	util_closep(&c->in.child_fd);
	util_closep(&c->out[1].child_fd);
	if (!c->tty)
		util_closep(&c->out[0].child_fd);
	c->state = CMD_RUNNING;
	c->stream = stream;
	c->pid = s->pid;
	c->started_ns = s->started_ns;
	c->deadline_ns = UINT64_MAX;
	if (s->want->timeout_ms > 0)
		c->deadline_ns = s->started_ns + s->want->timeout_ms * 1000000ull;
	TAILQ_REMOVE(&spares, c, list);
	nspares--;
	TAILQ_INSERT_TAIL(&live, c, list);
	nlive++;
	enqueue(c);
}

/* A spare that suits the command; it stays in their list. */
static int
choose(const struct proto_exec *want, struct cmd **out)
{
	bool tty = (want->flags & PROTO_EXEC_TTY) != 0;
	/* What an earlier command has left in memory would count, too. */
	bool fresh = tty || want->memory_mib != 0 || want->procs != 0;
	int r = 0;

	if (fresh || TAILQ_EMPTY(&spares))
		r = add_spare();
	if (r != 0)
		return r;
	*out = fresh ? TAILQ_LAST(&spares, cmd_list) : TAILQ_FIRST(&spares);
	CHECK_OBJ(*out, CMD_MAGIC);
	(*out)->single_use = fresh;
	(*out)->tty = tty;
	return 0;
}

/* Give it what it asks for; with the stage if that fails. */
static int
equip(struct cmd *c, struct spawn *s)
{
	bool with_stdin = (s->want->flags & PROTO_EXEC_STDIN) != 0;
	int r;

	s->stage = PROTO_STAGE_LIMITS;
	r = group_limit(&c->group, s->want->memory_mib, s->want->procs);
	if (r != 0)
		return r;
	s->stage = PROTO_STAGE_FORK;
	if (c->tty)
		r = pipes_open_tty(c, s->want);
	else if (with_stdin)
		r = pipes_open_input(c);
	s->group = &c->group;
	s->out = c->out[0].child_fd;
	s->in = c->tty ? s->out : with_stdin ? c->in.child_fd : null_fd;
	s->err = c->tty ? s->out : c->out[1].child_fd;
	return r;
}

int
cmd_start(uint32_t stream, struct spawn *s)
{
	struct cmd *c;
	int r;

	s->stage = PROTO_STAGE_FORK;
	r = choose(s->want, &c);
	if (r != 0)
		return r;
	r = equip(c, s);
	if (r == 0)
		r = spawn_run(s);
	if (r == 0) {
		set_running(c, stream, s);
		return 0;
	}
	pipes_close_input(c);
	if (c->single_use) {
		TAILQ_REMOVE(&spares, c, list);
		nspares--;
		cmd_free(c);
	}
	return r;
}

int
cmd_stdin(struct cmd *c, const uint8_t *bytes, size_t len, bool eof)
{
	CHECK_OBJ(c, CMD_MAGIC);
	enqueue(c);
	return pump_accept(c, bytes, len, eof);
}

void
cmd_credit(struct cmd *c, uint32_t n)
{
	CHECK_OBJ(c, CMD_MAGIC);
	c->credit += n;
	enqueue(c);
}

void
cmd_signal(struct cmd *c, int sig)
{
	int r;

	CHECK_OBJ(c, CMD_MAGIC);
	r = group_signal(&c->group, sig);
	if (r != 0)
		util_log("signal %d to stream %u: %s", sig, c->stream, strerror(-r));
}

void
cmd_resize(const struct cmd *c, const struct proto_winsize *size)
{
	CHECK_OBJ(c, CMD_MAGIC);
	if (c->tty && c->state == CMD_RUNNING)
		tty_resize(c->out[0].fd, size);
}

/* Take it off its stream; from here on its output is dropped. */
static void
to_background(struct cmd *c)
{
	struct cmd *oldest = TAILQ_FIRST(&background);

	if (nbackground == BACKGROUND_MAX) {
		TAILQ_REMOVE(&background, oldest, list);
		nbackground--;
		turn_cancel(&oldest->turn);
		cmd_free(oldest);
	}
	TAILQ_REMOVE(&live, c, list);
	nlive--;
	c->state = CMD_BACKGROUND;
	pipes_close_input(c);
	util_closep(&c->out[0].child_fd);
	TAILQ_INSERT_TAIL(&background, c, list);
	nbackground++;
	enqueue(c);
}

void
cmd_abort(struct cmd *c)
{
	cmd_signal(c, SIGKILL);
	to_background(c);
}

void
cmd_reaped(pid_t pid, int status)
{
	struct cmd *c;

	look_at_background = true;
	TAILQ_FOREACH(c, &live, list)
	{
		if (c->pid == pid && c->state == CMD_RUNNING)
			break;
	}
	if (c == NULL)
		return;
	c->elapsed_ns = util_now_ns() - c->started_ns;
	c->status = status;
	c->state = CMD_DRAINING;
	util_closep(&c->out[0].child_fd);
	pump_drain(c);
	enqueue(c);
}

uint64_t
cmd_expire(void)
{
	uint64_t next = UINT64_MAX, now = 0;
	struct cmd *c;

	TAILQ_FOREACH(c, &live, list)
	{
		if (c->deadline_ns == UINT64_MAX)
			continue;
		if (now == 0)
			now = util_now_ns();
		if (c->deadline_ns <= now) {
			c->timed_out = true;
			c->deadline_ns = UINT64_MAX;
			cmd_signal(c, SIGKILL);
			enqueue(c);
		} else {
			next = MIN(next, c->deadline_ns);
		}
	}
	return next;
}

/* Nothing is left of it but its group, unless processes are. */
static bool
is_over(struct cmd *c)
{
	if (c->group.fd >= 0)
		return group_is_empty(&c->group);
	return c->out[0].eof && c->out[1].eof;
}

/* c is in no list: the next spare, or nothing at all. */
static void
put_away(struct cmd *c)
{
	turn_cancel(&c->turn);
	pipes_close(c);
	util_freep(&c->in_buf);
	if (c->group.fd < 0 || c->single_use || nspares >= SPARES_HIGH)
		cmd_free(c);
	else if (make_spare(c) != 0)
		util_log("no descriptors for a spare command");
}

static void
tidy_background(void)
{
	struct cmd *c, *next;

	for (c = TAILQ_FIRST(&background); c != NULL; c = next) {
		next = TAILQ_NEXT(c, list);
		if (!is_over(c))
			continue;
		TAILQ_REMOVE(&background, c, list);
		nbackground--;
		put_away(c);
	}
}

void
cmd_tidy(void)
{
	struct cmd *c, *next;

	for (c = TAILQ_FIRST(&live); c != NULL && ndone > 0; c = next) {
		next = TAILQ_NEXT(c, list);
		if (c->state != CMD_DONE)
			continue;
		ndone--;
		pump_discard(c);
		if (is_over(c)) {
			TAILQ_REMOVE(&live, c, list);
			nlive--;
			put_away(c);
		} else {
			to_background(c);
		}
	}
	if (look_at_background)
		tidy_background();
	look_at_background = false;
	add_spares(nlive == 0 ? SPARES_IDLE : SPARES_BUSY);
}

void
cmd_fini(void)
{
	struct cmd_list *all[] = {&live, &background, &spares};
	struct cmd *c;
	size_t i;

	group_kill_all();
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		continue;
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		while ((c = TAILQ_FIRST(all[i])) != NULL) {
			TAILQ_REMOVE(all[i], c, list);
			turn_cancel(&c->turn);
			cmd_free(c);
		}
	}
	nlive = nspares = nbackground = ndone = 0;
	look_at_background = false;
	util_closep(&null_fd);
}
