/* SPDX-License-Identifier: MIT
 *
 * vcpu_state.c - one processor's state, to and from KVM and a blob. See
 * vcpu_state.h. Runs in the worker, on the owner's thread.
 *
 * The order of the table is the order of restoring: control registers before
 * what they give a meaning to; the local APIC before the MSRs, since the
 * deadline timer is of use only in its mode; events last, before nothing else
 * can disturb them.
 */
#include "kvm/vcpu_state.h"
#include <string.h>
#include <sys/ioctl.h>

#define MSR_WALL_CLOCK 0x4b564d00u
#define PART_TSC (VCPU_PARTS - 1)
#define PART_MSRS VCPU_PARTS

static const struct part {
	unsigned long get, set;
	const char *name;
	size_t at, size;
	bool after_msrs;
} parts[] = {
#define PART(what, field, after) \
	{ \
		KVM_GET_##what, KVM_SET_##what, #what, offsetof(struct vcpu_state, field), \
		    sizeof(((struct vcpu_state *)0)->field), after \
	}
    PART(SREGS, sregs, false),	     PART(XCRS, xcrs, false),	   PART(XSAVE, xsave, false),
    PART(REGS, regs, false),	     PART(LAPIC, lapic, false),	   PART(MP_STATE, mp, true),
    PART(VCPU_EVENTS, events, true), PART(DEBUGREGS, debug, true),
};
_Static_assert(ARRAY_SIZE(parts) == PART_TSC, "the TSC's section comes after these");

/* Beside what KVM lists: the memory types, which it keeps but does not list. */
static const struct {
	uint32_t first, last;
} more[] = {{0x200, 0x20f}, {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f}, {0x2ff, 0x2ff}};

/* Listed, and not kept. */
static const struct {
	uint32_t first, last;
	const char *why;
} skipped[] = {
    {0x10, 0x10, "the TSC is set by its offset, exactly"},
    {0x11, 0x12, "other names of the clock registers"},
    {0x1b, 0x1b, "APIC base: in sregs"},
    {0x8b, 0x8b, "microcode revision: constant"},
    {0xce, 0xce, "platform information: constant"},
    {0x10a, 0x10a, "architectural capabilities: constant"},
    {0x345, 0x345, "performance capabilities: constant"},
    {0x480, 0x4ff, "VMX: hidden from the guest"},
    {0x560, 0x58f, "processor trace: hidden from the guest"},
    {0x40000000, 0x40000fff, "Hyper-V: not offered to the guest"},
    {0xc0000080, 0xc0000080, "EFER: in sregs"},
    {0xc0000100, 0xc0000101, "FS and GS base: in sregs"},
};

/* struct kvm_msrs, with room. */
struct msrs {
	uint32_t nmsrs, pad;
	struct kvm_msr_entry e[VCPU_MSRS_MAX];
};
_Static_assert(offsetof(struct msrs, e) == sizeof(struct kvm_msrs), "laid out as kvm_msrs");

static bool
is_skipped(uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(skipped); i++)
		if (index >= skipped[i].first && index <= skipped[i].last)
			return true;
	return false;
}

static bool
listed(const struct msr_list *list, uint32_t index)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (list->index[i] == index)
			return true;
	return false;
}

static void
list_add(struct msr_list *list, uint32_t index)
{
	if (list->n < VCPU_MSRS_MAX && !is_skipped(index) && !listed(list, index))
		list->index[list->n++] = index;
}

int
msr_list_read(int kvm_fd, struct msr_list *list, char *err, size_t errlen)
{
	struct kvm_msr_list count = {0};
	_cleanup_(freep) struct kvm_msr_list *all = NULL;

	/* fails with E2BIG, and says how many there are */
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, &count) < 0 && errno != E2BIG)
		return fail(errno, err, errlen, "KVM_GET_MSR_INDEX_LIST: %s", strerror(errno));
	all = malloc(sizeof(*all) + count.nmsrs * sizeof(all->indices[0]));
	if (all == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	all->nmsrs = count.nmsrs;
	if (ioctl(kvm_fd, KVM_GET_MSR_INDEX_LIST, all) < 0)
		return fail(errno, err, errlen, "KVM_GET_MSR_INDEX_LIST: %s", strerror(errno));
	*list = (struct msr_list){0};
	for (uint32_t i = 0; i < all->nmsrs; i++)
		list_add(list, all->indices[i]);
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		for (uint32_t index = more[i].first; index <= more[i].last; index++)
			list_add(list, index);
	return 0;
}

/* KVM stops at the first register that this processor has not: leave it out. */
static int
get_msrs(struct vcpu_state *s, int fd, const struct msr_list *list, char *err, size_t errlen)
{
	struct msrs m;
	uint32_t at = 0;
	int n;

	s->msr_n = 0;
	while (at < list->n) {
		m.nmsrs = list->n - at;
		m.pad = 0;
		for (uint32_t i = at; i < list->n; i++)
			m.e[i - at] = (struct kvm_msr_entry){.index = list->index[i]};
		n = ioctl(fd, KVM_GET_MSRS, &m);
		if (n < 0)
			return fail(errno, err, errlen, "KVM_GET_MSRS: %s", strerror(errno));
		memcpy(s->msr + s->msr_n, m.e, (size_t)n * sizeof(m.e[0]));
		s->msr_n += (uint32_t)n;
		at += (uint32_t)n + 1;
	}
	return 0;
}

static int
set_some(int fd, struct msrs *m, char *err, size_t errlen)
{
	int n = m->nmsrs == 0 ? 0 : ioctl(fd, KVM_SET_MSRS, m);

	if (n < 0)
		return fail(errno, err, errlen, "KVM_SET_MSRS: %s", strerror(errno));
	if ((uint32_t)n < m->nmsrs)
		return fail(EINVAL, err, errlen, "KVM_SET_MSRS: MSR 0x%x does not take 0x%llx",
			    m->e[n].index, (unsigned long long)m->e[n].data);
	return 0;
}

