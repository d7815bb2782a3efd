/* SPDX-License-Identifier: MIT
 *
 * cli_vm.c - joins the VM of a lease, or borrows one. Runs in vmpool.
 */
#include "shm/cli/cli_vm.h"

#include <stdlib.h>
#include <string.h>

const char cli_default_pool[] = "default";

static int
attach(struct cli_vm *vm, const char *pool)
{
	int r = vmpool_attach(&vm->pool, pool);

	if (r == 0)
		return 0;
	cli_say_error(NULL, r);
	return -1;
}

int
cli_vm_borrow(struct cli_vm *vm, const char *pool, int64_t wait_ms)
{
	const struct vmpool_acquire_opts opts = {.timeout_ms = wait_ms};
	uint64_t start;
	int r;

	*vm = (struct cli_vm){.pool = NULL};
	if (attach(vm, pool) < 0)
		return -1;
	start = cli_now();
	r = vmpool_acquire(vm->pool, &opts, &vm->vm);
	if (r < 0) {
		cli_say_error(vm->pool, r);
		vmpool_detach(vm->pool);
		return -1;
	}
	vm->took_ns = cli_now() - start;
	return 0;
}

/* The pool of the lease; -p may only say the same. */
static int
lease_pool(const char *lease, const char *given, char *pool, size_t len)
{
	if (vmpool_lease_pool(lease, pool, len) < 0) {
		cli_say("%s: %s (leave it to vmpool with, or unset it)", CLI_VM_LEASE,
			vmpool_error(NULL));
		return -1;
	}
	if (given == cli_default_pool || strcmp(given, pool) == 0)
		return 0;
	cli_say(
	    "%s is a lease of pool \"%s\", and -p names pool \"%s\" (leave out -p, or unset %s)",
	    CLI_VM_LEASE, pool, given, CLI_VM_LEASE);
	return -1;
}

static int
join(struct cli_vm *vm, const char *lease, const char *given)
{
	uint64_t start;
	char pool[64];
	int r;

	if (lease_pool(lease, given, pool, sizeof(pool)) < 0)
		return -1;
	r = vmpool_attach(&vm->pool, pool);
	if (r == VMPOOL_ENOPOOL) {
		cli_say("pool \"%s\", of whose lease %s is, has ended", pool, CLI_VM_LEASE);
		return -1;
	}
	if (r < 0) {
		cli_say_error(NULL, r);
		return -1;
	}
	start = cli_now();
	r = vmpool_join(vm->pool, lease, &vm->vm);
	if (r < 0) {
		cli_say("%s: %s", CLI_VM_LEASE, vmpool_error(vm->pool));
		vmpool_detach(vm->pool);
		return -1;
	}
	vm->joined = true;
	vm->took_ns = cli_now() - start;
	return 0;
}

int
cli_vm_open(struct cli_vm *vm, const char *pool, int64_t wait_ms)
{
	const char *lease = getenv(CLI_VM_LEASE);

	*vm = (struct cli_vm){.pool = NULL};
	if (lease != NULL && lease[0] != '\0')
		return join(vm, lease, pool);
	if (wait_ms != CLI_VM_NEEDS_LEASE)
		return cli_vm_borrow(vm, pool, wait_ms);
	cli_say("this needs a VM that others use, too: run it inside vmpool with -- ...");
	return -1;
}

void
cli_vm_close(struct cli_vm *vm)
{
	/* A VM that died has been reported, or had done its work. */
	(void)vmpool_release(vm->vm);
	vmpool_detach(vm->pool);
}
