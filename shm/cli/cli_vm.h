/* SPDX-License-Identifier: MIT
 *
 * cli_vm.h - the VM that a command works on: that of $VMPOOL_LEASE, which vmpool with
 * has set, or else one borrowed for the command alone.
 */
#ifndef VMPOOL_CLI_VM_H
#define VMPOOL_CLI_VM_H

#include "shm/cli/cli.h"

#define CLI_VM_LEASE "VMPOOL_LEASE" /* the variable */
#define CLI_VM_NEEDS_LEASE (-1)	    /* instead of a time: do not borrow, fail */

struct cli_vm {
	struct vmpool *pool;
	struct vmpool_vm *vm;
	bool joined;
	uint64_t took_ns; /* to join or to borrow */
};

/* Open it, waiting at most wait_ms for one to borrow. pool: the command's. 0; or -1 after
 * one line on stderr, with nothing left. */
int cli_vm_open(struct cli_vm *vm, const char *pool, int64_t wait_ms);

/* Borrow one, whatever $VMPOOL_LEASE says. */
int cli_vm_borrow(struct cli_vm *vm, const char *pool, int64_t wait_ms);

/* Run ARGV on this host with $VMPOOL_LEASE set to this lease, and give the VM back after it
 * (cli_with.c). The exit status: ARGV's, as a shell would say it, or one of cli.h. */
int cli_vm_lend(struct vmpool *pool, struct vmpool_vm *vm, char **argv);

/* Give it back, or leave it. */
void cli_vm_close(struct cli_vm *vm);

#endif
