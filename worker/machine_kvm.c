/* SPDX-License-Identifier: MIT
 *
 * machine_kvm.c - our VMM (kvm/vm.h) as a worker's machine. Runs in a worker.
 */
#include "kvm/vm.h"
#include "worker/machine.h"
#include "worker/rehearse.h"

#include <string.h>

#define MACHINE_KVM_MAGIC 0x6b766d31u

struct machine {
	unsigned magic;
	struct vm *vm;
	struct machine_events events;
	struct loop_op kick, end;
	uint32_t mem_mib, vcpus;
	int mem_fd; /* shared memory of a boot, not owned; -1: none */
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
	/* what is reported may have been the end of the life before a load */
	if (res >= 0 && vm_end(m->vm) != VM_END_NONE)
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
	struct vm_template tmpl;
	struct vm_config vc = {
	    .kvm_fd = -1,
	    .kernel = cfg->kernel,
	    .initrd = cfg->image,
	    .mem_mib = cfg->mem_mib,
	    .vcpus = cfg->vcpus,
	    .shared = cfg->tmpl == NULL && cfg->mem_fd >= 0,
	    .mem_fd = cfg->mem_fd,
	};
	struct machine *m = calloc(1, sizeof(*m));
	int r;

	if (m == NULL)
		return fail(ENOMEM, err, errlen, "out of memory for the machine");
	m->magic = MACHINE_KVM_MAGIC;
	m->events = *events;
	m->mem_mib = cfg->mem_mib;
	m->vcpus = cfg->vcpus;
	m->mem_fd = vc.shared ? cfg->mem_fd : -1;
	loop_op_init(&m->kick, on_kick, m);
	loop_op_init(&m->end, on_end, m);
	if (cfg->tmpl != NULL) {
		tmpl = (struct vm_template){
		    .mem_fd = cfg->tmpl->mem_fd,
		    .mem_off = cfg->tmpl->mem_off,
		    .state_fd = cfg->tmpl->state_fd,
		    .state_off = cfg->tmpl->state_off,
		    .state_len = cfg->tmpl->state_len,
		};
		vc.tmpl = &tmpl;
	}
	r = vm_new(&m->vm, &vc, err, errlen);
	if (r == 0 && cfg->tmpl == NULL)
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

static int
machine_kvm_load(struct machine *m, uint64_t *dirty_pages, char *err, size_t errlen)
{
	int r;

	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	r = vm_load(m->vm, dirty_pages, err, errlen);
	if (r == 0)
		vm_resume(m->vm);
	return r;
}

/* Try the new template out, and write its state again with what that has shown.
 * A template that nobody could try is no worse than one that nobody has tried. */
static int
improve(struct machine *m, const struct machine_capture *to, uint64_t *state_len, char *err,
	size_t errlen)
{
	const struct vm_template tmpl = {.mem_fd = m->mem_fd,
					 .state_fd = to->state_fd,
					 .state_off = to->state_off,
					 .state_len = *state_len};

	if (rehearse(m->vm, &tmpl, m->mem_mib, m->vcpus, err, errlen) < 0)
		return 0;
	return vm_save(m->vm, to->state_fd, to->state_off, state_len, err, errlen);
}

static int
machine_kvm_capture(struct machine *m, const struct machine_capture *to, char *err, size_t errlen)
{
	uint64_t state_len;
	int r = 0;

	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	vm_pause(m->vm);
	if (to->mem_fd >= 0)
		r = vm_save_memory(m->vm, to->mem_fd, to->mem_off, err, errlen);
	if (r == 0)
		r = vm_save(m->vm, to->state_fd, to->state_off, &state_len, err, errlen);
	if (r == 0 && to->mem_fd < 0 && m->mem_fd >= 0)
		r = improve(m, to, &state_len, err, errlen);
	if (r < 0)
		vm_resume(m->vm);
	else
		m->events.captured(m->events.owner, 0, state_len, "");
	return r;
}

static int
machine_kvm_resume(struct machine *m, char *err, size_t errlen)
{
	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	(void)err;
	(void)errlen;
	vm_resume(m->vm);
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

static int
machine_kvm_peek(struct machine *m, const struct machine_place *at, unsigned n, void *buf)
{
	int r = 0;

	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	for (uint8_t *to = buf; n > 0 && r == 0; to += at->len, at++, n--)
		r = vm_peek(m->vm, at->gpa, to, at->len);
	return r;
}

static int
machine_kvm_poke(struct machine *m, const struct machine_place *at, unsigned n, const void *buf)
{
	int r = 0;

	CHECK_OBJ(m, MACHINE_KVM_MAGIC);
	for (const uint8_t *from = buf; n > 0 && r == 0; from += at->len, at++, n--)
		r = vm_poke(m->vm, at->gpa, from, at->len);
	return r;
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

static int
machine_kvm_identify(uint32_t vcpus, uint8_t cpu[16], uint32_t *tsc_khz, char *err, size_t errlen)
{
	uint64_t hash;
	int r = vm_features(-1, vcpus, &hash, err, errlen);

	if (r < 0)
		return r;
	memcpy(cpu, &hash, sizeof(hash));
	*tsc_khz = 0;
	return 0;
}

const struct machine_ops machine_kvm = {
    .name = "kvm",
    .shells = 2,
    .resets = true,
    .identify = machine_kvm_identify,
    .start = machine_kvm_start,
    .load = machine_kvm_load,
    .capture = machine_kvm_capture,
    .resume = machine_kvm_resume,
    .recv = machine_kvm_recv,
    .send = machine_kvm_send,
    .peek = machine_kvm_peek,
    .poke = machine_kvm_poke,
    .end = machine_kvm_end,
    .console = machine_kvm_console,
    .free = machine_kvm_free,
};
