/* SPDX-License-Identifier: MIT
 *
 * vcpu.c - create and run one virtual processor. See vcpu.h. Its thread runs
 * nothing but KVM_RUN and the device accesses of its guest.
 *
 * The thread stands still ("parked") or runs its guest, as `want` says. To stop
 * it, vcpu_kick sets immediate_exit, then sends VCPU_SIGNAL, whose handler does
 * nothing. A thread inside KVM_RUN returns because of the signal, one that is
 * about to enter because of immediate_exit; the flag stays set until vcpu_run, so
 * there is no moment at which a kick is lost. Before it parks, the thread finishes
 * the exit that it is in: KVM completes an I/O instruction on the next KVM_RUN.
 */
#include "kvm/vcpu.h"
#include "kvm/boot.h"
#include "kvm/cpuid.h"
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define VCPU_MAGIC 0x7c9001d5u
#define VCPU_SIGNAL SIGRTMIN
#define END_TEXT 160
#define FINISH_MAX 16u /* an instruction makes one exit or two, not so many */

int
vcpu_init(struct vcpu *v, int kvm_fd, int vm_fd, uint32_t id, const struct bus *bus,
	  vcpu_ended_fn *ended, void *arg, char *err, size_t errlen)
{
	int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	*v = (struct vcpu){
	    .magic = VCPU_MAGIC, .id = id, .fd = -1, .bus = bus, .ended = ended, .arg = arg};
	AZ(pthread_mutex_init(&v->lock, NULL));
	AZ(pthread_cond_init(&v->changed, NULL));
	if (size < (int)sizeof(struct kvm_run))
		return fail(errno ? errno : EINVAL, err, errlen, "KVM_GET_VCPU_MMAP_SIZE: %s",
			    strerror(errno));
	v->fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
	if (v->fd < 0)
		return fail(errno, err, errlen, "KVM_CREATE_VCPU: %s", strerror(errno));
	v->run_size = (size_t)size;
	v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return fail(errno, err, errlen, "mapping a vCPU's run area: %s", strerror(errno));
	}
	return 0;
}

void
vcpu_fini(struct vcpu *v)
{
	if (v->magic == 0)
		return;
	CHECK_OBJ(v, VCPU_MAGIC);
	AZ(v->started);
	if (v->run != NULL)
		(void)munmap(v->run, v->run_size);
	closep(&v->fd);
	AZ(pthread_cond_destroy(&v->changed));
	AZ(pthread_mutex_destroy(&v->lock));
	v->magic = 0;
}

/* Start with every XSAVE component enabled, not with x87 alone. Guests set XCR0
 * themselves, but KVM derives the size in leaf 0xd from what it knows, and below
 * an emulated SVM it does not see the guest's XSETBV: Linux would then find
 * "XSAVE consistency problem". */
static int
set_xcr0(struct vcpu *v, const struct cpuid *c, char *err, size_t errlen)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = cpuid_xcr0(c)}}};

	if (xcrs.xcrs[0].value != 0 && ioctl(v->fd, KVM_SET_XCRS, &xcrs) < 0)
		return fail(errno, err, errlen, "KVM_SET_XCRS: %s", strerror(errno));
	return 0;
}

int
vcpu_set_cpuid(struct vcpu *v, int kvm_fd, uint32_t vcpus, uint64_t *hash, char *err, size_t errlen)
{
	struct cpuid c;
	int r;

	CHECK_OBJ(v, VCPU_MAGIC);
	r = cpuid_of_vcpu(kvm_fd, &c, v->id, vcpus, err, errlen);
	if (r < 0)
		return r;
	if (ioctl(v->fd, KVM_SET_CPUID2, &c) < 0)
		return fail(errno, err, errlen, "KVM_SET_CPUID2: %s", strerror(errno));
	*hash = cpuid_hash(&c, *hash);
	return set_xcr0(v, &c, err, errlen);
}

int
vcpu_set_boot(struct vcpu *v, uint64_t entry, char *err, size_t errlen)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	CHECK_OBJ(v, VCPU_MAGIC);
	if (ioctl(v->fd, KVM_GET_SREGS, &sregs) < 0)
		return fail(errno, err, errlen, "KVM_GET_SREGS: %s", strerror(errno));
	boot_regs(entry, &regs, &sregs);
	if (ioctl(v->fd, KVM_SET_SREGS, &sregs) < 0)
		return fail(errno, err, errlen, "KVM_SET_SREGS: %s", strerror(errno));
	if (ioctl(v->fd, KVM_SET_REGS, &regs) < 0)
		return fail(errno, err, errlen, "KVM_SET_REGS: %s", strerror(errno));
	return 0;
}

