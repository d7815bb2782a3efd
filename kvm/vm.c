/* SPDX-License-Identifier: MIT
 *
 * vm.c - one virtual machine: the parts of kvm/ put together. See vm.h. Runs in
 * the worker; owns everything the machine consists of.
 *
 * Which thread touches what: guest memory is everybody's, and trusted by
 * nobody; serial and virtio have a lock each; end and end_text are written once,
 * by whichever thread first sees the machine end; all else is the owner's.
 */
#include "kvm/vm.h"
#include "kvm/acpi.h"
#include "kvm/boot.h"
#include "kvm/event.h"
#include "kvm/map.h"
#include "kvm/vcpu.h"
#include "kvm/virtio_console.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define VM_MAGIC 0x3a7e11deu
#define VM_END_TEXT 192
#define VIRTIO_DEVICES 1u

/* console: the log. panic, reboot: a panic ends as a reset at once, through the
 * ACPI reset register. The rest saves boot time on a machine that has no PCI, no
 * PIT, one serial port and a clock from KVM. */
#define VM_CMDLINE \
	"console=ttyS0 quiet panic=-1 reboot=acpi no_timer_check tsc=reliable pci=off " \
	"8250.nr_uarts=1 random.trust_cpu=on cryptomgr.notests"

struct vm {
	uint32_t magic;
	int kvm_fd, vm_fd;
	int kick_fd, end_fd, serial_irq, virtio_irq;
	uint32_t vcpus;
	struct gmem mem;
	struct serial serial;
	struct vcon console;
	struct bus bus;
	struct vcpu vcpu[VM_VCPUS_MAX];
	pthread_mutex_t end_lock; /* one thread at a time in vm_ended */
	_Atomic int end;	  /* enum vm_end; end_text is complete once it is set */
	char end_text[VM_END_TEXT];
	bool stopped;
	char *err; /* where errors of vm_new and vm_start go */
	size_t errlen;
};

