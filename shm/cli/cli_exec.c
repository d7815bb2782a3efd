/* SPDX-License-Identifier: MIT
 *
 * cli_exec.c - vmpool exec and vmpool shell: their options. (What runs the command:
 * cli_run.c.)
 */
#include "shm/cli/cli_env.h"
#include "shm/cli/cli_run.h"

#include <stdlib.h>
#include <string.h>

#define NO_LIMIT UINT32_MAX

/* What the command line says and vmpool_exec_opts has in another form. */
struct exec_args {
	int64_t timeout_ms;
	struct cli_list env, unset;
	const char *umask, *signal;
};

static int
bad(const struct cli_command *cmd, const char *what, const char *text)
{
	return cli_bad_usage(cmd, "\"%.100s\" is not %s", text, what);
}

static bool
parse_umask(const char *text, struct vmpool_exec_opts *opts)
{
	opts->set_umask = true;
	if (text[0] == '\0' || strspn(text, "01234567") != strlen(text) || strlen(text) > 8)
		return false;
	opts->umask = (unsigned)strtoul(text, NULL, 8);
	return opts->umask <= 0777;
}

/* Put args where they belong; 0, or the status for bad usage. */
static int
finish(const struct cli_command *cmd, const struct exec_args *args, struct cli_run *run)
{
	struct vmpool_exec_opts *opts = &run->opts;

	if (!cli_env_check(cmd, &args->env))
		return cmd->usage_status;
	if (args->umask != NULL && !parse_umask(args->umask, opts))
		return bad(cmd, "an octal umask", args->umask);
	if (args->timeout_ms + run->grace_ms > UINT32_MAX)
		return cli_bad_usage(cmd, "a time-out of more than %u s", UINT32_MAX / 1000);
	opts->timeout_ms = (uint32_t)args->timeout_ms;
	if (args->signal != NULL) {
		run->timeout_signal = vmpool_signal(args->signal);
		if (run->timeout_signal < 0)
			return bad(cmd, "a signal", args->signal);
		if (args->timeout_ms == 0)
			return cli_bad_usage(cmd, "--timeout-signal needs -t");
	}
	opts->want_stdin |= opts->tty;
	opts->unset_env = args->unset.item;
	opts->env = cli_env_list(&args->env, opts->tty);
	if (opts->env != NULL)
		return 0;
	cli_say("out of memory");
	return CLI_COMMAND_FAILED;
}

static int
exec_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_run run = {.wait_ms = 60000, .grace_ms = 5000, .output_limit = NO_LIMIT};
	struct vmpool_exec_opts *opts = &run.opts;
	struct exec_args args = {.timeout_ms = 0};
	const struct cli_option options[] = {
	    {'t', "timeout", "SECS", "kill it after SECS (decimals allowed; 0 = never)",
	     CLI_SECONDS, &args.timeout_ms},
	    {0, "timeout-signal", "SIG", "after -t send SIG first (TERM, 15, ...)", CLI_STRING,
	     &args.signal},
	    {0, "grace", "SECS", "... and kill it so much later (default: 5)", CLI_SECONDS,
	     &run.grace_ms},
	    {'e', "env", "K=V", "add to its environment; may be repeated", CLI_LIST, &args.env},
	    {0, "unset", "K", "leave K out of its default environment; may be repeated", CLI_LIST,
	     &args.unset},
	    {0, "clean-env", NULL, "leave the whole default environment out", CLI_FLAG,
	     &opts->clean_env},
	    {'C', "chdir", "DIR", "run it in this directory of the VM (default: /)", CLI_STRING,
	     &opts->cwd},
	    {'u', "user", "USER", "run it as this user: name or uid[:gid] (default: root)",
	     CLI_STRING, &opts->user},
	    {'i', "stdin", NULL, "pass stdin to it (otherwise it reads /dev/null)", CLI_FLAG,
	     &opts->want_stdin},
	    {0, "tty", NULL, "give it a terminal, and it ours", CLI_FLAG, &opts->tty},
	    {0, "umask", "OCTAL", "its umask (default: 022)", CLI_STRING, &args.umask},
	    {0, "cpu", "SECS", "CPU time of each of its processes, whole seconds", CLI_NUMBER,
	     &opts->cpu_s},
	    {0, "memory", "MIB", "memory of all its processes together", CLI_NUMBER,
	     &opts->memory_mib},
	    {0, "procs", "N", "processes and threads, at most", CLI_NUMBER, &opts->max_procs},
	    {0, "files", "N", "open files of each process, at most", CLI_NUMBER, &opts->max_files},
	    {0, "output-limit", "BYTES", "pass on so much of stdout, and of stderr; drop the rest",
	     CLI_NUMBER, &run.output_limit},
	    {0, "wait", "SECS", "wait at most SECS for a VM (default: 60)", CLI_SECONDS,
	     &run.wait_ms},
	    {0, "times", NULL, "say on stderr how long acquire and the command took", CLI_FLAG,
	     &run.show_times},
	};
	int status, first;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no command given");
	status = finish(cmd, &args, &run);
	return status != 0 ? status : cli_run(pool, &run, (const char *const *)argv + first);
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
	"whatever else runs there, and what it leaves there stays; VMPOOL_ENV_K=V adds K=V.\n",
    .example = "  vmpool exec -- uname -a\n"
	       "  vmpool exec -t 2.5 -e LANG=C -C /tmp -- sh -c 'echo $PWD; exit 7'\n"
	       "  vmpool exec --cpu 10 --memory 64 --procs 20 --output-limit 65536 -- ./untrusted\n"
	       "  echo hello | vmpool exec -i -- tr a-z A-Z\n"
	       "  vmpool exec --tty -- top\n",
    .usage_status = CLI_COMMAND_FAILED,
    .run = exec_main,
};

/* --- shell ----------------------------------------------------------------------------- */

static int
shell_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	static const char *const home[] = {
	    "/bin/sh", "-c", "cd; [ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l", NULL};
	static const char *const here[] = {
	    "/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l", NULL};
	struct cli_run run = {.wait_ms = 60000, .output_limit = NO_LIMIT, .opts = {.tty = true}};
	struct exec_args args = {.timeout_ms = 0};
	const struct cli_option options[] = {
	    {'e', "env", "K=V", "add to its environment; may be repeated", CLI_LIST, &args.env},
	    {'C', "chdir", "DIR", "begin in this directory of the VM (default: the user's home)",
	     CLI_STRING, &run.opts.cwd},
	    {'u', "user", "USER", "be this user: name or uid[:gid] (default: root)", CLI_STRING,
	     &run.opts.user},
	    {0, "wait", "SECS", "wait at most SECS for a VM (default: 60)", CLI_SECONDS,
	     &run.wait_ms},
	};
	int status, first;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first < argc)
		return cli_bad_usage(cmd, "unexpected argument \"%s\"", argv[first]);
	status = finish(cmd, &args, &run);
	return status != 0 ? status : cli_run(pool, &run, run.opts.cwd == NULL ? home : here);
}

const struct cli_command cli_shell = {
    .name = "shell",
    .args = "[OPTION]...",
    .summary = "An interactive shell in a fresh VM, or in that of vmpool with.",
    .notes = "A login shell: bash if the VM has it, else sh. It ends with exit or ^D, and a fresh\n"
	     "VM with it. Exit status: the shell's; 125 if the pool or the VM failed.\n",
    .example = "  vmpool shell\n"
	       "  vmpool with -- bash    # and there: vmpool put, vmpool exec, vmpool shell\n",
    .usage_status = CLI_COMMAND_FAILED,
    .run = shell_main,
};
