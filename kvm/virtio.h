/* SPDX-License-Identifier: MIT
 *
 * virtio.h - the device's side of one split virtqueue (Virtual I/O Device
 * specification 1.2, chapter 2.7).
 *
 * The rings and every descriptor are in memory that the guest can rewrite at
 * any moment. So nothing is cached: each descriptor is copied once when it is
 * used, and checked on that use. -EPROTO means that the driver has broken the
 * rules; the queue must not be used again before the device has been reset.
 *
 * Not thread-safe: the device's lock (virtio_mmio.h) covers its queues. Both
 * structs are plain data, to be copied into a template and back.
 */
#ifndef VMPOOL_VIRTIO_H
#define VMPOOL_VIRTIO_H

#include "kvm/gmem.h"

#define VIRTQ_NUM_MAX 256u /* the largest queue any device here offers */

struct virtq {
	uint64_t desc, avail, used; /* GPAs */
	uint16_t num_max;	    /* what the device offers; 0: no such queue */
	uint16_t num;		    /* what the driver chose: a power of two */
	bool ready;
	bool event_idx; /* VIRTIO_F_EVENT_IDX was negotiated */
	uint16_t last_avail;
	uint16_t used_idx;
	uint16_t signalled; /* used_idx at the last look at "interrupt wanted?" */
};

/* A chain being worked through, perhaps over several calls. */
struct virtq_chain {
	bool active; /* taken from the available ring, not yet returned */
	bool more;   /* desc is to be used next; false: the chain has been used up */
	uint16_t head;
	uint16_t desc;	/* index of the current descriptor */
	uint16_t seen;	/* descriptors visited: more than num is a loop */
	uint32_t off;	/* bytes of the current descriptor already used */
	uint32_t bytes; /* of the whole chain already used */
};

enum virtq_dir {
	VIRTQ_FROM_GUEST, /* chains hold what the driver sends: device-readable */
	VIRTQ_TO_GUEST,	  /* chains are room for the device to write to */
};

/* May the queue be enabled as the driver has set it up? 0 or -EPROTO. */
int virtq_check(const struct virtq *q, const struct gmem *mem) must_check;

/* Take the next available chain. 1: c is active; 0: none; -EPROTO. */
int virtq_pop(struct virtq *q, const struct gmem *mem, struct virtq_chain *c) must_check;

/* Move at most len bytes between buf and the chain: out of the guest's buffers
 * for VIRTQ_FROM_GUEST, into them for VIRTQ_TO_GUEST. Returns how many; fewer
 * than len (0 included) only when the chain is used up; or -EPROTO. */
ssize_t virtq_move(const struct virtq *q, struct gmem *mem, struct virtq_chain *c,
		   enum virtq_dir dir, void *buf, size_t len) must_check;

/* Give the chain back, saying that the device wrote written bytes into it.
 * 0 or -EPROTO. */
int virtq_push(struct virtq *q, struct gmem *mem, struct virtq_chain *c,
	       uint32_t written) must_check;

/* Does the driver want an interrupt for what was pushed since the last call?
 * 1, 0 or -EPROTO. */
int virtq_want_signal(struct virtq *q, const struct gmem *mem) must_check;

/* Ask the driver to notify when it adds a chain. 1: one is there already, so
 * look again; 0: asked; -EPROTO. */
int virtq_ask_notify(struct virtq *q, struct gmem *mem) must_check;

#endif
