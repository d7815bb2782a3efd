/* SPDX-License-Identifier: MIT
 *
 * boot.c - put kernel and initrd into guest memory and describe them to the
 * guest. See boot.h. Runs in the worker before the guest does. Layout: map.h;
 * protocol: Documentation/x86/boot.rst of Linux, "64-bit boot protocol".
 */
#include "kvm/boot.h"
#include "kvm/kimage.h"
#include "kvm/map.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define LOADER_UNDEFINED 0xffu /* hdr.type_of_loader: no assigned number */
#define PTE_TABLE 0x03u	       /* present, writable */
#define PTE_HUGE 0x83u	       /* present, writable, 2 MiB page */
#define SEL_CODE 0x10u
#define SEL_DATA 0x18u
#define CR0_PE 0x1u
#define CR0_ET 0x10u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u

static int
open_regular(const char *what, const char *path, uint64_t *size, char *err, size_t errlen)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(errno, err, errlen, "%s %s: %s", what, path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(EINVAL, err, errlen, "%s %s is not a regular file", what, path);
	*size = (uint64_t)st.st_size;
	return steal_fd(&fd);
}

/* What the kernel's initramfs code unpacks: cpio "newc", plain or compressed
 * (init/initramfs.c and lib/decompress.c of Linux name the same magics). */
static bool
is_initrd(const uint8_t *head, size_t n)
{
	static const struct {
		const char *magic;
		size_t len;
	} known[] = {{"070701", 6},
		     {"070702", 6},
		     {"\x1f\x8b", 2},
		     {"\xfd"
		      "7zXZ",
		      5},
		     {"\x28\xb5\x2f\xfd", 4},
		     {"\x02\x21\x4c\x18", 4},
		     {"BZh", 3},
		     {"\x5d\0\0", 3},
		     {"\x89LZO", 4}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (n >= known[i].len && memcmp(head, known[i].magic, known[i].len) == 0)
			return true;
	return false;
}

/* As high as it may be, so that the kernel has room to unpack itself below. */
static int
load_initrd(struct gmem *mem, const char *path, const struct kimage *k, struct setup_header *h,
	    char *err, size_t errlen)
{
	uint64_t size, top, gpa;
	uint8_t head[6];
	ssize_t n;
	int r;

	_cleanup_(closep) int fd = open_regular("initrd", path, &size, err, errlen);
	if (fd < 0)
		return fd;
	n = pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return fail(errno, err, errlen, "initrd %s: %s", path, strerror(errno));
	if (!is_initrd(head, (size_t)n))
		return fail(EINVAL, err, errlen,
			    "initrd %s is not a cpio archive (newc), plain or compressed", path);
	top = MIN(mem->size, k->initrd_max + 1);
	if (size > top || ((top - size) & ~4095ull) < k->end)
		return fail(EFBIG, err, errlen,
			    "initrd %s (%llu MiB) does not fit beside the kernel (up to %llu MiB) "
			    "in a machine of %llu MiB",
			    path, (unsigned long long)(size >> 20) + 1,
			    (unsigned long long)(k->end >> 20) + 1,
			    (unsigned long long)(mem->size >> 20));
	gpa = (top - size) & ~4095ull;
	r = gmem_load_file(mem, gpa, fd, 0, size);
	if (r < 0)
		return fail(-r, err, errlen, "initrd %s: %s", path,
			    r == -ENODATA ? "it shrank while it was read" : strerror(-r));
	h->ramdisk_image = (uint32_t)gpa;
	h->ramdisk_size = (uint32_t)size;
	return 0;
}

static void
e820_add(struct boot_params *bp, uint64_t from, uint64_t to, uint32_t type)
{
	bp->e820_table[bp->e820_entries++] =
	    (struct boot_e820_entry){.addr = from, .size = to - from, .type = type};
}

static int
write_params(struct gmem *mem, const struct boot_spec *spec, const struct setup_header *h)
{
	struct boot_params bp = {.hdr = *h};
	enum { RAM = 1, RESERVED = 2 };

	bp.hdr.type_of_loader = LOADER_UNDEFINED;
	bp.hdr.loadflags = LOADED_HIGH;
	bp.hdr.cmd_line_ptr = MAP_CMDLINE;
	bp.hdr.cmdline_size = (uint32_t)strlen(spec->cmdline);
	bp.acpi_rsdp_addr = spec->rsdp;
	e820_add(&bp, 0, MAP_LOW_RAM_END, RAM);
	e820_add(&bp, MAP_LOW_RAM_END, MAP_HIGH_RAM, RESERVED);
	e820_add(&bp, MAP_HIGH_RAM, mem->size, RAM);
	return gmem_write(mem, MAP_BOOT_PARAMS, &bp, sizeof(bp));
}

/* The first 4 GiB, identity-mapped by 2 MiB pages: one PML4, one PDPT, four
 * page directories. */
static int
write_page_tables(struct gmem *mem)
{
	uint64_t pt[6][512] = {0};

	pt[0][0] = (MAP_PAGE_TABLES + 4096) | PTE_TABLE;
	for (unsigned i = 0; i < 4; i++)
		pt[1][i] = (MAP_PAGE_TABLES + (2 + i) * 4096) | PTE_TABLE;
	for (uint64_t i = 0; i < 2048; i++)
		pt[2 + i / 512][i % 512] = i << 21 | PTE_HUGE;
	return gmem_write(mem, MAP_PAGE_TABLES, pt, sizeof(pt));
}

/* null, null, 64-bit code, data: the selectors that the protocol names. */
static const uint64_t gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};

