/* SPDX-License-Identifier: MIT
 *
 * virtio.c - one split virtqueue, seen from the device. See virtio.h. Runs in
 * the worker, on its owner's thread and on vCPU threads.
 *
 *   descriptor table  num x {addr 8, len 4, flags 2, next 2}
 *   available ring    flags 2, idx 2, num x head 2, used_event 2
 *   used ring         flags 2, idx 2, num x {id 4, len 4}, avail_event 2
 */
#include "kvm/virtio.h"

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define AVAIL_NO_INTERRUPT 1u

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
_Static_assert(sizeof(struct desc) == 16, "descriptor");

static uint64_t
avail_idx(const struct virtq *q)
{
	return q->avail + 2;
}

static uint64_t
avail_head(const struct virtq *q, uint16_t at)
{
	return q->avail + 4 + 2ull * (at % q->num);
}

static uint64_t
used_event(const struct virtq *q)
{
	return q->avail + 4 + 2ull * q->num;
}

static uint64_t
used_elem(const struct virtq *q, uint16_t at)
{
	return q->used + 4 + 8ull * (at % q->num);
}

static uint64_t
avail_event(const struct virtq *q)
{
	return q->used + 4 + 8ull * q->num;
}

int
virtq_check(const struct virtq *q, const struct gmem *mem)
{
	if (q->num == 0 || q->num > q->num_max || (q->num & (q->num - 1)) != 0)
		return -EPROTO;
	if (q->desc % 16 != 0 || q->avail % 2 != 0 || q->used % 4 != 0)
		return -EPROTO;
	if (!gmem_holds(mem, q->desc, 16ull * q->num) ||
	    !gmem_holds(mem, q->avail, 6 + 2ull * q->num) ||
	    !gmem_holds(mem, q->used, 6 + 8ull * q->num))
		return -EPROTO;
	return 0;
}

/* How many chains are available: 0 .. num, or -EPROTO. */
static int
pending(const struct virtq *q, const struct gmem *mem)
{
	uint16_t idx, n;

	if (!q->ready || virtq_check(q, mem) < 0 || gmem_load16(mem, avail_idx(q), &idx) < 0)
		return -EPROTO;
	n = (uint16_t)(idx - q->last_avail);
	return n <= q->num ? n : -EPROTO;
}

int
virtq_pop(struct virtq *q, const struct gmem *mem, struct virtq_chain *c)
{
	uint16_t head;
	int n = pending(q, mem);

	if (n <= 0)
		return n;
	if (gmem_load16(mem, avail_head(q, q->last_avail), &head) < 0 || head >= q->num)
		return -EPROTO;
	q->last_avail++;
	*c = (struct virtq_chain){.active = true, .more = true, .head = head, .desc = head};
	return 1;
}

/* Copy the chain's current descriptor and check all of it. */
static int
fetch(const struct virtq *q, const struct gmem *mem, const struct virtq_chain *c,
      enum virtq_dir dir, struct desc *d)
{
	bool writable;

	if (c->seen >= q->num || c->desc >= q->num ||
	    gmem_read(mem, q->desc + 16ull * c->desc, d, sizeof(*d)) < 0)
		return -EPROTO;
	writable = (d->flags & DESC_WRITE) != 0;
	/* indirect descriptors were not offered */
	if ((d->flags & ~(DESC_NEXT | DESC_WRITE)) != 0 || writable != (dir == VIRTQ_TO_GUEST))
		return -EPROTO;
	/* empty, or partly used and shrunk since the last call */
	if (c->off >= d->len || !gmem_holds(mem, d->addr, d->len) ||
	    d->len - c->off > UINT32_MAX - c->bytes)
		return -EPROTO;
	return 0;
}

ssize_t
virtq_move(const struct virtq *q, struct gmem *mem, struct virtq_chain *c, enum virtq_dir dir,
	   void *buf, size_t len)
{
	size_t done = 0, n;
	struct desc d;
	int r;

	while (done < len && c->more) {
		if (fetch(q, mem, c, dir, &d) < 0)
			return -EPROTO;
		n = MIN(len - done, d.len - c->off);
		if (dir == VIRTQ_FROM_GUEST)
			r = gmem_read(mem, d.addr + c->off, (uint8_t *)buf + done, n);
		else
			r = gmem_write(mem, d.addr + c->off, (const uint8_t *)buf + done, n);
		if (r < 0)
			return -EPROTO;
		done += n;
		c->off += (uint32_t)n;
		c->bytes += (uint32_t)n;
		if (c->off < d.len)
			break;
		c->off = 0;
		c->seen++;
		c->desc = d.next;
		c->more = (d.flags & DESC_NEXT) != 0;
	}
	return (ssize_t)done;
}

int
virtq_push(struct virtq *q, struct gmem *mem, struct virtq_chain *c, uint32_t written)
{
	const uint32_t elem[2] = {c->head, written};

	c->active = false;
	if (!q->ready || virtq_check(q, mem) < 0 ||
	    gmem_write(mem, used_elem(q, q->used_idx), elem, sizeof(elem)) < 0 ||
	    gmem_store16(mem, q->used + 2, (uint16_t)(q->used_idx + 1)) < 0)
		return -EPROTO;
	q->used_idx++;
	return 0;
}

int
virtq_want_signal(struct virtq *q, const struct gmem *mem)
{
	uint16_t from = q->signalled, v;

	q->signalled = q->used_idx;
	if (from == q->used_idx)
		return 0;
	/* The driver writes used_event (or flags) and then reads used.idx; we wrote
	 * used.idx and now read used_event: one of us must see the other. */
	__sync_synchronize();
	if (gmem_load16(mem, q->event_idx ? used_event(q) : q->avail, &v) < 0)
		return -EPROTO;
	if (!q->event_idx)
		return (v & AVAIL_NO_INTERRUPT) == 0;
	return (uint16_t)(q->used_idx - v - 1) < (uint16_t)(q->used_idx - from);
}

int
virtq_ask_notify(struct virtq *q, struct gmem *mem)
{
	int n;

	if (q->event_idx) {
		if (!q->ready || virtq_check(q, mem) < 0 ||
		    gmem_store16(mem, avail_event(q), q->last_avail) < 0)
			return -EPROTO;
		/* pairs with the driver's full barrier between avail.idx and avail_event */
		__sync_synchronize();
	}
	n = pending(q, mem);
	return n < 0 ? n : n > 0;
}
