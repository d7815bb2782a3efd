/* SPDX-License-Identifier: MIT
 *
 * bells.h - the eventfds of a pool: the supervisor's doorbell and two per slot.
 *
 * A slot's pair is made when first asked for and then kept as long as the
 * segment: clients cache it, so it must serve every later worker of the slot.
 */
#ifndef VMPOOL_BELLS_H
#define VMPOOL_BELLS_H

#include "shm/base.h"

struct bells {
	uint32_t nslots;
	int door; /* clients ring it; the supervisor reads it */
	struct bell_pair {
		int request, response; /* -1 = not made yet */
	} * slot;
};

int bells_init(struct bells *bells, uint32_t nslots) must_check;
void bells_fini(struct bells *bells);

/* The slot's eventfds, owned by bells. 0 or -errno. slot < nslots. */
int bells_get(struct bells *bells, uint32_t slot, struct bell_pair *out) must_check;

/* Wake a client that polls the slot's response eventfd, as its worker would. */
void bells_ring_client(const struct bells *bells, uint32_t slot);

#endif
