/* SPDX-License-Identifier: MIT
 *
 * benchqemu.h - what vmpool is compared with: QEMU's microvm with the product's kernel
 * and agent, and a second virtio-serial port through which bytes go as people send them.
 * Spoken to from the calling thread. Whatever goes wrong ends the program, saying what.
 */
#ifndef VMPOOL_BENCH_BENCHQEMU_H
#define VMPOOL_BENCH_BENCHQEMU_H

#include "kvm/proto.h"
#include "tests/bench/report.h"

/* The port's name in the guest. */
#define BENCHQEMU_PORT "/dev/vport0p2"

struct benchqemu_config {
	const char *accel; /* "kvm" or "tcg" */
	const char *kernel, *image;
	unsigned mem_mib;
};

struct benchqemu {
	pid_t pid;
	int agent;     /* socket to the agent's port */
	char name[64]; /* of the second port's socket, abstract */
	size_t have;
	uint8_t in[8192];
};

/* Start one; it has booted when this returns. For benchqemu_end. */
void benchqemu_new(struct benchqemu *q, const struct benchqemu_config *cfg);
void benchqemu_end(struct benchqemu *q);

/* Connect to the second port: a socket, the caller's to close, which the guest sees. */
int benchqemu_port(const struct benchqemu *q);

/* Start a script, which must print nothing; wait for its end, with status 0. */
void benchqemu_start_sh(struct benchqemu *q, const char *script);
void benchqemu_wait_sh(struct benchqemu *q);

#endif
