/* SPDX-License-Identifier: MIT
 *
 * client_file.c - file operations in a VM: the request, the answer, what its
 * errors mean, and all that is done with one answer. Runs in clients. (Reading,
 * writing and listing: client_file_io.c.)
 *
 * An operation is a stream like a command's: the same handle, windows and waits.
 */
#include "shm/client.h"

#include <string.h>
#include <sys/stat.h>

#define SILENCE_MS 60000 /* when the caller names no limit */

/* --- errors ------------------------------------------------------------------------- */

/* The class of an errno of the guest. */
static int
classify(int err, bool confined)
{
	static const struct {
		int err, code;
	} rows[] = {
	    {ENOENT, VMPOOL_EFILE_NOTFOUND},	{EACCES, VMPOOL_EFILE_PERM},
	    {EPERM, VMPOOL_EFILE_PERM},		{ENOSPC, VMPOOL_EFILE_NOSPACE},
	    {EDQUOT, VMPOOL_EFILE_NOSPACE},	{EISDIR, VMPOOL_EFILE_ISDIR},
	    {ENOTDIR, VMPOOL_EFILE_NOTDIR},	{ELOOP, VMPOOL_EFILE_LINKS},
	    {EMLINK, VMPOOL_EFILE_LINKS},	{EEXIST, VMPOOL_EFILE_EXISTS},
	    {ENOTEMPTY, VMPOOL_EFILE_NOTEMPTY}, {EROFS, VMPOOL_EFILE_READONLY},
	};

	if (err == EXDEV && confined)
		return VMPOOL_EFILE_PERM;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].err == err)
			return rows[i].code;
	return VMPOOL_EFILE_IO;
}

/* Why, in words: the errno's own, unless it stands for something else here. */
static const char *
reason(int err, uint32_t op, bool confined)
{
	const char *text = strerrordesc_np(err);

	if (err == EXDEV && confined)
		return "the path leads out of the root";
	if (err == ELOOP && confined)
		return "a symbolic link is in the way";
	if (err == EINVAL && (op == PROTO_FILE_READ || op == PROTO_FILE_WRITE))
		return "not a regular file";
	if (err == EINVAL && op == PROTO_FILE_READLINK)
		return "not a symbolic link";
	return text != NULL ? text : "unknown error";
}

static int
file_fail(const struct file_call *c, int err)
{
	const bool confined = c->opts->root != NULL;
	const char *name = strerrorname_np(err);
	char path[200], other[200] = "";

	client_printable(path, sizeof(path), c->path, strlen(c->path));
	if (c->other != NULL)
		client_printable(other, sizeof(other), c->other, strlen(c->other));
	return client_fail(c->vm->pool, classify(err, confined), "\"%s\"%s%s%s: %s (%s)", path,
			   c->other != NULL ? ", \"" : "", other, c->other != NULL ? "\"" : "",
			   reason(err, c->op, confined), name != NULL ? name : "?");
}

int
file_wait_fail(const struct file_call *c, int r)
{
	if (r == -EINTR)
		return client_fail(c->vm->pool, r, "interrupted by a signal");
	if (r == -EAGAIN)
		return client_fail(c->vm->pool, VMPOOL_ETIMEDOUT,
				   "the VM in slot %u does not answer", c->vm->lease.slot);
	return r;
}

/* --- requests ------------------------------------------------------------------------- */

/* What each operation takes of the options. */
static uint32_t
flags_of(uint32_t op, const struct vmpool_file_opts *o)
{
	const uint32_t parents = o->parents ? PROTO_FILE_F_PARENTS : 0;
	const uint32_t excl = o->exclusive ? PROTO_FILE_F_EXCL : 0;
	const uint32_t mode = o->set_mode ? PROTO_FILE_F_SET_MODE : 0;
	const uint32_t no_follow = o->no_follow ? PROTO_FILE_F_NOFOLLOW : 0;

	switch (op) {
	case PROTO_FILE_WRITE:
		return parents | excl | mode | (o->set_mtime ? PROTO_FILE_F_SET_MTIME : 0) |
		       (o->append ? PROTO_FILE_F_APPEND : 0) |
		       (o->in_place ? PROTO_FILE_F_IN_PLACE : 0) |
		       (o->sparse ? PROTO_FILE_F_SPARSE : 0);
	case PROTO_FILE_MKDIR: return parents | mode;
	case PROTO_FILE_RENAME: return parents | excl;
	case PROTO_FILE_SYMLINK:
	case PROTO_FILE_LINK: return parents;
	case PROTO_FILE_REMOVE: return o->recursive ? PROTO_FILE_F_TREE : 0;
	case PROTO_FILE_STAT:
	case PROTO_FILE_SETATTR: return no_follow;
	default: return 0;
	}
}

