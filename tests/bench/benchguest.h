/* SPDX-License-Identifier: MIT
 *
 * benchguest.h - a real guest for benchmarks of the VMM: the product's kernel and
 * agent in a machine of kvm/vm.h, spoken to from the calling thread. Whatever goes
 * wrong ends the program, saying what.
 */
#ifndef VMPOOL_BENCH_BENCHGUEST_H
#define VMPOOL_BENCH_BENCHGUEST_H

#include "kvm/proto.h"
#include "kvm/vm.h"
#include "tests/bench/report.h"

struct benchguest {
	struct vm *vm;
	size_t have;
	uint8_t in[4096];
};

/* A machine: its guest boots until it says READY, or (with cfg->tmpl) it waits for its
 * state. For benchguest_end. */
void benchguest_new(struct benchguest *g, const struct vm_config *cfg);
void benchguest_end(struct benchguest *g);

/* Bring it into its template's state, the first time or again, and let it run. */
void benchguest_load(struct benchguest *g, uint64_t *dirty_pages);

/* A PING and its answer; a renewal as every worker has it, and its answer. */
void benchguest_ping(struct benchguest *g);
void benchguest_renew(struct benchguest *g);

/* Run a script to its end. It must print nothing; its status does not matter. */
void benchguest_sh(struct benchguest *g, const char *script);

#endif
