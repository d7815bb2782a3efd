/* SPDX-License-Identifier: MIT
 *
 * ring.c - byte rings of records between a client and a worker.
 *
 * Runs on both sides. Owns nothing: struct ring is the caller's, the bytes are
 * the segment's. Nothing that the other side can write is used before it was
 * copied and checked, and nothing is read twice.
 */
#include "shm/ring.h"
#include "shm/crash.h"
#include <string.h>

#define RING_MASK (SHM_RING_SIZE - 1)
_Static_assert((SHM_RING_SIZE & RING_MASK) == 0, "the ring's size is a power of two");
_Static_assert(sizeof(struct ring_rec) == 16, "no padding in a record's header");
_Static_assert(sizeof(struct ring_rec) + RING_PAYLOAD_MAX <= SHM_RING_SIZE, "a record fits");

void
ring_init_producer(struct ring *ring, struct shm_ring *pos, uint8_t *data)
{
	ring->pos = pos;
	ring->data = data;
	ring->own = atomic_load_explicit(&pos->tail, memory_order_relaxed);
}

void
ring_init_consumer(struct ring *ring, struct shm_ring *pos, uint8_t *data)
{
	ring->pos = pos;
	ring->data = data;
	ring->own = atomic_load_explicit(&pos->head, memory_order_relaxed);
}

void
ring_chan_reset(struct shm_chan *chan)
{
	_Atomic uint64_t *const places[] = {&chan->req.tail, &chan->req.head, &chan->rsp.tail,
					    &chan->rsp.head};
	_Atomic uint32_t *const flags[] = {&chan->rsp_stalled, &chan->rsp_sleepers,
					   &chan->rsp_pollers, &chan->req_stalled,
					   &chan->worker_asleep};

	/* The next client comes to it through the state word (release in txn_commit). */
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		atomic_store_explicit(places[i], 0, memory_order_relaxed);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		atomic_store_explicit(flags[i], 0, memory_order_relaxed);
}

/* Copy between the ring and private memory, around the end. */
static void
copy_in(const struct ring *ring, uint64_t at, const void *from, size_t len)
{
	size_t place = at & RING_MASK, first = MIN(len, SHM_RING_SIZE - place);

	if (len == 0)
		return;
	memcpy(ring->data + place, from, first);
	CRASH_POINT("ring_copied_first");
	memcpy(ring->data, (const uint8_t *)from + first, len - first);
}

static void
copy_out(const struct ring *ring, uint64_t at, void *to, size_t len)
{
	size_t place = at & RING_MASK, first = MIN(len, SHM_RING_SIZE - place);

	if (len == 0)
		return;
	memcpy(to, ring->data + place, first);
	memcpy((uint8_t *)to + first, ring->data, len - first);
}

ssize_t
ring_space(const struct ring *ring)
{
	/* Pairs with the release store of head in ring_read: the bytes before it
	 * were copied out. */
	uint64_t head = atomic_load_explicit(&ring->pos->head, memory_order_acquire);
	uint64_t used = ring->own - head, room;

	if (used > SHM_RING_SIZE)
		return -EPROTO;
	room = SHM_RING_SIZE - used;
	if (room <= sizeof(struct ring_rec))
		return 0;
	return (ssize_t)MIN(room - sizeof(struct ring_rec), RING_PAYLOAD_MAX);
}

int
ring_write(struct ring *ring, const struct ring_rec *rec, const void *payload)
{
	uint64_t head = atomic_load_explicit(&ring->pos->head, memory_order_acquire);
	uint64_t used = ring->own - head;

	if (rec->length > RING_PAYLOAD_MAX)
		return -EMSGSIZE;
	if (used > SHM_RING_SIZE)
		return -EPROTO;
	if (SHM_RING_SIZE - used < sizeof(*rec) + rec->length)
		return -EAGAIN;
	CRASH_POINT("ring_write_begin");
	copy_in(ring, ring->own, rec, sizeof(*rec));
	CRASH_POINT("ring_write_header");
	copy_in(ring, ring->own + sizeof(*rec), payload, rec->length);
	CRASH_POINT("ring_write_payload");
	ring->own += sizeof(*rec) + rec->length;
	/* Pairs with the acquire load of tail in ring_peek: publishes the bytes. */
	atomic_store_explicit(&ring->pos->tail, ring->own, memory_order_release);
	CRASH_POINT("ring_write_end");
	return 0;
}

int
ring_peek(const struct ring *ring, struct ring_rec *rec)
{
	/* Pairs with the release store of tail in ring_write. */
	uint64_t tail = atomic_load_explicit(&ring->pos->tail, memory_order_acquire);
	uint64_t there = tail - ring->own;

	if (there == 0)
		return 0;
	if (there > SHM_RING_SIZE || there < sizeof(*rec))
		return -EPROTO;
	copy_out(ring, ring->own, rec, sizeof(*rec));
	if (rec->length > RING_PAYLOAD_MAX || rec->length > there - sizeof(*rec))
		return -EPROTO;
	return 1;
}

int
ring_read(struct ring *ring, struct ring_rec *rec, void *payload)
{
	int r = ring_peek(ring, rec);

	if (r <= 0)
		return r;
	CRASH_POINT("ring_read_begin");
	copy_out(ring, ring->own + sizeof(*rec), payload, rec->length);
	CRASH_POINT("ring_read_copied");
	ring->own += sizeof(*rec) + rec->length;
	/* Pairs with the acquire load of head in ring_write: the bytes may go. */
	atomic_store_explicit(&ring->pos->head, ring->own, memory_order_release);
	CRASH_POINT("ring_read_end");
	return 1;
}
