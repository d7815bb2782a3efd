/* SPDX-License-Identifier: MIT
 *
 * check.c - looks at a guest's files before a machine is made of them. Runs
 * wherever a machine is about to be started, ours or another VMM's.
 */
#include "kvm/boot.h"
#include "kvm/gmem.h"
#include "kvm/vm.h"

int
vm_check(const struct vm_config *cfg, char *err, size_t errlen)
{
	const struct boot_spec spec = {
	    .kernel = cfg->kernel,
	    .initrd = cfg->initrd,
	    .cmdline = cfg->cmdline != NULL ? cfg->cmdline : "",
	};
	struct gmem mem;
	uint64_t entry;
	int r;

	if (cfg->mem_mib < VM_MEM_MIB_MIN || cfg->mem_mib > VM_MEM_MIB_MAX)
		return fail(EINVAL, err, errlen, "%u MiB of memory: a machine has %u to %u",
			    cfg->mem_mib, VM_MEM_MIB_MIN, VM_MEM_MIB_MAX);
	r = gmem_init(&mem, (uint64_t)cfg->mem_mib << 20, -1);
	if (r < 0)
		return fail(-r, err, errlen, "no %u MiB of memory for a guest", cfg->mem_mib);
	r = boot_load(&mem, &spec, &entry, err, errlen);
	gmem_fini(&mem);
	return r;
}
