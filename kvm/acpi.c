/* SPDX-License-Identifier: MIT
 *
 * acpi.c - generate the ACPI tables. See acpi.h. Runs in the worker before the
 * guest does. Field offsets and AML opcodes are those of the ACPI
 * specification 6.4, chapters 5, 6.4 and 20; `iasl -d` reads the result
 * (tests/unit/test_kvm_acpi.c lets it). As ASL, the DSDT says:
 *
 *   Name (\_S5, Package () {5, 0, 0, 0})
 *   Scope (\_SB) {
 *       Device (COM1) {
 *           Name (_HID, EisaId ("PNP0501"))   Name (_UID, 0)
 *           Name (_CRS, ResourceTemplate () {
 *               IO (Decode16, 0x3f8, 0x3f8, 0, 8)
 *               Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {4} })
 *       }
 *       Device (VIO0) {                        // VIO1, ...: a page and an input further
 *           Name (_HID, "LNRO0005")   Name (_UID, 0)   Name (_CCA, 1)
 *           Name (_CRS, ResourceTemplate () {
 *               Memory32Fixed (ReadWrite, 0xd0000000, 0x1000)
 *               Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {5} })
 *       }
 *   }
 */
#include "kvm/acpi.h"
#include "kvm/map.h"
#include <string.h>

#define HEADER_LEN 36u
#define HEADER_SUM 9u
#define FADT_LEN 276u
#define FADT_RESET_REG_SUP (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
#define FADT_NO_VGA (1u << 2)
#define FADT_NO_CMOS_RTC (1u << 5)
#define SPACE_IO 1u
#define EISA_PNP0501 0x0105d041u

enum aml {
	AML_NAME = 0x08,
	AML_BYTE = 0x0a,
	AML_DWORD = 0x0c,
	AML_STRING = 0x0d,
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_EXT = 0x5b,
	AML_EXT_DEVICE = 0x82,
};

/* The memory being filled. Writing past its end only counts, so that one check
 * at the end is enough. */
struct out {
	uint8_t *buf;
	size_t len, at;
};

static void
put(struct out *o, const void *p, size_t n)
{
	if (o->at <= o->len && n <= o->len - o->at)
		memcpy(o->buf + o->at, p, n);
	o->at += n;
}

static void
put8(struct out *o, uint8_t v)
{
	put(o, &v, 1);
}

static void
put32(struct out *o, uint32_t v)
{
	put(o, &v, 4);
}

static void
patch(struct out *o, size_t at, const void *p, size_t n)
{
	if (at <= o->len && n <= o->len - at)
		memcpy(o->buf + at, p, n);
}

static uint8_t
checksum(const struct out *o, size_t from, size_t to)
{
	uint8_t sum = 0;

	for (size_t i = from; i < to && i < o->len; i++)
		sum = (uint8_t)(sum + o->buf[i]);
	return (uint8_t)-sum;
}

static size_t
table_begin(struct out *o, const char *signature, uint8_t revision)
{
	size_t start;

	while (o->at % 16 != 0)
		put8(o, 0);
	start = o->at;
	put(o, signature, 4);
	put32(o, 0); /* length, patched */
	put8(o, revision);
	put8(o, 0); /* checksum, patched */
	put(o, "VMPOOL", 6);
	put(o, "MICROVM ", 8);
	put32(o, 1);
	put(o, "VMPL", 4);
	put32(o, 1);
	return start;
}

static void
table_end(struct out *o, size_t start)
{
	uint32_t len = (uint32_t)(o->at - start);
	uint8_t sum;

	patch(o, start + 4, &len, 4);
	sum = checksum(o, start, o->at);
	patch(o, start + HEADER_SUM, &sum, 1);
}

/* A package length in its two-byte form: its own two bytes count, and the low
 * four bits stand in the first. */
static size_t
aml_begin(struct out *o)
{
	put8(o, 0);
	put8(o, 0);
	return o->at - 2;
}

static void
aml_end(struct out *o, size_t start)
{
	size_t n = o->at - start;
	uint8_t b[2] = {(uint8_t)(0x40 | (n & 0xf)), (uint8_t)(n >> 4)};

	patch(o, start, b, 2);
}

static void
aml_name(struct out *o, const char *seg)
{
	put8(o, AML_NAME);
	put(o, seg, 4);
}

static void
aml_dword(struct out *o, uint32_t v)
{
	put8(o, AML_DWORD);
	put32(o, v);
}

static size_t
aml_device(struct out *o, const char *seg)
{
	size_t start;

	put8(o, AML_EXT);
	put8(o, AML_EXT_DEVICE);
	start = aml_begin(o);
	put(o, seg, 4);
	return start;
}

/* Name (_CRS, Buffer () {resources, edge-triggered interrupt, end tag}). */
static void
aml_crs(struct out *o, const uint8_t *res, size_t n, uint32_t gsi)
{
	const uint8_t irq[] = {0x89, 6, 0, 0x03, 1}; /* consumer, edge, active high; one */
	size_t start;

	aml_name(o, "_CRS");
	put8(o, AML_BUFFER);
	start = aml_begin(o);
	put8(o, AML_BYTE);
	put8(o, (uint8_t)(n + sizeof(irq) + 4 + 2));
	put(o, res, n);
	put(o, irq, sizeof(irq));
	put32(o, gsi);
	put(o, "\x79", 2); /* end tag; checksum 0: not computed */
	aml_end(o, start);
}

