/* SPDX-License-Identifier: MIT
 *
 * test_kvm_cpuid.c - the processor a guest sees, made from a table like those
 * that KVM reports on AMD and Intel machines.
 */
#include "kvm/cpuid.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define ALL 0xffffffffu

/* Every bit set that a filter could have to clear. */
static void
host(struct cpuid *c, bool intel)
{
	static const struct {
		uint32_t leaf, index, eax, ebx, ecx, edx;
		int intel; /* -1: both */
	} rows[] = {
	    {0, 0, 0x1f, 0, 0, 0, -1},
	    {1, 0, 0x800f12, 0x07100800, ALL, ALL, -1},
	    {4, 0, 0x1c004121, 0, 0, 0, 1},
	    {4, 3, 0x1c03c163, 0, 0, 0, 1},
	    {4, 4, 0, 0, 0, 0, 1},
	    {5, 0, ALL, ALL, ALL, ALL, -1},
	    {6, 0, ALL, ALL, ALL, ALL, -1},
	    {7, 0, 1, ALL, ALL, ALL, -1},
	    {0xa, 0, ALL, ALL, ALL, ALL, 1},
	    {0xb, 0, 1, 2, 0x100, 77, -1},
	    {0xb, 1, 4, 16, 0x201, 77, -1},
	    {0xd, 0, 0x602e7, 832, 10752, 0, -1},
	    {0xd, 1, 0x1f, 0, ALL, ALL, -1},
	    {0xd, 2, 256, 576, 0, 0, -1},
	    {0xd, 5, 64, 1088, 0, 0, -1},
	    {0xd, 9, 8, 2688, 0, 0, -1},
	    {0xd, 18, 8192, 2816, 0, 0, -1},
	    {0x14, 0, 1, ALL, ALL, ALL, 1},
	    {0x1f, 0, 1, 2, 0x100, 77, 1},
	    {0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d, -1},
	    {0x40000001, 0, ALL, 0, 0, 0, -1},
	    {0x80000001, 0, 0, 0, ALL, ALL, -1},
	    {0x80000007, 0, 0, 0, 0, ALL, -1},
	    {0x80000008, 0, 0x3030, ALL, 0x500f, 0, -1},
	    {0x8000000a, 0, ALL, ALL, ALL, ALL, 0},
	    {0x8000001d, 0, 0x4121, 0, 0, 0, 0},
	    {0x8000001d, 3, 0x1c163, 0, 0, 0, 0},
	    {0x8000001e, 0, 99, 99, 99, 0, 0},
	};

	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].intel >= 0 && rows[i].intel != intel)
			continue;
		c->e[c->nent++] = (struct kvm_cpuid_entry2){.function = rows[i].leaf,
							    .index = rows[i].index,
							    .eax = rows[i].eax,
							    .ebx = rows[i].ebx,
							    .ecx = rows[i].ecx,
							    .edx = rows[i].edx};
	}
}

static const struct kvm_cpuid_entry2 *
leaf(const struct cpuid *c, uint32_t function, uint32_t index)
{
	const struct kvm_cpuid_entry2 *found = NULL;

	for (uint32_t i = 0; i < c->nent; i++) {
		if (c->e[i].function != function || c->e[i].index != index)
			continue;
		assert_null(found); /* no leaf twice */
		found = &c->e[i];
	}
	return found;
}

static void
ids(void **state)
{
	static const uint32_t sizes[] = {1, 2, 3, 5, 8};
	struct cpuid c;

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		for (uint32_t id = 0; id < sizes[s]; id++) {
			host(&c, id % 2);
			cpuid_for_vcpu(&c, id, sizes[s], true);
			assert_int_equal(leaf(&c, 1, 0)->ebx >> 24, id);
			assert_int_equal(leaf(&c, 1, 0)->ebx >> 16 & 0xff, sizes[s]);
			assert_int_equal(leaf(&c, 1, 0)->edx >> 28 & 1, sizes[s] > 1);
			assert_int_equal(leaf(&c, 0xb, 0)->edx, id);
			assert_int_equal(leaf(&c, 0xb, 1)->edx, id);
			assert_int_equal(leaf(&c, 0xb, 0)->ebx, 1);
			assert_int_equal(leaf(&c, 0xb, 1)->ebx, sizes[s]);
			/* the shift leaves room for every id of the socket */
			assert_int_equal(id >> leaf(&c, 0xb, 1)->eax, 0);
			assert_int_equal(leaf(&c, 0x80000008, 0)->ecx & 0xff, sizes[s] - 1);
		}
	}
}

