/* SPDX-License-Identifier: MIT
 *
 * exec.c - assembles EXEC requests, starts their commands, and says what went
 * wrong otherwise. Runs in the agent. Owns the requests being assembled.
 */
#include "kvm/guest/exec.h"
#include "kvm/guest/cmd.h"
#include "kvm/guest/file.h"
#include "kvm/guest/request.h"
#include "kvm/guest/spawn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX 256u

/* A request whose pieces are still coming. */
struct assembly {
	uint32_t stream; /* 0: free */
	int err;	 /* refused: what the ERROR will say */
	char text[TEXT_MAX];
	uint8_t *bytes;
	size_t len;
	size_t cap;
};

static struct assembly assemblies[PROTO_STREAMS_MAX];

static struct assembly *
assembly_find(uint32_t stream)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(assemblies); i++) {
		if (assemblies[i].stream == stream)
			return &assemblies[i];
	}
	return NULL;
}

static void
assembly_free(struct assembly *a)
{
	free(a->bytes);
	memset(a, 0, sizeof(*a));
}

static void
assembly_refuse(struct assembly *a, int err, const char *text)
{
	if (a->err != 0)
		return; /* the first reason stands */
	a->err = err;
	(void)snprintf(a->text, sizeof(a->text), "%s", text);
	util_freep(&a->bytes);
	a->len = a->cap = 0;
}

static void
assembly_add(struct assembly *a, const uint8_t *piece, size_t len)
{
	uint8_t *grown;
	size_t cap;

	if (a->err != 0)
		return;
	if (a->len + len > PROTO_EXEC_MAX) {
		assembly_refuse(a, E2BIG, "the request is larger than 2 MiB");
		return;
	}
	if (a->len + len > a->cap) {
		cap = MIN(MAX(a->cap * 2, a->len + len), PROTO_EXEC_MAX);
		grown = realloc(a->bytes, cap);
		if (grown == NULL) {
			assembly_refuse(a, ENOMEM, "no memory for the request");
			return;
		}
		a->bytes = grown;
		a->cap = cap;
	}
	memcpy(a->bytes + a->len, piece, len);
	a->len += len;
}

bool
exec_refuse(uint32_t stream, int err, const char *text)
{
	struct assembly *a = assembly_find(stream);

	if (a == NULL)
		return false;
	assembly_refuse(a, err, text);
	return true;
}

/* Why execve failed, in words. It happened in this mount namespace, as root or
 * as another user; a second look is for the text only. */
static void
explain_exec(char *text, const char *name, int err)
{
	struct stat st;
	bool path = strchr(name, '/') != NULL;
	const char *why = strerror(err);

	if (err == ENOENT && !path)
		why = "not found in PATH";
	else if (err == ENOENT && stat(name, &st) == 0)
		why = "its interpreter or loader was not found";
	else if (err == EACCES && path && stat(name, &st) == 0 && S_ISDIR(st.st_mode))
		why = "is a directory";
	else if (err == EACCES)
		why = "permission denied, or not executable";
	else if (err == ENOEXEC)
		why = "not a program (and no #! line)";
	else if (err == E2BIG)
		why = "arguments and environment are too large";
	(void)snprintf(text, TEXT_MAX, "%.180s: %s", name, why);
}

static void
explain(char *text, const struct request *req, enum proto_stage stage, int err)
{
	const char *why = strerror(err);

	switch (stage) {
	case PROTO_STAGE_CWD:
		(void)snprintf(text, TEXT_MAX, "directory %.180s: %s", req->cwd, why);
		break;
	case PROTO_STAGE_USER:
		if (err == ENOENT)
			why = "no such user or group";
		else if (err == EINVAL)
			why = "not of the form name or uid[:gid]";
		(void)snprintf(text, TEXT_MAX, "user %.180s: %s", req->user, why);
		break;
	case PROTO_STAGE_EXEC: explain_exec(text, req->argv[0], err); break;
	case PROTO_STAGE_LIMITS:
		if (err == EOPNOTSUPP)
			why = "the guest's kernel has no such limit";
		(void)snprintf(text, TEXT_MAX, "a limit: %s", why);
		break;
	default: (void)snprintf(text, TEXT_MAX, "cannot start a process: %s", why); break;
	}
}

/* Start what the request asks for. 0, or -errno with the stage. */
static int
start(uint32_t stream, const struct request *req, enum proto_stage *stage)
{
	static const struct user root = {.name = "root", .home = "/root"};
	struct spawn s = {.argv = req->argv, .cwd = req->cwd, .want = &req->head};
	struct user who;
	struct env env;
	int r;

	if (req->user[0] != '\0') {
		r = user_find(req->user, &who);
		*stage = PROTO_STAGE_USER;
		if (r != 0)
			return r;
		s.user = &who;
	}
	r = env_init(&env, req, s.user != NULL ? &who : &root);
	*stage = PROTO_STAGE_FORK;
	if (r != 0)
		return r;
	s.env = env.list;
	s.path = env_path(&env);
	r = cmd_start(stream, &s);
	*stage = s.stage;
	env_fini(&env);
	return r;
}

static void
run(struct chan *c, uint32_t stream, const uint8_t *bytes, size_t len)
{
	enum proto_stage stage = PROTO_STAGE_REQUEST;
	char text[TEXT_MAX];
	const char *why;
	struct request req;
	int r = request_parse(&req, bytes, len, &why);

	if (r != 0) {
		chan_put_error(c, stream, stage, -r, why);
		return;
	}
	r = start(stream, &req, &stage);
	if (r != 0) {
		explain(text, &req, stage, -r);
		chan_put_error(c, stream, stage, -r, text);
	}
	request_fini(&req);
}

/* May a new request begin on this stream? NULL, or why not. */
static const char *
admit(uint32_t stream, int *err)
{
	struct file *file = file_find(stream);
	struct cmd *old = cmd_find(stream);

	if (old != NULL)
		cmd_abort(old);
	if (file != NULL)
		file_abort(file);
	if (old != NULL || file != NULL) {
		*err = EBUSY;
		return "the stream is in use: what ran on it was ended";
	}
	*err = EAGAIN;
	return cmd_count() + file_count() >= PROTO_STREAMS_MAX ? "too many open streams" : NULL;
}

static void
finish(struct chan *c, struct assembly *a)
{
	if (a->err != 0)
		chan_put_error(c, a->stream, PROTO_STAGE_REQUEST, a->err, a->text);
	else
		run(c, a->stream, a->bytes, a->len);
	assembly_free(a);
}

void
exec_piece(struct chan *c, const struct proto_hdr *h, const uint8_t *payload)
{
	struct assembly *a = assembly_find(h->stream);
	bool last = (h->flags & PROTO_F_MORE) == 0;
	const char *why = NULL;
	int err = 0;

	if (a == NULL)
		why = admit(h->stream, &err);
	if (a == NULL && last) {
		/* All in one frame, as nearly every request is: no copy. */
		if (why == NULL)
			run(c, h->stream, payload, h->length);
		else
			chan_put_error(c, h->stream, PROTO_STAGE_REQUEST, err, why);
		return;
	}
	if (a == NULL) {
		a = assembly_find(0);
		if (a == NULL)
			util_fatal("more than %u requests begun at once", PROTO_STREAMS_MAX);
		a->stream = h->stream;
		if (why != NULL)
			assembly_refuse(a, err, why);
	}
	assembly_add(a, payload, h->length);
	if (last)
		finish(c, a);
}

void
exec_fini(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(assemblies); i++)
		assembly_free(&assemblies[i]);
}