static int
check(const struct file_call *c, const struct proto_file *head)
{
	if ((head->flags & PROTO_FILE_F_EXCL) != 0 &&
	    (head->flags & (PROTO_FILE_F_APPEND | PROTO_FILE_F_IN_PLACE)) != 0)
		return client_fail(c->vm->pool, VMPOOL_ECONFIG,
				   "exclusive goes with neither append nor in_place");
	if ((head->flags & PROTO_FILE_F_SPARSE) != 0 && (head->flags & PROTO_FILE_F_APPEND) != 0)
		return client_fail(c->vm->pool, VMPOOL_ECONFIG, "sparse does not go with append");
	if (head->mode > 07777)
		return client_fail(c->vm->pool, VMPOOL_ECONFIG, "%o is no mode of a file",
				   head->mode);
	if (head->mtime_nsec > 999999999)
		return client_fail(c->vm->pool, VMPOOL_ECONFIG, "a time of %u nanoseconds",
				   head->mtime_nsec);
	if (head->offset > INT64_MAX)
		return client_fail(c->vm->pool, VMPOOL_ECONFIG, "an offset beyond any file");
	return 0;
}

static void
head_build(struct proto_file *head, uint32_t op, uint32_t flags, const struct vmpool_file_opts *o)
{
	*head = (struct proto_file){.op = op, .flags = flags | flags_of(op, o)};
	if ((head->flags & PROTO_FILE_F_SET_MODE) != 0)
		head->mode = o->mode;
	if ((head->flags & PROTO_FILE_F_SET_MTIME) != 0) {
		head->mtime_sec = o->mtime.tv_sec;
		head->mtime_nsec = (uint32_t)o->mtime.tv_nsec;
	}
	if (op == PROTO_FILE_READ) {
		head->offset = o->offset;
		head->length = o->length;
	}
}

/* Header and strings at buf, which has PROTO_PAYLOAD_MAX bytes; *len of them. */
static int
request_build(const struct file_call *c, const struct proto_file *head, uint8_t *buf, size_t *len)
{
	const char *strings[] = {c->path, c->other, c->opts->root};

	memcpy(buf, head, sizeof(*head));
	*len = sizeof(*head);
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		size_t n = strings[i] != NULL ? strlen(strings[i]) : 0;

		if (n >= PROTO_PATH_MAX)
			return file_fail(c, ENAMETOOLONG);
		memcpy(buf + *len, n > 0 ? strings[i] : "", n);
		buf[*len + n] = '\0';
		*len += n + 1;
	}
	return 0;
}

/* vm->lock is held. */
static int
request_send(struct file_call *c, const uint8_t *buf, size_t len)
{
	struct vmpool_proc *proc = NULL;
	int r;

	/* Streams that have ended meanwhile can be used again. */
	conn_drain(c->vm, NULL);
	r = conn_check(c->vm);
	if (r == 0)
		r = proc_new(c->vm, &proc);
	if (r < 0)
		return r;
	proc->file = true;
	proc->stdin_open = c->op == PROTO_FILE_WRITE;
	r = conn_send_wait(c->vm, proc->stream, PROTO_FILE, 0, buf, len,
			   client_deadline(CLIENT_SEND_MS));
	if (r < 0) {
		proc_destroy(proc);
		return r;
	}
	if (c->op == PROTO_FILE_READ || c->op == PROTO_FILE_LIST) {
		proc->wide = true;
		proc_tend(proc);
	}
	c->proc = proc;
	return 0;
}

int
file_begin(struct file_call *c, struct vmpool_vm *vm, uint32_t op, uint32_t flags, const char *path,
	   const char *other, const struct vmpool_file_opts *opts)
{
	static const struct vmpool_file_opts none;
	uint8_t buf[PROTO_PAYLOAD_MAX];
	struct proto_file head;
	size_t len = 0;
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	*c = (struct file_call){
	    .vm = vm, .op = op, .opts = opts != NULL ? opts : &none, .path = path, .other = other};
	head_build(&head, op, flags, c->opts);
	r = check(c, &head);
	if (r == 0)
		r = request_build(c, &head, buf, &len);
	if (r == 0)
		r = conn_enter(vm);
	if (r < 0)
		return r;
	r = request_send(c, buf, len);
	conn_leave(vm);
	return r;
}

/* --- answers ---------------------------------------------------------------------------- */

int64_t
file_silence(const struct file_call *c)
{
	return c->opts->timeout_ms != 0 ? c->opts->timeout_ms : SILENCE_MS;
}