static enum vm_end
exit_port(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	enum vm_end end = VM_END_NONE;

	for (uint32_t i = 0; i < run->io.count && end == VM_END_NONE; i++)
		end = bus_port(v->bus, run->io.port, run->io.direction == KVM_EXIT_IO_OUT,
			       data + (size_t)i * run->io.size, run->io.size);
	return end;
}

static enum vm_end
exit_memory(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	return bus_memory(v->bus, run->mmio.phys_addr, run->mmio.is_write != 0, run->mmio.data,
			  MIN(run->mmio.len, (uint32_t)sizeof(run->mmio.data)));
}

static unsigned long long
rip_of(const struct vcpu *v)
{
	struct kvm_regs regs;

	return ioctl(v->fd, KVM_GET_REGS, &regs) < 0 ? 0 : regs.rip;
}

static enum vm_end
exit_internal(const struct vcpu *v, char *text, size_t len)
{
	const struct kvm_run *run = v->run;
	char bytes[3 * 15 + 1] = "";

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
	    run->emulation_failure.ndata >= 3 &&
	    (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) !=
		0)
		for (unsigned i = 0; i < MIN(run->emulation_failure.insn_size, 15u); i++)
			snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
	(void)snprintf(text, len, "vCPU %u: KVM internal error, suberror %u, at rip 0x%llx%s%s",
		       v->id, run->internal.suberror, rip_of(v),
		       bytes[0] != '\0' ? ", instruction" : "", bytes);
	return VM_END_EMULATION;
}

static enum vm_end
exit_system(const struct vcpu *v, char *text, size_t len)
{
	uint32_t type = v->run->system_event.type;

	(void)snprintf(text, len, "vCPU %u: system event %u", v->id, type);
	if (type == KVM_SYSTEM_EVENT_RESET)
		return VM_END_REBOOT;
	return type == KVM_SYSTEM_EVENT_SHUTDOWN ? VM_END_SHUTDOWN : VM_END_ENTRY;
}

/* KVM_RUN returned 0: do what the guest wants. */
static enum vm_end
handle_exit(struct vcpu *v, char *text, size_t len)
{
	const struct kvm_run *run = v->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO: return exit_port(v);
	case KVM_EXIT_MMIO: return exit_memory(v);
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN: return VM_END_NONE;
	case KVM_EXIT_SHUTDOWN:
		(void)snprintf(text, len, "vCPU %u: triple fault", v->id);
		return VM_END_TRIPLE_FAULT;
	case KVM_EXIT_INTERNAL_ERROR: return exit_internal(v, text, len);
	case KVM_EXIT_SYSTEM_EVENT: return exit_system(v, text, len);
	case KVM_EXIT_FAIL_ENTRY:
		(void)snprintf(text, len, "vCPU %u: entry failed, hardware reason 0x%llx", v->id,
			       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		return VM_END_ENTRY;
	default:
		(void)snprintf(text, len, "vCPU %u: unexpected KVM exit %u at rip 0x%llx", v->id,
			       run->exit_reason, rip_of(v));
		return VM_END_ENTRY;
	}
}

static bool
kicked(const struct vcpu *v)
{
	/* pairs with the store in vcpu_kick */
	return __atomic_load_n(&v->run->immediate_exit, __ATOMIC_ACQUIRE) != 0;
}

/* Set or cleared by the owner (vcpu_kick, vcpu_run) and the thread (finish). */
static void
set_immediate_exit(struct vcpu *v, uint8_t on)
{
	/* pairs with the load in kicked, and with KVM's own at entry */
	__atomic_store_n(&v->run->immediate_exit, on, __ATOMIC_RELEASE);
}

/* Run the guest until a kick or the end. */
static enum vm_end
run(struct vcpu *v, char *text, size_t len)
{
	enum vm_end end = VM_END_NONE;

	while (end == VM_END_NONE && !kicked(v)) {
		if (ioctl(v->fd, KVM_RUN, 0) == 0) {
			end = handle_exit(v, text, len);
		} else if (errno != EINTR && errno != EAGAIN) {
			(void)snprintf(text, len, "vCPU %u: KVM_RUN: %s", v->id, strerror(errno));
			end = VM_END_ENTRY;
		}
	}
	return end;
}

