/* SPDX-License-Identifier: MIT
 *
 * cli_show.c - vmpool stats and vmpool list: what the pool has counted, and its
 * VMs. Both attach read-only: they take no lock and borrow nothing.
 */
#include "shm/cli/cli.h"

#include <stdio.h>
#include <string.h>

/* Options, and a monitor's handle; NULL: exit with *status. */
static struct vmpool *
open_monitor(const struct cli_command *cmd, const char *name, int argc, char **argv, bool *json,
	     int *status)
{
	const struct cli_option options[] = {
	    {0, "json", NULL, "print JSON", CLI_FLAG, json},
	};
	struct vmpool *pool;
	int first, r;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, status);
	if (first < 0)
		return NULL;
	if (first < argc) {
		*status = cli_bad_usage(cmd, "unexpected argument \"%s\"", argv[first]);
		return NULL;
	}
	r = vmpool_monitor(&pool, name);
	if (r < 0) {
		cli_say_error(NULL, r);
		*status = CLI_FAILED;
		return NULL;
	}
	return pool;
}

/* --- stats --------------------------------------------------------------------------- */

static void
print_stat(const struct vmpool_stat *s)
{
	char p50[32], p99[32], max[32];

	if (strcmp(s->kind, "histogram") != 0) {
		printf("%-20s %12llu  %-9s %s\n", s->name, (unsigned long long)s->value, s->unit,
		       s->help);
		return;
	}
	printf("%-20s %12llu  p50 %s, p99 %s, max %s: %s\n", s->name,
	       (unsigned long long)s->hist.count, cli_duration(p50, sizeof(p50), s->hist.p50_ns),
	       cli_duration(p99, sizeof(p99), s->hist.p99_ns),
	       cli_duration(max, sizeof(max), s->hist.max_ns), s->help);
}

static int
print_stats(const struct vmpool_info *info, const struct vmpool_stat *stats, size_t count,
	    bool json)
{
	if (json) {
		json_t *all = cli_json_stats(stats, count);

		if (all != NULL && json_object_set_new(all, "pool", cli_json_info(info)) < 0) {
			json_decref(all);
			all = NULL;
		}
		return cli_json_print(all, false);
	}
	printf("pool %s: %s, supervisor %d, %s (%s)\n", info->name, info->state,
	       info->supervisor_pid, info->accel, info->why);
	for (size_t i = 0; i < count; i++)
		print_stat(&stats[i]);
	if (info->last_failure[0] != '\0')
		printf("last failed start: %s\n", info->last_failure);
	return cli_finish(0);
}

static int
stats_main(const struct cli_command *cmd, const char *name, int argc, char **argv)
{
	bool json = false;
	int status, r;
	struct vmpool *pool = open_monitor(cmd, name, argc, argv, &json, &status);
	struct vmpool_stat *stats;
	struct vmpool_info info;
	size_t count;

	if (pool == NULL)
		return status;
	r = vmpool_stats(pool, &stats, &count);
	if (r == 0)
		r = vmpool_info(pool, &info);
	if (r < 0) {
		cli_say_error(pool, r);
		status = CLI_FAILED;
	} else {
		status = print_stats(&info, stats, count, json);
	}
	vmpool_stats_free(stats);
	vmpool_detach(pool);
	return status;
}

const struct cli_command cli_stats = {
    .name = "stats",
    .args = "[OPTION]...",
    .summary = "Show every counter and histogram of the pool.",
    .example = "  vmpool stats --json | jq .hit_count\n",
    .usage_status = CLI_USAGE,
    .run = stats_main,
};

/* --- list ------------------------------------------------------------------------------ */

static json_t *
list_json(const struct vmpool_slot_info *rows, size_t count)
{
	json_t *all = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct vmpool_slot_info *r = &rows[i];
		json_t *row =
		    json_pack("{s:i, s:s, s:i, s:i, s:I, s:I, s:I}", "slot", (int)r->slot, "state",
			      r->state, "worker_pid", r->worker_pid, "client_pid", r->client_pid,
			      "generation", (json_int_t)r->generation, "state_age_ns",
			      (json_int_t)r->state_age_ns, "exec_count", (json_int_t)r->exec_count);

		if (json_array_append_new(all, row) < 0) {
			json_decref(all);
			return NULL;
		}
	}
	return all;
}

static int
print_list(const struct vmpool_slot_info *rows, size_t count, bool json)
{
	if (json)
		return cli_json_print(list_json(rows, count), false);
	printf("%5s %-10s %9s %9s %8s %8s %6s\n", "SLOT", "STATE", "WORKER", "CLIENT", "SINCE",
	       "LEASE", "EXECS");
	for (size_t i = 0; i < count; i++) {
		const struct vmpool_slot_info *r = &rows[i];
		char age[32];

		printf("%5u %-10s %9d ", r->slot, r->state, r->worker_pid);
		if (r->client_pid != 0)
			printf("%9d ", r->client_pid);
		else
			printf("%9s ", "-");
		printf("%8s %8llu %6llu\n", cli_duration(age, sizeof(age), r->state_age_ns),
		       (unsigned long long)r->generation, (unsigned long long)r->exec_count);
	}
	return cli_finish(0);
}

static int
list_main(const struct cli_command *cmd, const char *name, int argc, char **argv)
{
	bool json = false;
	int status, r;
	struct vmpool *pool = open_monitor(cmd, name, argc, argv, &json, &status);
	struct vmpool_slot_info *rows;
	size_t count;

	if (pool == NULL)
		return status;
	r = vmpool_list(pool, &rows, &count);
	if (r < 0) {
		cli_say_error(pool, r);
		status = CLI_FAILED;
	} else {
		status = print_list(rows, count, json);
	}
	vmpool_list_free(rows);
	vmpool_detach(pool);
	return status;
}

const struct cli_command cli_list = {
    .name = "list",
    .args = "[OPTION]...",
    .summary = "Show the VMs of the pool, one per line.",
    .notes = "WORKER and CLIENT are process ids, SINCE how long the VM has been in its state,\n"
	     "LEASE the number of its present or last lease (VMPOOL_LEASE ends with it). Who has\n"
	     "joined a lease is not shown: CLIENT is its holder.\n",
    .example = "  vmpool list\n",
    .usage_status = CLI_USAGE,
    .run = list_main,
};
