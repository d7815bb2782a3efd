/* SPDX-License-Identifier: MIT
 *
 * qemu_guest.h - a real guest in a software-emulated machine, for tests: one
 * machine_qemu on a loop of its own, and the host's end of kvm/proto.h. Every
 * wait has a deadline; what cannot go on fails the running test, showing how the
 * machine ended and the end of its console.
 */
#ifndef TEST_QEMU_GUEST_H
#define TEST_QEMU_GUEST_H

#include "worker/chan.h"

#define QGUEST_BOOT_MS 120000
#define QGUEST_WAIT_MS 60000

struct qguest {
	struct loop *loop;
	struct machine *machine;
	struct loop_op timer;
	struct chan chan;
	uint32_t stream; /* last one used */
	bool ready, ended, late;
	unsigned pongs, exits;
	struct proto_exit exit;
	size_t out_len;
	char out[4096]; /* of the last command */
	unsigned captures;
	int capture_error;
	uint64_t state_len;
	char why[256];
};

/* Skip the running test, saying why, unless QEMU and the guest's files are here. */
void qguest_need(void);
/* The configuration of a booting machine with the built guest. */
struct machine_config qguest_config(uint32_t mem_mib, uint32_t vcpus);
/* A memfd of this many MiB. */
int qguest_memfd(uint32_t mib);

/* Start one; what machine_ops.start returns, and its line in why. */
int qguest_try(struct qguest *g, const struct machine_config *cfg);
void qguest_start(struct qguest *g, const struct machine_config *cfg);
/* Boot to READY and the answer to a PING. */
void qguest_boot(struct qguest *g, const struct machine_config *cfg);
/* Load what was started from a template; it must be accepted. */
void qguest_load(struct qguest *g);
void qguest_free(struct qguest *g);

/* Run the loop until *flag is true (a bool of g), or the count has been reached. */
void qguest_wait(struct qguest *g, const bool *flag);
void qguest_wait_count(struct qguest *g, const unsigned *count, unsigned min);

void qguest_send_ping(struct qguest *g);
void qguest_ping(struct qguest *g); /* and its PONG */
void qguest_launch(struct qguest *g, const char *script);
/* `sh -c script` to its end; its status. What it wrote is in out. */
int qguest_sh(struct qguest *g, const char *script);

/* Capture, and wait for the end of that: 0, and the length in state_len; or the
 * error, from either, with its line in why. */
int qguest_capture(struct qguest *g, int mem_fd, int state_fd);

#endif
