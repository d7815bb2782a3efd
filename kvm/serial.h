/* SPDX-License-Identifier: MIT
 *
 * serial.h - COM1, a 16550A without input, and the console log behind it.
 *
 * Registers are accessed by vCPU threads, the log is read by the owner's
 * thread; a mutex inside makes both safe. The device state is a plain struct.
 */
#ifndef VMPOOL_SERIAL_H
#define VMPOOL_SERIAL_H

#include "kvm/vm.h"
#include "shm/base.h"
#include <pthread.h>

struct serial_state {
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo;    /* FIFOs enabled */
	bool thr_irq; /* "transmitter empty" is pending */
};

struct serial {
	uint32_t magic;
	int irq_fd; /* irqfd of GSI MAP_GSI_COM1, not owned; -1: none */
	pthread_mutex_t lock;
	struct serial_state st;
	uint64_t total; /* bytes ever written; the newest are in log */
	char log[VM_CONSOLE_MAX];
};

void serial_init(struct serial *s, int irq_fd);
void serial_fini(struct serial *s);

/* One access to register reg, 0 to 7. */
uint8_t serial_read(struct serial *s, unsigned reg);
void serial_write(struct serial *s, unsigned reg, uint8_t v);

/* vm_console_tail of vm.h. */
size_t serial_tail(struct serial *s, char *buf, size_t len);
/* Does the log hold this text? */
bool serial_contains(struct serial *s, const char *text);

#endif
