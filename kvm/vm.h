/* SPDX-License-Identifier: MIT
 *
 * vm.h - the face of kvm/: one Linux virtual machine on /dev/kvm.
 *
 * Knows nothing of pools, slots or frames: it boots a kernel, carries bytes
 * over one virtio-console port, and says how the machine ended. All functions
 * are called from one thread (the owner's); the vCPU threads are internal, and
 * take no signals but SIGRTMIN, which this folder uses and handles.
 */
#ifndef VMPOOL_VM_H
#define VMPOOL_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VM_VCPUS_MAX 8u
#define VM_MEM_MIB_MIN 32u	   /* less cannot hold kernel and image */
#define VM_MEM_MIB_MAX 3072u	   /* below the 32-bit hole; one memory slot */
#define VM_CONSOLE_MAX (16u << 10) /* bytes of console log kept: the newest */

struct vm;

/* A machine at rest: memory as it was, at an offset that is a multiple of the
 * page size, and the state that vm_save wrote. The descriptors are the caller's,
 * and are not needed after vm_new. Nobody writes to the memory any more. */
struct vm_template {
	int mem_fd, state_fd;
	uint64_t mem_off, state_off, state_len;
};

struct vm_config {
	int kvm_fd;	     /* -1: open /dev/kvm */
	const char *kernel;  /* path: ELF vmlinux or bzImage (told apart by content) */
	const char *initrd;  /* path: cpio, plain or compressed; NULL = none */
	const char *cmdline; /* appended to the VMM's own (vm.c); NULL = nothing */
	uint32_t mem_mib;
	uint32_t vcpus;
	bool shared; /* guest memory is mem_fd, an empty file of mem_mib MiB; not with tmpl */
	int mem_fd;
	uint32_t skew; /* with tmpl: 0, or where memory is mapped, for vm_touched */
	const struct vm_template *tmpl; /* not to boot: vm_load will bring it into this state */
};

/* How a machine ended. Names for people: vm_end_name. */
enum vm_end {
	VM_END_NONE = 0, /* still running */
	VM_END_STOPPED,	 /* vm_stop was called */
	VM_END_SHUTDOWN, /* the guest powered itself off */
	VM_END_REBOOT,	 /* the guest asked for a reset */
	VM_END_PANIC,	 /* reset or shutdown, and the console ends in a kernel panic */
	VM_END_TRIPLE_FAULT,
	VM_END_EMULATION, /* KVM could not emulate an instruction */
	VM_END_ENTRY,	  /* KVM_EXIT_FAIL_ENTRY or an exit reason nobody handles */
	VM_END_DEVICE, /* the driver broke the virtio rules; the device needs a reset that will not
			  come */
};

/* Create a VM ready to run: memory, irqchip, devices, kernel loaded, vCPU
 * threads not yet started. With a template: everything but the state, which has
 * been read and checked; vCPU threads wait; vm_load comes next. Returns 0 and *out, or -errno and
 * one line in err (at least 256 bytes; names the file or ioctl and the remedy; -ENOEXEC: not a
 * kernel or truncated, -EINVAL: not an initrd, or a bad config, -EFBIG: does
 * not fit in memory, -ENOENT/-EACCES: file or /dev/kvm). Blocks for file I/O only. */
int vm_new(struct vm **out, const struct vm_config *cfg, char *err, size_t errlen)
    __attribute__((warn_unused_result));

/* Would vm_new take this kernel, initrd and memory size? Needs no KVM. 0, or the
 * errors of vm_new. Reads both files whole. */
int vm_check(const struct vm_config *cfg, char *err, size_t errlen)
    __attribute__((warn_unused_result));

/* A hash of the processor features that a machine of so many vCPUs would have here: a
 * state can be loaded where it is the same. kvm_fd as in vm_config. 0 or -errno with err. */
int vm_features(int kvm_fd, uint32_t vcpus, uint64_t *hash, char *err, size_t errlen)
    __attribute__((warn_unused_result));

/* Start the vCPU threads of a machine that boots. 0 or -errno with err. */
int vm_start(struct vm *vm, char *err, size_t errlen) __attribute__((warn_unused_result));

/* Make every vCPU stand still between two instructions, no exit unfinished, and
 * let them run on (a machine that has ended does not). Both idempotent;
 * vm_pause returns in milliseconds whatever the guest does. */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

/* Write down a paused machine that has not ended: everything but memory into fd
 * from off, *len bytes; memory into fd from off, pages of zeros left out (fd has
 * none but zeros there before). 0 or -errno with err. */
int vm_save(struct vm *vm, int fd, uint64_t off, uint64_t *len, char *err, size_t errlen)
    __attribute__((warn_unused_result));