static void
caches(void **state)
{
	struct cpuid c;

	(void)state;
	host(&c, true);
	cpuid_for_vcpu(&c, 1, 4, true);
	assert_int_equal(leaf(&c, 4, 0)->eax >> 14 & 0xfff, 0); /* private */
	assert_int_equal(leaf(&c, 4, 3)->eax >> 14 & 0xfff, 3); /* of all four */
	assert_int_equal(leaf(&c, 4, 0)->eax >> 26, 3);
	assert_int_equal(leaf(&c, 4, 4)->eax, 0); /* the end stays the end */
	assert_null(leaf(&c, 0x1f, 0));
	host(&c, false);
	cpuid_for_vcpu(&c, 2, 4, true);
	assert_int_equal(leaf(&c, 0x8000001d, 0)->eax >> 14 & 0xfff, 0);
	assert_int_equal(leaf(&c, 0x8000001d, 3)->eax >> 14 & 0xfff, 3);
	assert_int_equal(leaf(&c, 0x8000001e, 0)->eax, 2);
	assert_int_equal(leaf(&c, 0x8000001e, 0)->ebx, 2);
}

static void
hidden(void **state)
{
	struct cpuid c;

	(void)state;
	host(&c, false);
	cpuid_for_vcpu(&c, 0, 1, false);
	assert_int_equal(leaf(&c, 1, 0)->ecx & (1u << 5 | 1u << 15), 0); /* VMX, PDCM */
	assert_int_equal(leaf(&c, 0x80000001, 0)->ecx & (1u << 2 | 1u << 23), 0);
	assert_int_equal(leaf(&c, 0x80000007, 0)->edx & 1u << 8, 0); /* invariant TSC */
	assert_int_equal(leaf(&c, 6, 0)->eax, 1u << 2);
	assert_null(leaf(&c, 5, 0));
	assert_null(leaf(&c, 0x8000000a, 0));
	assert_int_equal(leaf(&c, 0x40000001, 0)->eax & 1u << 4, 0);
	assert_int_equal(leaf(&c, 0x40000001, 0)->eax & (1u << 3 | 1u << 24), 1u << 3 | 1u << 24);
	host(&c, true);
	cpuid_for_vcpu(&c, 0, 1, true);
	assert_null(leaf(&c, 0xa, 0));
	assert_null(leaf(&c, 0x14, 0));
	assert_true((leaf(&c, 1, 0)->ecx & 1u << 31) != 0); /* hypervisor */
}

/* The features that need a component, the components, and XCR0 agree. */
static void
xsave(void **state)
{
	struct cpuid c;

	(void)state;
	host(&c, false);
	cpuid_for_vcpu(&c, 0, 1, true);
	assert_int_equal(leaf(&c, 0xd, 0)->eax, 0xe7);
	assert_true(cpuid_xcr0(&c) == 0xe7);
	assert_int_equal(leaf(&c, 0xd, 1)->eax & 0x18, 0); /* no XSAVES, no XFD */
	assert_int_equal(leaf(&c, 0xd, 1)->ecx, 0);
	assert_non_null(leaf(&c, 0xd, 2));
	assert_non_null(leaf(&c, 0xd, 5));
	assert_null(leaf(&c, 0xd, 9));
	assert_null(leaf(&c, 0xd, 18));
	assert_int_equal(leaf(&c, 7, 0)->ecx & 1u << 3, 0);  /* PKU */
	assert_int_equal(leaf(&c, 7, 0)->edx & 1u << 24, 0); /* AMX */
	c.nent = 0;
	assert_true(cpuid_xcr0(&c) == 0);
}

static void
tsc_deadline(void **state)
{
	struct cpuid c;

	(void)state;
	host(&c, false);
	c.e[1].ecx &= ~(1u << 24);
	cpuid_for_vcpu(&c, 0, 1, false);
	assert_int_equal(leaf(&c, 1, 0)->ecx >> 24 & 1, 0);
	host(&c, false);
	c.e[1].ecx &= ~(1u << 24);
	cpuid_for_vcpu(&c, 0, 1, true);
	assert_int_equal(leaf(&c, 1, 0)->ecx >> 24 & 1, 1);
}

/* A table that is already full gets no entry beyond its end. */
static void
full_table(void **state)
{
	struct {
		struct cpuid c;
		uint32_t guard[16];
	} t;

	(void)state;
	memset(&t.c, 0, sizeof(t.c));
	t.c.e[0].eax = 0x1f;
	t.c.nent = 1;
	memset(t.guard, 0x5a, sizeof(t.guard));
	while (t.c.nent < CPUID_ENTRIES_MAX)
		t.c.e[t.c.nent++].function = 0x80000100;
	cpuid_for_vcpu(&t.c, 0, 8, true);
	assert_int_equal(t.c.nent, CPUID_ENTRIES_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(t.guard); i++)
		assert_int_equal(t.guard[i], 0x5a5a5a5a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ids),   cmocka_unit_test(caches),	     cmocka_unit_test(hidden),
	    cmocka_unit_test(xsave), cmocka_unit_test(tsc_deadline), cmocka_unit_test(full_table),
	};

	return cmocka_run_group_tests_name("kvm cpuid", tests, NULL, NULL);
}
