/* SPDX-License-Identifier: MIT
 *
 * bus.h - what a vCPU's port and memory accesses reach: the serial port, the
 * power registers, the virtio device. Anything else reads as all ones and
 * swallows writes, as on a PC.
 */
#ifndef VMPOOL_BUS_H
#define VMPOOL_BUS_H

#include "kvm/serial.h"
#include "kvm/virtio_mmio.h"
#include "kvm/vm.h"

struct bus {
	struct serial *serial;
	struct virtio_dev *virtio;
};

/* One access of len bytes (1, 2, 4 or 8). data is read or written. Returns how
 * the machine ends by it, VM_END_NONE nearly always. Thread-safe. */
enum vm_end bus_port(const struct bus *b, uint16_t port, bool write, void *data, unsigned len);
enum vm_end bus_memory(const struct bus *b, uint64_t gpa, bool write, void *data, unsigned len);

#endif
