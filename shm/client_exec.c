/* SPDX-License-Identifier: MIT
 *
 * client_exec.c - starting commands, commands whose output is collected, and
 * pings. Runs in clients.
 */
#include "shm/client.h"

#include <string.h>

#define OUTPUT_LIMIT (64u << 20) /* per stream, when the caller names none */

/* --- the request ------------------------------------------------------------------------ */

/* An EXEC request under construction; the strings follow the header. */
struct request {
	uint8_t *buf;
	size_t len, cap;
};

static void
request_fini(struct request *req)
{
	free(req->buf);
}

/* Bytes and number of a NULL-terminated list of strings. */
static size_t
list_size(const char *const *list, uint32_t *count)
{
	size_t n = 0;

	for (*count = 0; list != NULL && list[*count] != NULL; (*count)++) {
		n += strlen(list[*count]) + 1;
		/* Enough to be refused; and count cannot overflow. */
		if (n > PROTO_EXEC_MAX)
			break;
	}
	return n;
}

static void
add_string(struct request *req, const char *s)
{
	size_t n = strlen(s) + 1;

	memcpy(req->buf + req->len, s, n);
	req->len += n;
}

static void
add_list(struct request *req, const char *const *list, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		add_string(req, list[i]);
}

static int
check_env(const struct vmpool *pool, const char *const *env)
{
	for (; env != NULL && *env != NULL; env++) {
		const char *eq = strchr(*env, '=');

		if (eq == NULL || eq == *env)
			return client_fail(pool, VMPOOL_ECONFIG,
					   "environment entry \"%.100s\" is not NAME=VALUE", *env);
	}
	return 0;
}

/* What needs no string. */
static int
fill_head(struct proto_exec *head, const struct vmpool *pool, const struct vmpool_exec_opts *opts,
	  bool want_stdin)
{
	if (opts->set_umask && opts->umask > 0777)
		return client_fail(pool, VMPOOL_ECONFIG, "%#o is no umask", opts->umask);
	if (opts->tty && !want_stdin)
		return client_fail(pool, VMPOOL_ECONFIG, "a terminal needs stdin");
	*head = (struct proto_exec){
	    .timeout_ms = opts->timeout_ms,
	    .flags = (want_stdin ? PROTO_EXEC_STDIN : 0) |
		     (opts->clean_env ? PROTO_EXEC_CLEAN_ENV : 0) |
		     (opts->tty ? PROTO_EXEC_TTY : 0) | (opts->set_umask ? PROTO_EXEC_UMASK : 0),
	    .umask = opts->set_umask ? opts->umask : 0,
	    .cpu_s = opts->cpu_s,
	    .memory_mib = opts->memory_mib,
	    .procs = opts->max_procs,
	    .files = opts->max_files,
	    .rows = opts->tty ? opts->rows : 0,
	    .cols = opts->tty ? opts->cols : 0,
	};
	return 0;
}

static int
request_build(struct request *req, const struct vmpool *pool, const char *const *argv,
	      const struct vmpool_exec_opts *opts, bool want_stdin)
{
	const char *cwd = opts->cwd != NULL ? opts->cwd : "";
	const char *user = opts->user != NULL ? opts->user : "";
	struct proto_exec head;
	size_t size;
	int r = fill_head(&head, pool, opts, want_stdin);

	if (r < 0)
		return r;
	size = sizeof(head) + list_size(argv, &head.argc) + list_size(opts->env, &head.envc) +
	       list_size(opts->unset_env, &head.unsetc) + strlen(cwd) + strlen(user) + 2;
	if (head.argc == 0)
		return client_fail(pool, VMPOOL_ECONFIG, "no command given");
	if (size > PROTO_EXEC_MAX)
		return client_fail(pool, -E2BIG, "arguments and environment exceed %u KiB",
				   PROTO_EXEC_MAX >> 10);
	head.size = (uint32_t)size;
	req->buf = malloc(size);
	if (req->buf == NULL)
		return client_fail(pool, -ENOMEM, "out of memory");
	memcpy(req->buf, &head, sizeof(head));
	req->len = sizeof(head);
	add_list(req, argv, head.argc);
	add_list(req, opts->env, head.envc);
	add_list(req, opts->unset_env, head.unsetc);
	add_string(req, cwd);
	add_string(req, user);
	return 0;
}

/* vm->lock is held. A request that was sent in part only leaves the stream in a
 * state nobody can mend, so the VM is given up. */
