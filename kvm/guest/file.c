/* SPDX-License-Identifier: MIT
 *
 * file.c - the life of file operations: begun by a FILE frame, carried on in
 * turns, ended by a FILE_DONE. Runs in the agent. Owns all struct file and
 * their descriptors.
 */
#include "kvm/guest/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAGIC 0x0f11e0b5u
/* Bytes of a WRITE under way. They are written as they come, so there is no buffer
 * of ours to bound, nor a window to check: it is how much the channel should hold
 * of one stream. */
#define WRITE_WINDOW (256u << 10)

static TAILQ_HEAD(file_list, file) files = TAILQ_HEAD_INITIALIZER(files);
static unsigned nfiles;
static struct chan *chan;

void
file_init(struct chan *c)
{
	chan = c;
}

static bool run_turn(struct turn *t, struct chan *c);

static struct file *
file_new(uint32_t stream, const struct file_req *q)
{
	struct file *f = calloc(1, sizeof(*f));

	if (f == NULL)
		util_fatal("no memory for a file operation");
	f->magic = FILE_MAGIC;
	f->turn.run = run_turn;
	f->stream = stream;
	f->op = q->head.op;
	f->flags = q->head.flags;
	f->fd = f->w.parent = -1;
	f->credit = PROTO_WINDOW;
	TAILQ_INSERT_TAIL(&files, f, list);
	nfiles++;
	return f;
}

void
file_abort(struct file *f)
{
	CHECK_OBJ(f, FILE_MAGIC);
	file_write_undo(f);
	turn_cancel(&f->turn);
	TAILQ_REMOVE(&files, f, list);
	nfiles--;
	util_closep(&f->fd);
	util_closep(&f->w.parent);
	if (f->dir != NULL)
		(void)closedir(f->dir);
	file_tree_free(f->tree);
	f->magic = 0;
	free(f);
}

void
file_fini(void)
{
	while (!TAILQ_EMPTY(&files))
		file_abort(TAILQ_FIRST(&files));
}

struct file *
file_find(uint32_t stream)
{
	struct file *f;

	TAILQ_FOREACH(f, &files, list)
	{
		if (f->stream == stream)
			return f;
	}
	return NULL;
}

unsigned
file_count(void)
{
	return nfiles;
}

static void
answer(uint32_t stream, int r, const struct stat *st)
{
	struct proto_file_done done = {.err = r < 0 ? (uint32_t)-r : 0};

	if (r >= 0 && st != NULL)
		file_stat_out(&done.stat, st);
	chan_put(chan, PROTO_FILE_DONE, stream, &done, sizeof(done));
}

void
file_cancel(struct file *f, int err)
{
	uint32_t stream = f->stream;

	file_abort(f);
	answer(stream, -err, NULL);
}

/* It is over, with this result. */
static void
finish(struct file *f, int r)
{
	struct stat st = {.st_mode = 0};
	uint32_t stream = f->stream;

	if (r == FILE_DONE && f->op == PROTO_FILE_WRITE)
		r = file_write_commit(f, &st);
	else if (r == FILE_DONE && f->op == PROTO_FILE_READ && fstat(f->fd, &st) < 0)
		r = -errno;
	file_abort(f);
	answer(stream, r, &st);
}

static bool
run_turn(struct turn *t, struct chan *c)
{
	struct file *f = owner_of(t, struct file, turn);
	int r = FILE_WAITS;

	CHECK_OBJ(f, FILE_MAGIC);
	switch (f->op) {
	case PROTO_FILE_READ: r = file_read_step(f, c); break;
	case PROTO_FILE_LIST: r = file_list_step(f, c); break;
	case PROTO_FILE_READLINK: r = file_readlink_step(f, c); break;
	case PROTO_FILE_REMOVE: r = file_remove_step(f); break;
	default: break;
	}
	if (r == FILE_DONE || r < 0)
		finish(f, r);
	return r == FILE_MORE;
}

/* --- requests ----------------------------------------------------------------------- */

static int
begin_steps(struct file *f, const struct file_req *q, const struct place *p)
{
	switch (f->op) {
	case PROTO_FILE_READ: return file_read_begin(f, q, p);
	case PROTO_FILE_WRITE: return file_write_begin(f, q, p);
	case PROTO_FILE_LIST: return file_list_begin(f, q, p);
	case PROTO_FILE_REMOVE: return file_remove_begin(f, q, p);
	default: return file_readlink_begin(f, q, p);
	}
}

/* The host may send more than the protocol's window ahead. */
static void
open_window(struct file *f)
{
	const uint32_t more = WRITE_WINDOW - PROTO_WINDOW;

	chan_put(chan, PROTO_CREDIT, f->stream, &more, sizeof(more));
}

static void
begin(uint32_t stream, const struct file_req *q, const struct place *p)
{
	struct file *f = file_new(stream, q);
	int r = begin_steps(f, q, p);

	if (r == FILE_MORE)
		turn_queue(&f->turn);
	else if (r == FILE_WAITS)
		open_window(f);
	else
		finish(f, r);
}

void
file_request(uint32_t stream, const uint8_t *bytes, size_t len)
{
	_cleanup_(place_close) struct place p = {.fd = -1};
	struct stat st = {.st_mode = 0};
	struct file_req q;
	const char *why = file_req_parse(&q, bytes, len);
	int r;

	if (why != NULL) {
		chan_put_error(chan, stream, PROTO_STAGE_REQUEST, EINVAL, why);
		return;
	}
	r = place_open(&p, q.root);
	if (r < 0) {
		answer(stream, r, NULL);
		return;
	}
	switch (q.head.op) {
	case PROTO_FILE_STAT: r = file_stat(&q, &p, &st); break;
	case PROTO_FILE_RENAME: r = file_rename(&q, &p); break;
	case PROTO_FILE_MKDIR: r = file_mkdir(&q, &p, &st); break;
	case PROTO_FILE_SETATTR: r = file_setattr(&q, &p, &st); break;
	case PROTO_FILE_SYMLINK: r = file_symlink(&q, &p); break;
	case PROTO_FILE_LINK: r = file_link(&q, &p); break;
	default: begin(stream, &q, &p); return;
	}
	answer(stream, r, &st);
}

/* --- while it goes on ------------------------------------------------------------------ */

/* Credit goes back in halves of the window. */
static void
grant(struct file *f)
{
	uint32_t n = (uint32_t)f->w.owed;

	if (n < WRITE_WINDOW / 2)
		return;
	chan_put(chan, PROTO_CREDIT, f->stream, &n, sizeof(n));
	f->w.owed = 0;
}

void
file_stdin(struct file *f, const uint8_t *bytes, size_t len, bool eof)
{
	int r;

	CHECK_OBJ(f, FILE_MAGIC);
	if (f->op != PROTO_FILE_WRITE)
		return;
	f->w.owed += len;
	r = file_write_bytes(f, bytes, len);
	if (r < 0)
		finish(f, r);
	else if (eof)
		finish(f, FILE_DONE);
	else
		grant(f);
}

void
file_credit(struct file *f, uint32_t n)
{
	CHECK_OBJ(f, FILE_MAGIC);
	f->credit += n;
	if (f->op != PROTO_FILE_WRITE)
		turn_queue(&f->turn);
}
