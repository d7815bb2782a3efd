/* SPDX-License-Identifier: MIT
 *
 * cli_json.c - what the client programs print as JSON, through jansson.
 */
#include "shm/cli/cli.h"

#include <stdio.h>
#include <string.h>

static json_t *
hist_json(const struct vmpool_hist *h)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "count", (json_int_t)h->count, "sum",
			 (json_int_t)h->sum_ns, "p50", (json_int_t)h->p50_ns, "p99",
			 (json_int_t)h->p99_ns, "max", (json_int_t)h->max_ns);
}

json_t *
cli_json_stats(const struct vmpool_stat *stats, size_t count)
{
	json_t *all = json_object();

	for (size_t i = 0; i < count; i++) {
		const struct vmpool_stat *s = &stats[i];
		json_t *value = strcmp(s->kind, "histogram") == 0
				    ? hist_json(&s->hist)
				    : json_integer((json_int_t)s->value);

		/* Steals value; fails on a NULL one as well. */
		if (json_object_set_new(all, s->name, value) < 0) {
			json_decref(all);
			return NULL;
		}
	}
	return all;
}

json_t *
cli_json_info(const struct vmpool_info *info)
{
	return json_pack(
	    "{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s}",
	    "name", info->name, "state", info->state, "accel", info->accel, "why", info->why,
	    "supervisor_pid", info->supervisor_pid, "heartbeat_age_ns",
	    (json_int_t)info->heartbeat_age_ns, "lock_holder", info->lock_holder, "min_idle",
	    (int)info->min_idle, "max_idle", (int)info->max_idle, "max_total", (int)info->max_total,
	    "max_idle_time", (int)info->max_idle_time, "health_interval",
	    (int)info->health_interval, "memory_mib", (int)info->memory_mib, "vcpus",
	    (int)info->vcpus, "warm_target", (int)info->warm_target, "last_failure",
	    info->last_failure);
}

int
cli_json_print(json_t *json, bool one_line)
{
	int r = -1;

	if (json != NULL) {
		r = json_dumpf(json, stdout, one_line ? JSON_COMPACT : JSON_INDENT(2));
		(void)putchar('\n');
	}
	json_decref(json);
	if (r < 0 && !ferror(stdout)) {
		cli_say("out of memory");
		return CLI_FAILED;
	}
	return cli_finish(0);
}
