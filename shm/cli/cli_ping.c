/* SPDX-License-Identifier: MIT
 *
 * cli_ping.c - vmpool ping: time one round trip to the agent of a VM.
 */
#include "shm/cli/cli_vm.h"

#include <stdio.h>

static int
print(unsigned slot, const struct cli_vm *vm, uint64_t rtt_ns, bool json)
{
	char a[32], b[32];

	if (json)
		return cli_json_print(
		    json_pack("{s:i, s:b, s:I, s:I}", "slot", (int)slot, "joined", (int)vm->joined,
			      "acquire_ns", (json_int_t)vm->took_ns, "rtt_ns", (json_int_t)rtt_ns),
		    false);
	printf("VM in slot %u: %s in %s, agent answered in %s\n", slot,
	       vm->joined ? "joined" : "acquired", cli_duration(a, sizeof(a), vm->took_ns),
	       cli_duration(b, sizeof(b), rtt_ns));
	return cli_finish(0);
}

static int
ping(const char *pool, int64_t wait_ms, int64_t timeout_ms, bool json)
{
	uint64_t rtt_ns = 0;
	struct cli_vm vm;
	unsigned slot;
	int r;

	if (cli_vm_open(&vm, pool, wait_ms) < 0)
		return CLI_FAILED;
	slot = vmpool_slot(vm.vm);
	r = vmpool_ping(vm.vm, timeout_ms, &rtt_ns);
	if (r < 0)
		cli_say_error(vm.pool, r);
	cli_vm_close(&vm);
	return r < 0 ? CLI_FAILED : print(slot, &vm, rtt_ns, json);
}

static int
ping_main(const struct cli_command *cmd, const char *name, int argc, char **argv)
{
	int64_t wait_ms = 60000, timeout_ms = 10000;
	bool json = false;
	const struct cli_option options[] = {
	    {0, "wait", "SECS", "wait at most SECS for a VM (default: 60)", CLI_SECONDS, &wait_ms},
	    {'t', "timeout", "SECS", "wait at most SECS for the answer (default: 10)", CLI_SECONDS,
	     &timeout_ms},
	    {0, "json", NULL, "print JSON", CLI_FLAG, &json},
	};
	int status, first;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first < argc)
		return cli_bad_usage(cmd, "unexpected argument \"%s\"", argv[first]);
	return ping(name, wait_ms, timeout_ms, json);
}

const struct cli_command cli_ping = {
    .name = "ping",
    .args = "[OPTION]...",
    .summary = "Time a round trip to the agent of a fresh VM, or of that of vmpool with.",
    .example = "  vmpool ping\n",
    .usage_status = CLI_USAGE,
    .run = ping_main,
};
