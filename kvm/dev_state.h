/* SPDX-License-Identifier: MIT
 *
 * dev_state.h - the state of our own devices, as a value: the serial port with
 * the console log, the virtio device, the guest channel's port.
 *
 * A state may come from a file that somebody else has written. What is decoded
 * is therefore checked as strictly as what a driver writes into registers.
 */
#ifndef VMPOOL_DEV_STATE_H
#define VMPOOL_DEV_STATE_H

#include "kvm/blob.h"
#include "kvm/serial.h"
#include "kvm/virtio_console.h"

struct dev_state {
	struct serial_state serial;
	uint64_t log_total; /* bytes ever written to the console */
	uint32_t log_len;   /* the newest of them, in log */
	char log[VM_CONSOLE_MAX];
	struct virtio_state virtio;
	bool broken;
	struct vcon_state vcon;
};

/* Copy out of the devices, and into them; the vCPUs stand still. */
void dev_state_get(struct dev_state *s, struct serial *serial, struct vcon *vcon);
void dev_state_set(const struct dev_state *s, struct serial *serial, struct vcon *vcon);

/* A section each for the serial port and the channel. 0, or -EINVAL with err.
 * mem_size: of the machine that shall have the state. */
void dev_state_encode_serial(const struct dev_state *s, struct blob *b);
void dev_state_encode_vcon(const struct dev_state *s, struct blob *b);
int dev_state_decode_serial(struct dev_state *s, struct view content, char *err,
			    size_t errlen) must_check;
int dev_state_decode_vcon(struct dev_state *s, struct view content, uint64_t mem_size, char *err,
			  size_t errlen) must_check;

#endif
