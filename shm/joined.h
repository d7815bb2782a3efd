/* SPDX-License-Identifier: MIT
 *
 * joined.h - the channel of a client that joins another's lease: one struct shm_chan
 * in a sealed memfd of its own. The supervisor makes it, the client and the slot's
 * worker map it; its words have the writers that a slot's channel has.
 */
#ifndef VMPOOL_JOINED_H
#define VMPOOL_JOINED_H

#include "shm/base.h"
#include "shm/layout.h"

/* A new one, empty; its descriptor (the caller's), or -errno. */
int joined_create(void) must_check;

/* Map one. 0; -EPROTO: this descriptor is no such memfd, or its size could still be
 * changed; else -errno. The descriptor stays the caller's and can be closed. */
int joined_map(struct shm_chan **out, int fd) must_check;
void joined_unmap(struct shm_chan *chan);

#endif
