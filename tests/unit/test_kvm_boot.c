/* SPDX-License-Identifier: MIT
 *
 * test_kvm_boot.c - kernel and initrd files, good, bad and hostile: what is
 * loaded where, what the guest is told, and what a refusal says.
 */
#include "kvm/boot.h"
#include "kvm/kimage.h"
#include "kvm/map.h"
#include "tests/lib/kvm_kernel.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MEM (64ull << 20)
#define CODE "\xf4\xeb\xfd"

static struct gmem m;
static uint64_t entry;
static char err[256];

static int
setup(void **state)
{
	(void)state;
	err[0] = '\0';
	entry = 0;
	return gmem_init(&m, MEM, -1);
}

static int
teardown(void **state)
{
	(void)state;
	gmem_fini(&m);
	return 0;
}

static int
load_with(const char *kernel, const char *initrd, const char *cmdline)
{
	const struct boot_spec spec = {
	    .kernel = kernel, .initrd = initrd, .cmdline = cmdline, .rsdp = MAP_ACPI};

	return boot_load(&m, &spec, &entry, err, sizeof(err));
}

static int
load(const struct kernel_file *k)
{
	return load_with(k->path, NULL, "quiet");
}

/* A refusal: its code, the file's name and these words in one line. */
static void
refused(int r, int code, const char *name, const char *words)
{
	print_message("# %s\n", err);
	assert_int_equal(r, -code);
	assert_non_null(strstr(err, name));
	assert_non_null(strstr(err, words));
	assert_null(strchr(err, '\n'));
}

static struct boot_params
params(void)
{
	struct boot_params bp;

	assert_int_equal(gmem_read(&m, MAP_BOOT_PARAMS, &bp, sizeof(bp)), 0);
	return bp;
}

static void
elf(void **state)
{
	struct kernel_file k;
	struct boot_params bp;
	char buf[8] = "";

	(void)state;
	kernel_elf(&k, CODE, 3);
	assert_int_equal(load(&k), 0);
	assert_int_equal(entry, KERNEL_GPA);
	assert_int_equal(gmem_read(&m, KERNEL_GPA, buf, 3), 0);
	assert_memory_equal(buf, CODE, 3);
	assert_int_equal(gmem_read(&m, MAP_CMDLINE, buf, 6), 0);
	assert_string_equal(buf, "quiet");
	bp = params();
	assert_int_equal(bp.hdr.boot_flag, 0xaa55);
	assert_int_equal(bp.hdr.cmd_line_ptr, MAP_CMDLINE);
	assert_int_equal(bp.hdr.type_of_loader, 0xff);
	assert_int_equal(bp.hdr.ramdisk_size, 0);
	assert_true(bp.acpi_rsdp_addr == MAP_ACPI);
	kernel_close(&k);
}

static void
bzimage(void **state)
{
	struct kernel_file k;
	char buf[8] = "";

	(void)state;
	kernel_bz(&k, CODE, 3);
	assert_int_equal(load(&k), 0);
	assert_int_equal(entry, KERNEL_GPA + 0x200);
	assert_int_equal(gmem_read(&m, KERNEL_GPA + 0x200, buf, 3), 0);
	assert_memory_equal(buf, CODE, 3);
	assert_int_equal(params().hdr.version, 0x020f);
	assert_int_equal(params().hdr.loadflags, LOADED_HIGH);
	kernel_close(&k);
}

/* RAM as the guest is told: all of it, and not the tables. */
static void
memory_map(void **state)
{
	struct kernel_file k;
	struct boot_params bp;
	uint64_t ram = 0;

	(void)state;
	kernel_elf(&k, CODE, 3);
	assert_int_equal(load(&k), 0);
	bp = params();
	for (unsigned i = 0; i < bp.e820_entries; i++) {
		const struct boot_e820_entry *e = &bp.e820_table[i];

		assert_true(gmem_holds(&m, e->addr, e->size));
		if (e->type != 1)
			continue;
		ram += e->size;
		assert_true(e->addr + e->size <= MAP_ACPI || e->addr >= MAP_ACPI_END);
	}
	assert_true(ram == MEM - (MAP_HIGH_RAM - MAP_LOW_RAM_END));
	kernel_close(&k);
}