static int
request_send(struct vmpool_proc *proc, const struct request *req)
{
	uint64_t deadline = client_deadline(CLIENT_SEND_MS);
	size_t off = 0;

	while (off < req->len) {
		size_t n = MIN(req->len - off, PROTO_PAYLOAD_MAX);
		uint8_t flags = off + n < req->len ? PROTO_F_MORE : 0;
		int r = conn_send_wait(proc->vm, proc->stream, PROTO_EXEC, flags, req->buf + off, n,
				       deadline);

		if (r < 0) {
			conn_break(proc->vm, r, "the VM in slot %u takes no requests",
				   proc->vm->lease.slot);
			return r;
		}
		off += n;
	}
	return 0;
}

/* --- starting ----------------------------------------------------------------------------- */

static int
remember(struct vmpool_proc *proc, const char *argv0, const struct vmpool_exec_opts *opts)
{
	proc->argv0 = strndup(argv0, 128);
	proc->cwd = strndup(opts->cwd != NULL ? opts->cwd : "/", 128);
	proc->user = strndup(opts->user != NULL ? opts->user : "root", 128);
	if (proc->argv0 == NULL || proc->cwd == NULL || proc->user == NULL)
		return client_fail(proc->vm->pool, -ENOMEM, "out of memory");
	return 0;
}

static int
start(struct vmpool_vm *vm, const char *const *argv, const struct vmpool_exec_opts *opts,
      bool want_stdin, struct vmpool_proc **out)
{
	_cleanup_(request_fini) struct request req = {.buf = NULL};
	struct vmpool_proc *proc = NULL;
	int r;

	r = client_enter(vm->pool, true);
	if (r == 0)
		r = check_env(vm->pool, opts->env);
	if (r == 0)
		r = request_build(&req, vm->pool, argv, opts, want_stdin);
	if (r == 0)
		r = conn_enter(vm);
	if (r < 0)
		return r;
	/* Streams that have ended meanwhile can be used again. */
	conn_drain(vm, NULL);
	r = conn_check(vm);
	if (r == 0)
		r = proc_new(vm, &proc);
	if (r == 0)
		r = remember(proc, argv[0], opts);
	if (r == 0) {
		proc->stdin_open = want_stdin;
		if (opts->timeout_ms != 0)
			proc->backstop_ns =
			    client_deadline((int64_t)opts->timeout_ms + CLIENT_BACKSTOP_MS);
		r = request_send(proc, &req);
	}
	if (r < 0 && proc != NULL)
		proc_destroy(proc);
	conn_leave(vm);
	if (r == 0)
		*out = proc;
	return r;
}

int
vmpool_spawn(struct vmpool_vm *vm, const char *const *argv, const struct vmpool_exec_opts *opts,
	     struct vmpool_proc **out)
{
	static const struct vmpool_exec_opts none;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	*out = NULL;
	if (opts == NULL)
		opts = &none;
	return start(vm, argv, opts, opts->want_stdin || opts->tty, out);
}

/* --- collecting ---------------------------------------------------------------------------- */

int
collect(struct collector *c, const void *p, size_t len, size_t limit)
{
	size_t n = MIN(len, limit - c->len);
	size_t cap = c->cap;
	char *buf;

	while (cap < c->len + n + 1)
		cap = cap == 0 ? 4096 : cap * 2;
	if (cap != c->cap) {
		buf = realloc(c->buf, cap);
		if (buf == NULL)
			return -ENOMEM;
		c->buf = buf;
		c->cap = cap;
	}
	memcpy(c->buf + c->len, p, n);
	c->len += n;
	c->buf[c->len] = '\0';
	return n < len;
}

struct input {
	const char *p;
	size_t left;
	bool open;
};

/* Hand over as much input as the guest takes now; -EPIPE only ends the input. */
static int
feed(struct vmpool_proc *proc, struct input *in)
{
	while (in->left > 0) {
		ssize_t n = vmpool_proc_write(proc, in->p, in->left, 0);

		if (n == -EAGAIN)
			return 0;
		if (n == -EPIPE) {
			in->open = false;
			return 0;
		}
		if (n < 0)
			return (int)n;
		in->p += n;
		in->left -= (size_t)n;
	}
	in->open = false;
	return vmpool_proc_close_stdin(proc);
}

/* One event, feeding input while waiting for it: 1, or an error. */
static int
step(struct vmpool_proc *proc, struct input *in, struct vmpool_event *event)
{
	for (;;) {
		int r = in->open ? feed(proc, in) : 0;

		if (r == 0)
			r = conn_enter(proc->vm);
		if (r < 0)
			return r;
		r = proc_poll(proc, LOCK_FOREVER, in->open, event);
		conn_leave(proc->vm);
		if (r != 2)
			return r;
	}
}

