/* SPDX-License-Identifier: MIT
 *
 * serial.c - the serial port and the console log. See serial.h. Runs on vCPU
 * threads and the owner's; owns the log. Registers as in the PC16550D data
 * sheet; the transmitter is infinitely fast, nothing is ever received.
 */
#include "kvm/serial.h"
#include "kvm/event.h"
#include <string.h>

#define SERIAL_MAGIC 0x5e51a101u

enum { RBR_THR_DLL, IER_DLM, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

#define IER_MASK 0x0fu
#define IER_THRI 0x02u
#define IIR_NONE 0x01u
#define IIR_THRI 0x02u
#define IIR_FIFO 0xc0u
#define FCR_ENABLE 0x01u
#define LCR_DLAB 0x80u
#define MCR_MASK 0x1fu
#define MCR_LOOP 0x10u
#define LSR_IDLE 0x60u	/* transmitter and its holding register empty */
#define MSR_READY 0xb0u /* carrier, data set ready, clear to send */

void
serial_init(struct serial *s, int irq_fd)
{
	*s = (struct serial){.magic = SERIAL_MAGIC, .irq_fd = irq_fd};
	AZ(pthread_mutex_init(&s->lock, NULL));
}

void
serial_fini(struct serial *s)
{
	CHECK_OBJ(s, SERIAL_MAGIC);
	AZ(pthread_mutex_destroy(&s->lock));
	s->magic = 0;
}

/* The holding register is empty (again): tell the guest if it wants to know.
 * The line is an edge, so only the change from "not pending" counts. */
static void
thr_empty(struct serial *s)
{
	if (s->st.thr_irq)
		return;
	s->st.thr_irq = true;
	if ((s->st.ier & IER_THRI) != 0)
		event_raise(s->irq_fd);
}

static uint8_t
read_iir(struct serial_state *st)
{
	uint8_t fifo = st->fifo ? IIR_FIFO : 0;

	if (!st->thr_irq || (st->ier & IER_THRI) == 0)
		return IIR_NONE | fifo;
	st->thr_irq = false; /* reading it acknowledges it */
	return IIR_THRI | fifo;
}

/* In loop-back mode, by which drivers recognise the chip, the modem inputs show
 * the modem outputs: DTR, RTS, OUT1, OUT2 as DSR, CTS, RI, DCD. */
static uint8_t
read_msr(const struct serial_state *st)
{
	uint8_t m = st->mcr;

	if ((m & MCR_LOOP) == 0)
		return MSR_READY;
	return (uint8_t)((m & 0x0c) << 4 | (m & 0x02) << 3 | (m & 0x01) << 5);
}

uint8_t
serial_read(struct serial *s, unsigned reg)
{
	struct serial_state *st = &s->st;
	uint8_t v = 0;

	CHECK_OBJ(s, SERIAL_MAGIC);
	AZ(pthread_mutex_lock(&s->lock));
	switch (reg) {
	case RBR_THR_DLL: v = (st->lcr & LCR_DLAB) != 0 ? st->dll : 0; break;
	case IER_DLM: v = (st->lcr & LCR_DLAB) != 0 ? st->dlm : st->ier; break;
	case IIR_FCR: v = read_iir(st); break;
	case LCR: v = st->lcr; break;
	case MCR: v = st->mcr; break;
	case LSR: v = LSR_IDLE; break;
	case MSR: v = read_msr(st); break;
	case SCR: v = st->scr; break;
	default: break;
	}
	AZ(pthread_mutex_unlock(&s->lock));
	return v;
}

static void
write_thr(struct serial *s, uint8_t v)
{
	if ((s->st.mcr & MCR_LOOP) == 0)
		s->log[s->total++ % sizeof(s->log)] = (char)v;
	thr_empty(s);
}

/* Enabling the interrupt while the register is empty raises it at once. */
static void
write_ier(struct serial *s, uint8_t v)
{
	bool on = (v & IER_THRI) != 0 && (s->st.ier & IER_THRI) == 0;

	s->st.ier = v & IER_MASK;
	if (on) {
		s->st.thr_irq = false;
		thr_empty(s);
	}
}

void
serial_write(struct serial *s, unsigned reg, uint8_t v)
{
	struct serial_state *st = &s->st;
	bool dlab;

	CHECK_OBJ(s, SERIAL_MAGIC);
	AZ(pthread_mutex_lock(&s->lock));
	dlab = (st->lcr & LCR_DLAB) != 0;
	switch (reg) {
	case RBR_THR_DLL:
		if (dlab)
			st->dll = v;
		else
			write_thr(s, v);
		break;
	case IER_DLM:
		if (dlab)
			st->dlm = v;
		else
			write_ier(s, v);
		break;
	case IIR_FCR: st->fifo = (v & FCR_ENABLE) != 0; break;
	case LCR: st->lcr = v; break;
	case MCR: st->mcr = v & MCR_MASK; break;
	case SCR: st->scr = v; break;
	default: break;
	}
	AZ(pthread_mutex_unlock(&s->lock));
}

static char
printable(char c)
{
	return c == '\n' || c == '\t' || (c >= ' ' && c <= '~') ? c : '?';
}

size_t
serial_tail(struct serial *s, char *buf, size_t len)
{
	uint64_t have, at;
	size_t n = 0;

	CHECK_OBJ(s, SERIAL_MAGIC);
	if (len == 0)
		return 0;
	AZ(pthread_mutex_lock(&s->lock));
	have = MIN(s->total, MIN(sizeof(s->log), len - 1));
	for (at = s->total - have; at < s->total; at++)
		if (s->log[at % sizeof(s->log)] != '\r')
			buf[n++] = printable(s->log[at % sizeof(s->log)]);
	AZ(pthread_mutex_unlock(&s->lock));
	buf[n] = '\0';
	return n;
}

bool
serial_contains(struct serial *s, const char *text)
{
	_cleanup_(freep) char *log = malloc(VM_CONSOLE_MAX + 1);

	if (log == NULL)
		return false;
	(void)serial_tail(s, log, VM_CONSOLE_MAX + 1);
	return strstr(log, text) != NULL;
}