static void
not_kernels(void **state)
{
	static const struct {
		const char *bytes, *words;
		size_t len;
	} rows[] = {
	    {"", "empty", 0},
	    {"x", "text file", 1},
	    {"#!/bin/sh\necho no kernel\n", "text file", 24},
	    {"\x1f\x8b\x08\0\0\0", "gzip", 6},
	    {"\xfd"
	     "7zXZ\0",
	     "xz", 6},
	    {"\x28\xb5\x2f\xfd\0\0", "zstd", 6},
	    {"070701", "cpio", 6},
	    {"!<arch>\ndebian-binary", "Debian package", 21},
	    {"\x7f\x80\x81\x82", "unknown format", 4},
	    {"\x7f"
	     "ELF",
	     "truncated", 4},
	    {"MZ", "truncated", 2},
	};
	struct kernel_file k;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		kernel_raw(&k, rows[i].bytes, rows[i].len);
		refused(load(&k), ENOEXEC, k.path, rows[i].words);
		kernel_close(&k);
	}
	refused(load_with("/nonexistent/vmlinux", NULL, ""), ENOENT, "/nonexistent/vmlinux",
		"No such file");
	refused(load_with("/tmp", NULL, ""), EINVAL, "/tmp", "not a regular file");
	refused(load_with("/dev/null", NULL, ""), EINVAL, "/dev/null", "not a regular file");
}

#define PH(field) (sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, field))
#define EH(field) offsetof(Elf64_Ehdr, field)
#define HDR(field) (offsetof(struct boot_params, hdr) + offsetof(struct setup_header, field))

/* One field of a good file changed. */
struct patch {
	const char *what;
	size_t off, len;
	uint64_t value;
	int code; /* 0: still good */
	const char *words;
};

static void
try_patches(void (*make)(struct kernel_file *, const void *, size_t), const struct patch *p,
	    size_t n)
{
	struct kernel_file k;

	for (size_t i = 0; i < n; i++) {
		print_message("# %s\n", p[i].what);
		make(&k, CODE, 3);
		kernel_patch(&k, p[i].off, &p[i].value, p[i].len);
		if (p[i].code == 0)
			assert_int_equal(load(&k), 0);
		else
			refused(load(&k), p[i].code, k.path, p[i].words);
		kernel_close(&k);
	}
}

static void
hostile_elf(void **state)
{
	static const struct patch rows[] = {
	    {"32-bit", EH(e_ident[EI_CLASS]), 1, ELFCLASS32, ENOEXEC, "x86-64"},
	    {"big-endian", EH(e_ident[EI_DATA]), 1, ELFDATA2MSB, ENOEXEC, "x86-64"},
	    {"ARM", EH(e_machine), 2, EM_AARCH64, ENOEXEC, "x86-64"},
	    {"object file", EH(e_type), 2, ET_REL, ENOEXEC, "not a kernel"},
	    {"shared library", EH(e_type), 2, ET_DYN, ENOEXEC, "not a kernel"},
	    {"no segments", EH(e_phnum), 2, 0, ENOEXEC, "not a kernel"},
	    {"65535 segments", EH(e_phnum), 2, 65535, ENOEXEC, "not a kernel"},
	    {"segment table over the end", EH(e_phoff), 8, 4090, ENOEXEC, "truncated"},
	    {"odd header size", EH(e_phentsize), 2, 1, ENOEXEC, "not a kernel"},
	    {"segment table behind the end", EH(e_phoff), 8, 1 << 20, ENOEXEC, "truncated"},
	    {"segment table wraps", EH(e_phoff), 8, UINT64_MAX - 8, ENOEXEC, "truncated"},
	    {"entry below the segment", EH(e_entry), 8, KERNEL_GPA - 1, ENOEXEC, "entry point"},
	    {"entry behind the bytes", EH(e_entry), 8, KERNEL_GPA + 3, ENOEXEC, "entry point"},
	    {"entry at the end of time", EH(e_entry), 8, UINT64_MAX, ENOEXEC, "entry point"},
	    {"nothing to load", PH(p_type), 4, PT_NOTE, ENOEXEC, "entry point"},
	    {"empty segment", PH(p_memsz), 8, 0, ENOEXEC, "entry point"},
	    {"larger in the file", PH(p_memsz), 8, 2, ENOEXEC, "larger in the file"},
	    {"segment behind the end", PH(p_offset), 8, 1 << 20, ENOEXEC, "truncated"},
	    {"segment wraps in the file", PH(p_offset), 8, UINT64_MAX, ENOEXEC, "truncated"},
	    {"over the tables", PH(p_paddr), 8, MAP_BOOT_PARAMS, ENOEXEC, "below 1 MiB"},
	    {"larger than memory", PH(p_memsz), 8, MEM, EFBIG, "machine has 64 MiB"},
	    {"size wraps", PH(p_memsz), 8, UINT64_MAX, EFBIG, "MiB"},
	    {"behind memory", PH(p_paddr), 8, MEM, EFBIG, "MiB"},
	    {"address wraps", PH(p_paddr), 8, UINT64_MAX, EFBIG, "MiB"},
	};

	(void)state;
	try_patches(kernel_elf, rows, ARRAY_SIZE(rows));
}

