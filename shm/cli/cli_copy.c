/* SPDX-License-Identifier: MIT
 *
 * cli_copy.c - vmpool snapshot and fork: what becomes of a copy of the lease's VM. Runs
 * in vmpool; a fork's lease is this process's, as that of vmpool with is.
 */
#include "shm/cli/cli_vm.h"

#include <signal.h>

#define COPY_MS 300000

/* --- snapshot ------------------------------------------------------------------------- */

static int
snapshot_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	int64_t timeout_ms = COPY_MS;
	const struct cli_option options[] = {
	    {'t', "timeout", "SECS", "give up after SECS (default: 300)", CLI_SECONDS, &timeout_ms},
	};
	struct cli_vm vm;
	int status, first, r;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (argc - first != 1)
		return cli_bad_usage(cmd, first == argc ? "no file given" : "more than one file");
	if (cli_vm_open(&vm, pool, CLI_VM_NEEDS_LEASE) < 0)
		return CLI_FAILED;
	r = vmpool_snapshot(vm.vm, argv[first], timeout_ms);
	if (r < 0)
		cli_say_error(vm.pool, r);
	cli_vm_close(&vm);
	return r < 0 ? CLI_FAILED : 0;
}

const struct cli_command cli_snapshot = {
    .name = "snapshot",
    .args = "[OPTION]... FILE",
    .summary = "Write the VM of the lease into a snapshot file.",
    .notes = "No command may run in the VM; what runs there in the background goes into the\n"
	     "snapshot. FILE is replaced once the snapshot is complete and on disk. A pool is\n"
	     "started from it by vmpool start --snapshot FILE.\n",
    .example =
	"  vmpool with -- sh -c 'vmpool exec -- /srv/warm-up && vmpool snapshot warm.snap'\n",
    .usage_status = CLI_USAGE,
    .run = snapshot_main,
};

/* --- fork --------------------------------------------------------------------------------- */

static int
fork_and_run(const char *pool, int64_t wait_ms, char **argv)
{
	struct vmpool_vm *copy;
	struct cli_vm vm;
	int r, status;

	if (cli_vm_open(&vm, pool, CLI_VM_NEEDS_LEASE) < 0)
		return CLI_COMMAND_FAILED;
	r = vmpool_fork(vm.vm, wait_ms, &copy);
	if (r < 0) {
		cli_say_error(vm.pool, r);
		status = CLI_COMMAND_FAILED;
	} else {
		status = cli_vm_lend(vm.pool, copy, argv);
	}
	cli_vm_close(&vm);
	return status;
}

static int
fork_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	int64_t wait_ms = COPY_MS;
	const struct cli_option options[] = {
	    {0, "wait", "SECS", "wait at most SECS for the copy (default: 300)", CLI_SECONDS,
	     &wait_ms},
	};
	int status, first;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no command given");
	return fork_and_run(pool, wait_ms, argv + first);
}

const struct cli_command cli_fork = {
    .name = "fork",
    .args = "[OPTION]... [--] ARGV...",
    .summary = "Run a program on this host that has a copy of the lease's VM.",
    .notes =
	"Like vmpool with, but the program's VM goes on from what the present lease's VM is\n"
	"now: its files, its memory, what runs there in the background. The copy is a VM of\n"
	"its own, and ends with the program. No command may run in the VM while it is copied.\n",
    .example = "  vmpool with -- sh -c 'vmpool exec -- make deps\n"
	       "                        vmpool fork -- vmpool exec -- make test &\n"
	       "                        vmpool fork -- vmpool exec -- make docs & wait'\n",
    .usage_status = CLI_COMMAND_FAILED,
    .run = fork_main,
};
