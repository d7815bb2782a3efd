/* SPDX-License-Identifier: MIT
 *
 * share.h - the pages that a guest shares (kvm/proto.h), seen from its worker: bytes
 * that go past the channel.
 *
 * They are guest memory like any other, and what is in them may change at any moment:
 * everything is copied out once. The positions are kept here; what the guest says about
 * its own can only make its machine believe that there is no room.
 */
#ifndef VMPOOL_SHARE_H
#define VMPOOL_SHARE_H

#include "kvm/proto.h"
#include "worker/machine.h"

struct share {
	const struct machine_ops *ops;
	struct machine *machine;
	bool offered, open;
	uint64_t page[PROTO_SHARE_PAGES]; /* guest physical addresses */
	uint32_t out, out_told;		  /* bytes that were taken, and that the guest knows of */
	uint32_t in, in_taken;		  /* bytes that were put, and known to be taken */
};

/* Nothing is shared. May it be: is there a way to the machine's memory? */
void share_init(struct share *s, const struct machine_ops *ops, struct machine *machine);

/* A SHARE frame. False: not now, or the addresses are none, or not to be reached. */
bool share_open(struct share *s, const uint8_t *payload) must_check;

/* The next len bytes (at most PROTO_PAYLOAD_MAX) that the guest has sent. 0, or -EPROTO:
 * there can be none. */
int share_take(struct share *s, uint8_t *buf, size_t len) must_check;

/* Put bytes there for the guest. False: there is no room, or nothing is shared. */
bool share_put(struct share *s, const uint8_t *buf, size_t len) must_check;

#endif
