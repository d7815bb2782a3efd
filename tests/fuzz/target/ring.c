/* SPDX-License-Identifier: MIT
 *
 * fuzz_ring.c - a ring whose other side writes anything, anywhere in it. Both
 * sides stay within the ring and within their caller's buffer (which the address
 * sanitizer sees), and say nothing impossible.
 */
#include "shm/ring.h"
#include "tests/lib/fuzz.h"

struct arena {
	struct shm_ring *pos;
	uint8_t *data, *payload; /* of exactly the size that the calls may touch */
};

static void
consume(struct fuzz *f, const struct arena *a)
{
	struct ring_rec rec, seen;
	struct ring ring;
	int r, peek;

	ring_init_consumer(&ring, a->pos, a->data);
	for (unsigned i = 0; i < 20; i++) {
		peek = ring_peek(&ring, &seen);
		r = ring_read(&ring, &rec, a->payload);
		assert(r == 1 || r == 0 || r == -EPROTO);
		assert(r == peek); /* nobody has written in between */
		if (r == 1)
			assert(rec.length <= RING_PAYLOAD_MAX && rec.length == seen.length);
		if (fuzz_one_in(f, 3))
			fuzz_mutate(f, (uint8_t *)a->pos, sizeof(*a->pos));
		if (fuzz_one_in(f, 3))
			fuzz_mutate(f, a->data, SHM_RING_SIZE);
	}
}

static void
produce(struct fuzz *f, const struct arena *a)
{
	struct ring ring;

	ring_init_producer(&ring, a->pos, a->data);
	for (unsigned i = 0; i < 20; i++) {
		struct ring_rec rec = {.length = fuzz_below(f, RING_PAYLOAD_MAX + 1)};
		ssize_t space = ring_space(&ring);
		int r = ring_write(&ring, &rec, a->payload);

		assert(r == 0 || r == -EAGAIN || r == -EPROTO);
		assert((space < 0) == (r == -EPROTO));
		assert(space <= (ssize_t)RING_PAYLOAD_MAX || space <= (ssize_t)SHM_RING_SIZE);
		if (space > 0)
			assert((r == 0) == ((ssize_t)rec.length <= space));
		if (fuzz_one_in(f, 3))
			fuzz_mutate(f, (uint8_t *)a->pos, sizeof(*a->pos));
	}
}

/* Positions that differ by little are those that lead somewhere. */
static void
set_positions(struct fuzz *f, struct shm_ring *pos)
{
	uint64_t tail = fuzz_value(f);

	atomic_store(&pos->tail, tail);
	atomic_store(&pos->head,
		     fuzz_one_in(f, 4) ? fuzz_value(f) : tail - fuzz_below(f, SHM_RING_SIZE + 9));
}

static void
one(struct fuzz *f)
{
	struct arena a = {.pos = aligned_alloc(64, sizeof(*a.pos)),
			  .data = malloc(SHM_RING_SIZE),
			  .payload = malloc(RING_PAYLOAD_MAX)};

	assert(a.pos != NULL && a.data != NULL && a.payload != NULL);
	fuzz_fill(f, a.payload, RING_PAYLOAD_MAX);
	fuzz_fill(f, a.data, SHM_RING_SIZE);
	/* Small lengths everywhere, so that records follow each other. */
	for (unsigned i = 0; i < SHM_RING_SIZE && !fuzz_one_in(f, 2000); i += 8)
		a.data[i + 2] = a.data[i + 3] = 0;
	set_positions(f, a.pos);
	if (fuzz_one_in(f, 2))
		consume(f, &a);
	else
		produce(f, &a);
	free(a.pos);
	free(a.data);
	free(a.payload);
}

int
main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_ring", one);
}
