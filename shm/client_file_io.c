/* SPDX-License-Identifier: MIT
 *
 * client_file_io.c - what goes on between the request and the end of a file
 * operation: bytes to a sink or from a source, entries of a directory. Runs in
 * clients. Holds one piece at a time; what the VM sends ahead its window bounds.
 */
#include "shm/client.h"

#include <string.h>

#define LIMIT (64u << 20) /* bytes kept for the caller, when it names none */

static size_t
limit_of(const struct vmpool_file_opts *opts)
{
	return opts != NULL && opts->limit != 0 ? opts->limit : LIMIT;
}

/* --- reading ---------------------------------------------------------------------------- */

static int
drain(struct file_call *c, vmpool_sink *sink, void *arg)
{
	struct vmpool_event event;
	int r;

	while ((r = file_next(c, &event)) > 0) {
		r = sink(arg, event.data, event.len);
		if (r != 0)
			return r;
	}
	return r;
}

static int
run(struct vmpool_vm *vm, uint32_t op, const char *path, const struct vmpool_file_opts *opts,
    vmpool_sink *sink, void *arg, struct vmpool_file_stat *st)
{
	struct file_call c;
	int r = file_begin(&c, vm, op, 0, path, NULL, opts);

	if (r < 0)
		return r;
	r = drain(&c, sink, arg);
	if (r == 0 && st != NULL)
		(void)file_stat_in(st, &c.proc->done.stat);
	file_end(&c);
	return r;
}

int
vmpool_read_file_to(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		    vmpool_sink *sink, void *arg, struct vmpool_file_stat *st)
{
	if (st != NULL)
		*st = (struct vmpool_file_stat){.mode = 0};
	return run(vm, PROTO_FILE_READ, path, opts, sink, arg, st);
}

/* What is kept in memory: a file, a link's text. */
struct keep {
	const struct vmpool *pool;
	struct collector bytes;
	size_t limit;
};

static int
keep(void *arg, const void *buf, size_t len)
{
	struct keep *k = arg;
	int r = collect(&k->bytes, buf, len, k->limit);

	if (r < 0)
		return client_fail(k->pool, r, "out of memory");
	if (r > 0)
		return client_fail(k->pool, -EFBIG, "it is larger than %zu bytes", k->limit);
	return 0;
}

static int
keep_all(struct vmpool_vm *vm, uint32_t op, const char *path, const struct vmpool_file_opts *opts,
	 size_t limit, struct collector *out)
{
	struct keep k = {.pool = vm->pool, .limit = limit};
	/* A string even if nothing comes. */
	int r = keep(&k, "", 0);

	if (r == 0)
		r = run(vm, op, path, opts, keep, &k, NULL);
	if (r != 0)
		freep(&k.bytes.buf);
	*out = k.bytes;
	return r;
}

int
vmpool_read_file(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		 void **buf, size_t *len)
{
	struct collector bytes;
	int r;

	*buf = NULL;
	*len = 0;
	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = keep_all(vm, PROTO_FILE_READ, path, opts, limit_of(opts), &bytes);
	if (r == 0) {
		*buf = bytes.buf;
		*len = bytes.len;
	}
	return r;
}

int
vmpool_readlink(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		char **target)
{
	struct collector bytes;
	int r;

	*target = NULL;
	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = keep_all(vm, PROTO_FILE_READLINK, path, opts, PROTO_PATH_MAX, &bytes);
	if (r == 0)
		*target = bytes.buf;
	return r;
}

/* --- writing ---------------------------------------------------------------------------- */

