/* SPDX-License-Identifier: MIT
 *
 * cli_doctor.c - vmpool doctor: what this machine can do. The probing is done
 * by vmpool-worker, which knows the machines; this only finds it.
 */
#include "shm/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int
doctor_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	static const char *const dirs[] = {"../libexec", "../libexec/vmpool", NULL};
	const char *named = getenv("VMPOOL_WORKER");
	bool json = false;
	const struct cli_option options[] = {
	    {0, "json", NULL, "print JSON", CLI_FLAG, &json},
	};
	char path[PATH_MAX];
	int status, first;

	(void)pool; /* it is about the machine, not about a pool */
	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first < argc)
		return cli_bad_usage(cmd, "unexpected argument \"%s\"", argv[first]);
	if (named != NULL && named[0] != '\0') {
		(void)snprintf(path, sizeof(path), "%s", named);
	} else if (!cli_find_program(path, sizeof(path), dirs, "vmpool-worker")) {
		cli_say("vmpool-worker not found near this program (reinstall, or set "
			"VMPOOL_WORKER to its path)");
		return CLI_FAILED;
	}
	(void)execl(path, "vmpool-worker", "doctor", json ? "--json" : (char *)NULL, (char *)NULL);
	cli_say("%s: %s (reinstall, or set VMPOOL_WORKER to its path)", path, strerror(errno));
	return CLI_FAILED;
}

const struct cli_command cli_doctor = {
    .name = "doctor",
    .args = "[OPTION]...",
    .summary = "Say what this machine can do, and what it lacks.",
    .notes = "Exit status 0 if a pool can start here.\n",
    .example = "  vmpool doctor\n",
    .usage_status = CLI_USAGE,
    .run = doctor_main,
};
