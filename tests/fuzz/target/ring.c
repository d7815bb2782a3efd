/* SPDX-License-Identifier: MIT
 *
 * ring.c - a ring, and the head of a segment, whose other side writes anything, anywhere
 * in it. Both sides of a ring stay within it and within their caller's buffer (which the
 * address sanitizer sees), and say nothing impossible; whoever attaches to a segment
 * gets one of the right size, or none.
 */
#include "shm/ring.h"
#include "shm/segment.h"
#include "tests/lib/fuzz.h"

#include <fcntl.h>
#include <string.h>

#define SLOTS 2u

static struct fuzz input;

static struct {
	struct shm_ring *pos;
	uint8_t *data, *payload; /* of exactly the size that the calls may touch */
} arena;

static void
scribble(void)
{
	switch (fuzz_below(&input, 4)) {
	case 1: fuzz_mutate(&input, (uint8_t *)arena.pos, sizeof(*arena.pos)); break;
	case 2: fuzz_mutate(&input, arena.data, SHM_RING_SIZE); break;
	default: break;
	}
}

/* A header where the consumer looks next, and a tail that goes with it. */
static void
put_record(const struct ring *ring)
{
	struct ring_rec rec = {.length = fuzz_below(&input, RING_PAYLOAD_MAX + 2),
			       .type = (uint8_t)fuzz_below(&input, 256)};
	const uint8_t *from = (const uint8_t *)&rec;

	for (size_t i = 0; i < sizeof(rec); i++)
		arena.data[(ring->own + i) % SHM_RING_SIZE] = from[i];
	atomic_store(&arena.pos->tail,
		     ring->own + sizeof(rec) + rec.length - fuzz_below(&input, 2));
}

static void
consume(void)
{
	struct ring_rec rec, seen;
	struct ring ring;
	int r, peek;

	ring_init_consumer(&ring, arena.pos, arena.data);
	while (fuzz_left(&input) > 0) {
		if (fuzz_below(&input, 2) == 0)
			put_record(&ring);
		scribble();
		peek = ring_peek(&ring, &seen);
		r = ring_read(&ring, &rec, arena.payload);
		assert(r == 1 || r == 0 || r == -EPROTO);
		assert(r == peek); /* nobody has written in between */
		if (r == 1)
			assert(rec.length <= RING_PAYLOAD_MAX && rec.length == seen.length);
	}
}

static void
produce(void)
{
	struct ring ring;

	ring_init_producer(&ring, arena.pos, arena.data);
	while (fuzz_left(&input) > 0) {
		struct ring_rec rec = {.length = fuzz_below(&input, RING_PAYLOAD_MAX + 2)};
		ssize_t space = ring_space(&ring);
		int r = ring_write(&ring, &rec, arena.payload);

		if (rec.length > RING_PAYLOAD_MAX) {
			assert(r == -EMSGSIZE);
			continue;
		}
		assert(r == 0 || r == -EAGAIN || r == -EPROTO);
		assert((space < 0) == (r == -EPROTO));
		assert(space <= (ssize_t)RING_PAYLOAD_MAX);
		if (space > 0)
			assert((r == 0) == ((ssize_t)rec.length <= space));
		if (fuzz_below(&input, 2) == 0)
			atomic_store(&arena.pos->head,
				     ring.own - fuzz_below(&input, SHM_RING_SIZE + 9));
		scribble();
	}
}

/* Positions that differ by little are those that lead somewhere. */
static void
set_positions(void)
{
	uint64_t tail = fuzz_value(&input);

	atomic_store(&arena.pos->tail, tail);
	atomic_store(&arena.pos->head, fuzz_below(&input, 4) == 1
					   ? fuzz_value(&input)
					   : tail - fuzz_below(&input, SHM_RING_SIZE + 9));
}

/* The supervisor's head, as others may find it. */
static void
attach(void)
{
	static struct seg *own;
	static struct shm_head head;
	const struct seg_params params = {
	    .name = "fuzz", .accel = "null", .why = "", .nslots = SLOTS};
	struct seg *seg;
	char err[256];
	int r;

	if (own == NULL) {
		AZ(seg_create(&own, &params, err, sizeof(err)));
		head = *own->head;
	}
	memcpy(own->head, &head, sizeof(head));
	while (fuzz_left(&input) > 0)
		fuzz_mutate(&input, (uint8_t *)own->head, offsetof(struct shm_head, policy));
	r = seg_attach(&seg, fcntl(own->fd, F_DUPFD_CLOEXEC, 0), fuzz_below(&input, 2), err,
		       sizeof(err));
	assert(r == 0 || r == -EPROTO || r == -EMEDIUMTYPE);
	if (r == 0) {
		assert(seg->nslots == SLOTS && seg->size == seg_size(SLOTS));
		assert((uint8_t *)&seg->chan[SLOTS] == (uint8_t *)seg->head + seg->size);
		seg_close(seg);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned how;

	input = fuzz_input(data, size);
	how = fuzz_below(&input, 8);
	if (how == 1) {
		attach();
		return 0;
	}
	if (arena.pos == NULL) {
		arena.pos = aligned_alloc(64, sizeof(*arena.pos));
		arena.data = malloc(SHM_RING_SIZE);
		arena.payload = malloc(RING_PAYLOAD_MAX);
		assert(arena.pos != NULL && arena.data != NULL && arena.payload != NULL);
	}
	memset(arena.data, 0, SHM_RING_SIZE);
	memset(arena.payload, 0, RING_PAYLOAD_MAX);
	set_positions();
	if (how % 2 == 0)
		consume();
	else
		produce();
	return 0;
}
