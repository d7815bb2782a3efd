/* SPDX-License-Identifier: MIT
 *
 * pool_peer.h - a real supervisor under test, with the null worker: its process,
 * its runtime directory, its log. The test program is vmpoold and worker program
 * itself; call pool_peer_role first in main.
 */
#ifndef VMPOOL_TESTS_POOL_PEER_H
#define VMPOOL_TESTS_POOL_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* If this process was started as vmpoold or as the worker program: be that, and
 * do not return. */
void pool_peer_role(int argc, char **argv);

/* A fresh directory, made $VMPOOL_RUNDIR and $VMPOOL_GUEST. For cmocka's setup
 * and teardown; the teardown fails if anything was left behind: a supervisor, a
 * file, a process. */
int pool_peer_setup(void **state);
int pool_peer_teardown(void **state);

/* Start "vmpoold ARGS..." (NULL-terminated) with $VMPOOL_NULL = null (NULL: ready).
 * Returns its pid; does not wait. */
pid_t pool_peer_run(const char *null, ...) __attribute__((sentinel));
/* Wait until it has said READY=1; fails the test if it ends before or in 20 s. */
void pool_peer_ready(pid_t pid);
/* Run with --min-idle and wait until it is ready. */
pid_t pool_peer_start(const char *min_idle);
/* Wait for its end, 20 s. The exit status, or 256 + signal. */
int pool_peer_status(pid_t pid);
/* SIGTERM, then pool_peer_status. */
int pool_peer_stop(pid_t pid);

/* The log so far, all supervisors of this test together. Valid until the next call. */
const char *pool_peer_log(void);
bool pool_peer_log_says(const char *words);
/* Path of a file in the test's directory. Valid until the next call but three. */
const char *pool_peer_path(const char *name);
/* Write a file there. */
void pool_peer_write(const char *name, const char *text);

/* Until it is true, at most 20 s; then the test fails. Looks every few ms. */
#define pool_peer_until(cond) \
	do { \
		for (unsigned until_n = 0; !(cond); until_n++) \
			pool_peer_wait(until_n, #cond); \
	} while (0)
void pool_peer_wait(unsigned n, const char *what);

/* The only statistic of that name in this pool, by a monitor; -1 if there is no pool. */
long pool_peer_stat(const char *name);
/* Pids of the workers, at most max; how many. */
unsigned pool_peer_workers(pid_t *pids, unsigned max);
/* Is this process there (and not a zombie)? */
bool pool_peer_alive(pid_t pid);

#endif
