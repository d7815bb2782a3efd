/* SPDX-License-Identifier: MIT
 *
 * machine.h - what a virtual machine must offer to a worker.
 *
 * Two kinds: our own VMM on /dev/kvm (machine_kvm.c) and a QEMU child process
 * (qemu.c). Both boot the same kernel and image and carry bytes over the same
 * virtio-console port. The worker calls from its loop's thread only.
 *
 *   boot:      start -> runs
 *   template:  start (prepared, not running) -> load -> runs -> load (reset) -> ...
 *   capture:   runs -> capture -> captured() -> stands still -> resume or free
 */
#ifndef VMPOOL_MACHINE_H
#define VMPOOL_MACHINE_H

#include "shm/ctl.h"
#include "worker/loop.h"

#include <sys/types.h>

/* A machine at rest, from which others start: its memory, and the state of its
 * CPUs and devices as the same kind of machine has captured it. Read-only; the
 * descriptors are the holder's. */
struct machine_template {
	int mem_fd;	  /* guest memory, mem_mib MiB from mem_off (page aligned) */
	int state_fd;	  /* state_len bytes from state_off */
	uint64_t mem_off; /* QEMU: must be 0 */
	uint64_t state_off, state_len;
	struct ctl_origin origin; /* what it was made of (origin.h) */
};

struct machine_config {
	const char *kernel, *image;
	uint32_t mem_mib, vcpus;
	int mem_fd; /* boot only: this empty memfd of mem_mib MiB becomes the guest's memory
		       (shared), where capture leaves it; -1: private memory */
	const struct machine_template *tmpl; /* start from this; NULL: boot */
};

/* Where capture writes. Memory: sparse, zero pages left out of an empty file;
 * mem_fd -1: machine_config.mem_fd holds it already. */
struct machine_capture {
	int mem_fd, state_fd;
	uint64_t mem_off, state_off;
};

#define MACHINE_SMALL_MIB 64u /* Linux with a busybox image has trouble below that */

struct machine;

/* Told to the owner, from the loop: bytes may be there, room may be there; the
 * machine has ended by itself (machine_end then gives the reason); a capture is
 * complete (error 0, state_len bytes of state), or failed (-errno, a line of why).
 * captured may come before capture returns. */
struct machine_events {
	void (*channel)(void *owner);
	void (*ended)(void *owner);
	void (*captured)(void *owner, int error, uint64_t state_len, const char *why);
	void *owner;
};

#define MACHINE_PLACES 8u /* at most so many at once */
struct machine_place {
	uint64_t gpa;
	size_t len;
};

struct machine_ops {
	const char *name; /* "kvm", "tcg" */
	unsigned shells;  /* workers to keep prepared ahead of demand (shell.h) */
	bool resets;	  /* load can be called again */
	bool copies;	  /* a template's memory must be at offset 0: a snapshot file is copied */
	/* The processor that a machine started here and now would have: a hash of its
	 * features, and the TSC rate that its guest is told (0: its state knows). 0, or
	 * -errno with err. Blocks for some milliseconds. */
	int (*identify)(uint32_t vcpus, uint8_t cpu[16], uint32_t *tsc_khz, char *err,
			size_t errlen);
	/* Begin to boot; with cfg->tmpl prepare what needs no state, and wait for load.
	 * 0, or -errno with one line in err; nothing is left behind then. */
	int (*start)(struct machine **out, const struct machine_config *cfg, struct loop *loop,
		     const struct machine_events *events, char *err, size_t errlen);
	/* Put a machine started with tmpl into the template's state, and run it: nothing
	 * of what it was before is left, whatever it was doing (it may even have ended).
	 * The first time after start; later a reset: *dirty_pages (4 KiB) had been written
	 * since the last load. 0; -EOPNOTSUPP: this kind cannot be reset, its worker is
	 * replaced; else -errno with err, and the machine must be freed. */
	int (*load)(struct machine *machine, uint64_t *dirty_pages, char *err, size_t errlen);
	/* Stop the machine between two instructions and write down what it is. The guest
	 * must be quiescent: no byte under way in the channel. 0 = begun, -errno with err. */
	int (*capture)(struct machine *machine, const struct machine_capture *to, char *err,
		       size_t errlen);
	/* Let it run on after captured. */
	int (*resume)(struct machine *machine, char *err, size_t errlen);
	/* Take at most len bytes from the guest, or give it some; bytes moved, 0 when
	 * that must wait for the next channel event, -EPROTO: the guest broke the
	 * device's rules. Neither blocks. */
	ssize_t (*recv)(struct machine *machine, void *buf, size_t len);
	ssize_t (*send)(struct machine *machine, const void *buf, size_t len);
	/* Copy guest memory that is scattered over n places, one after the other, into buf
	 * (poke: from buf). 0; -EFAULT: a place is not in guest memory; -EOPNOTSUPP: this
	 * kind, or this system, has no such access. NULL: likewise. With n = 0 that is all
	 * that is asked. */
	int (*peek)(struct machine *machine, const struct machine_place *at, unsigned n, void *buf);
	int (*poke)(struct machine *machine, const struct machine_place *at, unsigned n,
		    const void *buf);
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
