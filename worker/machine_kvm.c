/* SPDX-License-Identifier: MIT
 *
 * machine_kvm.c - our VMM (kvm/vm.h) as a worker's machine. Runs in a worker.
 */
#include "kvm/vm.h"
#include "worker/machine.h"

#define MACHINE_KVM_MAGIC 0x6b766d31u

struct machine {
	unsigned magic;
	struct vm *vm;
	struct machine_events events;
	struct loop_op kick, end;
};

static void
on_kick(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	if (res >= 0)
		m->events.channel(m->events.owner);
}

static void
on_end(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	if (res >= 0)
		m->events.ended(m->events.owner);
}

static void
machine_kvm_free(struct machine *m)
{
	if (m == NULL)
		return;
	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	vm_free(m->vm);
	m->magic = 0;
	free(m);
}

static int
machine_kvm_start(struct machine **out, const struct machine_config *cfg, struct loop *loop,
		  const struct machine_events *events, char *err, size_t errlen)
{
	const struct vm_config vc = {
	    .kvm_fd = -1,
	    .kernel = cfg->kernel,
	    .initrd = cfg->image,
	    .mem_mib = cfg->mem_mib,
	    .vcpus = cfg->vcpus,
	};
	struct machine *m = calloc(1, sizeof(*m));
	int r;

	if (m == NULL)
		return fail(ENOMEM, err, errlen, "out of memory for the machine");
	m->magic = MACHINE_KVM_MAGIC;
	m->events = *events;
	loop_op_init(&m->kick, on_kick, m);
	loop_op_init(&m->end, on_end, m);
	r = vm_new(&m->vm, &vc, err, errlen);
	if (r == 0)
		r = vm_start(m->vm, err, errlen);
	if (r < 0) {
		machine_kvm_free(m);
		return r;
	}
	loop_watch(loop, &m->kick, vm_chan_kick_fd(m->vm));
	loop_watch(loop, &m->end, vm_end_fd(m->vm));
	*out = m;
	return 0;
}

static ssize_t
machine_kvm_recv(struct machine *m, void *buf, size_t len)
{
	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	return vm_chan_recv(m->vm, buf, len);
}

static ssize_t
machine_kvm_send(struct machine *m, const void *buf, size_t len)
{
	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	return vm_chan_send(m->vm, buf, len);
}

static const char *
machine_kvm_end(struct machine *m)
{
	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	return vm_end(m->vm) == VM_END_NONE ? NULL : vm_end_text(m->vm);
}

static size_t
machine_kvm_console(struct machine *m, char *buf, size_t len)
{
	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	return vm_console_tail(m->vm, buf, len);
}

const struct machine_ops machine_kvm = {
    .name = "kvm",
    .start = machine_kvm_start,
    .recv = machine_kvm_recv,
    .send = machine_kvm_send,
    .end = machine_kvm_end,
    .console = machine_kvm_console,
    .free = machine_kvm_free,
};
