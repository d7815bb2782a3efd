/* SPDX-License-Identifier: MIT
 *
 * vm_make.c - puts a machine together, to boot or to wait for a template's
 * state. See vm.h. Runs in the worker.
 */
#include "kvm/acpi.h"
#include "kvm/boot.h"
#include "kvm/cpuid.h"
#include "kvm/map.h"
#include "kvm/vm_impl.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define VIRTIO_DEVICES 1u

/* console: the log. panic, reboot: a panic ends as a reset at once, through the
 * ACPI reset register. psi, nowatchdog, deferred_probe_timeout: an idle guest does
 * nothing every 2 s, every 4 s, and 10 s after its boot. The rest saves boot time on a
 * machine that has no PCI, no PIT, one serial port and a clock from KVM. */
#define VM_CMDLINE \
	"console=ttyS0 quiet panic=-1 reboot=acpi no_timer_check tsc=reliable pci=off " \
	"8250.nr_uarts=1 random.trust_cpu=on cryptomgr.notests psi=0 nowatchdog " \
	"deferred_probe_timeout=0"

int
vm_fail(struct vm *vm, int code, const char *fmt, ...)
{
	va_list ap;

	if (vm->err != NULL && vm->errlen > 0) {
		va_start(ap, fmt);
		(void)vsnprintf(vm->err, vm->errlen, fmt, ap);
		va_end(ap);
	}
	return -code;
}

static int
vm_ioctl(struct vm *vm, unsigned long request, void *arg, const char *name)
{
	int r = ioctl(vm->vm_fd, request, arg);

	return r < 0 ? vm_fail(vm, errno, "%s: %s", name, strerror(errno)) : 0;
}
#define VM_IOCTL(vm, request, arg) vm_ioctl((vm), (request), (arg), #request)

static int
open_fds(struct vm *vm, int kvm_fd)
{
	int *const events[] = {&vm->kick_fd, &vm->end_fd, &vm->serial_irq, &vm->virtio_irq};

	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		*events[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (*events[i] < 0)
			return vm_fail(vm, errno, "eventfd: %s", strerror(errno));
	}
	vm->kvm_fd =
	    kvm_fd >= 0 ? fcntl(kvm_fd, F_DUPFD_CLOEXEC, 0) : open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		return vm_fail(vm, errno, "/dev/kvm: %s%s", strerror(errno),
			       errno == EACCES	 ? " (is this user in the group kvm?)"
			       : errno == ENOENT ? " (is KVM loaded, and virtualization enabled?)"
						 : "");
	do
		vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	while (vm->vm_fd < 0 && errno == EINTR);
	if (vm->vm_fd < 0)
		return vm_fail(vm, errno, "KVM_CREATE_VM: %s", strerror(errno));
	return 0;
}

static int
map_memory(struct vm *vm, const struct vm_config *cfg)
{
	uint64_t size = (uint64_t)cfg->mem_mib << 20;
	int r;

	if (cfg->tmpl == NULL && !cfg->shared)
		return gmem_init(&vm->mem, size, -1);
	if (cfg->tmpl == NULL)
		return gmem_map(&vm->mem, size, cfg->mem_fd, 0, GMEM_SHARED);
	r = gmem_map(&vm->mem, size, cfg->tmpl->mem_fd, cfg->tmpl->mem_off,
		     (int)(cfg->skew % GMEM_SKEWS));
	return r == 0 ? gmem_track(&vm->mem) : r;
}

static int
add_memory(struct vm *vm, const struct vm_config *cfg)
{
	struct kvm_userspace_memory_region slot;
	int r = map_memory(vm, cfg);

	if (r < 0)
		return vm_fail(vm, -r, "mapping %u MiB of guest memory: %s", cfg->mem_mib,
			       strerror(-r));
	if (cfg->tmpl != NULL) {
		r = dirty_enable(vm->vm_fd, vm->err, vm->errlen);
		if (r == 0)
			r = dirty_init(&vm->dirty, vm->vm_fd, &vm->mem, cfg->tmpl->mem_fd,
				       cfg->tmpl->mem_off, vm->err, vm->errlen);
		if (r < 0)
			return r;
	}
	gmem_slot(&vm->mem, &slot);
	return VM_IOCTL(vm, KVM_SET_USER_MEMORY_REGION, &slot);
}

