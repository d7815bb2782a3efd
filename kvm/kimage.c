/* SPDX-License-Identifier: MIT
 *
 * kimage.c - recognise, validate and load a kernel file. See kimage.h.
 * Runs in the worker before the guest does; the file is not trusted to be
 * well-formed, nor to stay as long as it was when it was opened.
 */
#include "kvm/kimage.h"
#include "kvm/map.h"
#include <ctype.h>
#include <elf.h>
#include <string.h>
#include <sys/stat.h>

#define PHDRS_MAX 64
#define BZ_HDR_END (offsetof(struct boot_params, hdr) + sizeof(struct setup_header))
#define BZ_BOOT_FLAG 0xaa55u
#define BZ_MAGIC 0x53726448u   /* "HdrS" */
#define BZ_VERSION_MIN 0x020cu /* has xloadflags: Linux 3.8 */
#define BZ_ENTRY_64 0x200u
#define BZ_SECTOR 512u

/* What one load works on. */
struct load {
	struct gmem *mem;
	int fd;
	const char *name;
	uint64_t size; /* of the file */
	char *err;
	size_t errlen;
};

#define bad(l, code, ...) fail((code), (l)->err, (l)->errlen, __VA_ARGS__)

static int
too_big(const struct load *l, uint64_t end)
{
	return bad(l, EFBIG, "kernel %s needs %llu MiB of memory, the machine has %llu MiB",
		   l->name, (unsigned long long)(end >> 20) + 1,
		   (unsigned long long)(l->mem->size >> 20));
}

static int
truncated(const struct load *l, uint64_t want)
{
	return bad(l, ENOEXEC, "kernel %s is truncated: %llu bytes of at least %llu", l->name,
		   (unsigned long long)l->size, (unsigned long long)want);
}

/* Read part of the file into our own memory. */
static int
load_own(const struct load *l, void *dst, size_t len, uint64_t off)
{
	ssize_t n;

	if (off > l->size || len > l->size - off)
		return truncated(l, off + len < off ? UINT64_MAX : off + len);
	n = pread(l->fd, dst, len, (off_t)off);
	if (n < 0)
		return bad(l, errno, "kernel %s: %s", l->name, strerror(errno));
	return (size_t)n == len ? 0 : truncated(l, off + len);
}

/* Put part of the file at gpa, where need bytes must be free. */
static int
load_guest(const struct load *l, uint64_t gpa, uint64_t off, uint64_t len, uint64_t need)
{
	int r;

	if (off > l->size || len > l->size - off)
		return truncated(l, off + len < off ? UINT64_MAX : off + len);
	if (gpa < MAP_HIGH_RAM)
		return bad(l, ENOEXEC, "kernel %s wants to be loaded below 1 MiB", l->name);
	if (!gmem_holds(l->mem, gpa, MAX(need, len)))
		return too_big(l, gpa + need < gpa ? UINT64_MAX : gpa + need);
	r = gmem_load_file(l->mem, gpa, l->fd, off, len);
	if (r == -ENODATA)
		return truncated(l, off + len);
	if (r < 0)
		return bad(l, -r, "kernel %s: %s", l->name, strerror(-r));
	return 0;
}

static int
elf_segment(const struct load *l, const Elf64_Phdr *ph, uint64_t entry, bool *has_entry,
	    struct kimage *out)
{
	int r;

	if (ph->p_type != PT_LOAD || ph->p_memsz == 0)
		return 0;
	if (ph->p_filesz > ph->p_memsz)
		return bad(l, ENOEXEC,
			   "kernel %s: an ELF segment is larger in the file than in memory",
			   l->name);
	r = load_guest(l, ph->p_paddr, ph->p_offset, ph->p_filesz, ph->p_memsz);
	if (r < 0)
		return r;
	out->end = MAX(out->end, ph->p_paddr + ph->p_memsz);
	if (entry >= ph->p_paddr && entry - ph->p_paddr < ph->p_filesz)
		*has_entry = true;
	return 0;
}

