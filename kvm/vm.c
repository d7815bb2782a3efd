/* SPDX-License-Identifier: MIT
 *
 * vm.c - one virtual machine, running: its start, its stop, its end, and what its
 * owner sees of it. See vm.h. Runs in the worker; owns everything the machine
 * consists of. vm_make.c puts it together, vm_load.c captures and restores it.
 *
 * Which thread touches what: guest memory is everybody's, and trusted by
 * nobody; serial and virtio have a lock each; end and end_text are written once
 * in a life, by whichever thread first sees the machine end; all else is the owner's.
 */
#include "kvm/event.h"
#include "kvm/vm_impl.h"
#include <string.h>

/* The machine has ended: remember the first reason, wake the owner. A vCPU's
 * way out when it panics is a reset or a triple fault; the console tells. */
void
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

int
vm_start(struct vm *vm, char *err, size_t errlen)
{
	int r = 0;

	CHECK_OBJ(vm, VM_MAGIC);
	AZ(vm->stopped);
	for (uint32_t i = 0; i < vm->vcpus && r == 0; i++)
		r = vcpu_start(&vm->vcpu[i], err, errlen);
	if (r < 0)
		vm_stop(vm);
	else
		vm_resume(vm);
	return r;
}

void
vm_resume(struct vm *vm)
{
	CHECK_OBJ(vm, VM_MAGIC);
	AZ(vm->stopped);
	if (vm->running || vm_end(vm) != VM_END_NONE)
		return;
	vm->running = true;
	/* The boot processor last, as it would start the others. */
	for (uint32_t i = vm->vcpus; i-- > 0;)
		vcpu_run(&vm->vcpu[i]);
}

void
vm_pause(struct vm *vm)
{
	CHECK_OBJ(vm, VM_MAGIC);
	for (uint32_t i = 0; i < vm->vcpus && vm->running; i++)
		vcpu_kick(&vm->vcpu[i], false);
	vm->running = false;
	for (uint32_t i = 0; i < vm->vcpus; i++)
		vcpu_wait(&vm->vcpu[i]);
}

void
vm_stop(struct vm *vm)
{
	CHECK_OBJ(vm, VM_MAGIC);
	if (vm->stopped)
		return;
	vm->stopped = true;
	vm->running = false;
	for (uint32_t i = 0; i < vm->vcpus; i++)
		vcpu_kick(&vm->vcpu[i], true);
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
	dirty_fini(&vm->dirty);
	gmem_fini(&vm->mem);
	free(vm->tmpl);
	free(vm->warm);
	closep(&vm->tmpl_fd);
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

int
vm_peek(const struct vm *vm, uint64_t gpa, void *buf, size_t len)
{
	CHECK_OBJ(vm, VM_MAGIC);
	return gmem_read(&vm->mem, gpa, buf, len);
}

int
vm_poke(struct vm *vm, uint64_t gpa, const void *buf, size_t len)
{
	CHECK_OBJ(vm, VM_MAGIC);
	return gmem_write(&vm->mem, gpa, buf, len);
}
