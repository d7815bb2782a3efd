/* SPDX-License-Identifier: MIT
 *
 * cli_run.h - one command in the VM of the lease, or a borrowed one: what exec and shell
 * share.
 */
#ifndef VMPOOL_CLI_RUN_H
#define VMPOOL_CLI_RUN_H

#include "shm/cli/cli.h"

struct cli_run {
	int64_t wait_ms;	      /* for a VM */
	int64_t grace_ms;	      /* from the signal to the end, with timeout_signal */
	int timeout_signal;	      /* sent at opts.timeout_ms; 0: it is killed then */
	uint32_t output_limit;	      /* bytes of each of stdout and stderr; UINT32_MAX = all */
	bool show_times;	      /* on stderr */
	struct vmpool_exec_opts opts; /* the terminal's size is filled in */
};

/* Run it, with its bytes passed between us and it, and give the VM back. The exit status:
 * the command's, as a shell would say it; 124: timed out; or one of cli.h. Ends this
 * process by the signal that has come meanwhile, if one has. */
int cli_run(const char *pool, const struct cli_run *run, const char *const *argv);

#endif