static void
hostile_bzimage(void **state)
{
	static const struct patch rows[] = {
	    {"unchanged", HDR(boot_flag), 2, 0xaa55, 0, NULL},
	    {"no magic", HDR(header), 4, 0, ENOEXEC, "unknown format"},
	    {"no boot flag", HDR(boot_flag), 2, 0, ENOEXEC, "unknown format"},
	    {"old", HDR(version), 2, 0x020b, ENOEXEC, "64-bit entry"},
	    {"32-bit", HDR(xloadflags), 2, 0, ENOEXEC, "64-bit entry"},
	    {"setup larger than the file", HDR(setup_sects), 1, 255, ENOEXEC, "truncated"},
	    {"old setup_sects means 4", HDR(setup_sects), 1, 0, ENOEXEC, "truncated"},
	    {"no payload", HDR(syssize), 4, 0, ENOEXEC, "payload"},
	    {"payload ends before the entry", HDR(syssize), 4, 0x20, ENOEXEC, "payload"},
	    {"payload larger than the file", HDR(syssize), 4, 0x100, ENOEXEC, "truncated"},
	    {"payload of 64 GiB", HDR(syssize), 4, UINT32_MAX, ENOEXEC, "truncated"},
	    {"address not aligned", HDR(pref_address), 8, KERNEL_GPA + 1, ENOEXEC, "aligned"},
	    {"over the tables", HDR(pref_address), 8, 0, ENOEXEC, "below 1 MiB"},
	    {"behind memory", HDR(pref_address), 8, MEM, EFBIG, "machine has 64 MiB"},
	    {"address wraps", HDR(pref_address), 8, ~0xfffull, EFBIG, "MiB"},
	    {"needs more than there is", HDR(init_size), 4, UINT32_MAX, EFBIG, "MiB"},
	    {"takes no command line", HDR(cmdline_size), 4, 4, EINVAL, "command line"},
	};

	(void)state;
	try_patches(kernel_bz, rows, ARRAY_SIZE(rows));
}

/* Every prefix of a kernel file is refused, and none crashes. */
static void
truncations(void **state)
{
	void (*const make[])(struct kernel_file *, const void *, size_t) = {kernel_elf, kernel_bz};
	struct kernel_file k;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(make); i++) {
		make[i](&k, CODE, 3);
		for (size_t len = kernel_size(&k); len-- > 0;) {
			kernel_truncate(&k, len);
			assert_int_equal(load(&k), -ENOEXEC);
			assert_non_null(strstr(err, k.path));
		}
		kernel_close(&k);
	}
}

static void
initrd_placed(void **state)
{
	static char cpio[5000] = "070701";
	struct kernel_file k, i;
	struct boot_params bp;
	char buf[8] = "";

	(void)state;
	kernel_elf(&k, CODE, 3);
	kernel_raw(&i, cpio, sizeof(cpio));
	assert_int_equal(load_with(k.path, i.path, ""), 0);
	bp = params();
	assert_int_equal(bp.hdr.ramdisk_size, sizeof(cpio));
	assert_int_equal(bp.hdr.ramdisk_image, MEM - 8192);
	assert_int_equal(gmem_read(&m, bp.hdr.ramdisk_image, buf, 6), 0);
	assert_string_equal(buf, "070701");
	kernel_close(&k);
	/* below the kernel's own limit */
	kernel_bz(&k, CODE, 3);
	kernel_patch(&k, HDR(initrd_addr_max), "\xff\xff\xff\x01", 4);
	assert_int_equal(load_with(k.path, i.path, ""), 0);
	assert_int_equal(params().hdr.ramdisk_image, (32u << 20) - 8192);
	kernel_patch(&k, HDR(initrd_addr_max), "\0\0\0\x01", 4);
	refused(load_with(k.path, i.path, ""), EFBIG, i.path, "does not fit");
	kernel_close(&i);
	kernel_close(&k);
}