int
file_next(struct file_call *c, struct vmpool_event *event)
{
	int r = vmpool_proc_next(c->proc, file_silence(c), event);

	if (r < 0)
		return file_wait_fail(c, r);
	if (event->type != VMPOOL_EXIT)
		return 1;
	if (c->proc->done.err != 0)
		return file_fail(c, (int)c->proc->done.err);
	return 0;
}

void
file_end(struct file_call *c)
{
	vmpool_proc_free(c->proc);
	c->proc = NULL;
}

static bool
time_in(struct timespec *out, int64_t sec, uint32_t nsec)
{
	*out = (struct timespec){.tv_sec = sec, .tv_nsec = (long)nsec};
	return nsec < 1000000000;
}

bool
file_stat_in(struct vmpool_file_stat *out, const struct proto_stat *st)
{
	*out = (struct vmpool_file_stat){
	    .mode = st->mode,
	    .nlink = st->nlink,
	    .uid = st->uid,
	    .gid = st->gid,
	    .size = st->size,
	    .blocks = st->blocks,
	    .ino = st->ino,
	};
	return time_in(&out->atime, st->atime_sec, st->atime_nsec) &&
	       time_in(&out->mtime, st->mtime_sec, st->mtime_nsec) &&
	       time_in(&out->ctime, st->ctime_sec, st->ctime_nsec) &&
	       st->mode <= (S_IFMT | 07777u) && st->size <= INT64_MAX && st->zero == 0;
}

/* Of an operation that has no bytes: its answer. */
static int
finish(struct file_call *c, struct vmpool_file_stat *st)
{
	struct vmpool_event event;
	int r;

	do
		r = file_next(c, &event);
	while (r > 0);
	if (r == 0 && st != NULL)
		(void)file_stat_in(st, &c->proc->done.stat);
	file_end(c);
	return r;
}

static int
run(struct vmpool_vm *vm, uint32_t op, const char *path, const char *other,
    const struct vmpool_file_opts *opts, struct vmpool_file_stat *st)
{
	struct file_call c;
	int r = file_begin(&c, vm, op, 0, path, other, opts);

	return r == 0 ? finish(&c, st) : r;
}

/* --- what callers do ---------------------------------------------------------------------- */

int
vmpool_stat(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
	    struct vmpool_file_stat *st)
{
	*st = (struct vmpool_file_stat){.mode = 0};
	return run(vm, PROTO_FILE_STAT, path, NULL, opts, st);
}

int
vmpool_file_exists(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts)
{
	struct vmpool_file_stat st;
	int r = vmpool_stat(vm, path, opts, &st);

	if (r == VMPOOL_EFILE_NOTFOUND || r == VMPOOL_EFILE_NOTDIR)
		return 0;
	return r == 0 ? 1 : r;
}

int
vmpool_remove_file(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts)
{
	return run(vm, PROTO_FILE_REMOVE, path, NULL, opts, NULL);
}

int
vmpool_rename(struct vmpool_vm *vm, const char *from, const char *to,
	      const struct vmpool_file_opts *opts)
{
	return run(vm, PROTO_FILE_RENAME, from, to, opts, NULL);
}

int
vmpool_mkdir(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts)
{
	return run(vm, PROTO_FILE_MKDIR, path, NULL, opts, NULL);
}

int
vmpool_symlink(struct vmpool_vm *vm, const char *target, const char *path,
	       const struct vmpool_file_opts *opts)
{
	return run(vm, PROTO_FILE_SYMLINK, path, target, opts, NULL);
}

int
vmpool_link(struct vmpool_vm *vm, const char *existing, const char *path,
	    const struct vmpool_file_opts *opts)
{
	return run(vm, PROTO_FILE_LINK, path, existing, opts, NULL);
}

/* Set what changed says, and leave the rest. */
static int
set(struct vmpool_vm *vm, const char *path, uint32_t flag, const struct vmpool_file_opts *changed)
{
	struct file_call c;
	int r = file_begin(&c, vm, PROTO_FILE_SETATTR, flag, path, NULL, changed);

	return r == 0 ? finish(&c, NULL) : r;
}

int
vmpool_chmod(struct vmpool_vm *vm, const char *path, uint32_t mode,
	     const struct vmpool_file_opts *opts)
{
	struct vmpool_file_opts changed = {.mode = mode};

	if (opts != NULL)
		changed = *opts;
	changed.mode = mode;
	return set(vm, path, PROTO_FILE_F_SET_MODE, &changed);
}

int
vmpool_set_mtime(struct vmpool_vm *vm, const char *path, const struct timespec *mtime,
		 const struct vmpool_file_opts *opts)
{
	struct vmpool_file_opts changed = {.root = NULL};

	if (opts != NULL)
		changed = *opts;
	changed.mtime = *mtime;
	return set(vm, path, PROTO_FILE_F_SET_MTIME, &changed);
}
