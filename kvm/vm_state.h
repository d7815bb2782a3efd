/* SPDX-License-Identifier: MIT
 *
 * vm_state.h - a whole machine's state but its memory: as a value, and as the
 * bytes that a template or snapshot keeps.
 *
 *   header    magic "VMPSTATE", format version, header length, total length,
 *             identity (memory size, vCPUs, layout, hash of CPUID, TSC rate)
 *   sections  see blob.h: one each for irqchip and clock, serial port, guest channel and
 *             warm pages, ten for each vCPU; in any order, each once
 *
 * The bytes may come from a file that anybody could have altered: decoding
 * believes nothing, and what it lets pass cannot harm the VMM.
 */
#ifndef VMPOOL_VM_STATE_H
#define VMPOOL_VM_STATE_H

#include "kvm/chip_state.h"
#include "kvm/dev_state.h"
#include "kvm/vcpu_state.h"

#define VM_STATE_VERSION 1u
#define VM_STATE_BYTES_MAX (1u << 20)

/* What two machines must have in common for one to take the other's state. */
struct vm_identity {
	uint64_t mem_size;
	uint32_t vcpus;
	uint32_t tsc_khz; /* may differ by a thousandth: it is measured at every boot */
	uint64_t layout;  /* vm_state_layout */
	uint64_t cpuid;	  /* cpuid_hash over all vCPUs */
};

/* Pages that the guest will touch at once: page number << 1, | 1 if it writes. */
#define VM_WARM_MAX 1024u
struct vm_warm {
	uint32_t n;
	uint32_t page[VM_WARM_MAX];
};

struct vm_state {
	struct chip_state chip;
	struct dev_state dev;
	struct vm_warm warm;
	struct vcpu_state vcpu[VM_VCPUS_MAX]; /* those of the identity's vcpus */
};

/* A number that changes with everything in map.h and the devices that a guest relies on. */
uint64_t vm_state_layout(void);

/* Write s for id into b, which is empty. 0 or -ENOMEM. */
int vm_state_encode(const struct vm_state *s, const struct vm_identity *id,
		    struct blob *b) must_check;

/* Read len bytes written for a machine like id. 0, -EINVAL with err (damaged, or
 * made for another machine: says in what they differ), -ENOTSUP (other version). */
int vm_state_decode(struct vm_state *s, const struct vm_identity *id, const struct msr_list *msrs,
		    const void *bytes, size_t len, char *err, size_t errlen) must_check;

#endif
