/* SPDX-License-Identifier: MIT
 *
 * kvm_kernel.c - small kernel files for tests. See kvm_kernel.h.
 */
#include "tests/lib/kvm_kernel.h"
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BZ_SETUP_SECTS 1u
#define BZ_PAYLOAD ((BZ_SETUP_SECTS + 1) * 512u)

void
kernel_raw(struct kernel_file *k, const void *bytes, size_t len)
{
	k->fd = memfd_create("kernel", MFD_CLOEXEC);
	assert(k->fd >= 0);
	(void)snprintf(k->path, sizeof(k->path), "/proc/self/fd/%d", k->fd);
	kernel_patch(k, 0, bytes, len);
}

void
kernel_elf(struct kernel_file *k, const void *code, size_t len)
{
	const struct {
		Elf64_Ehdr eh;
		Elf64_Phdr ph;
	} head = {
	    .eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			       EV_CURRENT},
		   .e_type = ET_EXEC,
		   .e_machine = EM_X86_64,
		   .e_version = EV_CURRENT,
		   .e_entry = KERNEL_GPA,
		   .e_phoff = sizeof(Elf64_Ehdr),
		   .e_ehsize = sizeof(Elf64_Ehdr),
		   .e_phentsize = sizeof(Elf64_Phdr),
		   .e_phnum = 1},
	    .ph = {.p_type = PT_LOAD,
		   .p_offset = 4096,
		   .p_paddr = KERNEL_GPA,
		   .p_vaddr = KERNEL_GPA,
		   .p_filesz = len,
		   .p_memsz = len + 4096},
	};

	kernel_raw(k, &head, sizeof(head));
	kernel_patch(k, 4096, code, len);
}

void
kernel_bz(struct kernel_file *k, const void *code, size_t len)
{
	const struct setup_header h = {
	    .setup_sects = BZ_SETUP_SECTS,
	    .syssize = (uint32_t)((0x200 + len + 15) / 16),
	    .boot_flag = 0xaa55,
	    .header = 0x53726448,
	    .version = 0x020f,
	    .loadflags = LOADED_HIGH,
	    .initrd_addr_max = 0x7fffffff,
	    .kernel_alignment = 0x200000,
	    .relocatable_kernel = 1,
	    .xloadflags = XLF_KERNEL_64,
	    .cmdline_size = 2047,
	    .pref_address = KERNEL_GPA,
	    .init_size = 0x100000,
	};

	kernel_raw(k, "MZ", 2);
	kernel_patch(k, offsetof(struct boot_params, hdr), &h, sizeof(h));
	kernel_patch(k, BZ_PAYLOAD + 0x200, code, len);
	kernel_truncate(k, BZ_PAYLOAD + h.syssize * 16);
}

void
kernel_close(struct kernel_file *k)
{
	closep(&k->fd);
}

void
kernel_patch(const struct kernel_file *k, size_t off, const void *bytes, size_t len)
{
	ssize_t n = pwrite(k->fd, bytes, len, (off_t)off);

	assert(n == (ssize_t)len);
}

void
kernel_truncate(const struct kernel_file *k, size_t len)
{
	AZ(ftruncate(k->fd, (off_t)len));
}

size_t
kernel_size(const struct kernel_file *k)
{
	struct stat st;

	AZ(fstat(k->fd, &st));
	return (size_t)st.st_size;
}
