/* SPDX-License-Identifier: MIT
 *
 * kvm_guest.h - a real guest for the tests in tests/kvm: boots the product's
 * kernel and initramfs, and talks kvm/proto.h with the agent, from the calling
 * thread. Every wait has a deadline; what cannot go on fails the running test,
 * showing how the machine ended and the end of its console.
 */
#ifndef TEST_KVM_GUEST_H
#define TEST_KVM_GUEST_H

#include "kvm/proto.h"
#include "kvm/vm.h"
#include "shm/base.h"

#define GUEST_BOOT_MS 120000
#define GUEST_WAIT_MS 60000

struct guest {
	struct vm *vm;
	struct proto_ready ready;
	uint32_t stream; /* last one used */
	size_t have;
	uint8_t in[2 * (sizeof(struct proto_hdr) + PROTO_PAYLOAD_MAX)];
};

/* What a command did. */
struct guest_result {
	char *out, *err; /* NUL-terminated */
	size_t out_len, err_len;
	uint64_t first_ns, last_ns; /* when the first and last output came */
	bool failed;		    /* ERROR rather than EXIT */
	struct proto_exit exit;
	struct proto_error error;
};

/* Why tests that need real KVM cannot run here, or NULL. */
const char *guest_no_kvm(void);
/* Skip the running test, saying why, unless this KVM runs Linux. */
void guest_need_kvm(void);
/* The file that this environment variable names; skips the test if unset. */
const char *guest_file(const char *env);

/* Boot to READY. */
void guest_boot(struct guest *g, const char *kernel, uint32_t mem_mib, uint32_t vcpus);
/* Start a machine, and expect nothing of it. */
void guest_start(struct guest *g, const char *kernel, const char *initrd, const char *cmdline,
		 uint32_t mem_mib, uint32_t vcpus);
void guest_end(struct guest *g);

/* Boot to an answered PING, and capture: a template, to be closed. */
void guest_template(struct vm_template *t, const char *kernel, uint32_t mem_mib, uint32_t vcpus);
void guest_template_close(struct vm_template *t);
/* A machine that waits for the template's state. */
void guest_shell(struct guest *g, const struct vm_template *t, uint32_t mem_mib, uint32_t vcpus);
/* Load the template's state and run; how many pages had been written. */
uint64_t guest_load(struct guest *g);
/* The agent answers. */
void guest_ping(struct guest *g);

/* Run argv (NULL-terminated) to its end; input, if not NULL, is its stdin.
 * timeout_ms as in EXEC. Free the result with guest_result_free. */
void guest_exec(struct guest *g, const char *const *argv, const char *input, uint32_t timeout_ms,
		struct guest_result *r);
void guest_result_free(struct guest_result *r);
/* `sh -c script`, which must end by itself with this status; its stdout. */
char *guest_sh(struct guest *g, const char *script, uint32_t status);
/* Start `sh -c script` and do not wait for it. */
void guest_launch(struct guest *g, const char *script);

/* Wait until the machine has ended by itself; how. VM_END_NONE: not in time. */
enum vm_end guest_wait_end(struct guest *g, int timeout_ms);
/* The console's tail must hold this text. */
void guest_console_has(struct guest *g, const char *text);

#endif
