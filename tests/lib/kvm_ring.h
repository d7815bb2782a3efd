/* SPDX-License-Identifier: MIT
 *
 * kvm_ring.h - a virtio driver for tests: it lays out split virtqueues in guest
 * memory and fills them, correctly or not.
 */
#ifndef TEST_KVM_RING_H
#define TEST_KVM_RING_H

#include "kvm/virtio_mmio.h"

#define RING_NUM 8u
#define RING_MEM (1u << 20)
#define RING_NEXT 1u
#define RING_WRITE 2u

/* Where queue n has its parts, and its buffers: sixteen of 1 KiB. */
#define RING_DESC(n) (0x10000u * ((n) + 1))
#define RING_AVAIL(n) (RING_DESC(n) + 0x2000)
#define RING_USED(n) (RING_DESC(n) + 0x4000)
#define RING_BUF(n, i) (RING_DESC(n) + 0x8000 + 0x400 * (i))

/* Write descriptor i of queue n. */
void ring_desc(struct gmem *m, unsigned n, unsigned i, uint64_t addr, uint32_t len, uint16_t flags,
	       uint16_t next);
/* Make the chain that starts at head available. */
void ring_offer(struct gmem *m, unsigned n, uint16_t head);
/* One descriptor i with the bytes (or, with RING_WRITE, room for len), offered. */
void ring_put(struct gmem *m, unsigned n, unsigned i, const void *bytes, uint32_t len,
	      uint16_t flags);
/* How many chains the device has returned; the i-th of them. */
uint16_t ring_used(const struct gmem *m, unsigned n);
void ring_used_elem(const struct gmem *m, unsigned n, unsigned i, uint32_t *id, uint32_t *len);
uint16_t ring_load16(const struct gmem *m, uint64_t gpa);
void ring_store16(struct gmem *m, uint64_t gpa, uint16_t v);

/* Register access, of the usual width; reads return what the device said. */
uint32_t ring_reg(struct virtio_dev *v, uint64_t off);
void ring_set(struct virtio_dev *v, uint64_t off, uint32_t val);
/* Tell the device where queue n is, RING_NUM long, and enable it. */
void ring_enable(struct virtio_dev *v, unsigned n);
/* Negotiate with these feature bits (beside VERSION_1), enable queues 0 to
 * queues-1, go to DRIVER_OK. */
void ring_start(struct virtio_dev *v, uint64_t features, unsigned queues);

#endif
