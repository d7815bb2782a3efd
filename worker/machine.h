/* SPDX-License-Identifier: MIT
 *
 * machine.h - what a virtual machine must offer to a worker.
 *
 * Two kinds: our own VMM on /dev/kvm (machine_kvm.c) and a QEMU child process
 * (qemu.c). Both boot the same kernel and image and carry bytes over the same
 * virtio-console port. The worker calls from its loop's thread only.
 */
#ifndef VMPOOL_MACHINE_H
#define VMPOOL_MACHINE_H

#include "worker/loop.h"

#include <sys/types.h>

struct machine_config {
	const char *kernel, *image;
	uint32_t mem_mib, vcpus;
};

struct machine;

/* Told to the owner, from the loop: bytes may be there, room may be there; or
 * the machine has ended by itself (machine_end then gives the reason). */
struct machine_events {
	void (*channel)(void *owner);
	void (*ended)(void *owner);
	void *owner;
};

struct machine_ops {
	const char *name; /* "kvm", "tcg" */
	/* Begin to boot. 0, or -errno with one line in err; nothing is left behind then. */
	int (*start)(struct machine **out, const struct machine_config *cfg, struct loop *loop,
		     const struct machine_events *events, char *err, size_t errlen);
	/* Take at most len bytes from the guest, or give it some; bytes moved, 0 when
	 * that must wait for the next channel event, -EPROTO: the guest broke the
	 * device's rules. Neither blocks. */
	ssize_t (*recv)(struct machine *machine, void *buf, size_t len);
	ssize_t (*send)(struct machine *machine, const void *buf, size_t len);
	/* How it ended, as a name for people ("guest panic"); NULL while it runs. */
	const char *(*end)(struct machine *machine);
	/* The newest console output: NUL-terminated, printable; bytes without the NUL. */
	size_t (*console)(struct machine *machine, char *buf, size_t len);
	/* End it at once and free everything. The loop must not run afterwards. */
	void (*free)(struct machine *machine);
};

extern const struct machine_ops machine_kvm, machine_qemu;
#ifdef VMPOOL_TEST
extern const struct machine_ops machine_null; /* no VM at all: tests/lib/machine_null.c */
#endif

/* The kind of that name, NULL if there is none. */
static inline const struct machine_ops *
machine_named(const char *name)
{
	if (__builtin_strcmp(name, machine_kvm.name) == 0)
		return &machine_kvm;
#ifdef VMPOOL_TEST
	if (__builtin_strcmp(name, machine_null.name) == 0)
		return &machine_null;
#endif
	return __builtin_strcmp(name, machine_qemu.name) == 0 ? &machine_qemu : NULL;
}

#endif
