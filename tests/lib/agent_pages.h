/* SPDX-License-Identifier: MIT
 *
 * agent_pages.h - the pages that an agent under test shares (kvm/proto.h), reached
 * as its host would: from outside of its process.
 */
#ifndef TEST_AGENT_PAGES_H
#define TEST_AGENT_PAGES_H

#include "kvm/proto.h"

#include <sys/types.h>

struct agent_pages {
	int mem;		/* /proc/PID/mem */
	uint64_t head, out, in; /* addresses in there */
	uint32_t out_pos, in_pos;
	uint64_t page[PROTO_SHARE_PAGES]; /* as the SHARE frame has them */
};

/* Find them; payload is the SHARE frame's. Fails the test if there are none, or if what it
 * says is not where they are. */
void agent_pages_open(struct agent_pages *a, pid_t pid, const void *payload);
void agent_pages_close(struct agent_pages *a);

/* The next bytes from the agent; and tell it that all so far have been taken. */
void agent_pages_take(struct agent_pages *a, void *buf, size_t len);
void agent_pages_tell(struct agent_pages *a);

/* Put bytes for the agent; how many it has not taken. */
void agent_pages_put(struct agent_pages *a, const void *buf, size_t len);
uint32_t agent_pages_left(struct agent_pages *a);

#endif