static int
elf_load(const struct load *l, struct kimage *out)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph[PHDRS_MAX];
	bool has_entry = false;
	int r;

	r = load_own(l, &eh, sizeof(eh), 0);
	if (r < 0)
		return r;
	if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB ||
	    eh.e_machine != EM_X86_64)
		return bad(l, ENOEXEC, "kernel %s is an ELF file, but not for x86-64", l->name);
	if (eh.e_type != ET_EXEC || eh.e_phentsize != sizeof(ph[0]) || eh.e_phnum == 0 ||
	    eh.e_phnum > PHDRS_MAX)
		return bad(l, ENOEXEC, "kernel %s is an ELF file, but not a kernel", l->name);
	r = load_own(l, ph, eh.e_phnum * sizeof(ph[0]), eh.e_phoff);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		r = elf_segment(l, &ph[i], eh.e_entry, &has_entry, out);
		if (r < 0)
			return r;
	}
	if (!has_entry)
		return bad(l, ENOEXEC, "kernel %s: its entry point is in none of its segments",
			   l->name);
	out->entry = eh.e_entry;
	out->initrd_max = UINT32_MAX;
	out->cmdline_max = MAP_CMDLINE_MAX - 1;
	out->hdr =
	    (struct setup_header){.boot_flag = BZ_BOOT_FLAG, .header = BZ_MAGIC, .version = 0x020f};
	return 0;
}

/* The setup header's fields are in file order; a file may be older and end
 * earlier, but not older than the 64-bit entry point that we need. */
static int
bz_load(const struct load *l, struct kimage *out)
{
	struct setup_header *h = &out->hdr;
	uint64_t setup, payload;
	int r;

	r = load_own(l, h, sizeof(*h), offsetof(struct boot_params, hdr));
	if (r < 0)
		return r;
	if (h->version < BZ_VERSION_MIN || (h->xloadflags & XLF_KERNEL_64) == 0)
		return bad(l, ENOEXEC, "kernel %s is a bzImage without a 64-bit entry point",
			   l->name);
	setup = ((h->setup_sects ? h->setup_sects : 4) + 1u) * (uint64_t)BZ_SECTOR;
	payload = (uint64_t)h->syssize * 16;
	if (payload <= BZ_ENTRY_64)
		return bad(l, ENOEXEC, "kernel %s is a bzImage without a payload", l->name);
	if (h->pref_address % 4096 != 0)
		return bad(l, ENOEXEC, "kernel %s: its load address is not page-aligned", l->name);
	r = load_guest(l, h->pref_address, setup, payload, MAX(payload, h->init_size));
	if (r < 0)
		return r;
	out->entry = h->pref_address + BZ_ENTRY_64;
	out->end = h->pref_address + MAX(payload, h->init_size);
	out->initrd_max = h->initrd_addr_max;
	out->cmdline_max = MIN(h->cmdline_size, MAP_CMDLINE_MAX - 1);
	return 0;
}

/* Say what a file is that is no kernel, as far as its first bytes tell. */
static int
not_kernel(const struct load *l, const uint8_t *head, size_t n)
{
	static const struct {
		const char *magic, *what;
		size_t len;
	} known[] = {
	    {"\x1f\x8b", "gzip data", 2},
	    {"\xfd"
	     "7zXZ",
	     "xz data", 5},
	    {"\x28\xb5\x2f\xfd", "zstd data", 4},
	    {"\x02\x21\x4c\x18", "lz4 data", 4},
	    {"07070", "a cpio archive", 5},
	    {"!<arch>", "an archive or Debian package", 7},
	};
	size_t text = 0;

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (n >= known[i].len && memcmp(head, known[i].magic, known[i].len) == 0)
			return bad(l, ENOEXEC, "kernel %s is %s, not an ELF vmlinux or a bzImage",
				   l->name, known[i].what);
	while (text < n && (isprint(head[text]) || isspace(head[text])))
		text++;
	return bad(l, ENOEXEC, "kernel %s is %s, not an ELF vmlinux or a bzImage", l->name,
		   n == 0      ? "empty"
		   : text == n ? "a text file"
			       : "of an unknown format");
}

int
kimage_load(struct gmem *mem, int fd, const char *name, struct kimage *out, char *err,
	    size_t errlen)
{
	struct load l = {.mem = mem, .fd = fd, .name = name, .err = err, .errlen = errlen};
	uint8_t head[BZ_HDR_END] = {0};
	struct stat st;
	ssize_t n;

	*out = (struct kimage){0};
	if (fstat(fd, &st) < 0)
		return bad(&l, errno, "kernel %s: %s", name, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return bad(&l, ENOEXEC, "kernel %s is not a regular file", name);
	l.size = (uint64_t)st.st_size;
	n = pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return bad(&l, errno, "kernel %s: %s", name, strerror(errno));
	if (n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
		return elf_load(&l, out);
	if (n > 0x206 && memcmp(head + 0x1fe, "\x55\xaa", 2) == 0 &&
	    memcmp(head + 0x202, "HdrS", 4) == 0)
		return bz_load(&l, out);
	if (n >= 2 && (size_t)n < sizeof(head) && memcmp(head, "MZ", 2) == 0)
		return truncated(&l, sizeof(head));
	return not_kernel(&l, head, (size_t)n);
}