/* The guest never programs the two PICs (hardware-reduced ACPI has none), and
 * KVM's start unmasked: they would pass on the IOAPIC's edges as exceptions. */
static int
mask_pics(struct vm *vm)
{
	struct kvm_irqchip chip;
	int r = 0;

	for (uint32_t id = KVM_IRQCHIP_PIC_MASTER; id <= KVM_IRQCHIP_PIC_SLAVE && r == 0; id++) {
		chip = (struct kvm_irqchip){.chip_id = id};
		r = VM_IOCTL(vm, KVM_GET_IRQCHIP, &chip);
		chip.chip.pic.imr = 0xff;
		if (r == 0)
			r = VM_IOCTL(vm, KVM_SET_IRQCHIP, &chip);
	}
	return r;
}

static int
add_irqchip(struct vm *vm)
{
	uint64_t identity = MAP_KVM_IDENTITY;
	int r = VM_IOCTL(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);

	if (r == 0)
		r = VM_IOCTL(vm, KVM_SET_TSS_ADDR, (void *)(uintptr_t)MAP_KVM_TSS);
	if (r == 0)
		r = VM_IOCTL(vm, KVM_CREATE_IRQCHIP, NULL);
	return r == 0 ? mask_pics(vm) : r;
}

static int
add_irqfd(struct vm *vm, int fd, uint32_t gsi)
{
	struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};

	return VM_IOCTL(vm, KVM_IRQFD, &irqfd);
}

/* The port's queues wake the owner without leaving the kernel; the control
 * queues exit to the vCPU thread, which serves them. */
static int
add_ioeventfd(struct vm *vm, uint32_t queue)
{
	struct kvm_ioeventfd io = {
	    .datamatch = queue,
	    .addr = MAP_VIRTIO + VIRTIO_MMIO_NOTIFY,
	    .len = 4,
	    .fd = vm->kick_fd,
	    .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	return VM_IOCTL(vm, KVM_IOEVENTFD, &io);
}

static int
add_devices(struct vm *vm)
{
	int r = add_irqfd(vm, vm->serial_irq, MAP_GSI_COM1);

	if (r == 0)
		r = add_irqfd(vm, vm->virtio_irq, MAP_GSI_VIRTIO);
	if (r == 0)
		r = add_ioeventfd(vm, VCON_QUEUE_RX);
	if (r == 0)
		r = add_ioeventfd(vm, VCON_QUEUE_TX);
	return r;
}

/* What a state must agree with to be this machine's. */
static int
identify(struct vm *vm)
{
	int khz = ioctl(vm->vcpu[0].fd, KVM_GET_TSC_KHZ, 0);

	if (khz < 0)
		return vm_fail(vm, errno, "KVM_GET_TSC_KHZ: %s", strerror(errno));
	vm->id.tsc_khz = (uint32_t)khz;
	vm->id.mem_size = vm->mem.size;
	vm->id.vcpus = vm->vcpus;
	vm->id.layout = vm_state_layout();
	return msr_list_read(vm->kvm_fd, &vm->msrs, vm->err, vm->errlen);
}

static int
add_vcpus(struct vm *vm)
{
	int r = 0;

	vm->id.cpuid = CPUID_HASH_START;
	for (uint32_t i = 0; i < vm->vcpus && r == 0; i++) {
		r = vcpu_init(&vm->vcpu[i], vm->kvm_fd, vm->vm_fd, i, &vm->bus, vm_ended, vm,
			      vm->err, vm->errlen);
		if (r == 0)
			r = vcpu_set_cpuid(&vm->vcpu[i], vm->kvm_fd, vm->vcpus, &vm->id.cpuid,
					   vm->err, vm->errlen);
	}
	return r == 0 ? identify(vm) : r;
}

static int
load_guest(struct vm *vm, const struct vm_config *cfg)
{
	_cleanup_(freep) uint8_t *acpi = malloc(ACPI_SPACE);
	char cmdline[MAP_CMDLINE_MAX];
	const struct boot_spec spec = {
	    .kernel = cfg->kernel, .initrd = cfg->initrd, .cmdline = cmdline, .rsdp = MAP_ACPI};
	uint64_t entry;
	size_t len;
	int n, r;

	if (acpi == NULL)
		return vm_fail(vm, ENOMEM, "out of memory");
	n = snprintf(cmdline, sizeof(cmdline), "%s %s", VM_CMDLINE,
		     cfg->cmdline != NULL ? cfg->cmdline : "");
	if (n < 0 || (size_t)n >= sizeof(cmdline))
		return vm_fail(vm, EINVAL, "the kernel command line is longer than %u bytes",
			       MAP_CMDLINE_MAX - 1);
	len = acpi_build(acpi, ACPI_SPACE, MAP_ACPI, vm->vcpus, VIRTIO_DEVICES);
	AN(len);
	AZ(gmem_write(&vm->mem, MAP_ACPI, acpi, len));
	r = boot_load(&vm->mem, &spec, &entry, vm->err, vm->errlen);
	return r < 0 ? r : vcpu_set_boot(&vm->vcpu[0], entry, vm->err, vm->errlen);
}

static int
check_config(struct vm *vm, const struct vm_config *cfg)
{
	if (cfg->tmpl == NULL && (cfg->kernel == NULL || cfg->kernel[0] == '\0'))
		return vm_fail(vm, EINVAL, "no kernel given");
	if (cfg->vcpus < 1 || cfg->vcpus > VM_VCPUS_MAX)
		return vm_fail(vm, EINVAL, "%u vCPUs: a machine has 1 to %u", cfg->vcpus,
			       VM_VCPUS_MAX);
	if (cfg->mem_mib < VM_MEM_MIB_MIN || cfg->mem_mib > VM_MEM_MIB_MAX)
		return vm_fail(vm, EINVAL, "%u MiB of memory: a machine has %u to %u", cfg->mem_mib,
			       VM_MEM_MIB_MIN, VM_MEM_MIB_MAX);
	return 0;
}

/* Everything of a machine but its state: that comes by vm_load. */
static int
wait_for_state(struct vm *vm, const struct vm_template *tmpl)
{
	int r = vm_read_template(vm, tmpl);

	for (uint32_t i = 0; i < vm->vcpus && r == 0; i++)
		r = vcpu_start(&vm->vcpu[i], vm->err, vm->errlen);
	return r == 0 ? vm_warm(vm) : r;
}

/* A triple fault that KVM has noticed and not yet reported is part of a vCPU's
 * state; a KVM that cannot show it cannot keep it over a reset either. */
static void
show_triple_faults(struct vm *vm)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT, .args = {1}};

	(void)ioctl(vm->vm_fd, KVM_ENABLE_CAP, &cap);
}

