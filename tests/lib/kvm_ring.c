/* SPDX-License-Identifier: MIT
 *
 * kvm_ring.c - a virtio driver for tests. See kvm_ring.h.
 */
#include "tests/lib/kvm_ring.h"
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>

void
ring_desc(struct gmem *m, unsigned n, unsigned i, uint64_t addr, uint32_t len, uint16_t flags,
	  uint16_t next)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {addr, len, flags, next};

	AZ(gmem_write(m, RING_DESC(n) + 16ull * i, &d, sizeof(d)));
}

uint16_t
ring_load16(const struct gmem *m, uint64_t gpa)
{
	uint16_t v;

	AZ(gmem_load16(m, gpa, &v));
	return v;
}

void
ring_store16(struct gmem *m, uint64_t gpa, uint16_t v)
{
	AZ(gmem_store16(m, gpa, v));
}

void
ring_offer(struct gmem *m, unsigned n, uint16_t head)
{
	uint16_t idx = ring_load16(m, RING_AVAIL(n) + 2);

	ring_store16(m, RING_AVAIL(n) + 4 + 2 * (idx % RING_NUM), head);
	ring_store16(m, RING_AVAIL(n) + 2, (uint16_t)(idx + 1));
}

void
ring_put(struct gmem *m, unsigned n, unsigned i, const void *bytes, uint32_t len, uint16_t flags)
{
	if (bytes != NULL)
		AZ(gmem_write(m, RING_BUF(n, i), bytes, len));
	ring_desc(m, n, i, RING_BUF(n, i), len, flags, 0);
	ring_offer(m, n, (uint16_t)i);
}

uint16_t
ring_used(const struct gmem *m, unsigned n)
{
	return ring_load16(m, RING_USED(n) + 2);
}

void
ring_used_elem(const struct gmem *m, unsigned n, unsigned i, uint32_t *id, uint32_t *len)
{
	uint32_t e[2];

	AZ(gmem_read(m, RING_USED(n) + 4 + 8ull * (i % RING_NUM), e, sizeof(e)));
	*id = e[0];
	*len = e[1];
}

uint32_t
ring_reg(struct virtio_dev *v, uint64_t off)
{
	uint32_t val;
	int r = virtio_mmio_read(v, off, &val, sizeof(val));

	(void)r; /* broken devices are read, too */
	return val;
}

void
ring_set(struct virtio_dev *v, uint64_t off, uint32_t val)
{
	int r = virtio_mmio_write(v, off, &val, sizeof(val));

	(void)r;
}

void
ring_enable(struct virtio_dev *v, unsigned n)
{
	ring_set(v, VIRTIO_MMIO_QUEUE_SEL, n);
	ring_set(v, VIRTIO_MMIO_QUEUE_NUM, MIN(RING_NUM, ring_reg(v, VIRTIO_MMIO_QUEUE_NUM_MAX)));
	ring_set(v, VIRTIO_MMIO_QUEUE_DESC_LOW, RING_DESC(n));
	ring_set(v, VIRTIO_MMIO_QUEUE_AVAIL_LOW, RING_AVAIL(n));
	ring_set(v, VIRTIO_MMIO_QUEUE_USED_LOW, RING_USED(n));
	ring_set(v, VIRTIO_MMIO_QUEUE_READY, 1);
}

void
ring_start(struct virtio_dev *v, uint64_t features, unsigned queues)
{
	uint32_t s = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	ring_set(v, VIRTIO_MMIO_STATUS, 0);
	ring_set(v, VIRTIO_MMIO_STATUS, s);
	ring_set(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	ring_set(v, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
	ring_set(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	ring_set(v, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32) | 1);
	s |= VIRTIO_CONFIG_S_FEATURES_OK;
	ring_set(v, VIRTIO_MMIO_STATUS, s);
	for (unsigned i = 0; i < queues; i++)
		ring_enable(v, i);
	ring_set(v, VIRTIO_MMIO_STATUS, s | VIRTIO_CONFIG_S_DRIVER_OK);
}
