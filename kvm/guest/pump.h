/* SPDX-License-Identifier: MIT
 *
 * pump.h - bytes between a command's pipes and the channel, within credit.
 */
#ifndef GUEST_PUMP_H
#define GUEST_PUMP_H

#include "kvm/guest/cmd.h"

/* Take bytes for the command's stdin into its buffer. 0, or -EPROTO when they
 * exceed the window. */
int pump_accept(struct cmd *c, const uint8_t *bytes, size_t len, bool eof) must_check;

/* The command has ended: what is in its pipes now is the last of its output. */
void pump_drain(struct cmd *c);

/* One turn: write its stdin, grant credit, read its output (at most one frame's
 * worth of each), and send EXIT when it has ended and is drained. True if there
 * may be more to do at once; otherwise an event or a CREDIT brings it back. */
bool pump_turn(struct cmd *c, struct chan *chan) must_check;

/* Read and drop a bounded amount of output, and close pipes at their end. True
 * if there may be more. */
bool pump_discard(struct cmd *c);

#endif