static void
aml_com1(struct out *o)
{
	const uint8_t io[] = {0x47,	     1, MAP_COM1 & 0xff, MAP_COM1 >> 8, MAP_COM1 & 0xff,
			      MAP_COM1 >> 8, 0, MAP_COM1_LEN};
	size_t dev = aml_device(o, "COM1");

	aml_name(o, "_HID");
	aml_dword(o, EISA_PNP0501);
	aml_name(o, "_UID");
	aml_dword(o, 0);
	aml_crs(o, io, sizeof(io), MAP_GSI_COM1);
	aml_end(o, dev);
}

static void
aml_virtio(struct out *o, unsigned n)
{
	const char seg[] = {'V', 'I', 'O', (char)('0' + n), 0};
	uint32_t base = MAP_VIRTIO + n * MAP_VIRTIO_STRIDE, len = MAP_VIRTIO_STRIDE;
	uint8_t res[12] = {0x86, 9, 0, 1}; /* 32-bit fixed memory, read and write */
	size_t dev = aml_device(o, seg);

	memcpy(res + 4, &base, 4);
	memcpy(res + 8, &len, 4);
	aml_name(o, "_HID");
	put8(o, AML_STRING);
	put(o, "LNRO0005", 9);
	aml_name(o, "_UID");
	aml_dword(o, n);
	aml_name(o, "_CCA");
	aml_dword(o, 1);
	aml_crs(o, res, sizeof(res), MAP_GSI_VIRTIO + n);
	aml_end(o, dev);
}

static size_t
build_dsdt(struct out *o, unsigned virtio_devices)
{
	const uint8_t s5[] = {4, AML_BYTE, MAP_SLEEP_S5, AML_BYTE, 0, AML_BYTE, 0, AML_BYTE, 0};
	size_t table = table_begin(o, "DSDT", 2), start;

	aml_name(o, "_S5_");
	put8(o, AML_PACKAGE);
	start = aml_begin(o);
	put(o, s5, sizeof(s5));
	aml_end(o, start);

	put8(o, AML_SCOPE);
	start = aml_begin(o);
	put(o, "\\_SB_", 5);
	aml_com1(o);
	for (unsigned i = 0; i < virtio_devices; i++)
		aml_virtio(o, i);
	aml_end(o, start);
	table_end(o, table);
	return table;
}

static void
put_io_register(uint8_t *fadt, size_t at, uint16_t port)
{
	const uint8_t gas[12] = {SPACE_IO, 8, 0, 1, (uint8_t)(port & 0xff), (uint8_t)(port >> 8)};

	memcpy(fadt + at, gas, sizeof(gas));
}

static size_t
build_fadt(struct out *o, uint64_t dsdt)
{
	uint8_t f[FADT_LEN] = {0}; /* offsets as in table 5.9 of the specification */
	uint32_t flags = FADT_RESET_REG_SUP | FADT_HW_REDUCED, dsdt32 = (uint32_t)dsdt;
	uint16_t arch = FADT_NO_VGA | FADT_NO_CMOS_RTC; /* and no 8042: its bit is clear */
	size_t table = table_begin(o, "FACP", 6);

	memcpy(f + 40, &dsdt32, 4);
	memcpy(f + 109, &arch, 2);
	memcpy(f + 112, &flags, 4);
	put_io_register(f, 116, MAP_RESET);
	f[128] = MAP_RESET_VALUE;
	f[131] = 4; /* minor version */
	memcpy(f + 140, &dsdt, 8);
	put_io_register(f, 244, MAP_SLEEP_CONTROL);
	put_io_register(f, 256, MAP_SLEEP_STATUS);
	put(o, f + HEADER_LEN, FADT_LEN - HEADER_LEN);
	table_end(o, table);
	return table;
}

static size_t
build_madt(struct out *o, unsigned vcpus)
{
	size_t table = table_begin(o, "APIC", 5);

	put32(o, MAP_LAPIC);
	put32(o, 0);
	for (unsigned i = 0; i < vcpus; i++) {
		const uint8_t lapic[8] = {0, 8, (uint8_t)i, (uint8_t)i, 1};

		put(o, lapic, sizeof(lapic));
	}
	put(o, "\x01\x0c\x00", 4); /* IOAPIC, length, id, reserved */
	put32(o, MAP_IOAPIC);
	put32(o, 0); /* its first input is GSI 0 */
	table_end(o, table);
	return table;
}

static void
write_rsdp(struct out *o, uint64_t xsdt)
{
	uint8_t r[36] = "RSD PTR ";
	struct out p = {.buf = r, .len = sizeof(r)};
	uint32_t len = sizeof(r);

	memcpy(r + 9, "VMPOOL", 6);
	r[15] = 2;
	memcpy(r + 20, &len, 4);
	memcpy(r + 24, &xsdt, 8);
	r[8] = checksum(&p, 0, 20);
	r[32] = checksum(&p, 0, 36);
	patch(o, 0, r, sizeof(r));
}

size_t
acpi_build(uint8_t *buf, size_t len, uint64_t gpa, unsigned vcpus, unsigned virtio_devices)
{
	struct out o = {.buf = buf, .len = len, .at = 36};
	uint64_t entry[2];
	size_t dsdt, xsdt;

	assert(vcpus >= 1 && vcpus <= 255 && virtio_devices <= 10);
	memset(buf, 0, len);
	dsdt = build_dsdt(&o, virtio_devices);
	entry[0] = gpa + build_fadt(&o, gpa + dsdt);
	entry[1] = gpa + build_madt(&o, vcpus);
	xsdt = table_begin(&o, "XSDT", 1);
	put(&o, entry, sizeof(entry));
	table_end(&o, xsdt);
	write_rsdp(&o, gpa + xsdt);
	return o.at <= len ? o.at : 0;
}