/* Only what differs is written: a write has effects, and some registers can be
 * read but not written, even with what they hold. */
static int
set_msrs(const struct vcpu_state *s, int fd, bool wall_clock, char *err, size_t errlen)
{
	struct msrs now, m = {0};
	int n;

	now.nmsrs = s->msr_n;
	now.pad = 0;
	memcpy(now.e, s->msr, s->msr_n * sizeof(now.e[0]));
	n = s->msr_n == 0 ? 0 : ioctl(fd, KVM_GET_MSRS, &now);
	if (n < 0)
		return fail(errno, err, errlen, "KVM_GET_MSRS: %s", strerror(errno));
	for (uint32_t i = 0; i < s->msr_n; i++)
		if ((s->msr[i].index == MSR_WALL_CLOCK) == wall_clock &&
		    (i >= (uint32_t)n || now.e[i].data != s->msr[i].data))
			m.e[m.nmsrs++] = s->msr[i];
	return set_some(fd, &m, err, errlen);
}

int
vcpu_state_clock(const struct vcpu_state *s, int fd, char *err, size_t errlen)
{
	return set_msrs(s, fd, true, err, errlen);
}

static int
tsc_offset(int fd, unsigned long request, uint64_t *offset, char *err, size_t errlen)
{
	struct kvm_device_attr attr = {
	    .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};

	if (ioctl(fd, request, &attr) < 0)
		return fail(errno, err, errlen, "%s KVM_VCPU_TSC_OFFSET: %s",
			    request == KVM_SET_DEVICE_ATTR ? "setting" : "reading",
			    strerror(errno));
	return 0;
}

int
vcpu_state_get(struct vcpu_state *s, int fd, const struct msr_list *list, uint64_t host_tsc,
	       char *err, size_t errlen)
{
	uint64_t offset;
	int r;

	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (ioctl(fd, parts[i].get, (uint8_t *)s + parts[i].at) < 0)
			return fail(errno, err, errlen, "KVM_GET_%s: %s", parts[i].name,
				    strerror(errno));
	r = tsc_offset(fd, KVM_GET_DEVICE_ATTR, &offset, err, errlen);
	s->tsc = host_tsc + offset;
	return r == 0 ? get_msrs(s, fd, list, err, errlen) : r;
}

static int
set_parts(const struct vcpu_state *s, int fd, bool after_msrs, char *err, size_t errlen)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		if (parts[i].after_msrs == after_msrs &&
		    ioctl(fd, parts[i].set, (const uint8_t *)s + parts[i].at) < 0)
			return fail(errno, err, errlen, "KVM_SET_%s: %s", parts[i].name,
				    strerror(errno));
	return 0;
}

int
vcpu_state_set(const struct vcpu_state *s, int fd, uint64_t host_tsc, char *err, size_t errlen)
{
	uint64_t offset = s->tsc - host_tsc;
	int r = set_parts(s, fd, false, err, errlen);

	if (r == 0)
		r = tsc_offset(fd, KVM_SET_DEVICE_ATTR, &offset, err, errlen);
	if (r == 0)
		r = set_msrs(s, fd, false, err, errlen);
	return r == 0 ? set_parts(s, fd, true, err, errlen) : r;
}

void
vcpu_state_encode(const struct vcpu_state *s, struct blob *b, uint32_t base, uint32_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		blob_begin(b, base + (uint32_t)i, index);
		blob_bytes(b, (const uint8_t *)s + parts[i].at, parts[i].size);
		blob_end(b);
	}
	blob_begin(b, base + PART_TSC, index);
	blob_u64(b, s->tsc);
	blob_end(b);
	blob_begin(b, base + PART_MSRS, index);
	for (uint32_t i = 0; i < s->msr_n; i++) {
		blob_u32(b, s->msr[i].index);
		blob_u64(b, s->msr[i].data);
	}
	blob_end(b);
}

static int
decode_msrs(struct vcpu_state *s, struct view *v, const struct msr_list *list, char *err,
	    size_t errlen)
{
	struct kvm_msr_entry e = {0};

	for (s->msr_n = 0; v->left > 0 && !v->failed; s->msr[s->msr_n++] = e) {
		e.index = view_u32(v);
		e.data = view_u64(v);
		if (s->msr_n == VCPU_MSRS_MAX)
			return fail(EINVAL, err, errlen, "the state has too many MSRs");
		if (!listed(list, e.index))
			return fail(EINVAL, err, errlen,
				    "the state has MSR 0x%x, which is not kept here", e.index);
		for (uint32_t i = 0; i < s->msr_n; i++)
			if (s->msr[i].index == e.index)
				return fail(EINVAL, err, errlen, "the state has MSR 0x%x twice",
					    e.index);
	}
	return 0;
}

int
vcpu_state_decode(struct vcpu_state *s, unsigned part, struct view content,
		  const struct msr_list *list, char *err, size_t errlen)
{
	int r = 0;

	if (part == PART_MSRS)
		r = decode_msrs(s, &content, list, err, errlen);
	else if (part == PART_TSC)
		s->tsc = view_u64(&content);
	else
		view_bytes(&content, (uint8_t *)s + parts[part].at, parts[part].size);
	if (r == 0 && !view_done(&content))
		return fail(EINVAL, err, errlen, "the state's %s section has a wrong length",
			    part == PART_MSRS  ? "MSRs"
			    : part == PART_TSC ? "TSC"
					       : parts[part].name);
	return r;
}
