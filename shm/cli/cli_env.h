/* SPDX-License-Identifier: MIT
 *
 * cli_env.h - the environment that commands in a VM get from the command line, and from
 * the lease: what vmpool with -e K=V was given stands in its program's environment as
 * VMPOOL_ENV_K=V, byte for byte.
 */
#ifndef VMPOOL_CLI_ENV_H
#define VMPOOL_CLI_ENV_H

#include "shm/cli/cli.h"

#define CLI_ENV_PREFIX "VMPOOL_ENV_"

/* Is every item of the form K=V? Else one line about bad usage, and false. */
bool cli_env_check(const struct cli_command *cmd, const struct cli_list *given);

/* Make these the lease's variables, instead of those that our own environment has. 0 or
 * -errno. */
int cli_env_keep(const struct cli_list *given);

/* What a command gets: the lease's variables if VMPOOL_LEASE is set, TERM if it has a
 * terminal, then what is given; the later of one name counts. NULL-terminated, never
 * freed; NULL: out of memory. */
const char *const *cli_env_list(const struct cli_list *given, bool tty);

#endif
