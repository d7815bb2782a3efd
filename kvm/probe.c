/* SPDX-License-Identifier: MIT
 *
 * probe.c - can this /dev/kvm run Linux? vm_probe of vm.h. Runs in any process;
 * owns nothing beyond the call.
 *
 * A paravirtual KVM answers every ioctl like a real one, but delivers system
 * calls of a 64-bit guest in ring 3. So a tiny guest makes one: it starts in
 * ring 3 at PROBE_USER with `syscall`, whose handler, on a page that only
 * ring 0 may fetch from, writes the privilege level to port 0x10. A real KVM
 * exits with that port access and the value 0; a paravirtual one faults (no
 * handler: triple fault, shutdown exit).
 */
#include "kvm/cpuid.h"
#include "kvm/gmem.h"
#include "kvm/vm.h"
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PROBE_MEM (16ull << 20)
#define PROBE_TABLES 0x1000u /* PML4, PDPT, page directory, page table */
#define PROBE_KERNEL 0x8000u
#define PROBE_USER 0x9000u
#define PROBE_STACK 0xb000u
#define PROBE_PORT 0x10u
#define PROBE_RUNS 64 /* entries before we give up: signals and spurious exits */

#define PTE_KERNEL 0x3ull /* present, writable */
#define PTE_USER 0x7ull
#define MSR_EFER_BITS 0xd01ull /* SCE, LME, LMA, NXE */
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u

static const uint8_t kernel_code[] = {
    0x8c, 0xc8,	      /* mov %cs,%eax */
    0x24, 0x03,	      /* and $3,%al */
    0xe6, PROBE_PORT, /* out %al,$0x10 */
    0xf4,	      /* hlt */
};
static const uint8_t user_code[] = {0x0f, 0x05}; /* syscall */

struct probe {
	int kvm, vm, vcpu;
	struct gmem mem;
	struct kvm_run *run;
	size_t run_size;
	const char *step; /* the ioctl that failed */
};

static void
probe_fini(struct probe *p)
{
	if (p->run != NULL)
		(void)munmap(p->run, p->run_size);
	closep(&p->vcpu);
	closep(&p->vm);
	closep(&p->kvm);
	gmem_fini(&p->mem);
}

static int
probe_ioctl(struct probe *p, int fd, unsigned long request, void *arg, const char *name)
{
	int r = ioctl(fd, request, arg);

	if (r >= 0)
		return r;
	p->step = name;
	return -errno;
}
#define PROBE_IOCTL(p, fd, request, arg) probe_ioctl((p), (fd), (request), (void *)(arg), #request)

/* The first 64 KiB, identity-mapped; only the user page and its stack are open
 * to ring 3. */
static int
write_memory(struct gmem *m)
{
	uint64_t table[4][512] = {0};

	for (unsigned i = 0; i < 3; i++)
		table[i][0] = (PROBE_TABLES + (i + 1) * 4096) | PTE_USER;
	for (uint64_t i = 0; i < 16; i++)
		table[3][i] = i * 4096 | (i * 4096 >= PROBE_USER ? PTE_USER : PTE_KERNEL);
	if (gmem_write(m, PROBE_TABLES, table, sizeof(table)) < 0 ||
	    gmem_write(m, PROBE_KERNEL, kernel_code, sizeof(kernel_code)) < 0)
		return -EFAULT;
	return gmem_write(m, PROBE_USER, user_code, sizeof(user_code));
}

static int
create(struct probe *p)
{
	struct kvm_userspace_memory_region slot;
	int r;

	r = p->vm = PROBE_IOCTL(p, p->kvm, KVM_CREATE_VM, 0);
	if (r < 0)
		return r;
	p->step = "mapping memory";
	r = gmem_init(&p->mem, PROBE_MEM, -1);
	if (r == 0)
		r = write_memory(&p->mem);
	if (r < 0)
		return r;
	gmem_slot(&p->mem, &slot);
	r = PROBE_IOCTL(p, p->vm, KVM_SET_USER_MEMORY_REGION, &slot);
	if (r == 0)
		r = p->vcpu = PROBE_IOCTL(p, p->vm, KVM_CREATE_VCPU, 0);
	if (r < 0)
		return r;
	r = PROBE_IOCTL(p, p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < 0)
		return r;
	p->run_size = (size_t)r;
	p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		p->step = "mapping the run area";
		return -errno;
	}
	return 0;
}

static struct kvm_segment
user_segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){.limit = 0xffffffff,
				    .selector = selector,
				    .type = type,
				    .present = 1,
				    .dpl = 3,
				    .s = 1,
				    .g = 1,
				    .l = code,
				    .db = !code};
}

static int
set_msrs(struct probe *p)
{
	const struct kvm_msr_entry e[] = {
	    {.index = MSR_STAR, .data = 0x001b0008ull << 32},
	    {.index = MSR_LSTAR, .data = PROBE_KERNEL},
	};
	union {
		struct kvm_msrs head;
		uint8_t space[sizeof(struct kvm_msrs) + sizeof(e)];
	} msrs = {.head.nmsrs = ARRAY_SIZE(e)};
	int r;

	memcpy(msrs.head.entries, e, sizeof(e));
	r = PROBE_IOCTL(p, p->vcpu, KVM_SET_MSRS, &msrs);
	if (r >= 0 && r != (int)ARRAY_SIZE(e)) {
		p->step = "KVM_SET_MSRS";
		return -EIO;
	}
	return MIN(r, 0);
}