static void
initrd_kinds(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		bool ok;
	} rows[] = {
	    {"070701", 6, true},
	    {"070702", 6, true},
	    {"\x1f\x8b\x08\0\0", 5, true},
	    {"\xfd"
	     "7zXZ\0",
	     6, true},
	    {"\x28\xb5\x2f\xfd", 4, true},
	    {"\x02\x21\x4c\x18", 4, true},
	    {"BZh9", 4, true},
	    {"\x89LZO\0", 5, true},
	    {"", 0, false},
	    {"0", 1, false},
	    {"070707", 6, false}, /* the old format: Linux does not unpack it */
	    {"just some text\n", 15, false},
	    {"\x7f"
	     "ELF",
	     4, false},
	};
	struct kernel_file k, i;

	(void)state;
	kernel_elf(&k, CODE, 3);
	for (size_t n = 0; n < ARRAY_SIZE(rows); n++) {
		print_message("# row %zu\n", n);
		kernel_raw(&i, rows[n].bytes, rows[n].len);
		if (rows[n].ok)
			assert_int_equal(load_with(k.path, i.path, ""), 0);
		else
			refused(load_with(k.path, i.path, ""), EINVAL, i.path, "cpio");
		kernel_close(&i);
	}
	refused(load_with(k.path, "/nonexistent/initrd", ""), ENOENT, "/nonexistent/initrd",
		"No such file");
	kernel_raw(&i, "070701", 6);
	kernel_truncate(&i, 48u << 20); /* 16 MiB kernel address + 48 > 64 */
	refused(load_with(k.path, i.path, ""), EFBIG, i.path, "machine of 64 MiB");
	kernel_truncate(&i, 1ull << 40);
	refused(load_with(k.path, i.path, ""), EFBIG, i.path, "machine of 64 MiB");
	kernel_close(&i);
	kernel_close(&k);
}

static void
long_command_line(void **state)
{
	static char line[MAP_CMDLINE_MAX + 1];
	struct kernel_file k;

	(void)state;
	kernel_elf(&k, CODE, 3);
	memset(line, 'a', sizeof(line) - 1);
	refused(load_with(k.path, NULL, line), EINVAL, k.path, "command line");
	line[MAP_CMDLINE_MAX - 1] = '\0';
	assert_int_equal(load_with(k.path, NULL, line), 0);
	kernel_close(&k);
}

static void
registers(void **state)
{
	struct kvm_sregs s = {.apic_base = 0xfee00900};
	struct kvm_regs r;

	(void)state;
	boot_regs(0x1234, &r, &s);
	assert_true(r.rip == 0x1234);
	assert_true(r.rsi == MAP_BOOT_PARAMS);
	assert_true(r.rflags == 2); /* interrupts off */
	assert_int_equal(s.cs.selector, 0x10);
	assert_int_equal(s.cs.l, 1);
	assert_int_equal(s.ss.selector, 0x18);
	assert_true((s.cr0 & 0x80000001) == 0x80000001);
	assert_true((s.efer & 0x500) == 0x500);
	assert_true(s.apic_base == 0xfee00900); /* not ours to change */
}

/* The page tables that the registers point to map the kernel to itself. */
static void
identity_map(void **state)
{
	static const uint64_t where[] = {0, MAP_BOOT_PARAMS, KERNEL_GPA, 0xd0000000, 0xffe00000};
	struct kernel_file k;
	uint64_t e;

	(void)state;
	kernel_elf(&k, CODE, 3);
	assert_int_equal(load(&k), 0);
	for (size_t i = 0; i < ARRAY_SIZE(where); i++) {
		assert_int_equal(gmem_read(&m, MAP_PAGE_TABLES, &e, 8), 0);
		assert_true((e & 1) != 0);
		assert_int_equal(gmem_read(&m, (e & ~0xfffull) + 8 * (where[i] >> 30), &e, 8), 0);
		assert_true((e & 1) != 0);
		assert_int_equal(gmem_read(&m, (e & ~0xfffull) + 8 * (where[i] >> 21 & 511), &e, 8),
				 0);
		assert_int_equal(e & 0x83, 0x83);
		assert_true((e & ~0x1fffffull) == (where[i] & ~0x1fffffull));
	}
	kernel_close(&k);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(elf),	     T(bzimage),	   T(memory_map),  T(not_kernels),
	    T(hostile_elf),  T(hostile_bzimage),   T(truncations), T(initrd_placed),
	    T(initrd_kinds), T(long_command_line), T(registers),   T(identity_map),
	};

	return cmocka_run_group_tests_name("kvm boot", tests, NULL, NULL);
}
