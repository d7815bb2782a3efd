/* SPDX-License-Identifier: MIT
 *
 * cli_ping.c - vmpool ping: borrow a VM and time one round trip to its agent.
 */
#include "shm/cli/cli.h"

#include <stdio.h>

static int
print(unsigned slot, uint64_t acquire_ns, uint64_t rtt_ns, bool json)
{
	char a[32], b[32];

	if (json)
		return cli_json_print(json_pack("{s:i, s:I, s:I}", "slot", (int)slot, "acquire_ns",
						(json_int_t)acquire_ns, "rtt_ns",
						(json_int_t)rtt_ns),
				      false);
	printf("VM in slot %u: acquired in %s, agent answered in %s\n", slot,
	       cli_duration(a, sizeof(a), acquire_ns), cli_duration(b, sizeof(b), rtt_ns));
	return cli_finish(0);
}

static int
ping(struct vmpool *pool, int64_t wait_ms, int64_t timeout_ms, bool json)
{
	const struct vmpool_acquire_opts opts = {.timeout_ms = wait_ms};
	uint64_t start = cli_now(), acquire_ns, rtt_ns = 0;
	struct vmpool_vm *vm;
	unsigned slot;
	int r;

	r = vmpool_acquire(pool, &opts, &vm);
	if (r == 0) {
		acquire_ns = cli_now() - start;
		slot = vmpool_slot(vm);
		r = vmpool_ping(vm, timeout_ms, &rtt_ns);
		if (r < 0)
			cli_say_error(pool, r);
		(void)vmpool_release(vm);
		return r < 0 ? CLI_FAILED : print(slot, acquire_ns, rtt_ns, json);
	}
	cli_say_error(pool, r);
	return CLI_FAILED;
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
	struct vmpool *pool;
	int status, first, r;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first < argc)
		return cli_bad_usage(cmd, "unexpected argument \"%s\"", argv[first]);
	r = vmpool_attach(&pool, name);
	if (r < 0) {
		cli_say_error(NULL, r);
		return CLI_FAILED;
	}
	status = ping(pool, wait_ms, timeout_ms, json);
	vmpool_detach(pool);
	return status;
}

const struct cli_command cli_ping = {
    .name = "ping",
    .args = "[OPTION]...",
    .summary = "Borrow a VM and time a round trip to its agent.",
    .example = "  vmpool ping\n",
    .usage_status = CLI_USAGE,
    .run = ping_main,
};
