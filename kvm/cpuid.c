/* SPDX-License-Identifier: MIT
 *
 * cpuid.c - filter KVM's CPUID table and give each vCPU its own. See cpuid.h.
 * Runs in the worker before the guest does. Leaves and bits as in the AMD64
 * (volume 3, appendix E) and Intel (volume 2, CPUID) manuals, and in Linux'
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "kvm/cpuid.h"
#include <string.h>
#include <sys/ioctl.h>

enum reg { EAX, EBX, ECX, EDX };

#define KVM_LEAF 0x40000000u

/* Bits to clear; index UINT32_MAX: all indices of the leaf. */
static const struct {
	uint32_t leaf, index;
	enum reg reg;
	uint32_t clear;
	const char *why;
} filters[] = {
    {0x1, UINT32_MAX, ECX, 1u << 5, "VMX: no machines inside the machine"},
    {0x1, UINT32_MAX, ECX, 1u << 15, "PDCM: no performance counters"},
    {0x80000001, UINT32_MAX, ECX, 1u << 2, "SVM"},
    {0x80000001, UINT32_MAX, ECX, 1u << 23 | 1u << 24 | 1u << 28, "performance counters"},
    {0x80000007, UINT32_MAX, EDX, 1u << 8,
     "invariant TSC: Linux shall take kvm-clock, which a template can set"},
    {0x6, UINT32_MAX, EAX, ~(1u << 2), "power management, but for ARAT"},
    {0x6, UINT32_MAX, EBX, ~0u, "power management"},
    {0x6, UINT32_MAX, ECX, ~0u, "power management"},
    {0x7, 0, EBX, 1u << 14, "MPX"},
    {0x7, 0, ECX, 1u << 3 | 1u << 4, "protection keys: their XSAVE state is filtered"},
    {0x7, 0, EDX, 1u << 22 | 1u << 24 | 1u << 25, "AMX: its XSAVE state is filtered"},
    {0xd, 0, EAX, ~0xe7u, "XSAVE components: x87, SSE, AVX, AVX-512"},
    {0xd, 0, EDX, ~0u, "XSAVE components"},
    {0xd, 1, EAX, 1u << 3 | 1u << 4, "XSAVES: supervisor states are not offered; XFD"},
    {0xd, 1, ECX, ~0u, "supervisor states"},
    {0xd, 1, EDX, ~0u, "supervisor states"},
    {KVM_LEAF + 1, UINT32_MAX, EAX, 1u << 4 | 1u << 5 | 1u << 10 | 1u << 14,
     "asynchronous page faults, steal time: no templates with those pages"},
    {KVM_LEAF + 1, UINT32_MAX, EAX, 1u << 12, "halt polling by the guest: it burns host CPU"},
};

/* Leaves that KVM reports and this machine does not have. */
static const uint32_t dropped[] = {
    0x5, /* MONITOR/MWAIT */
    0xa, /* performance counters */
    0x12,	0x14,	    0x18,	0x19,
    0x1d,	0x1e,	    0x1f,		    /* SGX, PT, TLB, key locker, AMX, topology v2 */
    0x8000000a,					    /* SVM */
    0x8000001b, 0x8000001c, 0x8000001f, 0x80000022, /* IBS, LWP, SEV, counters */
};

static bool
is_dropped(const struct kvm_cpuid_entry2 *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(dropped); i++)
		if (e->function == dropped[i])
			return true;
	/* components of the XSAVE area that the filter above takes away */
	if (e->function == 0xd && e->index >= 2)
		return e->index > 7 || (0xe7u >> e->index & 1) == 0;
	/* these are written anew */
	return e->function == 0xb;
}

static uint32_t *
reg_of(struct kvm_cpuid_entry2 *e, enum reg r)
{
	uint32_t *const regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

	return regs[r];
}

static void
filter(struct cpuid *c)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->nent; i++)
		if (!is_dropped(&c->e[i]))
			c->e[kept++] = c->e[i];
	c->nent = kept;
	for (uint32_t i = 0; i < c->nent; i++)
		for (size_t f = 0; f < ARRAY_SIZE(filters); f++)
			if (c->e[i].function == filters[f].leaf &&
			    (filters[f].index == UINT32_MAX || c->e[i].index == filters[f].index))
				*reg_of(&c->e[i], filters[f].reg) &= ~filters[f].clear;
}

