/* SPDX-License-Identifier: MIT
 *
 * crash_point.c - dies, stops or takes notes at the named points of the test build.
 *
 * Runs in test programs and in programs of the test build.
 */
#include "tests/lib/crash_point.h"
#include "shm/base.h"
#include "shm/crash.h"
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

static struct {
	char name[CRASH_NAME_LEN];
	uint32_t left;
	int sig; /* 0: not armed */
	struct crash_log *log;
	const char *call_at; /* NULL: nowhere */
	void (*call)(void *arg);
	void *call_arg;
} plan;

struct crash_log *
crash_log_new(void)
{
	void *p = mmap(NULL, sizeof(struct crash_log), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert(p != MAP_FAILED);
	return p;
}

void
crash_record(struct crash_log *log)
{
	plan.log = log;
}

void
crash_arm(const char *name, uint32_t nth, int sig)
{
	(void)snprintf(plan.name, sizeof(plan.name), "%s", name);
	plan.left = nth;
	plan.sig = sig;
}

void
crash_disarm(void)
{
	plan.sig = 0;
}

void
crash_call(const char *name, void (*fn)(void *arg), void *arg)
{
	plan.call_at = name;
	plan.call = fn;
	plan.call_arg = arg;
}

static void
note(struct crash_log *log, const char *name)
{
	uint32_t i;

	for (i = 0; i < log->n; i++)
		if (strcmp(log->point[i].name, name) == 0)
			break;
	assert(i < CRASH_NAMES);
	if (i == log->n) {
		(void)snprintf(log->point[i].name, CRASH_NAME_LEN, "%s", name);
		log->n++;
	}
	log->point[i].hits++;
}

void
crash_point(const char *name)
{
	if (plan.log != NULL)
		note(plan.log, name);
	if (plan.call_at != NULL && strcmp(plan.call_at, name) == 0)
		plan.call(plan.call_arg);
	if (plan.sig == 0 || strcmp(plan.name, name) != 0 || --plan.left != 0)
		return;
	int sig = plan.sig;

	plan.sig = 0;
	(void)raise(sig);
}

/* VMPOOL_CRASH=name:nth, for programs that a test starts. */
static void __attribute__((constructor)) crash_from_env(void)
{
	const char *spec = getenv("VMPOOL_CRASH"), *colon;
	char name[CRASH_NAME_LEN];

	if (spec == NULL || (colon = strchr(spec, ':')) == NULL)
		return;
	(void)snprintf(name, sizeof(name), "%.*s", (int)(colon - spec), spec);
	crash_arm(name, (uint32_t)strtoul(colon + 1, NULL, 10), SIGKILL);
}
