/* SPDX-License-Identifier: MIT
 *
 * ring.h - one direction of a slot's channel: a byte ring of frames.
 *
 * Each record is a struct ring_rec and its payload. One producer and one
 * consumer at a time (libvmpool serialises its threads). The other side is
 * hostile: positions and headers are copied once, then checked.
 *
 * Ordering: the producer stores the bytes, then tail with release, paired with
 * the consumer's acquire load of tail in ring_read; the consumer stores head
 * with release after copying out, paired with the acquire load in ring_write.
 */
#ifndef VMPOOL_RING_H
#define VMPOOL_RING_H

#include "shm/base.h"
#include "shm/layout.h"

struct ring_rec {
	uint32_t length; /* payload bytes, <= RING_PAYLOAD_MAX */
	uint8_t type;	 /* enum proto_type, or RING_* below */
	uint8_t flags;
	uint16_t zero;
	uint32_t stream;
	uint32_t lease; /* low 32 bits of the lease's generation */
};
#define RING_PAYLOAD_MAX (16u << 10)

/* Record types beyond enum proto_type: between client and worker only. */
enum {
	RING_WORKER_PING = 64, /* echoed by the worker itself as RING_WORKER_PONG */
	RING_WORKER_PONG = 65,
};

/* A process's view of one ring. own is this side's position, kept privately so
 * that nobody can move it; data has SHM_RING_SIZE bytes. */
struct ring {
	struct shm_ring *pos;
	uint8_t *data;
	uint64_t own;
};

/* Take up a ring where it stands (the producer from tail, the consumer from head). */
void ring_init_producer(struct ring *ring, struct shm_ring *pos, uint8_t *data);
void ring_init_consumer(struct ring *ring, struct shm_ring *pos, uint8_t *data);

/* Both rings of a slot empty, nobody asleep: for a slot that has no lease, by its
 * worker, or by the supervisor when it has no worker. Counters go on: they only grow. */
void ring_chan_reset(struct shm_chan *chan);

/* Bytes of payload that ring_write would take now in one record (0 = full). -EPROTO:
 * the consumer's position is impossible. */
ssize_t ring_space(const struct ring *ring) must_check;

/* Append a record. 0; -EAGAIN when it does not fit now; -EPROTO as above. */
int ring_write(struct ring *ring, const struct ring_rec *rec, const void *payload) must_check;

/* Copy out the next record. 1; 0 if there is none; -EPROTO: impossible position
 * or header (length too large, or more than is there). payload has
 * RING_PAYLOAD_MAX bytes. */
int ring_read(struct ring *ring, struct ring_rec *rec, void *payload) must_check;

/* Like ring_read, but leaves the record there. */
int ring_peek(const struct ring *ring, struct ring_rec *rec) must_check;

#endif
