/* SPDX-License-Identifier: MIT
 *
 * null_worker.h - a vmpool-worker without machines. A test program is its own
 * worker program: it sets VMPOOL_WORKER to itself, and calls null_worker_main
 * from its main when null_worker_wanted.
 *
 * $VMPOOL_NULL says how the workers behave:
 *   ready          (default) READY at once, then wait for STOP
 *   fail:N:TEXT    FAILED with -N and TEXT
 *   exit           end without a word
 *   hang           say nothing
 *   garbage        send rubbish on the control socket
 *   die            READY, then end
 *   nofork         the fork server refuses every SPAWN
 *   crash          the fork server ends at once
 *   file:PATH      any of these, read from the first line of PATH at each SPAWN
 *   noaccel        the probe finds no accelerator
 */
#ifndef VMPOOL_TESTS_NULL_WORKER_H
#define VMPOOL_TESTS_NULL_WORKER_H

#include <stdbool.h>

bool null_worker_wanted(int argc, char **argv);
int null_worker_main(int argc, char **argv);

#endif
