/* SPDX-License-Identifier: MIT
 *
 * stress_body.h - what one client does in a stress test, again and again: attach,
 * acquire, use, release, detach. The same body runs as a process of its own
 * (tests/stress) and as a thread (tests/unit/test_stress_threads.c).
 *
 * A party is told what to do by a plan and writes down what it does in a struct
 * party, both in memory that outlives it: somebody may kill it at any moment.
 */
#ifndef VMPOOL_TESTS_STRESS_BODY_H
#define VMPOOL_TESTS_STRESS_BODY_H

#include "shm/base.h"
#include "shm/vmpool.h"

#include <stdatomic.h>

/* What it does with a VM; a plan names those that its guests know. */
enum stress_op {
	STRESS_PING_WORKER,
	STRESS_PING,
	STRESS_ECHO,
	STRESS_CAT,
	STRESS_KILL,	/* a command that does not end, killed */
	STRESS_TIMEOUT, /* the same, with a time-out */
	STRESS_FLOOD,	/* one that prints without end, forgotten */
	STRESS_MARK,	/* nobody may have used this VM before */
	STRESS_DIE,	/* the VM ends itself */
	STRESS_OPS,
};
#define STRESS_ALL ((1u << STRESS_OPS) - 1)

struct stress_plan {
	uint32_t ops;	       /* bits of enum stress_op */
	uint32_t touch;	       /* so many of 1000 leases use their VM */
	uint32_t patience_ms;  /* the longest wait for a VM */
	uint32_t command_ms;   /* a command's time-out, which it never needs */
	uint32_t slack_ms;     /* a call that takes so much longer than it may hangs */
	_Atomic uint32_t stop; /* 1: finish */
	_Atomic uint64_t left; /* leases to go, all parties together; 0: finish */
};

struct stress_party {
	_Atomic uint64_t overdue_ns; /* when the present call hangs; 0: in none */
	_Atomic uint32_t present;    /* which call that is, enum stress_call */
	_Atomic uint64_t generation; /* of the pool that the next two are about */
	_Atomic uint64_t acquired, ended;
	_Atomic uint64_t cycles, used, refused, died, restarted;
	_Atomic uint32_t failed;
	char complaint[200]; /* valid when failed is set */
};

enum stress_call { CALL_NONE, CALL_ATTACH, CALL_ACQUIRE, CALL_USE, CALL_RELEASE, CALL_DETACH };
const char *stress_call_name(uint32_t call);

/* Until the plan says stop. False: something happened that may not; the
 * complaint says what. */
bool stress_body(struct stress_party *party, struct stress_plan *plan, uint32_t seed);

uint32_t stress_dice(uint32_t *state);

#endif
