/* SPDX-License-Identifier: MIT
 *
 * cli_exec.c - vmpool exec: run one command in a borrowed VM. Options, the
 * lease around the command, and the exit status; what moves bytes meanwhile is
 * cli_stream.c.
 *
 * Signals. While waiting for a VM, a signal simply ends this process, which
 * gives back whatever it holds. From then on signals are read from a
 * descriptor: the command is killed, the VM given back, and then this process
 * dies by the same signal.
 */
#include "shm/cli/cli_stream.h"
#include "shm/cli/cli_vm.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define STATUS_TIMED_OUT 124

struct exec_args {
	int64_t timeout_ms, wait_ms;
	struct cli_list env;
	const char *cwd, *user;
	bool interactive, show_times;
};

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
event_status(const struct vmpool_event *end, int64_t timeout_ms)
{
	if (end->type == VMPOOL_TIMEOUT) {
		cli_say("timed out after %g s", (double)timeout_ms / 1000);
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

/* Run the command in the VM; the exit status. *signal: the one to die by. */
static int
run(const struct cli_vm *vm, const struct exec_args *args, const char *const *argv, int *signal)
{
	const struct vmpool_exec_opts opts = {
	    .env = args->env.item,
	    .cwd = args->cwd,
	    .user = args->user,
	    .timeout_ms = (uint32_t)args->timeout_ms,
	    .want_stdin = args->interactive,
	};
	struct stream stream;
	struct vmpool_proc *proc;
	struct vmpool_event end;
	uint64_t start = cli_now();
	int r;

	r = vmpool_spawn(vm->vm, argv, &opts, &proc);
	if (r < 0) {
		cli_say_error(vm->pool, r);
		return error_status(r);
	}
	stream_init(&stream, proc, args->interactive, args->timeout_ms);
	r = stream_run(&stream, &end);
	switch (r) {
	case STREAM_ENDED:
		if (args->show_times)
			say_times(vm, cli_now() - start, end.guest_ns);
		r = event_status(&end, args->timeout_ms);
		break;
	case STREAM_SIGNAL:
		*signal = stream.signal;
		r = 128 + stream.signal;
		break;
	case STREAM_OUTPUT:
		cli_say("cannot write to %s: %s", stream.out_name, strerror(stream.out_errno));
		r = CLI_COMMAND_FAILED;
		break;
	default:
		cli_say_error(vm->pool, r);
		r = error_status(r);
		break;
	}
	/* Kills the command if it still runs. */
	vmpool_proc_free(proc);
	stream_fini(&stream);
	return r;
}

/* With a VM of the pool; the exit status. */
static int
open_and_run(const char *pool, const struct exec_args *args, const char *const *argv, int *signal)
{
	struct cli_vm vm;
	int status;

	if (cli_vm_open(&vm, pool, args->wait_ms) < 0)
		return CLI_COMMAND_FAILED;
	status = run(&vm, args, argv, signal);
	cli_vm_close(&vm);
	return status;
}

static int
exec_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct exec_args args = {.timeout_ms = 0, .wait_ms = 60000};
	const struct cli_option options[] = {
	    {'t', "timeout", "SECS", "kill it after SECS (decimals allowed; 0 = never)",
	     CLI_SECONDS, &args.timeout_ms},
	    {'e', "env", "K=V", "add to its environment; may be repeated", CLI_LIST, &args.env},
	    {'C', "chdir", "DIR", "run it in this directory of the VM (default: /)", CLI_STRING,
	     &args.cwd},
	    {'u', "user", "USER", "run it as this user of the VM (default: root)", CLI_STRING,
	     &args.user},
	    {'i', "stdin", NULL, "pass stdin to it (otherwise it reads /dev/null)", CLI_FLAG,
	     &args.interactive},
	    {0, "wait", "SECS", "wait at most SECS for a VM (default: 60)", CLI_SECONDS,
	     &args.wait_ms},
	    {0, "times", NULL, "say on stderr how long acquire and the command took", CLI_FLAG,
	     &args.show_times},
	};
	int status, first, signal = 0;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no command given");
	if (args.timeout_ms > UINT32_MAX)
		return cli_bad_usage(cmd, "a time-out of more than %u s", UINT32_MAX / 1000);
	status = open_and_run(pool, &args, (const char *const *)argv + first, &signal);
	if (signal != 0)
		stream_die(signal);
	return status;
}

const struct cli_command cli_exec = {
    .name = "exec",
    .args = "[OPTION]... [--] ARGV...",
    .summary = "Run a command in a fresh VM, or in that of vmpool with.",
    .notes =
	"stdout and stderr are passed on as they are written. No shell is involved unless\n"
	"you ask for one. Exit status: the command's; 128+N if signal N ended it; 124 if it\n"
	"timed out; 125 if the pool or the VM failed; 126 if the command cannot be executed;\n"
	"127 if it is not found.\n"
	"Where VMPOOL_LEASE is set (inside vmpool with), it runs in the VM of that lease, beside\n"
	"whatever else runs there, and what it leaves there stays.\n",
    .example = "  vmpool exec -- uname -a\n"
	       "  vmpool exec -t 2.5 -e LANG=C -C /tmp -- sh -c 'echo $PWD; exit 7'\n"
	       "  echo hello | vmpool exec -i -- tr a-z A-Z\n",
    .usage_status = CLI_COMMAND_FAILED,
    .run = exec_main,
};
