/* SPDX-License-Identifier: MIT
 *
 * cli_run.c - the lease around one command, and the exit status; what moves bytes
 * meanwhile is cli_stream.c. Runs in vmpool.
 *
 * Signals. While waiting for a VM, a signal simply ends this process, which
 * gives back whatever it holds. From then on signals are read from a
 * descriptor: the command is killed, the VM given back, and then this process
 * dies by the same signal.
 */
#include "shm/cli/cli_run.h"
#include "shm/cli/cli_stream.h"
#include "shm/cli/cli_tty.h"
#include "shm/cli/cli_vm.h"

#include <string.h>

#define STATUS_TIMED_OUT 124

static int
error_status(int error)
{
	switch (error) {
	case VMPOOL_ENOTEXEC: return CLI_NOT_EXECUTABLE;
	case VMPOOL_ENOTFOUND: return CLI_NOT_FOUND;
	default: return CLI_COMMAND_FAILED;
	}
}

static int
end_status(const struct cli_run *run, const struct stream *stream, const struct vmpool_event *end)
{
	static const char *const names[] = {"stdout", "stderr"};

	for (size_t i = 0; i < CLI_COUNT(names); i++)
		if (stream->cut[i])
			cli_say("%s was truncated after %u bytes", names[i], run->output_limit);
	if (end->type == VMPOOL_TIMEOUT || stream->warned) {
		cli_say("timed out after %g s", (double)run->opts.timeout_ms / 1000);
		return STATUS_TIMED_OUT;
	}
	return end->signal != 0 ? 128 + end->signal : end->exit_code;
}

static void
say_times(const struct cli_vm *vm, uint64_t run_ns, uint64_t guest_ns)
{
	char a[32], b[32], c[32];

	cli_say("VM in slot %u %s in %s; command ran in %s (%s in the guest)", vmpool_slot(vm->vm),
		vm->joined ? "joined" : "acquired", cli_duration(a, sizeof(a), vm->took_ns),
		cli_duration(b, sizeof(b), run_ns), cli_duration(c, sizeof(c), guest_ns));
}

/* Pass bytes on until the command ends, or something else does: enum stream_end, or a
 * library error. Our terminal is itself again afterwards. */
static int
stream(struct stream *s, struct vmpool_proc *proc, const struct cli_run *run,
       const struct vmpool_exec_opts *opts, struct vmpool_event *end)
{
	const struct stream_opts stream_opts = {
	    .with_stdin = opts->want_stdin,
	    .tty = opts->tty,
	    .timeout_ms = opts->timeout_ms,
	    .warn_ms = run->timeout_signal != 0 ? run->opts.timeout_ms : 0,
	    .warn_signal = run->timeout_signal,
	    .output_limit = run->output_limit,
	};
	int r;

	stream_init(s, proc, &stream_opts);
	if (opts->tty)
		cli_tty_raw();
	r = stream_run(s, end);
	cli_tty_restore();
	return r;
}

/* The command in the VM; the exit status. *signal: the one to die by. */
static int
run_in(const struct cli_vm *vm, const struct cli_run *run, const char *const *argv, int *signal)
{
	struct vmpool_exec_opts opts = run->opts;
	struct vmpool_proc *proc;
	struct vmpool_event end;
	struct stream s;
	uint64_t start = cli_now();
	int r;

	if (run->timeout_signal != 0)
		opts.timeout_ms += (uint32_t)run->grace_ms;
	if (opts.tty)
		cli_tty_size(&opts.rows, &opts.cols);
	r = vmpool_spawn(vm->vm, argv, &opts, &proc);
	if (r < 0) {
		cli_say_error(vm->pool, r);
		return error_status(r);
	}
	r = stream(&s, proc, run, &opts, &end);
	switch (r) {
	case STREAM_ENDED:
		if (run->show_times)
			say_times(vm, cli_now() - start, end.guest_ns);
		r = end_status(run, &s, &end);
		break;
	case STREAM_SIGNAL:
		*signal = s.signal;
		r = 128 + s.signal;
		break;
	case STREAM_OUTPUT:
		cli_say("cannot write to %s: %s", s.out_name, strerror(s.out_errno));
		r = CLI_COMMAND_FAILED;
		break;
	default:
		cli_say_error(vm->pool, r);
		r = error_status(r);
		break;
	}
	/* Kills the command if it still runs. */
	vmpool_proc_free(proc);
	stream_fini(&s);
	return r;
}

int
cli_run(const char *pool, const struct cli_run *run, const char *const *argv)
{
	struct cli_vm vm;
	int status, signal = 0;

	if (cli_vm_open(&vm, pool, run->wait_ms) < 0)
		return CLI_COMMAND_FAILED;
	status = run_in(&vm, run, argv, &signal);
	cli_vm_close(&vm);
	if (signal != 0)
		stream_die(signal);
	return status;
}
