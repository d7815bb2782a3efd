/* SPDX-License-Identifier: MIT
 *
 * vmstat.c - what /proc says about the machine, in one fixed struct. Runs in the
 * agent; owns nothing.
 */
#include "kvm/guest/vmstat.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX (256u << 10)

/* The number that stands after name at the start of a line; 0 if none does. */
static uint64_t
number_after(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (; text != NULL; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (strncmp(text, name, len) == 0)
			return strtoull(text + len, NULL, 10);
	}
	return 0;
}

static void
read_memory(struct proto_vmstats *s)
{
	_cleanup_(util_freep) char *text = NULL;

	if (util_read_file("/proc/meminfo", TEXT_MAX, &text) != 0)
		return;
	s->mem_total = number_after(text, "MemTotal:") << 10;
	s->mem_used = s->mem_total - (number_after(text, "MemAvailable:") << 10);
}

static void
read_faults(struct proto_vmstats *s)
{
	_cleanup_(util_freep) char *text = NULL;

	if (util_read_file("/proc/vmstat", TEXT_MAX, &text) != 0)
		return;
	s->page_faults = number_after(text, "pgfault ");
	s->major_faults = number_after(text, "pgmajfault ");
}

/* "cpu  user nice system idle iowait irq softirq ...", in ticks. */
static void
read_cpu(struct proto_vmstats *s)
{
	_cleanup_(util_freep) char *text = NULL;
	unsigned long long user, nice, sys, irq, softirq;

	if (util_read_file("/proc/stat", TEXT_MAX, &text) == 0 &&
	    sscanf(text, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &sys, &irq,
		   &softirq) == 5)
		s->cpu_ns = (user + nice + sys + irq + softirq) *
			    (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* Kernel threads and those that have ended have no program. */
static bool
runs_program(const char *pid)
{
	char path[64], target[2];

	(void)snprintf(path, sizeof(path), "/proc/%.16s/exe", pid);
	return readlink(path, target, sizeof(target)) > 0;
}

static void
count_processes(struct proto_vmstats *s)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;

	while (proc != NULL && (d = readdir(proc)) != NULL) {
		if (d->d_name[0] >= '1' && d->d_name[0] <= '9' && runs_program(d->d_name))
			s->processes++;
	}
	if (proc != NULL)
		(void)closedir(proc);
}

void
vmstat_read(struct proto_vmstats *s)
{
	struct timespec up;

	if (clock_gettime(CLOCK_BOOTTIME, &up) == 0)
		s->uptime_ns = (uint64_t)up.tv_sec * 1000000000u + (uint64_t)up.tv_nsec;
	read_cpu(s);
	read_memory(s);
	read_faults(s);
	count_processes(s);
}
