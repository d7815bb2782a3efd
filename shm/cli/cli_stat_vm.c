/* SPDX-License-Identifier: MIT
 *
 * cli_stat_vm.c - vmpool stat-vm: how the VM of the lease does. Runs in vmpool.
 */
#include "shm/cli/cli_vm.h"

#include <stdio.h>

static json_t *
to_json(unsigned slot, const struct vmpool_vm_stats *s)
{
	json_t *host = json_null();

	if (s->host_known)
		host = json_pack("{s:I, s:I, s:I}", "cpu_ns", (json_int_t)s->host_cpu_ns,
				 "memory_bytes", (json_int_t)s->host_memory, "page_faults",
				 (json_int_t)s->host_page_faults);
	return json_pack("{s:i, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:o}", "slot",
			 (int)slot, "guest", "uptime_ns", (json_int_t)s->guest_uptime_ns, "cpu_ns",
			 (json_int_t)s->guest_cpu_ns, "memory_bytes", (json_int_t)s->guest_memory,
			 "memory_used_bytes", (json_int_t)s->guest_memory_used, "page_faults",
			 (json_int_t)s->guest_page_faults, "major_faults",
			 (json_int_t)s->guest_major_faults, "bytes_in",
			 (json_int_t)s->guest_bytes_in, "bytes_out", (json_int_t)s->guest_bytes_out,
			 "processes", (json_int_t)s->guest_processes, "commands",
			 (json_int_t)s->guest_commands, "host", host);
}

static void
print_host(const struct vmpool_vm_stats *s)
{
	char cpu[32];

	if (!s->host_known) {
		printf("on the host: not to be seen from here\n");
		return;
	}
	printf("on the host: CPU %s, ", cli_duration(cpu, sizeof(cpu), s->host_cpu_ns));
	if (s->host_memory != 0)
		printf("private memory %.1f MiB, ", (double)s->host_memory / 1048576);
	printf("%llu page faults\n", (unsigned long long)s->host_page_faults);
}

static void
print_text(unsigned slot, const struct vmpool_vm_stats *s)
{
	char up[32], cpu[32];

	printf("VM in slot %u: up %s, CPU %s, memory %.1f of %.1f MiB used, %u processes, "
	       "%u commands,\n"
	       "  %llu page faults (%llu major), %llu bytes in, %llu bytes out\n",
	       slot, cli_duration(up, sizeof(up), s->guest_uptime_ns),
	       cli_duration(cpu, sizeof(cpu), s->guest_cpu_ns),
	       (double)s->guest_memory_used / 1048576, (double)s->guest_memory / 1048576,
	       s->guest_processes, s->guest_commands, (unsigned long long)s->guest_page_faults,
	       (unsigned long long)s->guest_major_faults, (unsigned long long)s->guest_bytes_in,
	       (unsigned long long)s->guest_bytes_out);
	print_host(s);
}

static int
stat_vm(const char *pool, int64_t timeout_ms, bool json)
{
	struct vmpool_vm_stats stats;
	struct cli_vm vm;
	unsigned slot;
	int r;

	if (cli_vm_open(&vm, pool, CLI_VM_NEEDS_LEASE) < 0)
		return CLI_FAILED;
	slot = vmpool_slot(vm.vm);
	r = vmpool_vm_stats(vm.vm, timeout_ms, &stats);
	if (r < 0)
		cli_say_error(vm.pool, r);
	cli_vm_close(&vm);
	if (r < 0)
		return CLI_FAILED;
	if (json)
		return cli_json_print(to_json(slot, &stats), false);
	print_text(slot, &stats);
	return cli_finish(0);
}

static int
stat_vm_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	int64_t timeout_ms = 10000;
	bool json = false;
	const struct cli_option options[] = {
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
	return stat_vm(pool, timeout_ms, json);
}

const struct cli_command cli_stat_vm = {
    .name = "stat-vm",
    .args = "[OPTION]...",
    .summary = "Show how the VM of vmpool with does: CPU time, memory, processes.",
    .notes = "What the VM says of itself is since it was booted, or its template was; bytes are\n"
	     "those of its channel since it was lent out.\n",
    .example = "  vmpool with -- sh -c 'vmpool exec -- make; vmpool stat-vm --json'\n",
    .usage_status = CLI_USAGE,
    .run = stat_vm_main,
};
