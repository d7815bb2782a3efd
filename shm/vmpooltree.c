/* SPDX-License-Identifier: MIT
 *
 * vmpooltree.c - vmpool-tree: put -r and get -r. Started by vmpool, never by
 * people; a program of its own because libarchive and what that needs would cost
 * every other command the time to load them.
 *
 * Usage: vmpool-tree put|get POOL|"" WAIT_MS parents|"" quiet|"" LIMIT FROM TO
 */
#include "shm/cli/cli_file.h"

#include <stdlib.h>
#include <string.h>

int
main(int argc, char **argv)
{
	struct tree_args args = {.parents = false};
	struct cli_vm v;
	int status;

	cli_init();
	if (argc != 9) {
		cli_say("vmpool-tree is started by vmpool put -r and get -r");
		return CLI_USAGE;
	}
	args.file.wait_ms = atoll(argv[3]);
	args.parents = strcmp(argv[4], "parents") == 0;
	args.quiet = strcmp(argv[5], "quiet") == 0;
	args.limit = strtoull(argv[6], NULL, 10);
	if (cli_vm_open(&v, argv[2][0] == '\0' ? cli_default_pool : argv[2], args.file.wait_ms) < 0)
		return CLI_FAILED;
	if (strcmp(argv[1], "put") == 0)
		status = cli_tree_put(&v, argv[7], argv[8], &args);
	else
		status = cli_tree_get(&v, argv[7], argv[8], &args);
	cli_vm_close(&v);
	return status;
}