int
boot_tables(struct gmem *mem)
{
	int r = write_page_tables(mem);

	return r < 0 ? r : gmem_write(mem, MAP_GDT, gdt, sizeof(gdt));
}

int
boot_load(struct gmem *mem, const struct boot_spec *spec, uint64_t *entry, char *err, size_t errlen)
{
	struct kimage k;
	uint64_t size;
	int r;

	_cleanup_(closep) int fd = open_regular("kernel", spec->kernel, &size, err, errlen);
	if (fd < 0)
		return fd;
	r = kimage_load(mem, fd, spec->kernel, &k, err, errlen);
	if (r < 0)
		return r;
	if (strlen(spec->cmdline) > k.cmdline_max)
		return fail(EINVAL, err, errlen,
			    "the kernel command line has %zu bytes, kernel %s takes %u",
			    strlen(spec->cmdline), spec->kernel, k.cmdline_max);
	if (spec->initrd != NULL) {
		r = load_initrd(mem, spec->initrd, &k, &k.hdr, err, errlen);
		if (r < 0)
			return r;
	}
	if (write_params(mem, spec, &k.hdr) < 0 || boot_tables(mem) < 0 ||
	    gmem_write(mem, MAP_CMDLINE, spec->cmdline, strlen(spec->cmdline) + 1) < 0)
		return fail(EFBIG, err, errlen, "the machine's memory ends below 1 MiB");
	*entry = k.entry;
	return 0;
}

static struct kvm_segment
segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
	    .limit = 0xffffffff,
	    .selector = selector,
	    .type = type,
	    .present = 1,
	    .s = 1,
	    .g = 1,
	    .l = code,
	    .db = !code,
	};
}

void
boot_regs(uint64_t entry, struct kvm_regs *regs, struct kvm_sregs *sregs)
{
	*regs = (struct kvm_regs){
	    .rip = entry,
	    .rsi = MAP_BOOT_PARAMS,
	    .rsp = MAP_BOOT_STACK,
	    .rflags = 2, /* the bit that is always set */
	};
	sregs->cs = segment(SEL_CODE, 0xb, true);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment(SEL_DATA, 0x3, false);
	sregs->gdt = (struct kvm_dtable){.base = MAP_GDT, .limit = sizeof(gdt) - 1};
	sregs->cr3 = MAP_PAGE_TABLES;
	sregs->cr4 = CR4_PAE;
	sregs->cr0 = CR0_PE | CR0_ET | CR0_PG;
	sregs->efer = EFER_LME | EFER_LMA;
}
