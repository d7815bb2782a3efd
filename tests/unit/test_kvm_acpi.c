/* SPDX-License-Identifier: MIT
 *
 * test_kvm_acpi.c - the ACPI tables: found from the root pointer, summed
 * right, saying what map.h says, and (where iasl is installed) read by ACPICA.
 */
#include "kvm/acpi.h"
#include "kvm/map.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static uint8_t buf[ACPI_SPACE];

static uint32_t
u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t
u64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint8_t
sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n-- > 0)
		s = (uint8_t)(s + *p++);
	return s;
}

/* The table at this guest physical address, checked. */
static const uint8_t *
table(uint64_t gpa, const char *signature)
{
	const uint8_t *t = buf + (gpa - MAP_ACPI);

	assert_in_range(gpa, MAP_ACPI, MAP_ACPI_END - 36);
	assert_memory_equal(t, signature, 4);
	assert_in_range(u32(t + 4), 36, MAP_ACPI_END - gpa);
	assert_int_equal(sum(t, u32(t + 4)), 0);
	return t;
}

static void
build(unsigned vcpus, unsigned devices)
{
	size_t n = acpi_build(buf, sizeof(buf), MAP_ACPI, vcpus, devices);

	assert_in_range(n, 500, MAP_ACPI_END - MAP_ACPI);
}

static const uint8_t *
xsdt(void)
{
	assert_memory_equal(buf, "RSD PTR ", 8);
	assert_int_equal(buf[15], 2);
	assert_int_equal(sum(buf, 20), 0);
	assert_int_equal(sum(buf, 36), 0);
	return table(u64(buf + 24), "XSDT");
}

static void
linked_and_summed(void **state)
{
	const uint8_t *x, *fadt;

	(void)state;
	for (unsigned vcpus = 1; vcpus <= 255; vcpus += 31) {
		for (unsigned devices = 0; devices <= 10; devices++) {
			build(vcpus, devices);
			x = xsdt();
			assert_int_equal(u32(x + 4), 36 + 16);
			fadt = table(u64(x + 36), "FACP");
			(void)table(u64(x + 44), "APIC");
			(void)table(u64(fadt + 140), "DSDT");
			assert_int_equal(u32(fadt + 40), u64(fadt + 140));
		}
	}
}

static void
power_registers(void **state)
{
	const uint8_t *f;

	(void)state;
	build(1, 1);
	f = table(u64(xsdt() + 36), "FACP");
	assert_int_equal(u32(f + 4), 276);
	assert_true((u32(f + 112) & 1u << 20) != 0); /* hardware-reduced */
	assert_true((u32(f + 112) & 1u << 10) != 0); /* has a reset register */
	assert_int_equal(f[116], 1);		     /* in port space */
	assert_int_equal(u64(f + 120), MAP_RESET);
	assert_int_equal(f[128], MAP_RESET_VALUE);
	assert_int_equal(u64(f + 248), MAP_SLEEP_CONTROL);
	assert_int_equal(u64(f + 260), MAP_SLEEP_STATUS);
}

static void
processors(void **state)
{
	const uint8_t *m;
	unsigned cpus = 0, ioapics = 0;

	(void)state;
	build(5, 1);
	m = table(u64(xsdt() + 44), "APIC");
	assert_int_equal(u32(m + 36), MAP_LAPIC);
	for (uint32_t at = 44; at < u32(m + 4); at += m[at + 1]) {
		assert_in_range(m[at + 1], 8, 12);
		if (m[at] == 0) {
			assert_int_equal(m[at + 3], cpus); /* APIC id */
			assert_int_equal(u32(m + at + 4), 1);
			cpus++;
		} else {
			assert_int_equal(m[at], 1);
			assert_int_equal(u32(m + at + 4), MAP_IOAPIC);
			ioapics++;
		}
	}
	assert_int_equal(cpus, 5);
	assert_int_equal(ioapics, 1);
}

static void
too_little_space(void **state)
{
	size_t need = acpi_build(buf, sizeof(buf), MAP_ACPI, 8, 3);

	(void)state;
	for (size_t len = 0; len < need; len++) {
		uint8_t *small = malloc(len + 1);

		small[len] = 0x5a;
		assert_int_equal(acpi_build(small, len, MAP_ACPI, 8, 3), 0);
		assert_int_equal(small[len], 0x5a);
		free(small);
	}
}

/* Write the table to a file for iasl. */
static void
save(const char *path, const uint8_t *t)
{
	_cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, t, u32(t + 4)), u32(t + 4));
}

static void
read_by_iasl(void **state)
{
	char dir[] = "/tmp/test_kvm_acpi.XXXXXX", path[64], cmd[256], *dsl = NULL;
	const char *const want[] = {"Name (_S5",
				    "Device (COM1)",
				    "\"PNP0501\"",
				    "0x03F8,",
				    "Device (VIO1)",
				    "\"LNRO0005\"",
				    "0xD0001000,",
				    "0x00000006,",
				    "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"};
	size_t len = 0;
	FILE *f;

	(void)state;
	if (system("iasl -v >/dev/null 2>&1") != 0) {
		print_message("# skipped: iasl (Debian package acpica-tools) is not installed\n");
		skip();
	}
	build(1, 2);
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/dsdt.aml", dir);
	save(path, table(u64(table(u64(xsdt() + 36), "FACP") + 140), "DSDT"));
	(void)snprintf(
	    cmd, sizeof(cmd),
	    "cd %s && iasl -d dsdt.aml >log 2>&1 && iasl -we -p again dsdt.dsl >>log 2>&1", dir);
	int r = system(cmd);
	(void)snprintf(path, sizeof(path), "%s/dsdt.dsl", dir);
	f = fopen(path, "re");
	if (f != NULL && getdelim(&dsl, &len, '\0', f) < 0)
		dsl = NULL;
	if (f != NULL)
		(void)fclose(f);
	(void)snprintf(cmd, sizeof(cmd), "test %d = 0 || cat %s/log; rm -rf %s", r, dir, dir);
	assert_int_equal(system(cmd), 0);
	assert_int_equal(r, 0);
	assert_non_null(dsl);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		if (strstr(dsl, want[i]) == NULL)
			fail_msg("iasl does not find %s in:\n%s", want[i], dsl);
	free(dsl);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(linked_and_summed), cmocka_unit_test(power_registers),
	    cmocka_unit_test(processors),	 cmocka_unit_test(too_little_space),
	    cmocka_unit_test(read_by_iasl),
	};

	return cmocka_run_group_tests_name("kvm acpi", tests, NULL, NULL);
}
