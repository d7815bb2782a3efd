/* SPDX-License-Identifier: MIT
 *
 * testproc.h - child processes and threads that play clients in tests.
 */
#ifndef VMPOOL_TESTS_TESTPROC_H
#define VMPOOL_TESTS_TESTPROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Run fn(arg) in a forked child, which exits with what it returns (0..255) and
 * does not outlive its parent. */
pid_t testproc_start(int (*fn)(void *arg), void *arg);

/* Wait for its end: the exit status, or 1000 + the signal that killed it. */
int testproc_wait(pid_t pid);

/* Wait until the child is stopped (SIGSTOP); false: it ended instead. */
bool testproc_wait_stopped(pid_t pid);

/* SIGKILL and wait. */
void testproc_kill(pid_t pid);

/* Wait until the thread tid (of any process) sleeps in the kernel, as
 * /proc/TID/stat shows it; false: not within a minute. For tests that must not
 * act before somebody else waits. */
bool testproc_asleep(pid_t tid);

#endif
