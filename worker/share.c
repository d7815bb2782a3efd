/* SPDX-License-Identifier: MIT
 *
 * share.c - bytes through pages of the guest. See share.h. Runs in a worker; owns
 * the positions in both rings.
 */
#include "worker/share.h"

#include <string.h>

#define OUT_PAGE 1u
#define IN_PAGE (1u + PROTO_RING_PAGES)
/* The guest is told of what was taken in steps, since it costs a system call for QEMU. */
#define TELL (PROTO_RING_BYTES / 8)

_Static_assert(PROTO_PAYLOAD_MAX / PROTO_PAGE + 1 <= MACHINE_PLACES, "one piece at a time");

void
share_init(struct share *s, const struct machine_ops *ops, struct machine *machine)
{
	s->ops = ops;
	s->machine = machine;
	s->open = false;
	s->offered = ops->peek != NULL && ops->peek(machine, NULL, 0, NULL) == 0;
}

/* A word of struct proto_share. */
static struct machine_place
word(const struct share *s, size_t off)
{
	return (struct machine_place){s->page[0] + off, sizeof(uint32_t)};
}

bool
share_open(struct share *s, const uint8_t *payload)
{
	struct machine_place first;
	uint32_t any;

	if (!s->offered || s->open)
		return false;
	memcpy(s->page, payload, sizeof(s->page));
	for (unsigned i = 0; i < PROTO_SHARE_PAGES; i++)
		if (s->page[i] % PROTO_PAGE != 0)
			return false;
	first = word(s, 0);
	if (s->ops->peek(s->machine, &first, 1, &any) < 0)
		return false;
	s->open = true;
	s->out = s->out_told = s->in = s->in_taken = 0;
	return true;
}

/* The places of len bytes of the ring that begins with that page, from a position. */
static unsigned
places(const struct share *s, unsigned ring, uint32_t pos, size_t len, struct machine_place *at)
{
	unsigned n = 0;

	for (size_t step; len > 0; len -= step, pos += (uint32_t)step, n++) {
		uint32_t in_ring = pos % PROTO_RING_BYTES, in_page = in_ring % PROTO_PAGE;

		step = MIN(len, PROTO_PAGE - in_page);
		at[n] =
		    (struct machine_place){s->page[ring + in_ring / PROTO_PAGE] + in_page, step};
	}
	return n;
}

int
share_take(struct share *s, uint8_t *buf, size_t len)
{
	const struct machine_place told = word(s, offsetof(struct proto_share, out_taken));
	struct machine_place at[MACHINE_PLACES];

	if (!s->open || len == 0 || len > PROTO_PAYLOAD_MAX ||
	    s->ops->peek(s->machine, at, places(s, OUT_PAGE, s->out, len, at), buf) < 0)
		return -EPROTO;
	s->out += (uint32_t)len;
	if (s->out - s->out_told < TELL)
		return 0;
	s->out_told = s->out;
	return s->ops->poke(s->machine, &told, 1, &s->out) < 0 ? -EPROTO : 0;
}

static bool
has_room(struct share *s, size_t len)
{
	const struct machine_place taken = word(s, offsetof(struct proto_share, in_taken));

	if (s->in - s->in_taken + len <= PROTO_RING_BYTES)
		return true;
	/* Who says that more was taken than was put has no room. */
	return s->ops->peek(s->machine, &taken, 1, &s->in_taken) == 0 &&
	       s->in - s->in_taken + len <= PROTO_RING_BYTES;
}

bool
share_put(struct share *s, const uint8_t *buf, size_t len)
{
	struct machine_place at[MACHINE_PLACES];

	if (!s->open || !has_room(s, len) ||
	    s->ops->poke(s->machine, at, places(s, IN_PAGE, s->in, len, at), buf) < 0)
		return false;
	s->in += (uint32_t)len;
	return true;
}
