/* SPDX-License-Identifier: MIT
 *
 * agent.h - the agent's loop: frames from the host, signals, commands.
 */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include "kvm/guest/util.h"

/* Before anything else: all signals blocked and at their defaults. What is
 * started later gets an empty mask, and so the defaults. */
void agent_signals(void);

/* Take over fd (the port, or a test's socket) and send READY as far as it goes. */
void agent_start(int fd, bool port);

/* Serve, with commands' cgroups below that directory (NULL: without). Returns
 * only when a socket's peer has gone, and all commands with it; never for a
 * port. */
void agent_serve(const char *cgroup_dir);

#endif
