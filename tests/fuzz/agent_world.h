/* SPDX-License-Identifier: MIT
 *
 * agent_world.h - the agent without a machine: all that would start a process, or touch
 * a file, a cgroup, a terminal or the clock of this host, pretends, and the input says
 * with what result. What is left of the agent is real: frames, requests, streams,
 * windows, turns.
 */
#ifndef VMPOOL_FUZZ_AGENT_WORLD_H
#define VMPOOL_FUZZ_AGENT_WORLD_H

#include "tests/lib/fuzz.h"

#include <setjmp.h>

/* For one input: draw from f; call turn whenever the agent would sleep; go to fatal
 * when it gives up. */
void world_begin(struct fuzz *f, void (*turn)(void), jmp_buf *fatal);
/* All that it holds is let go. */
void world_end(void);

/* A process ends, if there is one, with this status. */
void world_reap(unsigned which, int status);
/* From now on ended commands leave processes behind, or not. */
void world_linger(bool linger);

#endif