int vm_save_memory(struct vm *vm, int fd, uint64_t off, char *err, size_t errlen)
    __attribute__((warn_unused_result));

/* Bring a machine made with a template into the template's state: for the first
 * time, or again, whatever has become of it since (but for vm_stop). It is paused
 * then, has not ended, and its kick_fd is readable once. *dirty_pages: written
 * since the last time. 0, or -errno with err: then only vm_free is left. */
int vm_load(struct vm *vm, uint64_t *dirty_pages, char *err, size_t errlen)
    __attribute__((warn_unused_result));

/* Learning what a template's guests will touch at once, so that machines made
 * from it have that memory ready before they are needed.
 * vm_touched: of a paused machine that vm_load has started, a byte for each 4 KiB
 *   page of memory. Neighbours of touched pages may be marked as well: the host maps aligned
 *   groups of 16. Machines with another skew have other groups.
 * vm_expect: what is to go into the state that vm_save writes.
 * 0 or -errno. */
#define VM_TOUCHED 1u
#define VM_WRITTEN 2u
#define VM_SKEWS 16u
int vm_touched(struct vm *vm, uint8_t *map, char *err, size_t errlen)
    __attribute__((warn_unused_result));
int vm_expect(struct vm *vm, const uint8_t *map) __attribute__((warn_unused_result));

/* Make every vCPU thread leave the guest and join it. Idempotent, returns in
 * milliseconds whatever the guest does. */
void vm_stop(struct vm *vm);

/* Stop, and free everything. NULL is fine. */
void vm_free(struct vm *vm);

/* An eventfd, owned by the VM, readable once the machine has ended by itself.
 * The vCPU that ended it has left the guest; others may still be in it until
 * vm_stop or vm_free. */
int vm_end_fd(const struct vm *vm);
/* How it ended; the first reason stays. Thread-safe. */
enum vm_end vm_end(const struct vm *vm);
const char *vm_end_name(enum vm_end end);
/* The name and, where there is one, the detail (vCPU, instruction, ...): one
 * line, valid until vm_free. Thread-safe. */
const char *vm_end_text(const struct vm *vm);

/* The newest console output, NUL-terminated, carriage returns dropped, other
 * unprintable bytes replaced by '?'; returns the number of bytes written without
 * the NUL. Thread-safe. */
size_t vm_console_tail(struct vm *vm, char *buf, size_t len);

/* The guest channel. kick_fd (an eventfd, owned by the VM) becomes readable
 * when the guest has queued bytes, given receive buffers, or opened or closed
 * the port: read it, then call vm_chan_recv / vm_chan_send again.
 * vm_chan_recv copies at most len bytes from the guest; returns how many, 0 if
 *   there is nothing now, or -EPROTO once the driver has broken the queue.
 * vm_chan_send copies at most len bytes towards the guest; returns how many the
 *   guest had buffers for (0: wait for a kick; also while nobody in the guest has
 *   the port open), or -EPROTO.
 * A result below len means that a kick will tell when there is more to do; after
 * a full one, call again before waiting. -EPROTO ends the machine, too
 * (VM_END_DEVICE). Neither blocks. Order is kept; nothing is buffered in the host. */
int vm_chan_kick_fd(const struct vm *vm);
ssize_t vm_chan_recv(struct vm *vm, void *buf, size_t len);
ssize_t vm_chan_send(struct vm *vm, const void *buf, size_t len);

/* Copy len bytes of guest memory, from a guest physical address or to it, while the
 * machine runs or not. 0, or -EFAULT: not all of it is guest memory; nothing was copied. */
int vm_peek(const struct vm *vm, uint64_t gpa, void *buf, size_t len)
    __attribute__((warn_unused_result));
int vm_poke(struct vm *vm, uint64_t gpa, const void *buf, size_t len)
    __attribute__((warn_unused_result));

/* What this host's KVM can do. */
enum vm_probe {
	VM_PROBE_OK = 0,     /* runs Linux guests */
	VM_PROBE_ABSENT,     /* no /dev/kvm */
	VM_PROBE_DENIED,     /* no permission to open it */
	VM_PROBE_API,	     /* API version is not 12, or a needed capability is missing */
	VM_PROBE_NO_SYSCALL, /* opens, but a guest's system calls fault: paravirtual KVM */
	VM_PROBE_FAILED,     /* an ioctl failed */
};
/* Run a 16 MiB guest that makes one system call (about a millisecond). The
 * result, and one sentence for people in why (at least 256 bytes). */
enum vm_probe vm_probe(int kvm_fd, char *why, size_t len);
const char *vm_probe_name(enum vm_probe p);

#endif
