/* SPDX-License-Identifier: MIT
 *
 * chip_state.h - what a machine keeps in KVM beside its processors: IOAPIC, the
 * two PICs (there because the irqchip is) and the clock. There is no PIT.
 */
#ifndef VMPOOL_CHIP_STATE_H
#define VMPOOL_CHIP_STATE_H

#include "kvm/blob.h"
#include <linux/kvm.h>

struct chip_state {
	struct kvm_ioapic_state ioapic;
	struct kvm_pic_state pic[2];
	uint64_t clock; /* kvm-clock, ns */
};

/* Read from or give to the VM; its vCPUs stand still. 0 or -errno with err. The
 * local APICs are set before, since the IOAPIC may have an interrupt for them. */
int chip_state_get(struct chip_state *s, int vm_fd, char *err, size_t errlen) must_check;
int chip_state_set(const struct chip_state *s, int vm_fd, char *err, size_t errlen) must_check;

/* One section's content. 0, or -EINVAL with err. */
void chip_state_encode(const struct chip_state *s, struct blob *b);
int chip_state_decode(struct chip_state *s, struct view content, char *err,
		      size_t errlen) must_check;

#endif
