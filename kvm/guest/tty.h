/* SPDX-License-Identifier: MIT
 *
 * tty.h - pseudoterminals of commands.
 */
#ifndef GUEST_TTY_H
#define GUEST_TTY_H

#include "kvm/guest/util.h"
#include "kvm/proto.h"

/* A new terminal of that size: the agent's end and the command's, both above 2 and
 * close-on-exec, which are the caller's. 0 or -errno. */
int tty_open(int *master, int *slave, const struct proto_winsize *size) must_check;

/* Another size; whoever runs in the terminal gets SIGWINCH. */
void tty_resize(int master, const struct proto_winsize *size);

/* Type the end-of-file character, if it means one now. 0; -EAGAIN when there is no room;
 * or another -errno. master does not block. */
int tty_type_eof(int master) must_check;

#endif
