/* SPDX-License-Identifier: MIT
 *
 * cpuid.h - the processor that the guest sees: what this KVM supports, less
 * what a small sealed machine should not have, with a topology of one socket
 * with one core per vCPU.
 */
#ifndef VMPOOL_CPUID_H
#define VMPOOL_CPUID_H

#include "shm/base.h"
#include <linux/kvm.h>

#define CPUID_ENTRIES_MAX 160u

struct cpuid {
	uint32_t nent;
	uint32_t padding;
	struct kvm_cpuid_entry2 e[CPUID_ENTRIES_MAX];
};
_Static_assert(offsetof(struct cpuid, e) == sizeof(struct kvm_cpuid2), "laid out as kvm_cpuid2");

/* Ask KVM. 0, or -errno and one line in err. */
int cpuid_supported(int kvm_fd, struct cpuid *c, char *err, size_t errlen) must_check;

/* Turn what KVM supports into vCPU id's table for a machine of vcpus. Pure. */
void cpuid_for_vcpu(struct cpuid *c, uint32_t id, uint32_t vcpus, bool tsc_deadline);

/* Both. */
int cpuid_of_vcpu(int kvm_fd, struct cpuid *c, uint32_t id, uint32_t vcpus, char *err,
		  size_t errlen) must_check;

/* The XSAVE components that a finished table offers: a value for XCR0; 0 without XSAVE. */
uint64_t cpuid_xcr0(const struct cpuid *c);

/* Continue an FNV-1a hash with everything that a finished table says. */
#define CPUID_HASH_START 0xcbf29ce484222325u
uint64_t cpuid_hash(const struct cpuid *c, uint64_t hash);

#endif
