/* SPDX-License-Identifier: MIT
 *
 * client_vmstat.c - how a VM does: what its agent says, and what this host knows of the
 * processes that it is made of. Runs in clients.
 *
 * The worker's number comes from the segment, so anybody may have written it: only a
 * child of the supervisor is taken for the worker. Its own children (an emulator) count
 * as well.
 */
#include "shm/client.h"

#include <fcntl.h>
#include <string.h>

#define TEXT_MAX 4096u

/* The first bytes of a file of /proc, NUL-terminated; false: not to be had. */
static bool
read_proc(char text[TEXT_MAX], int pid, const char *file)
{
	_cleanup_(closep) int fd = -1;
	char path[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, TEXT_MAX - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return true;
}

/* "pid (name) state ppid ..., minflt and three more, utime stime": the name may hold
 * anything, so from its last parenthesis. */
static bool
add_stat(struct vmpool_vm_stats *out, int pid, int parent)
{
	unsigned long long minor, major, user, sys;
	char text[TEXT_MAX];
	const char *rest;
	int ppid;

	if (!read_proc(text, pid, "stat"))
		return false;
	rest = strrchr(text, ')');
	if (rest == NULL ||
	    sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %llu %*u %llu %*u %llu %llu", &ppid,
		   &minor, &major, &user, &sys) != 5 ||
	    ppid != parent)
		return false;
	out->host_page_faults += minor + major;
	out->host_cpu_ns += (user + sys) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
	return true;
}

static uint64_t
kib_after(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10) << 10;
}

static void
add_memory(struct vmpool_vm_stats *out, int pid)
{
	char text[TEXT_MAX];

	if (read_proc(text, pid, "smaps_rollup"))
		out->host_memory +=
		    kib_after(text, "Private_Clean:") + kib_after(text, "Private_Dirty:");
}

static void
read_host(struct vmpool_vm_stats *out, const struct vmpool_vm *vm)
{
	const struct seg *seg = vm->pool->seg;
	int worker =
	    (int)atomic_load_explicit(&seg->slot[vm->lease.slot].worker_pid, memory_order_relaxed);
	char text[TEXT_MAX], file[32], *at = text, *end;

	if (worker <= 1 || !add_stat(out, worker, (int)seg->head->supervisor_pid))
		return;
	out->host_known = true;
	add_memory(out, worker);
	(void)snprintf(file, sizeof(file), "task/%d/children", worker);
	if (!read_proc(text, worker, file))
		return;
	for (long child; (child = strtol(at, &end, 10)) > 1 && end != at; at = end)
		if (add_stat(out, (int)child, worker))
			add_memory(out, (int)child);
}

/* vm->lock is held. */
static int
ask(struct vmpool_vm *vm, struct vmpool_proc *proc, uint64_t deadline)
{
	struct vmpool_event event;
	int r = conn_send_wait(vm, proc->stream, PROTO_VMSTAT, 0, NULL, 0, deadline);

	if (r == 0)
		r = proc_poll(proc, deadline, false, &event);
	if (r == -EAGAIN)
		return client_fail(vm->pool, VMPOOL_ETIMEDOUT, "the VM in slot %u has not answered",
				   vm->lease.slot);
	if (r == -EINTR)
		return client_fail(vm->pool, r, "interrupted by a signal");
	return r < 0 ? r : 0;
}

static void
take(struct vmpool_vm_stats *out, const struct proto_vmstats *in)
{
	*out = (struct vmpool_vm_stats){
	    .guest_uptime_ns = in->uptime_ns,
	    .guest_cpu_ns = in->cpu_ns,
	    .guest_memory = in->mem_total,
	    .guest_memory_used = in->mem_used,
	    .guest_page_faults = in->page_faults,
	    .guest_major_faults = in->major_faults,
	    .guest_bytes_in = in->bytes_in,
	    .guest_bytes_out = in->bytes_out,
	    .guest_processes = in->processes,
	    .guest_commands = in->commands,
	};
}

int
vmpool_vm_stats(struct vmpool_vm *vm, int64_t timeout_ms, struct vmpool_vm_stats *out)
{
	uint64_t deadline = client_deadline(timeout_ms);
	struct vmpool_proc *proc = NULL;
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	*out = (struct vmpool_vm_stats){.host_known = false};
	r = client_enter(vm->pool, true);
	if (r == 0)
		r = conn_enter(vm);
	if (r < 0)
		return r;
	conn_drain(vm, NULL);
	r = conn_check(vm);
	if (r == 0)
		r = proc_new(vm, &proc);
	if (r == 0) {
		proc->vmstat = true;
		r = ask(vm, proc, deadline);
		take(out, &proc->vmstats);
	}
	if (r == 0)
		read_host(out, vm);
	conn_leave(vm);
	vmpool_proc_free(proc);
	return r;
}