/* Complete the exit that the vCPU is in, without running its guest. */
static enum vm_end
finish(struct vcpu *v, char *text, size_t len)
{
	enum vm_end end = VM_END_NONE;

	set_immediate_exit(v, 1);
	for (unsigned i = 0; i < FINISH_MAX && ioctl(v->fd, KVM_RUN, 0) == 0; i++)
		if (end == VM_END_NONE)
			end = handle_exit(v, text, len);
	return end;
}

/* Stand still until told otherwise. */
static enum vcpu_want
park(struct vcpu *v, bool ended)
{
	enum vcpu_want want;

	AZ(pthread_mutex_lock(&v->lock));
	if (ended && v->want == VCPU_RUN)
		v->want = VCPU_PARK;
	while (v->want == VCPU_PARK) {
		v->parked = true;
		AZ(pthread_cond_broadcast(&v->changed));
		AZ(pthread_cond_wait(&v->changed, &v->lock));
	}
	v->parked = false;
	want = v->want;
	AZ(pthread_mutex_unlock(&v->lock));
	return want;
}

static void *
vcpu_thread(void *arg)
{
	char text[END_TEXT] = "";
	struct vcpu *v = arg;
	enum vm_end end;

	CHECK_OBJ(v, VCPU_MAGIC);
	/* KVM binds the vCPU to this thread now, not when it is to run at once. */
	end = finish(v, text, sizeof(text));
	while (park(v, end != VM_END_NONE) == VCPU_RUN) {
		text[0] = '\0';
		end = run(v, text, sizeof(text));
		if (end == VM_END_NONE)
			end = finish(v, text, sizeof(text));
		else
			(void)finish(v, (char[END_TEXT]){0}, END_TEXT);
		if (end != VM_END_NONE)
			v->ended(v->arg, end, text);
	}
	return NULL;
}

static void
on_signal(int sig)
{
	(void)sig;
}

int
vcpu_start(struct vcpu *v, char *err, size_t errlen)
{
	const struct sigaction sa = {.sa_handler = on_signal}; /* no SA_RESTART */
	sigset_t all, old;
	char name[16];
	int r;

	CHECK_OBJ(v, VCPU_MAGIC);
	AZ(v->started);
	v->want = VCPU_PARK;
	if (sigaction(VCPU_SIGNAL, &sa, NULL) < 0)
		return fail(errno, err, errlen, "sigaction: %s", strerror(errno));
	/* The process' signals are for its other threads. */
	AZ(sigfillset(&all));
	AZ(sigdelset(&all, VCPU_SIGNAL));
	AZ(pthread_sigmask(SIG_SETMASK, &all, &old));
	r = pthread_create(&v->thread, NULL, vcpu_thread, v);
	AZ(pthread_sigmask(SIG_SETMASK, &old, NULL));
	if (r != 0)
		return fail(r, err, errlen, "starting a vCPU thread: %s", strerror(r));
	v->started = true;
	(void)snprintf(name, sizeof(name), "vcpu%u", v->id);
	(void)pthread_setname_np(v->thread, name);
	return 0;
}

void
vcpu_run(struct vcpu *v)
{
	CHECK_OBJ(v, VCPU_MAGIC);
	vcpu_wait(v);
	set_immediate_exit(v, 0);
	AZ(pthread_mutex_lock(&v->lock));
	v->want = VCPU_RUN;
	v->parked = false;
	AZ(pthread_cond_broadcast(&v->changed));
	AZ(pthread_mutex_unlock(&v->lock));
}

void
vcpu_kick(struct vcpu *v, bool quit)
{
	CHECK_OBJ(v, VCPU_MAGIC);
	if (!v->started)
		return;
	AZ(pthread_mutex_lock(&v->lock));
	v->want = quit ? VCPU_QUIT : VCPU_PARK;
	if (!v->parked)
		set_immediate_exit(v, 1);
	AZ(pthread_cond_broadcast(&v->changed));
	AZ(pthread_mutex_unlock(&v->lock));
	(void)pthread_kill(v->thread, VCPU_SIGNAL);
}

void
vcpu_wait(struct vcpu *v)
{
	CHECK_OBJ(v, VCPU_MAGIC);
	AN(v->started);
	AZ(pthread_mutex_lock(&v->lock));
	while (!v->parked)
		AZ(pthread_cond_wait(&v->changed, &v->lock));
	AZ(pthread_mutex_unlock(&v->lock));
}

void
vcpu_join(struct vcpu *v)
{
	CHECK_OBJ(v, VCPU_MAGIC);
	if (!v->started)
		return;
	AZ(pthread_join(v->thread, NULL));
	v->started = false;
	v->parked = false;
}
