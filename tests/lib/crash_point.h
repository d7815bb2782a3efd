/* SPDX-License-Identifier: MIT
 *
 * crash_point.h - the test's side of CRASH_POINT (shm/crash.h).
 *
 * A test records which points a piece of code passes, then arms one of them in
 * a child, which sends itself a signal there: SIGKILL to die, SIGSTOP to be
 * stopped in the middle. A program of the test build can be armed from outside
 * with VMPOOL_CRASH=name:nth.
 */
#ifndef VMPOOL_TESTS_CRASH_POINT_H
#define VMPOOL_TESTS_CRASH_POINT_H

#include <stddef.h>
#include <stdint.h>

#define CRASH_NAMES 256
#define CRASH_NAME_LEN 48

/* Names in the order in which they were first passed; lies in shared memory, so
 * that a parent can read what its child passed. */
struct crash_log {
	uint32_t n;
	struct {
		char name[CRASH_NAME_LEN];
		uint32_t hits;
	} point[CRASH_NAMES];
};

/* A zeroed log in memory shared with children; never freed before exit. */
struct crash_log *crash_log_new(void);

/* This process: add every point passed from now on to log; NULL: stop. Not for
 * code that runs in several threads. */
void crash_record(struct crash_log *log);

/* This process: raise sig on the nth passing (1 = the next one) of name. */
void crash_arm(const char *name, uint32_t nth, int sig);
void crash_disarm(void);

/* This process: call fn(arg) at each passing of name, to do what somebody else
 * might do just then. NULL: stop. */
void crash_call(const char *name, void (*fn)(void *arg), void *arg);

#endif
