/* SPDX-License-Identifier: MIT
 *
 * virtio_console.h - a virtio console with one named port: the guest channel
 * (Virtual I/O Device specification 1.2, chapter 5.3).
 *
 * The guest sees /dev/vport0p1, called PROTO_PORT_NAME, exactly as with QEMU's
 * "-device virtio-serial-device -device virtserialport,nr=1,name=...". Port 0,
 * the hypervisor console, exists in the queue numbering only.
 *
 * The control queues are served on the vCPU thread that notifies them, the
 * port's queues on the owner's thread by vcon_recv and vcon_send.
 */
#ifndef VMPOOL_VIRTIO_CONSOLE_H
#define VMPOOL_VIRTIO_CONSOLE_H

#include "kvm/virtio_mmio.h"

/* Queues whose notifications should go to the owner: receive and transmit
 * (from the guest's point of view) of port 1. */
#define VCON_QUEUE_RX 4u
#define VCON_QUEUE_TX 5u

struct vcon_state {
	bool tell_add, tell_name, tell_open; /* messages the guest has no buffer for yet */
	bool guest_open;		     /* somebody in the guest has opened the port */
	struct virtq_chain tx;		     /* partly received chain */
};

struct vcon {
	uint32_t magic;
	int kick_fd; /* written when the port opens or closes; not owned; -1: none */
	struct virtio_dev virtio;
	struct vcon_state st;
	unsigned tx_used; /* chains given back since the guest was told */
};

void vcon_init(struct vcon *c, struct gmem *mem, int irq_fd, int kick_fd);
void vcon_fini(struct vcon *c);

/* For a state that is about to be loaded: how long queue i may be; are status and
 * features ones that this device can be in? */
uint16_t vcon_queue_max(unsigned i);
bool vcon_features_ok(const struct virtio_state *st);

/* vm_chan_recv and vm_chan_send of vm.h. */
ssize_t vcon_recv(struct vcon *c, void *buf, size_t len) must_check;
ssize_t vcon_send(struct vcon *c, const void *buf, size_t len) must_check;

#endif
