/* SPDX-License-Identifier: MIT
 *
 * vcpu_state.h - everything that a virtual processor is between two
 * instructions: read from KVM, given back to it, written to a blob, read from one.
 *
 * The structures of KVM's interface are fixed, so their bytes are the encoding.
 * KVM checks what they hold; here only lengths, counts and MSR numbers are.
 */
#ifndef VMPOOL_VCPU_STATE_H
#define VMPOOL_VCPU_STATE_H

#include "kvm/blob.h"
#include <linux/kvm.h>

#define VCPU_MSRS_MAX 224u /* fewer than KVM takes at a time (256) */
#define VCPU_PARTS 9u	   /* sections beside the MSRs' */

/* Model-specific registers worth keeping, as this KVM has them. */
struct msr_list {
	uint32_t n;
	uint32_t index[VCPU_MSRS_MAX];
};

struct vcpu_state {
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	uint8_t xsave[4096] __attribute__((aligned(64)));
	struct kvm_regs regs;
	struct kvm_lapic_state lapic;
	struct kvm_mp_state mp;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	uint64_t tsc; /* the guest's, at the capture */
	uint32_t msr_n;
	struct kvm_msr_entry msr[VCPU_MSRS_MAX];
};

/* What this KVM offers, less what would do harm or is kept otherwise. 0 or -errno with err. */
int msr_list_read(int kvm_fd, struct msr_list *list, char *err, size_t errlen) must_check;

/* Read vCPU fd's state; no thread may be in it, and no exit be unfinished.
 * host_tsc: this processor's counter, read once for all vCPUs of a machine. */
int vcpu_state_get(struct vcpu_state *s, int fd, const struct msr_list *list, uint64_t host_tsc,
		   char *err, size_t errlen) must_check;
/* Put it into this state. Guest memory must be in place, except that the clock
 * registers may make KVM write there: see vcpu_state_clock. */
int vcpu_state_set(const struct vcpu_state *s, int fd, uint64_t host_tsc, char *err,
		   size_t errlen) must_check;
/* Give back the registers by whose writing KVM changes guest memory, if they
 * differ. To be done before guest memory is put into place. */
int vcpu_state_clock(const struct vcpu_state *s, int fd, char *err, size_t errlen) must_check;

/* Sections kind base .. base + VCPU_PARTS, with this index. */
void vcpu_state_encode(const struct vcpu_state *s, struct blob *b, uint32_t base, uint32_t index);
/* One of them. part: kind - base. 0, or -EINVAL with err. */
int vcpu_state_decode(struct vcpu_state *s, unsigned part, struct view content,
		      const struct msr_list *list, char *err, size_t errlen) must_check;

#endif