static int printf_like(3, 4) vm_fail(struct vm *vm, int code, const char *fmt, ...)
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
add_memory(struct vm *vm, uint32_t mib)
{
	struct kvm_userspace_memory_region slot;
	int r = gmem_init(&vm->mem, (uint64_t)mib << 20, -1);

	if (r < 0)
		return vm_fail(vm, -r, "mapping %u MiB of guest memory: %s", mib, strerror(-r));
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

/* The machine has ended: remember the first reason, wake the owner. A vCPU's
 * way out when it panics is a reset or a triple fault; the console tells. */
static void
vm_ended(void *arg, enum vm_end end, const char *text)
{
	struct vm *vm = arg;
	bool first;

	CHECK_OBJ(vm, VM_MAGIC);
	if ((end == VM_END_REBOOT || end == VM_END_SHUTDOWN || end == VM_END_TRIPLE_FAULT) &&
	    serial_contains(&vm->serial, "Kernel panic - not syncing"))
		end = VM_END_PANIC;
	AZ(pthread_mutex_lock(&vm->end_lock));
	first = vm_end(vm) == VM_END_NONE;
	if (first) {
		(void)snprintf(vm->end_text, sizeof(vm->end_text), "%s%s%s", vm_end_name(end),
			       text[0] != '\0' ? ": " : "", text);
		/* pairs with the load in vm_end */
		atomic_store_explicit(&vm->end, end, memory_order_release);
	}
	AZ(pthread_mutex_unlock(&vm->end_lock));
	if (first && end != VM_END_STOPPED)
		event_raise(vm->end_fd);
}

static int
add_vcpus(struct vm *vm)
{
	int r = 0;

	for (uint32_t i = 0; i < vm->vcpus && r == 0; i++) {
		r = vcpu_init(&vm->vcpu[i], vm->kvm_fd, vm->vm_fd, i, &vm->bus, vm_ended, vm,
			      vm->err, vm->errlen);
		if (r == 0)
			r = vcpu_set_cpuid(&vm->vcpu[i], vm->kvm_fd, vm->vcpus, vm->err,
					   vm->errlen);
	}
	return r;
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
	if (cfg->kernel == NULL || cfg->kernel[0] == '\0')
		return vm_fail(vm, EINVAL, "no kernel given");
	if (cfg->vcpus < 1 || cfg->vcpus > VM_VCPUS_MAX)
		return vm_fail(vm, EINVAL, "%u vCPUs: a machine has 1 to %u", cfg->vcpus,
			       VM_VCPUS_MAX);
	if (cfg->mem_mib < VM_MEM_MIB_MIN || cfg->mem_mib > VM_MEM_MIB_MAX)
		return vm_fail(vm, EINVAL, "%u MiB of memory: a machine has %u to %u", cfg->mem_mib,
			       VM_MEM_MIB_MIN, VM_MEM_MIB_MAX);
	return 0;
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
	r = add_memory(vm, cfg->mem_mib);
	if (r == 0)
		r = add_irqchip(vm);
	if (r == 0)
		r = add_devices(vm);
	if (r == 0)
		r = add_vcpus(vm);
	if (r == 0)
		r = load_guest(vm, cfg);
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
	vm->serial_irq = vm->virtio_irq = -1;
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

int
vm_start(struct vm *vm, char *err, size_t errlen)
{
	int r = 0;

	CHECK_OBJ(vm, VM_MAGIC);
	AZ(vm->stopped);
	/* The boot processor last: nothing runs before every thread exists. */
	for (uint32_t i = vm->vcpus; i-- > 0 && r == 0;)
		r = vcpu_start(&vm->vcpu[i], err, errlen);
	if (r < 0)
		vm_stop(vm);
	return r;
}

void
vm_stop(struct vm *vm)
{
	CHECK_OBJ(vm, VM_MAGIC);
	if (vm->stopped)
		return;
	vm->stopped = true;
	for (uint32_t i = 0; i < vm->vcpus; i++)
		vcpu_kick(&vm->vcpu[i]);
	for (uint32_t i = 0; i < vm->vcpus; i++)
		vcpu_join(&vm->vcpu[i]);
	vm_ended(vm, VM_END_STOPPED, "");
}

void
vm_free(struct vm *vm)
{
	if (vm == NULL)
		return;
	CHECK_OBJ(vm, VM_MAGIC);
	for (uint32_t i = 0; i < VM_VCPUS_MAX; i++)
		if (vm->vcpu[i].started) {
			vm_stop(vm);
			break;
		}
	for (uint32_t i = 0; i < VM_VCPUS_MAX; i++)
		vcpu_fini(&vm->vcpu[i]);
	closep(&vm->vm_fd);
	closep(&vm->kvm_fd);
	if (vm->bus.serial != NULL) {
		vcon_fini(&vm->console);
		serial_fini(&vm->serial);
	}
	gmem_fini(&vm->mem);
	closep(&vm->kick_fd);
	closep(&vm->end_fd);
	closep(&vm->serial_irq);
	closep(&vm->virtio_irq);
	AZ(pthread_mutex_destroy(&vm->end_lock));
	vm->magic = 0;
	free(vm);
}

int
vm_end_fd(const struct vm *vm)
{
	CHECK_OBJ(vm, VM_MAGIC);
	return vm->end_fd;
}

enum vm_end
vm_end(const struct vm *vm)
{
	CHECK_OBJ(vm, VM_MAGIC);
	/* pairs with the store in vm_ended */
	return (enum vm_end)atomic_load_explicit(&vm->end, memory_order_acquire);
}

const char *
vm_end_text(const struct vm *vm)
{
	/* end_text does not change any more once vm_end has seen an end */
	return vm_end(vm) == VM_END_NONE ? vm_end_name(VM_END_NONE) : vm->end_text;
}

const char *
vm_end_name(enum vm_end end)
{
	switch (end) {
	case VM_END_NONE: return "running";
	case VM_END_STOPPED: return "stopped";
	case VM_END_SHUTDOWN: return "guest shut down";
	case VM_END_REBOOT: return "guest rebooted";
	case VM_END_PANIC: return "guest kernel panic";
	case VM_END_TRIPLE_FAULT: return "guest triple fault";
	case VM_END_EMULATION: return "emulation failure";
	case VM_END_ENTRY: return "KVM cannot run the guest";
	case VM_END_DEVICE: return "guest broke the rules of a device";
	}
	return "unknown";
}

size_t
vm_console_tail(struct vm *vm, char *buf, size_t len)
{
	CHECK_OBJ(vm, VM_MAGIC);
	return serial_tail(&vm->serial, buf, len);
}

int
vm_chan_kick_fd(const struct vm *vm)
{
	CHECK_OBJ(vm, VM_MAGIC);
	return vm->kick_fd;
}

static ssize_t
chan_result(struct vm *vm, ssize_t n)
{
	if (n == -EPROTO)
		vm_ended(vm, VM_END_DEVICE, "virtio console");
	return n;
}

ssize_t
vm_chan_recv(struct vm *vm, void *buf, size_t len)
{
	CHECK_OBJ(vm, VM_MAGIC);
	return chan_result(vm, vcon_recv(&vm->console, buf, len));
}

ssize_t
vm_chan_send(struct vm *vm, const void *buf, size_t len)
{
	CHECK_OBJ(vm, VM_MAGIC);
	return chan_result(vm, vcon_send(&vm->console, buf, len));
}