/* To the command's end. */
static int
run(struct vmpool_proc *proc, struct input *in, size_t limit, struct collector *out,
    struct collector *err, struct vmpool_result *result)
{
	for (;;) {
		struct vmpool_event event;
		int r = step(proc, in, &event);

		if (r < 0)
			return r;
		switch (event.type) {
		case VMPOOL_STDOUT: r = collect(out, event.data, event.len, limit); break;
		case VMPOOL_STDERR: r = collect(err, event.data, event.len, limit); break;
		case VMPOOL_EXIT:
		case VMPOOL_TIMEOUT:
			result->exit_code = event.exit_code;
			result->signal = event.signal;
			result->timed_out = event.type == VMPOOL_TIMEOUT;
			result->guest_ns = event.guest_ns;
			return 0;
		}
		if (r < 0)
			return client_fail(proc->vm->pool, r, "out of memory");
		result->truncated |= r > 0;
	}
}

int
vmpool_exec(struct vmpool_vm *vm, const char *const *argv, const struct vmpool_exec_opts *opts,
	    struct vmpool_result *result)
{
	static const struct vmpool_exec_opts none;
	struct collector out = {.buf = NULL}, err = {.buf = NULL};
	struct vmpool_proc *proc = NULL;
	uint64_t start_ns = now_ns();
	struct input in;
	size_t limit;
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	*result = (struct vmpool_result){.out = NULL};
	if (opts == NULL)
		opts = &none;
	limit = opts->output_limit != 0 ? opts->output_limit : OUTPUT_LIMIT;
	in = (struct input){.p = opts->input, .left = opts->input_len, .open = opts->input != NULL};
	/* Both results are strings even if nothing comes. */
	if (collect(&out, "", 0, limit) < 0 || collect(&err, "", 0, limit) < 0)
		r = client_fail(vm->pool, -ENOMEM, "out of memory");
	else
		r = start(vm, argv, opts, in.open, &proc);
	if (r == 0)
		r = run(proc, &in, limit, &out, &err, result);
	vmpool_proc_free(proc);
	result->out = out.buf;
	result->err = err.buf;
	result->out_len = out.len;
	result->err_len = err.len;
	result->elapsed_ns = now_ns() - start_ns;
	return r;
}

void
vmpool_result_fini(struct vmpool_result *result)
{
	free(result->out);
	free(result->err);
	*result = (struct vmpool_result){.out = NULL};
}

/* --- pings --------------------------------------------------------------------------------- */

/* vm->lock is held. */
static int
ping_wait(struct vmpool_vm *vm, const struct conn_ping *ping, uint64_t deadline)
{
	for (;;) {
		uint32_t seq = conn_seq(vm);
		int r;

		conn_drain(vm, NULL);
		if (ping->answered)
			return 0;
		r = conn_check(vm);
		if (r == 0)
			r = conn_wait(vm, seq, deadline);
		if (r == -EAGAIN)
			return client_fail(vm->pool, VMPOOL_ETIMEDOUT,
					   "the VM in slot %u has not answered", vm->lease.slot);
		if (r == -EINTR)
			return client_fail(vm->pool, r, "interrupted by a signal");
		if (r < 0)
			return r;
	}
}

static int
ping(struct vmpool_vm *vm, uint8_t type, int64_t timeout_ms, uint64_t *rtt_ns)
{
	uint64_t deadline = client_deadline(timeout_ms), start_ns = now_ns();
	struct conn_ping self, **link;
	struct conn *c;
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = conn_enter(vm);
	if (r < 0)
		return r;
	c = vm->conn;
	self = (struct conn_ping){.next = c->pings, .nonce = ++c->nonce};
	c->pings = &self;
	r = conn_send_wait(vm, 0, type, 0, &self.nonce, sizeof(self.nonce), deadline);
	if (r == 0)
		r = ping_wait(vm, &self, deadline);
	for (link = &c->pings; *link != &self; link = &(*link)->next)
		;
	*link = self.next;
	conn_leave(vm);
	if (r == 0 && rtt_ns != NULL)
		*rtt_ns = now_ns() - start_ns;
	return r;
}

int
vmpool_ping(struct vmpool_vm *vm, int64_t timeout_ms, uint64_t *rtt_ns)
{
	return ping(vm, PROTO_PING, timeout_ms, rtt_ns);
}

int
vmpool_ping_worker(struct vmpool_vm *vm, int64_t timeout_ms, uint64_t *rtt_ns)
{
	return ping(vm, RING_WORKER_PING, timeout_ms, rtt_ns);
}
