/* SPDX-License-Identifier: MIT
 *
 * chip_state.c - interrupt controllers and clock. See chip_state.h. Runs in the
 * worker, on the owner's thread.
 */
#include "kvm/chip_state.h"
#include "kvm/map.h"
#include <string.h>
#include <sys/ioctl.h>

static int
get_chip(int vm_fd, uint32_t id, void *state, size_t size, char *err, size_t errlen)
{
	struct kvm_irqchip chip = {.chip_id = id};

	if (ioctl(vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
		return fail(errno, err, errlen, "KVM_GET_IRQCHIP %u: %s", id, strerror(errno));
	memcpy(state, &chip.chip, size);
	return 0;
}

static int
set_chip(int vm_fd, uint32_t id, const void *state, size_t size, char *err, size_t errlen)
{
	struct kvm_irqchip chip = {.chip_id = id};

	memcpy(&chip.chip, state, size);
	if (ioctl(vm_fd, KVM_SET_IRQCHIP, &chip) < 0)
		return fail(errno, err, errlen, "KVM_SET_IRQCHIP %u: %s", id, strerror(errno));
	return 0;
}

int
chip_state_get(struct chip_state *s, int vm_fd, char *err, size_t errlen)
{
	struct kvm_clock_data clock = {0};
	int r = get_chip(vm_fd, KVM_IRQCHIP_IOAPIC, &s->ioapic, sizeof(s->ioapic), err, errlen);

	for (uint32_t i = 0; i < ARRAY_SIZE(s->pic) && r == 0; i++)
		r = get_chip(vm_fd, KVM_IRQCHIP_PIC_MASTER + i, &s->pic[i], sizeof(s->pic[i]), err,
			     errlen);
	if (r == 0 && ioctl(vm_fd, KVM_GET_CLOCK, &clock) < 0)
		r = fail(errno, err, errlen, "KVM_GET_CLOCK: %s", strerror(errno));
	s->clock = clock.clock;
	return r;
}

int
chip_state_set(const struct chip_state *s, int vm_fd, char *err, size_t errlen)
{
	struct kvm_clock_data clock = {.clock = s->clock};
	int r = 0;

	for (uint32_t i = 0; i < ARRAY_SIZE(s->pic) && r == 0; i++)
		r = set_chip(vm_fd, KVM_IRQCHIP_PIC_MASTER + i, &s->pic[i], sizeof(s->pic[i]), err,
			     errlen);
	if (r == 0)
		r = set_chip(vm_fd, KVM_IRQCHIP_IOAPIC, &s->ioapic, sizeof(s->ioapic), err, errlen);
	if (r == 0 && ioctl(vm_fd, KVM_SET_CLOCK, &clock) < 0)
		r = fail(errno, err, errlen, "KVM_SET_CLOCK: %s", strerror(errno));
	return r;
}

void
chip_state_encode(const struct chip_state *s, struct blob *b)
{
	blob_bytes(b, &s->ioapic, sizeof(s->ioapic));
	blob_bytes(b, s->pic, sizeof(s->pic));
	blob_u64(b, s->clock);
}

int
chip_state_decode(struct chip_state *s, struct view content, char *err, size_t errlen)
{
	view_bytes(&content, &s->ioapic, sizeof(s->ioapic));
	view_bytes(&content, s->pic, sizeof(s->pic));
	s->clock = view_u64(&content);
	if (!view_done(&content))
		return fail(EINVAL, err, errlen, "the state's irqchip section has a wrong length");
	if (s->ioapic.base_address != MAP_IOAPIC)
		return fail(EINVAL, err, errlen, "the state's IOAPIC is not where it belongs");
	return 0;
}
