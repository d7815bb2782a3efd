/* SPDX-License-Identifier: MIT
 *
 * virtio_mmio.h - a virtio device behind a page of registers (Virtual I/O
 * Device specification 1.2, chapter 4.2; version 2, "modern", only).
 *
 * vCPU threads access the registers; the owner's thread works on queues. lock
 * covers st and whatever the device behind it keeps: the register functions
 * take it and call the device's functions with it held; others take it
 * themselves. So a guest that resets the device while the owner moves bytes
 * does so before or after, never during.
 */
#ifndef VMPOOL_VIRTIO_MMIO_H
#define VMPOOL_VIRTIO_MMIO_H

#include "kvm/virtio.h"
#include <pthread.h>

#define VIRTIO_QUEUES_MAX 6u
#define VIRTIO_MMIO_NOTIFY 0x50u /* offset of QueueNotify, for ioeventfds */

struct virtio_ops {
	uint32_t device_id;
	uint64_t features; /* beside VERSION_1 and EVENT_IDX */
	uint16_t queue_max[VIRTIO_QUEUES_MAX];
	const void *config; /* constant device configuration */
	size_t config_len;
	/* The driver notified a queue that has no ioeventfd. */
	void (*notify)(void *dev, unsigned queue);
	/* The driver reset the device: forget everything. */
	void (*reset)(void *dev);
};

/* The device as a template would keep it: plain data. */
struct virtio_state {
	uint64_t driver_features;
	uint32_t features_sel, driver_sel, queue_sel;
	uint32_t status, isr;
	struct virtq q[VIRTIO_QUEUES_MAX];
};

struct virtio_dev {
	uint32_t magic;
	const struct virtio_ops *ops;
	void *dev; /* for ops */
	struct gmem *mem;
	int irq_fd; /* irqfd, not owned; -1: none */
	pthread_mutex_t lock;
	struct virtio_state st;
	bool broken; /* the driver broke the rules; until it resets the device */
};

void virtio_init(struct virtio_dev *v, const struct virtio_ops *ops, void *dev, struct gmem *mem,
		 int irq_fd);
void virtio_fini(struct virtio_dev *v);

/* One access of len bytes at offset off of the page. Returns -EPROTO once the
 * driver has broken the rules, else 0. data always gets a value. */
int virtio_mmio_read(struct virtio_dev *v, uint64_t off, void *data, unsigned len) must_check;
int virtio_mmio_write(struct virtio_dev *v, uint64_t off, const void *data,
		      unsigned len) must_check;

/* For devices, lock held. Is the driver running and the queue usable? */
bool virtio_live(const struct virtio_dev *v, unsigned queue);
/* Interrupt for what was pushed to the queue, if the driver wants that. */
void virtio_signal(struct virtio_dev *v, unsigned queue);
/* Has the driver of a device in this state chosen event indices? */
bool virtio_has_event_idx(const struct virtio_state *st);
/* Could a driver have brought a device with these features into this status? */
bool virtio_status_ok(const struct virtio_ops *ops, const struct virtio_state *st);
/* The driver broke the rules: say so to it (DEVICE_NEEDS_RESET). Returns -EPROTO. */
int virtio_break(struct virtio_dev *v);

#endif
