/* SPDX-License-Identifier: MIT
 *
 * client_stream.c - one command's, or file operation's, stream in a VM's channel:
 * its id, its windows, what comes on it and what is due on it. Runs in clients.
 *
 * Output goes to the queue of the command. The guest may send only what its
 * window allows, and the window opens again as output is handed out.
 *
 * A freed handle whose command still runs leaves an orphan: the command is
 * killed, what it still says is dropped, and its stream id stays taken until it
 * has ended.
 */
#include "shm/client.h"

#include <signal.h>
#include <string.h>

static struct vmpool_proc **
stream_place(struct conn *c, uint32_t stream)
{
	return &c->stream[stream % PROTO_STREAMS_MAX];
}

int
proc_new(struct vmpool_vm *vm, struct vmpool_proc **out)
{
	struct conn *c = vm->conn;
	struct vmpool_proc *proc;
	unsigned tries = 0;

	/* 0 is the machine's own stream. */
	do {
		c->next_stream++;
		if (++tries > PROTO_STREAMS_MAX + 1)
			return client_fail(vm->pool, -EBUSY, "%u commands run in this VM already",
					   PROTO_STREAMS_MAX);
	} while (c->next_stream == 0 || *stream_place(c, c->next_stream) != NULL);
	proc = calloc(1, sizeof(*proc));
	if (proc == NULL)
		return client_fail(vm->pool, -ENOMEM, "out of memory");
	proc->magic = CLIENT_PROC_MAGIC;
	proc->vm = vm;
	proc->stream = c->next_stream;
	proc->open = true;
	proc->window = PROTO_WINDOW;
	proc->owed = CLIENT_WINDOW - PROTO_WINDOW;
	proc->stdin_credit = PROTO_WINDOW;
	proc->backstop_ns = LOCK_FOREVER;
	proc->event_fd = proc->poll_fd = -1;
	*stream_place(c, proc->stream) = proc;
	proc->next = c->procs;
	c->procs = proc;
	*out = proc;
	return 0;
}

static void
proc_unlist(struct vmpool_proc *proc)
{
	struct vmpool_proc **link = &proc->vm->conn->procs;

	while (*link != NULL && *link != proc)
		link = &(*link)->next;
	if (*link == proc)
		*link = proc->next;
}

static void
stream_close(struct vmpool_proc *proc)
{
	struct vmpool_proc **place = stream_place(proc->vm->conn, proc->stream);

	proc->open = false;
	if (*place == proc)
		*place = NULL;
}

void
proc_destroy(struct vmpool_proc *proc)
{
	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	stream_close(proc);
	proc_unlist(proc);
	if (proc->orphan)
		proc->vm->conn->orphans--;
	outq_fini(&proc->in);
	outq_fini(&proc->out);
	closep(&proc->poll_fd);
	closep(&proc->event_fd);
	free(proc->argv0);
	free(proc->cwd);
	free(proc->user);
	proc->magic = 0;
	free(proc);
}

void
proc_orphan(struct vmpool_proc *proc)
{
	proc_unlist(proc);
	proc->orphan = proc->kill_due = true;
	proc->vm->conn->orphans++;
	/* What was not fetched counts as consumed, or the command could not end. */
	proc->owed = CLIENT_WINDOW - proc->window;
	outq_fini(&proc->in);
	outq_fini(&proc->out);
}

/* --- what comes from the VM ----------------------------------------------------------- */

static bool
receive_output(struct vmpool_proc *proc, bool is_stderr, const uint8_t *payload, uint32_t len)
{
	if (len > proc->window)
		return false;
	proc->window -= len;
	if (proc->orphan)
		proc->owed += len;
	else if (!outq_add(&proc->in, is_stderr, payload, len))
		conn_break(proc->vm, -ENOMEM, "out of memory");
	return true;
}

static bool
receive_credit(struct vmpool_proc *proc, const uint8_t *payload)
{
	uint32_t more;

	memcpy(&more, payload, sizeof(more));
	proc->stdin_credit += more;
	return proc->stdin_credit <= CLIENT_STDIN_MAX;
}

static bool
receive_exit(struct vmpool_proc *proc, const uint8_t *payload)
{
	struct proto_exit e;

	memcpy(&e, payload, sizeof(e));
	if (e.code > 255 || e.signal > CLIENT_SIGNAL_MAX || e.timed_out > 1 ||
	    (e.signal != 0 && e.code != 0))
		return false;
	proc->last = (struct vmpool_event){
	    .type = e.timed_out != 0 ? VMPOOL_TIMEOUT : VMPOOL_EXIT,
	    .exit_code = (int)e.code,
	    .signal = (int)e.signal,
	    .guest_ns = e.elapsed_ns,
	};
	stream_close(proc);
	return true;
}

static bool
receive_vmstats(struct vmpool_proc *proc, const uint8_t *payload)
{
	memcpy(&proc->vmstats, payload, sizeof(proc->vmstats));
	proc->last = (struct vmpool_event){.type = VMPOOL_EXIT};
	stream_close(proc);
	return true;
}

