/* SPDX-License-Identifier: MIT
 *
 * vcpu.h - one virtual processor: its KVM descriptor, its thread, its exits.
 */
#ifndef VMPOOL_VCPU_H
#define VMPOOL_VCPU_H

#include "kvm/bus.h"
#include <linux/kvm.h>

/* Told, from the vCPU's thread, how the machine ended; text is one line. */
typedef void vcpu_ended_fn(void *arg, enum vm_end end, const char *text);

struct vcpu {
	uint32_t magic;
	uint32_t id;
	int fd;
	size_t run_size;
	struct kvm_run *run;
	const struct bus *bus;
	vcpu_ended_fn *ended;
	void *arg;
	pthread_t thread;
	bool started; /* thread exists and has not been joined; owner's thread only */
	/* what the thread is to do, and whether it stands still; under lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum vcpu_want { VCPU_PARK, VCPU_RUN, VCPU_QUIT } want;
	bool parked;
};

/* Create vCPU id of vm_fd. KVM's own initial state: id 0 is the boot processor,
 * the others wait for its start-up message. 0, or -errno and one line in err. */
int vcpu_init(struct vcpu *v, int kvm_fd, int vm_fd, uint32_t id, const struct bus *bus,
	      vcpu_ended_fn *ended, void *arg, char *err, size_t errlen) must_check;
void vcpu_fini(struct vcpu *v);

/* Give it its CPUID table; to be done once, before it runs. *hash is continued
 * with everything in the table. */
int vcpu_set_cpuid(struct vcpu *v, int kvm_fd, uint32_t vcpus, uint64_t *hash, char *err,
		   size_t errlen) must_check;
/* Put it at a kernel's 64-bit entry point. */
int vcpu_set_boot(struct vcpu *v, uint64_t entry, char *err, size_t errlen) must_check;

/* The functions below belong to the owner's thread. */

/* Start its thread, which stands still until vcpu_run. */
int vcpu_start(struct vcpu *v, char *err, size_t errlen) must_check;
/* Let it run until it is kicked or the machine ends. It stands still now. */
void vcpu_run(struct vcpu *v);
/* Make the thread leave the guest, and then stand still, or end. Returns at
 * once; does nothing to a vCPU that was not started. */
void vcpu_kick(struct vcpu *v, bool quit);
/* Wait until it stands still: between two instructions, no exit unfinished. It
 * has been kicked or has ended by itself. */
void vcpu_wait(struct vcpu *v);
/* Wait for the end of the thread, which has been kicked with quit. */
void vcpu_join(struct vcpu *v);

#endif