static unsigned
log2_up(uint32_t n)
{
	unsigned bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

static void
leaf_1(struct kvm_cpuid_entry2 *e, uint32_t id, uint32_t vcpus, bool tsc_deadline)
{
	e->ebx = (e->ebx & 0x0000ffff) | id << 24 | vcpus << 16;
	e->ecx |= 1u << 31; /* hypervisor present */
	if (tsc_deadline)
		e->ecx |= 1u << 24;
	e->edx = vcpus > 1 ? e->edx | 1u << 28 : e->edx & ~(1u << 28); /* HTT */
}

/* Caches: level 3 is shared by all vCPUs, the others are private. */
static void
cache_leaf(struct kvm_cpuid_entry2 *e, uint32_t vcpus, bool intel)
{
	uint32_t level = e->eax >> 5 & 7, sharing = level >= 3 ? vcpus - 1 : 0;

	if ((e->eax & 0x1f) == 0)
		return; /* no more caches */
	e->eax = (e->eax & 0x3fff) | sharing << 14;
	if (intel)
		e->eax |= ((1u << log2_up(vcpus)) - 1) << 26;
}

static void
adapt(struct kvm_cpuid_entry2 *e, uint32_t id, uint32_t vcpus, bool tsc_deadline)
{
	switch (e->function) {
	case 0x1: leaf_1(e, id, vcpus, tsc_deadline); break;
	case 0x4: cache_leaf(e, vcpus, true); break;
	case 0x8000001d: cache_leaf(e, vcpus, false); break;
	case 0x80000008:
		/* AMD: bits of an APIC id, cores - 1; reserved elsewhere, and 0 there */
		if (e->ecx != 0)
			e->ecx = log2_up(vcpus) << 12 | (vcpus - 1);
		break;
	case 0x8000001e:
		e->eax = id;
		e->ebx = id; /* core id; one thread per core */
		e->ecx = 0;  /* one node */
		break;
	default: break;
	}
}

/* Leaf 0xb: level 0 one thread per core, level 1 all cores of the socket. */
static void
add_topology(struct cpuid *c, uint32_t id, uint32_t vcpus)
{
	const struct kvm_cpuid_entry2 level[] = {
	    {.ebx = 1, .ecx = 1u << 8 | 0},
	    {.eax = log2_up(vcpus), .ebx = vcpus, .ecx = 2u << 8 | 1},
	    {.ecx = 2},
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(level) && c->nent < CPUID_ENTRIES_MAX; i++) {
		struct kvm_cpuid_entry2 *e = &c->e[c->nent++];

		*e = level[i];
		e->function = 0xb;
		e->index = i;
		e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e->edx = id;
	}
}

int
cpuid_supported(int kvm_fd, struct cpuid *c, char *err, size_t errlen)
{
	memset(c, 0, sizeof(*c));
	c->nent = CPUID_ENTRIES_MAX;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0)
		return fail(errno, err, errlen, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
	return 0;
}

void
cpuid_for_vcpu(struct cpuid *c, uint32_t id, uint32_t vcpus, bool tsc_deadline)
{
	bool has_b = false;

	for (uint32_t i = 0; i < c->nent; i++)
		has_b |= c->e[i].function == 0 && c->e[i].eax >= 0xb;
	filter(c);
	for (uint32_t i = 0; i < c->nent; i++)
		adapt(&c->e[i], id, vcpus, tsc_deadline);
	if (has_b)
		add_topology(c, id, vcpus);
}

int
cpuid_of_vcpu(int kvm_fd, struct cpuid *c, uint32_t id, uint32_t vcpus, char *err, size_t errlen)
{
	int r = cpuid_supported(kvm_fd, c, err, errlen);

	if (r == 0)
		cpuid_for_vcpu(c, id, vcpus,
			       ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0);
	return r;
}

uint64_t
cpuid_xcr0(const struct cpuid *c)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->e[i].function == 0xd && c->e[i].index == 0)
			return (uint64_t)c->e[i].edx << 32 | c->e[i].eax;
	return 0;
}

uint64_t
cpuid_hash(const struct cpuid *c, uint64_t hash)
{
	const uint8_t *p = (const uint8_t *)c->e;

	/* KVM leaves no padding of an entry unset */
	for (size_t i = 0; i < c->nent * sizeof(c->e[0]); i++)
		hash = (hash ^ p[i]) * 0x100000001b3u;
	return hash;
}
