/* SPDX-License-Identifier: MIT
 *
 * vm_impl.h - the machine, for the files that make it up: vm_make.c (creation),
 * vm.c (running, the owner's face), vm_load.c (capture, template, reset).
 */
#ifndef VMPOOL_VM_IMPL_H
#define VMPOOL_VM_IMPL_H

#include "kvm/dirty.h"
#include "kvm/vcpu.h"
#include "kvm/virtio_console.h"
#include "kvm/vm_state.h"
#include <stdatomic.h>

#define VM_MAGIC 0x3a7e11deu
#define VM_END_TEXT 192

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
	struct vm_identity id;
	struct msr_list msrs;
	struct vm_state *tmpl; /* what vm_load restores; NULL: booted */
	struct dirty dirty;    /* of a machine with tmpl */
	int tmpl_fd;	       /* the template's memory, from tmpl_off; -1: booted */
	uint64_t tmpl_off;
	struct vm_warm *warm;	  /* for vm_save; NULL: the template's, if there is one */
	pthread_mutex_t end_lock; /* one thread at a time in vm_ended */
	_Atomic int end;	  /* enum vm_end; end_text is complete once it is set */
	char end_text[VM_END_TEXT];
	bool stopped, running; /* the threads are joined; they may be in the guest */
	char *err;	       /* where errors go while a function of vm.h runs */
	size_t errlen;
};

/* Leave a line in vm->err; returns -code. */
int printf_like(3, 4) vm_fail(struct vm *vm, int code, const char *fmt, ...);

/* The machine has ended (vcpu_ended_fn). */
void vm_ended(void *vm, enum vm_end end, const char *text);

/* Read and check the template's state for this machine, whose vCPUs exist. */
int vm_read_template(struct vm *vm, const struct vm_template *tmpl) must_check;

/* Run the guest that touches the template's warm pages. */
int vm_warm(struct vm *vm) must_check;

/* The machine has not ended, and nothing is pending in its descriptors, but for a
 * kick. No vCPU is running. */
void vm_reborn(struct vm *vm);

#endif
