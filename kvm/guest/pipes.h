/* SPDX-License-Identifier: MIT
 *
 * pipes.h - what a command has as stdin, stdout and stderr: pipes, or a terminal.
 * On failure (-errno) pipes_close is still the caller's to call.
 */
#ifndef GUEST_PIPES_H
#define GUEST_PIPES_H

#include "kvm/guest/cmd.h"

int pipes_open_output(struct cmd *c) must_check;
int pipes_open_input(struct cmd *c) must_check;

/* A terminal of the size that is wanted, instead of whatever output pipes it has. */
int pipes_open_tty(struct cmd *c, const struct proto_exec *want) must_check;

/* Close both ends of all of them, or of stdin; those that are not open are left alone. */
void pipes_close(struct cmd *c);
void pipes_close_input(struct cmd *c);

#endif
