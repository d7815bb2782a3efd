/* SPDX-License-Identifier: MIT
 *
 * fuzz_virtq.c - a virtqueue in guest memory that holds anything, and changes
 * while it is used. Nothing beyond the guest's memory is touched, and every call
 * returns what its contract says.
 */
#include "kvm/virtio.h"
#include "tests/lib/fuzz.h"

#include <string.h>

#define MEM (64u << 10)
#define RINGS 0x4000u /* the queue's structures lie below */

/* Descriptors and indices that are mostly possible. */
static void
plausible(struct fuzz *f, struct gmem *m, const struct virtq *q)
{
	uint16_t idx = (uint16_t)(q->last_avail + fuzz_below(f, q->num + 1u));

	for (uint16_t i = 0; i < q->num; i++) {
		struct {
			uint64_t addr;
			uint32_t len;
			uint16_t flags, next;
		} d = {fuzz_one_in(f, 10) ? fuzz_value(f) : RINGS + fuzz_below(f, MEM - RINGS),
		       fuzz_one_in(f, 10) ? (uint32_t)fuzz_value(f) : fuzz_below(f, 300),
		       (uint16_t)fuzz_below(f, fuzz_one_in(f, 20) ? 8 : 4),
		       (uint16_t)fuzz_below(f, fuzz_one_in(f, 20) ? 65536 : q->num)};
		uint16_t head = (uint16_t)fuzz_below(f, fuzz_one_in(f, 20) ? 65536 : q->num);

		(void)!gmem_write(m, q->desc + i * 16u, &d, sizeof(d));
		(void)!gmem_write(m, q->avail + 4 + i * 2u, &head, sizeof(head));
	}
	(void)!gmem_write(m, q->avail + 2, &idx, sizeof(idx));
}

static void
set_up(struct fuzz *f, struct virtq *q)
{
	*q = (struct virtq){
	    .desc = 0x0000 + fuzz_below(f, 4) * 16,
	    .avail = 0x1800 + fuzz_below(f, 4) * 2,
	    .used = 0x2000 + fuzz_below(f, 4) * 4,
	    .num_max = VIRTQ_NUM_MAX,
	    .num = (uint16_t)(1u << fuzz_below(f, 9)),
	    .ready = true,
	    .event_idx = fuzz_one_in(f, 2),
	    .last_avail = (uint16_t)fuzz_value(f),
	    .used_idx = (uint16_t)fuzz_value(f),
	    .signalled = (uint16_t)fuzz_value(f),
	};
	if (fuzz_one_in(f, 10))
		fuzz_mutate(f, (uint8_t *)&q->desc, 3 * sizeof(q->desc));
	if (fuzz_one_in(f, 10))
		q->num = (uint16_t)fuzz_value(f);
}

/* Work through one chain; false: the driver has broken the rules. */
static bool
work(struct fuzz *f, struct gmem *m, struct virtq *q, struct virtq_chain *c)
{
	enum virtq_dir dir = fuzz_one_in(f, 2) ? VIRTQ_FROM_GUEST : VIRTQ_TO_GUEST;
	uint8_t *buf;
	ssize_t n;
	size_t len;
	int r = virtq_pop(q, m, c);

	assert(r == 1 || r == 0 || r == -EPROTO);
	if (r <= 0)
		return r == 0;
	for (unsigned i = 0; i < 600; i++) {
		len = fuzz_below(f, 400) + 1u;
		buf = calloc(1, len);
		assert(buf != NULL);
		n = virtq_move(q, m, c, dir, buf, len);
		free(buf);
		assert(n == -EPROTO || (n >= 0 && (size_t)n <= len));
		assert(c->seen <= q->num); /* or a chain could go on for ever */
		if (n < 0)
			return false;
		if ((size_t)n < len)
			break;
		if (fuzz_one_in(f, 10))
			fuzz_mutate(f, m->base, RINGS);
	}
	return virtq_push(q, m, c, c->bytes) == 0;
}

static void
one(struct fuzz *f)
{
	struct virtq_chain c = {0};
	struct gmem m;
	struct virtq q;
	bool ok = true;

	AZ(gmem_init(&m, MEM, -1));
	set_up(f, &q);
	if (fuzz_one_in(f, 4))
		fuzz_fill(f, m.base, RINGS);
	if (virtq_check(&q, &m) == 0) {
		for (unsigned i = 0; i < 30 && ok; i++) {
			if (fuzz_one_in(f, 3))
				plausible(f, &m, &q);
			if (fuzz_one_in(f, 3))
				fuzz_mutate(f, m.base, RINGS);
			ok = work(f, &m, &q, &c) && virtq_want_signal(&q, &m) >= 0 &&
			     virtq_ask_notify(&q, &m) >= 0;
		}
	}
	gmem_fini(&m);
}

int
main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_virtq", one);
}
