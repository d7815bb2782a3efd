/* SPDX-License-Identifier: MIT
 *
 * cli_tty.h - our own terminal, while a command in a VM has it.
 */
#ifndef VMPOOL_CLI_TTY_H
#define VMPOOL_CLI_TTY_H

#include "shm/cli/cli.h"

/* The size of the terminal that we run in, or else the usual one. */
void cli_tty_size(unsigned short *rows, unsigned short *cols);

/* Pass every key of stdin on as it is; nothing if stdin is no terminal. Undone by
 * cli_tty_restore, which may come twice or without, and by any signal that kills. */
void cli_tty_raw(void);
void cli_tty_restore(void);

#endif
