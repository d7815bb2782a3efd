/* SPDX-License-Identifier: MIT
 *
 * config.h - what vmpoold is told: command line and configuration file, one
 * table of options for both.
 */
#ifndef VMPOOL_CONFIG_H
#define VMPOOL_CONFIG_H

#include <limits.h>

#include "shm/base.h"

struct config {
	char file[PATH_MAX]; /* "" = none; absolute */
	char name[64];
	uint32_t min_idle, max_idle, max_total;
	uint32_t max_idle_time; /* seconds */
	uint32_t health_interval;
	uint32_t memory_mib, vcpus;
	char kernel[PATH_MAX], image[PATH_MAX]; /* "" = the installed ones */
	char accel[8];				/* "auto", "kvm", "tcg" */
	char recycle[8];			/* "reset", "discard" */
	char warmup[4096];			/* "" = none */
	char snapshot[PATH_MAX];		/* "" = boot a guest */
	bool memory_given, vcpus_given;		/* not the defaults */
	bool daemonize, help;
};

/* Defaults, then the file named by --config, then argv; checked. 0, or -errno
 * with one line in err that names option, or file and line, and reason. */
int config_load(struct config *cfg, int argc, char **argv, char *err, size_t errlen) must_check;

/* The text of --help. */
void config_help(FILE *out);

/* Take over from new what may change in a running pool. Calls changed() with
 * one line for each such setting that differs, and for those that differ but
 * need a restart. max_total_limit: what the segment has slots for; a larger
 * max-total is refused and nothing changes (-ERANGE with err). */
int config_update(struct config *cfg, const struct config *new, uint32_t max_total_limit,
		  void (*changed)(const char *line), char *err, size_t errlen) must_check;

#endif