/* Without a CPUID table KVM refuses long mode: give it what it supports. */
static int
set_cpuid(struct probe *p)
{
	struct cpuid c;
	int r = cpuid_supported(p->kvm, &c, NULL, 0);

	if (r < 0)
		p->step = "KVM_GET_SUPPORTED_CPUID";
	return r < 0 ? r : PROBE_IOCTL(p, p->vcpu, KVM_SET_CPUID2, &c);
}

static int
set_registers(struct probe *p)
{
	const struct kvm_regs regs = {.rip = PROBE_USER, .rsp = PROBE_STACK, .rflags = 2};
	struct kvm_sregs s;
	int r = set_cpuid(p);

	if (r == 0)
		r = PROBE_IOCTL(p, p->vcpu, KVM_GET_SREGS, &s);
	if (r < 0)
		return r;
	s.cs = user_segment(0x2b, 0xb, true);
	s.ds = s.es = s.fs = s.gs = s.ss = user_segment(0x23, 0x3, false);
	s.idt = s.gdt = (struct kvm_dtable){0}; /* any fault is a triple fault */
	s.cr3 = PROBE_TABLES;
	s.cr4 = 0x20;	    /* PAE */
	s.cr0 = 0x80010033; /* PG, WP, NE, ET, MP, PE */
	s.efer = MSR_EFER_BITS;
	r = PROBE_IOCTL(p, p->vcpu, KVM_SET_SREGS, &s);
	if (r == 0)
		r = PROBE_IOCTL(p, p->vcpu, KVM_SET_REGS, &regs);
	return r == 0 ? set_msrs(p) : r;
}

static enum vm_probe
verdict(const struct probe *p, char *why, size_t len)
{
	const struct kvm_run *run = p->run;
	const uint8_t *data = (const uint8_t *)run + run->io.data_offset;

	if (run->exit_reason == KVM_EXIT_IO && run->io.port == PROBE_PORT && *data == 0) {
		(void)snprintf(why, len, "KVM runs Linux guests");
		return VM_PROBE_OK;
	}
	if (run->exit_reason == KVM_EXIT_SHUTDOWN || run->exit_reason == KVM_EXIT_IO) {
		(void)snprintf(
		    why, len,
		    "/dev/kvm opens, but a guest's system call does not reach its kernel "
		    "(a paravirtual KVM): it cannot run Linux guests");
		return VM_PROBE_NO_SYSCALL;
	}
	(void)snprintf(why, len, "the probe's guest ended with the unexpected KVM exit %u",
		       run->exit_reason);
	return VM_PROBE_FAILED;
}

static enum vm_probe
run_guest(struct probe *p, char *why, size_t len)
{
	int r = create(p);

	if (r == 0)
		r = set_registers(p);
	for (int i = 0; r == 0 && i < PROBE_RUNS; i++) {
		r = PROBE_IOCTL(p, p->vcpu, KVM_RUN, 0);
		if (r == 0 && p->run->exit_reason != KVM_EXIT_INTR)
			return verdict(p, why, len);
		if (r == -EINTR || r == -EAGAIN)
			r = 0;
	}
	if (r == 0)
		(void)snprintf(why, len, "the probe's guest did not come to an end");
	else
		(void)snprintf(why, len, "/dev/kvm: %s: %s", p->step, strerror(-r));
	return VM_PROBE_FAILED;
}

static bool
has_capabilities(int kvm, char *why, size_t len)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
	    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
	    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
	    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
	    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
	    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
	    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
	    {KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER"}, /* there is no PIT */
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (ioctl(kvm, KVM_CHECK_EXTENSION, needed[i].cap) <= 0) {
			(void)snprintf(why, len, "/dev/kvm lacks %s", needed[i].name);
			return false;
		}
	return true;
}

enum vm_probe
vm_probe(int kvm_fd, char *why, size_t len)
{
	struct probe p = {.kvm = -1, .vm = -1, .vcpu = -1};
	enum vm_probe result;
	int api;

	p.kvm =
	    kvm_fd >= 0 ? fcntl(kvm_fd, F_DUPFD_CLOEXEC, 0) : open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p.kvm < 0) {
		(void)snprintf(why, len, "/dev/kvm: %s", strerror(errno));
		return errno == EACCES || errno == EPERM ? VM_PROBE_DENIED : VM_PROBE_ABSENT;
	}
	api = ioctl(p.kvm, KVM_GET_API_VERSION, 0);
	if (api != KVM_API_VERSION) {
		(void)snprintf(why, len, "/dev/kvm answers API version %d, not %d", api,
			       KVM_API_VERSION);
		result = VM_PROBE_API;
	} else if (!has_capabilities(p.kvm, why, len)) {
		result = VM_PROBE_API;
	} else {
		result = run_guest(&p, why, len);
	}
	probe_fini(&p);
	return result;
}

const char *
vm_probe_name(enum vm_probe p)
{
	switch (p) {
	case VM_PROBE_OK: return "ok";
	case VM_PROBE_ABSENT: return "absent";
	case VM_PROBE_DENIED: return "denied";
	case VM_PROBE_API: return "api";
	case VM_PROBE_NO_SYSCALL: return "no-syscall";
	case VM_PROBE_FAILED: return "failed";
	}
	return "unknown";
}