/* Hand these bytes over; 1: the operation has ended, whatever became of it. */
static int
push(struct file_call *c, const uint8_t *p, size_t len)
{
	while (len > 0) {
		ssize_t n = vmpool_proc_write(c->proc, p, len, file_silence(c));

		if (n == -EPIPE)
			return 1;
		if (n < 0)
			return file_wait_fail(c, (int)n);
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* All of the source, to the end of the operation. */
static int
pour(struct file_call *c, vmpool_source *source, void *arg)
{
	uint8_t buf[PROTO_PAYLOAD_MAX];
	struct vmpool_event event;
	ssize_t n;
	int r;

	do {
		n = source(arg, buf, sizeof(buf));
		if (n < 0)
			return (int)n;
		r = push(c, buf, MIN((size_t)n, sizeof(buf)));
	} while (r == 0 && n > 0);
	if (r == 0)
		r = vmpool_proc_close_stdin(c->proc);
	if (r < 0)
		return r;
	do
		r = file_next(c, &event);
	while (r > 0);
	return r;
}

int
vmpool_write_file_from(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		       vmpool_source *source, void *arg, struct vmpool_file_stat *st)
{
	struct file_call c;
	int r;

	if (st != NULL)
		*st = (struct vmpool_file_stat){.mode = 0};
	r = file_begin(&c, vm, PROTO_FILE_WRITE, 0, path, NULL, opts);
	if (r < 0)
		return r;
	r = pour(&c, source, arg);
	if (r == 0 && st != NULL)
		(void)file_stat_in(st, &c.proc->done.stat);
	file_end(&c);
	return r;
}

struct memory {
	const uint8_t *p;
	size_t left;
};

static ssize_t
from_memory(void *arg, void *buf, size_t len)
{
	struct memory *m = arg;
	size_t n = MIN(len, m->left);

	memcpy(buf, m->p, n);
	m->p += n;
	m->left -= n;
	return (ssize_t)n;
}

int
vmpool_write_file(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		  const void *buf, size_t len)
{
	struct memory m = {.p = len > 0 ? buf : (const uint8_t *)"", .left = len};

	return vmpool_write_file_from(vm, path, opts, from_memory, &m, NULL);
}

/* --- listing ---------------------------------------------------------------------------- */

/* Entries out of a stream of bytes that may be cut anywhere. */
struct lister {
	struct vmpool_vm *vm;
	vmpool_entry_fn *fn;
	void *arg;
	size_t have;
	uint8_t buf[sizeof(struct proto_dirent) + PROTO_NAME_MAX];
};

/* The guest is free to invent; what cannot be a name must not look like a path. */
static bool
entry_ok(const struct proto_dirent *e, const char *name, struct vmpool_dirent *out)
{
	return e->zero == 0 && strlen(name) == e->name_len && strchr(name, '/') == NULL &&
	       strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       file_stat_in(&out->st, &e->stat);
}

static int
nonsense(const struct lister *l)
{
	return client_fail(l->vm->pool, VMPOOL_EPROTOCOL, "the VM sent no directory entries");
}

/* How many bytes the entry at buf needs, as far as is known. */
static size_t
need(const struct lister *l)
{
	struct proto_dirent e;

	if (l->have < sizeof(e))
		return sizeof(e);
	memcpy(&e, l->buf, sizeof(e));
	return e.name_len == 0 || e.name_len > PROTO_NAME_MAX ? 0 : sizeof(e) + e.name_len;
}

static int
hand_out(struct lister *l)
{
	char name[PROTO_NAME_MAX + 1];
	struct vmpool_dirent entry = {.name = name};
	struct proto_dirent e;

	memcpy(&e, l->buf, sizeof(e));
	memcpy(name, l->buf + sizeof(e), e.name_len);
	name[e.name_len] = '\0';
	l->have = 0;
	if (!entry_ok(&e, name, &entry))
		return nonsense(l);
	return l->fn(l->arg, &entry);
}

static int
take_entries(void *arg, const void *buf, size_t len)
{
	struct lister *l = arg;
	const uint8_t *p = buf;
	int r = 0;

	while (r == 0 && len > 0) {
		size_t want = need(l), n = MIN(want - l->have, len);

		if (want == 0)
			return nonsense(l);
		memcpy(l->buf + l->have, p, n);
		l->have += n;
		p += n;
		len -= n;
		if (l->have > sizeof(struct proto_dirent) && l->have == need(l))
			r = hand_out(l);
	}
	return r;
}

int
vmpool_list_dir_each(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		     vmpool_entry_fn *fn, void *arg)
{
	struct lister l = {.vm = vm, .fn = fn, .arg = arg};
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = run(vm, PROTO_FILE_LIST, path, opts, take_entries, &l, NULL);
	return r == 0 && l.have > 0 ? nonsense(&l) : r;
}

struct list {
	const struct vmpool *pool;
	struct vmpool_dirent *entry;
	size_t count, cap;
	size_t left; /* bytes that may still be kept */
};

static int
list_add(void *arg, const struct vmpool_dirent *entry)
{
	struct list *l = arg;
	size_t cost = sizeof(*entry) + strlen(entry->name) + 1;
	struct vmpool_dirent *grown = l->entry;

	if (cost > l->left)
		return client_fail(l->pool, -EFBIG, "the directory has more than %zu entries",
				   l->count);
	if (l->count == l->cap) {
		l->cap = l->cap == 0 ? 64 : l->cap * 2;
		grown = realloc(l->entry, l->cap * sizeof(*grown));
	}
	if (grown == NULL)
		return client_fail(l->pool, -ENOMEM, "out of memory");
	l->entry = grown;
	l->entry[l->count] = *entry;
	l->entry[l->count].name = strdup(entry->name);
	if (l->entry[l->count].name == NULL)
		return client_fail(l->pool, -ENOMEM, "out of memory");
	l->count++;
	l->left -= cost;
	return 0;
}

int
vmpool_list_dir(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		struct vmpool_dirent **out, size_t *count)
{
	struct list l = {.left = limit_of(opts)};
	int r;

	*out = NULL;
	*count = 0;
	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	l.pool = vm->pool;
	r = vmpool_list_dir_each(vm, path, opts, list_add, &l);
	if (r != 0) {
		vmpool_list_dir_free(l.entry, l.count);
		return r;
	}
	*out = l.entry;
	*count = l.count;
	return 0;
}

void
vmpool_list_dir_free(struct vmpool_dirent *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i].name);
	free(list);
}