/* Memory comes before the irqchip: registering a slot afterwards waits for a
 * grace period of the kernel (milliseconds instead of microseconds). */
static int
build(struct vm *vm, const struct vm_config *cfg)
{
	int r = check_config(vm, cfg);

	vm->vcpus = cfg->vcpus;
	if (r == 0)
		r = open_fds(vm, cfg->kvm_fd);
	if (r < 0)
		return r;
	serial_init(&vm->serial, vm->serial_irq);
	vcon_init(&vm->console, &vm->mem, vm->virtio_irq, vm->kick_fd);
	vm->bus = (struct bus){.serial = &vm->serial, .virtio = &vm->console.virtio};
	r = add_memory(vm, cfg);
	show_triple_faults(vm);
	if (r == 0)
		r = add_irqchip(vm);
	if (r == 0)
		r = add_devices(vm);
	if (r == 0)
		r = add_vcpus(vm);
	if (r == 0)
		r = cfg->tmpl == NULL ? load_guest(vm, cfg) : wait_for_state(vm, cfg->tmpl);
	return r;
}

int
vm_new(struct vm **out, const struct vm_config *cfg, char *err, size_t errlen)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int r;

	*out = NULL;
	if (vm == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	vm->magic = VM_MAGIC;
	vm->kvm_fd = vm->vm_fd = vm->kick_fd = vm->end_fd = -1;
	vm->serial_irq = vm->virtio_irq = vm->tmpl_fd = -1;
	vm->err = err;
	vm->errlen = errlen;
	AZ(pthread_mutex_init(&vm->end_lock, NULL));
	r = build(vm, cfg);
	vm->err = NULL;
	if (r < 0) {
		vm_free(vm);
		return r;
	}
	*out = vm;
	return 0;
}
