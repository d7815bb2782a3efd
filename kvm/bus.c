/* SPDX-License-Identifier: MIT
 *
 * bus.c - port and memory accesses to devices. See bus.h. Runs on vCPU threads.
 */
#include "kvm/bus.h"
#include "kvm/map.h"
#include <string.h>

#define SLEEP_ENABLE 0x20u /* SLP_EN of the sleep control register */
#define SLEEP_TYPE_SHIFT 2
#define SLEEP_TYPE_MASK 7u

static void
serial_access(struct serial *s, unsigned reg, bool write, uint8_t *data, unsigned len)
{
	/* A wide access is one to each register in turn, as on an 8-bit bus. */
	for (unsigned i = 0; i < len && reg + i < MAP_COM1_LEN; i++) {
		if (write)
			serial_write(s, reg + i, data[i]);
		else
			data[i] = serial_read(s, reg + i);
	}
}

static enum vm_end
power_write(uint16_t port, uint8_t v)
{
	if (port == MAP_RESET && v == MAP_RESET_VALUE)
		return VM_END_REBOOT;
	if (port == MAP_I8042_COMMAND && v == MAP_I8042_PULSE_RESET)
		return VM_END_REBOOT;
	if (port == MAP_SLEEP_CONTROL && (v & SLEEP_ENABLE) != 0 &&
	    (v >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK) == MAP_SLEEP_S5)
		return VM_END_SHUTDOWN;
	return VM_END_NONE;
}

enum vm_end
bus_port(const struct bus *b, uint16_t port, bool write, void *data, unsigned len)
{
	uint8_t *p = data;

	if (!write)
		memset(data, 0xff, len);
	if (port >= MAP_COM1 && port < MAP_COM1 + MAP_COM1_LEN) {
		serial_access(b->serial, port - MAP_COM1, write, p, len);
		return VM_END_NONE;
	}
	if (write)
		return power_write(port, p[0]);
	if (port == MAP_SLEEP_CONTROL || port == MAP_SLEEP_STATUS)
		memset(data, 0, len);
	return VM_END_NONE;
}

enum vm_end
bus_memory(const struct bus *b, uint64_t gpa, bool write, void *data, unsigned len)
{
	uint64_t off = gpa - MAP_VIRTIO;
	int r;

	if (off >= MAP_VIRTIO_STRIDE || len > MAP_VIRTIO_STRIDE - off) {
		if (!write)
			memset(data, 0xff, len);
		return VM_END_NONE;
	}
	if (write)
		r = virtio_mmio_write(b->virtio, off, data, len);
	else
		r = virtio_mmio_read(b->virtio, off, data, len);
	return r < 0 ? VM_END_DEVICE : VM_END_NONE;
}