static bool
receive_done(struct vmpool_proc *proc, const uint8_t *payload)
{
	struct vmpool_file_stat st;

	memcpy(&proc->done, payload, sizeof(proc->done));
	if (proc->done.err > CLIENT_ERRNO_MAX || !file_stat_in(&st, &proc->done.stat))
		return false;
	/* Success before the last byte was sent is a lie. */
	if (proc->done.err == 0 && proc->stdin_open)
		return false;
	proc->last = (struct vmpool_event){.type = VMPOOL_EXIT};
	stream_close(proc);
	return true;
}

static void printf_like(3, 4) refuse(struct vmpool_proc *proc, int error, const char *fmt, ...)
{
	va_list ap;

	proc->error = error;
	va_start(ap, fmt);
	(void)vsnprintf(proc->why, sizeof(proc->why), fmt, ap);
	va_end(ap);
}

/* The command did not start. */
static bool
receive_error(struct vmpool_proc *proc, const uint8_t *payload, uint32_t len)
{
	struct proto_error e;
	const char *reason;
	char text[129];

	memcpy(&e, payload, sizeof(e));
	client_printable(text, sizeof(text), payload + sizeof(e), len - sizeof(e));
	reason = e.err <= CLIENT_ERRNO_MAX ? strerrordesc_np((int)e.err) : NULL;
	if (reason == NULL)
		reason = "unknown error";
	if (proc->vmstat)
		refuse(proc, VMPOOL_EGUEST, "the VM does not say how it does: %s (%s)", text,
		       reason);
	else if (proc->file)
		refuse(proc, VMPOOL_EGUEST, "the VM refused the file operation: %s (%s)", text,
		       reason);
	else if (e.stage == PROTO_STAGE_CWD)
		refuse(proc, VMPOOL_ECWD, "cannot enter directory \"%.100s\" in the VM: %s",
		       proc->cwd, reason);
	else if (e.stage == PROTO_STAGE_USER)
		refuse(proc, VMPOOL_EUSER, "no user \"%.100s\" in the VM", proc->user);
	else if (e.stage == PROTO_STAGE_EXEC && (e.err == ENOENT || e.err == ENOTDIR))
		refuse(proc, VMPOOL_ENOTFOUND, "\"%.100s\": command not found in the VM",
		       proc->argv0);
	else if (e.stage == PROTO_STAGE_EXEC && e.err == E2BIG)
		refuse(proc, -E2BIG, "the arguments are too long for the VM");
	else if (e.stage == PROTO_STAGE_EXEC)
		refuse(proc, VMPOOL_ENOTEXEC, "\"%.100s\": cannot be executed in the VM: %s",
		       proc->argv0, reason);
	else
		refuse(proc, VMPOOL_EGUEST, "the VM could not start the command: %s (%s)", text,
		       reason);
	stream_close(proc);
	return true;
}

bool
proc_receive(struct vmpool_proc *proc, const struct ring_rec *rec, const uint8_t *payload)
{
	CHECK_OBJ(proc, CLIENT_PROC_MAGIC);
	if (rec->type != PROTO_ERROR && (rec->type == PROTO_VMSTATS) != proc->vmstat)
		return false;
	if (proc->file ? rec->type == PROTO_STDERR || rec->type == PROTO_EXIT
		       : rec->type == PROTO_FILE_DONE)
		return false;
	/* proto_check has seen to lengths. */
	switch (rec->type) {
	case PROTO_STDOUT: return receive_output(proc, false, payload, rec->length);
	case PROTO_STDERR: return receive_output(proc, true, payload, rec->length);
	case PROTO_CREDIT: return receive_credit(proc, payload);
	case PROTO_EXIT: return receive_exit(proc, payload);
	case PROTO_VMSTATS: return receive_vmstats(proc, payload);
	case PROTO_FILE_DONE: return receive_done(proc, payload);
	case PROTO_ERROR: return receive_error(proc, payload, rec->length);
	default: return false;
	}
}

/* --- what goes to the VM ---------------------------------------------------------------- */

/* Most commands say little and are granted nothing. The window of one that goes on
 * becomes a wide one. */
static bool
grant_due(const struct vmpool_proc *proc)
{
	if (!proc->wide)
		return proc->window <= PROTO_WINDOW - PROTO_WINDOW / 4;
	return proc->owed >= CLIENT_GRANT_MIN;
}

void
proc_tend(struct vmpool_proc *proc)
{
	const uint32_t signal = SIGKILL;

	if (!proc->open || proc->vm->conn->broken != 0)
		return;
	if (proc->kill_due &&
	    conn_send(proc->vm, proc->stream, PROTO_KILL, 0, &signal, sizeof(signal)) == 0)
		proc->kill_due = false;
	if (grant_due(proc) && conn_send(proc->vm, proc->stream, PROTO_CREDIT, 0, &proc->owed,
					 sizeof(proc->owed)) == 0) {
		proc->window += proc->owed;
		proc->owed = 0;
		proc->wide = true;
	}
}
