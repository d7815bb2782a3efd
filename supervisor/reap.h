/* SPDX-License-Identifier: MIT
 *
 * reap.h - children of vmpoold that have ended.
 */
#ifndef VMPOOL_REAP_H
#define VMPOOL_REAP_H

#include "supervisor/pool.h"

/* Reap all that have ended, telling the pool of each. For SIGCHLD; does not wait. */
void reap_ended(struct pool *pool);

/* At the end: wait at most timeout_ms for the children of ended workers, which
 * are ours since their parents' death (SIGCHLD must be blocked). They die with
 * their parent; this only sees to it that they are gone when we are. */
void reap_orphans(unsigned timeout_ms);

#endif
