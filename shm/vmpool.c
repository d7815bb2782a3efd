/* SPDX-License-Identifier: MIT
 *
 * vmpool.c - the command-line client: the program's own options, and its table
 * of commands. Each command is one struct in shm/cli/.
 */
#include "shm/cli/cli.h"

#include <stdio.h>
#include <string.h>

static const struct cli_command *const commands[] = {
    &cli_exec,	&cli_shell,   &cli_with,     &cli_snapshot, &cli_fork,	&cli_put,     &cli_get,
    &cli_cat,	&cli_ls,      &cli_stat,     &cli_exists,   &cli_rm,	&cli_mv,      &cli_mkdir,
    &cli_chmod, &cli_symlink, &cli_readlink, &cli_ping,	    &cli_stats, &cli_stat_vm, &cli_list,
    &cli_warm,	&cli_start,   &cli_stop,     &cli_doctor,
};

static int
print_version(void)
{
	printf("vmpool %s\n", VMPOOL_VERSION);
	return cli_finish(0);
}

static int
run_command(const struct cli_command *self, const char *pool, int argc, char **argv)
{
	if (argc == 0)
		return cli_bad_usage(self, "no command given");
	for (size_t i = 0; i < CLI_COUNT(commands); i++)
		if (strcmp(commands[i]->name, argv[0]) == 0)
			return commands[i]->run(commands[i], pool, argc, argv);
	return cli_bad_usage(self, "unknown command \"%s\"", argv[0]);
}

/* The list of commands, made from the table. */
static const char *
command_list(char *buf, size_t len)
{
	size_t n = (size_t)snprintf(buf, len, "Commands (each has --help):\n");

	for (size_t i = 0; i < CLI_COUNT(commands) && n < len; i++)
		n += (size_t)snprintf(buf + n, len - n, "  %-10s %s\n", commands[i]->name,
				      commands[i]->summary);
	return buf;
}

int
main(int argc, char **argv)
{
	char list[2048];
	const struct cli_command self = {
	    .name = "",
	    .args = "[-p POOL] COMMAND [ARG]...",
	    .summary = "Borrow prewarmed Linux microVMs from the pool of this host.",
	    .notes = command_list(list, sizeof(list)),
	    .example = "  vmpool start --min-idle 2\n  vmpool exec -- uname -a\n",
	    .usage_status = CLI_USAGE,
	};
	const char *pool = cli_default_pool;
	bool version = false;
	const struct cli_option options[] = {
	    {'p', "pool", "POOL", "name of the pool (default: default)", CLI_STRING, &pool},
	    {'V', "version", NULL, "show the version", CLI_FLAG, &version},
	};
	int status, first;

	cli_init();
	first = cli_parse(&self, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (version)
		return print_version();
	return run_command(&self, pool, argc - first, argv + first);
}
