/* SPDX-License-Identifier: MIT
 *
 * boot.h - everything in guest memory before its first instruction: kernel,
 * initrd, command line, boot_params, page tables, descriptor table; and the
 * registers that the 64-bit boot protocol asks for.
 */
#ifndef VMPOOL_BOOT_H
#define VMPOOL_BOOT_H

#include "kvm/gmem.h"

struct boot_spec {
	const char *kernel;  /* path */
	const char *initrd;  /* path, or NULL */
	const char *cmdline; /* whole command line */
	uint64_t rsdp;	     /* GPA of the ACPI root pointer */
};

/* Fill memory and set *entry. 0, or -errno and one line in err, with the codes
 * that vm_new (vm.h) promises. */
int boot_load(struct gmem *mem, const struct boot_spec *spec, uint64_t *entry, char *err,
	      size_t errlen) must_check;

/* The part of it that the processor itself needs: page tables that map the first
 * 4 GiB one to one, and a descriptor table. 0 or -EFAULT. */
int boot_tables(struct gmem *mem) must_check;

/* The registers of the boot processor at the entry point. sregs holds what KVM
 * gave it at creation, and is changed where the protocol says so. */
void boot_regs(uint64_t entry, struct kvm_regs *regs, struct kvm_sregs *sregs);

#endif
