/* SPDX-License-Identifier: MIT
 *
 * vm_load.c - a machine's state: captured, kept as a template's, restored. See
 * vm.h. Runs in the worker, on the owner's thread, while the vCPUs stand still.
 *
 * Restoring, in this order:
 *   registers by whose writing KVM writes guest memory; then memory; then the
 *   vCPUs, the local APICs among them; the IOAPIC, which may interrupt them; the
 *   clock, before any vCPU runs; our devices; what is pending in descriptors.
 * An edge that was raised on an irqfd just before may still reach the IOAPIC from
 * a kernel thread: the guest then sees an interrupt without a cause, as real
 * hardware has them, too.
 */
#include "kvm/event.h"
#include "kvm/gmem_save.h"
#include "kvm/vm_impl.h"
#include <fcntl.h>
#include <string.h>
#include <x86intrin.h>

static int
read_all(int fd, uint64_t off, uint8_t *to, size_t len)
{
	ssize_t n;

	for (size_t at = 0; at < len; at += (size_t)n) {
		n = pread(fd, to + at, len - at, (off_t)(off + at));
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
	}
	return 0;
}

static int
write_all(int fd, uint64_t off, const uint8_t *from, size_t len)
{
	ssize_t n;

	for (size_t at = 0; at < len; at += (size_t)n) {
		n = pwrite(fd, from + at, len - at, (off_t)(off + at));
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
	}
	return 0;
}

int
vm_read_template(struct vm *vm, const struct vm_template *tmpl)
{
	_cleanup_(freep) uint8_t *bytes = NULL;
	int r;

	if (tmpl->state_len > VM_STATE_BYTES_MAX)
		return vm_fail(vm, EINVAL, "a machine's state is not %llu bytes long",
			       (unsigned long long)tmpl->state_len);
	bytes = malloc(tmpl->state_len + 1);
	vm->tmpl =
	    calloc(1, offsetof(struct vm_state, vcpu) + vm->vcpus * sizeof(vm->tmpl->vcpu[0]));
	vm->tmpl_fd = fcntl(tmpl->mem_fd, F_DUPFD_CLOEXEC, 0);
	vm->tmpl_off = tmpl->mem_off;
	if (bytes == NULL || vm->tmpl == NULL || vm->tmpl_fd < 0)
		return vm_fail(vm, ENOMEM, "out of memory or descriptors");
	r = read_all(tmpl->state_fd, tmpl->state_off, bytes, tmpl->state_len);
	if (r < 0)
		return vm_fail(vm, -r, "reading a machine's state: %s", strerror(-r));
	return vm_state_decode(vm->tmpl, &vm->id, &vm->msrs, bytes, tmpl->state_len, vm->err,
			       vm->errlen);
}

static int
get_state(struct vm *vm, struct vm_state *s, char *err, size_t errlen)
{
	uint64_t host_tsc = __rdtsc();
	int r = chip_state_get(&s->chip, vm->vm_fd, err, errlen);

	for (uint32_t i = 0; i < vm->vcpus && r == 0; i++)
		r = vcpu_state_get(&s->vcpu[i], vm->vcpu[i].fd, &vm->msrs, host_tsc, err, errlen);
	dev_state_get(&s->dev, &vm->serial, &vm->console);
	if (vm->warm != NULL)
		s->warm = *vm->warm;
	else if (vm->tmpl != NULL)
		s->warm = vm->tmpl->warm;
	return r;
}

int
vm_save(struct vm *vm, int fd, uint64_t off, uint64_t *len, char *err, size_t errlen)
{
	_cleanup_(freep) struct vm_state *s = calloc(1, sizeof(*s));
	_cleanup_(blob_fini) struct blob b = {0};
	int r;

	CHECK_OBJ(vm, VM_MAGIC);
	AZ(vm->running);
	if (vm_end(vm) != VM_END_NONE)
		return fail(EINVAL, err, errlen, "the machine has ended: %s", vm_end_text(vm));
	if (s == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	r = get_state(vm, s, err, errlen);
	if (r < 0)
		return r;
	r = vm_state_encode(s, &vm->id, &b);
	if (r == 0)
		r = write_all(fd, off, b.data, b.len);
	*len = b.len;
	return r < 0 ? fail(-r, err, errlen, "writing a machine's state: %s", strerror(-r)) : 0;
}

int
vm_save_memory(struct vm *vm, int fd, uint64_t off, char *err, size_t errlen)
{
	struct gmem_save_hint hint = {.fd = vm->tmpl_fd, .off = vm->tmpl_off};

	CHECK_OBJ(vm, VM_MAGIC);
	AZ(vm->running);
	if (vm->tmpl != NULL) {
		hint.pages = dirty_pages(&vm->dirty, err, errlen);
		if (hint.pages == NULL)
			return -EIO;
	}
	return gmem_save(&vm->mem, &hint, fd, off, err, errlen);
}

/* What is pending in descriptors belongs to the life before. The owner is to
 * look at the channel once: the template's guest may have queued bytes. */
void
vm_reborn(struct vm *vm)
{
	const int fds[] = {vm->kick_fd, vm->end_fd, vm->serial_irq, vm->virtio_irq};
	uint64_t n;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		(void)!read(fds[i], &n, sizeof(n));
	event_raise(vm->kick_fd);
	vm->end_text[0] = '\0';
	/* pairs with the load in vm_end */
	atomic_store_explicit(&vm->end, VM_END_NONE, memory_order_release);
}

static int
restore(struct vm *vm, uint64_t *dirty_pages, char *err, size_t errlen)
{
	const struct vm_state *s = vm->tmpl;
	uint64_t host_tsc;
	int r = 0;

	for (uint32_t i = 0; i < vm->vcpus && r == 0; i++)
		r = vcpu_state_clock(&s->vcpu[i], vm->vcpu[i].fd, err, errlen);
	if (r == 0)
		r = dirty_restore(&vm->dirty, dirty_pages, err, errlen);
	host_tsc = __rdtsc();
	for (uint32_t i = 0; i < vm->vcpus && r == 0; i++)
		r = vcpu_state_set(&s->vcpu[i], vm->vcpu[i].fd, host_tsc, err, errlen);
	return r == 0 ? chip_state_set(&s->chip, vm->vm_fd, err, errlen) : r;
}

int
vm_load(struct vm *vm, uint64_t *dirty_pages, char *err, size_t errlen)
{
	int r;

	CHECK_OBJ(vm, VM_MAGIC);
	if (vm->tmpl == NULL || vm->stopped)
		return fail(EINVAL, err, errlen, "the machine has no template to go back to");
	vm_pause(vm);
	r = restore(vm, dirty_pages, err, errlen);
	if (r < 0)
		return r;
	dev_state_set(&vm->tmpl->dev, &vm->serial, &vm->console);
	vm_reborn(vm);
	return 0;
}
