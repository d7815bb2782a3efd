/* SPDX-License-Identifier: MIT
 *
 * test_kvm_serial.c - the serial port: what drivers look for in it, its
 * interrupt, and that its log stays in its bounds.
 */
#include "kvm/serial.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

enum { THR, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static struct serial s;
static int irq;

static int
setup(void **state)
{
	(void)state;
	irq = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	serial_init(&s, irq);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	serial_fini(&s);
	return close(irq);
}

static uint64_t
interrupts(void)
{
	uint64_t n;

	return read(irq, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void
type(const char *text, size_t n)
{
	while (n-- > 0)
		serial_write(&s, THR, (uint8_t)*text++);
}

static void
tail(void **state)
{
	char buf[64];

	(void)state;
	assert_int_equal(serial_tail(&s, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "");
	type("ab\r\n\tc\033\x80\0d", 10);
	assert_int_equal(serial_tail(&s, buf, sizeof(buf)), 9);
	assert_string_equal(buf, "ab\n\tc???d");
	assert_int_equal(serial_tail(&s, buf, 3), 2);
	assert_string_equal(buf, "?d");
	assert_int_equal(serial_tail(&s, buf, 1), 0);
	assert_string_equal(buf, "");
	assert_int_equal(serial_tail(&s, buf, 0), 0);
}

/* More than it keeps: the newest stays, in order, whatever the amount. */
static void
log_is_bounded(void **state)
{
	static char buf[VM_CONSOLE_MAX + 100];
	size_t n;

	(void)state;
	for (unsigned i = 0; i < 3 * VM_CONSOLE_MAX + 7; i++)
		serial_write(&s, THR, (uint8_t)('a' + i % 26));
	memset(buf, '!', sizeof(buf));
	n = serial_tail(&s, buf, sizeof(buf));
	assert_int_equal(n, VM_CONSOLE_MAX);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(buf[n - 1 - i], 'a' + (3 * VM_CONSOLE_MAX + 7 - 1 - i) % 26);
	assert_int_equal(buf[n], '\0');
	assert_int_equal(buf[n + 1], '!');
}

static void
contains(void **state)
{
	(void)state;
	type("xxKernel panic - not syncing: x", 31);
	assert_true(serial_contains(&s, "Kernel panic - not syncing"));
	assert_false(serial_contains(&s, "panic!"));
	for (unsigned i = 0; i < VM_CONSOLE_MAX; i++)
		serial_write(&s, THR, ' ');
	assert_false(serial_contains(&s, "Kernel panic - not syncing")); /* gone by */
}

/* What Linux' 8250 driver does to find out what chip this is. */
static void
detection(void **state)
{
	(void)state;
	serial_write(&s, IER, 0x0f);
	assert_int_equal(serial_read(&s, IER), 0x0f);
	serial_write(&s, IER, 0);
	assert_int_equal(serial_read(&s, IER), 0);
	serial_write(&s, MCR, 0x1a); /* loop back, RTS and OUT2 */
	assert_int_equal(serial_read(&s, MSR) & 0xf0, 0x90);
	serial_write(&s, THR, 'x'); /* goes nowhere */
	serial_write(&s, MCR, 0x0b);
	assert_int_equal(serial_read(&s, MSR) & 0xf0, 0xb0);
	assert_int_equal(s.total, 0);
	assert_int_equal(serial_read(&s, IIR) & 0xc0, 0);
	serial_write(&s, IIR, 0x01);
	assert_int_equal(serial_read(&s, IIR) & 0xc0, 0xc0); /* 16550A */
	serial_write(&s, SCR, 0x5a);
	assert_int_equal(serial_read(&s, SCR), 0x5a);
	serial_write(&s, LCR, 0x80);
	serial_write(&s, THR, 12);
	serial_write(&s, IER, 34);
	assert_int_equal(serial_read(&s, THR), 12);
	assert_int_equal(serial_read(&s, IER), 34);
	serial_write(&s, LCR, 0x03);
	assert_int_equal(serial_read(&s, IER), 0);
	assert_int_equal(s.total, 0); /* the divisor was not output */
	assert_int_equal(serial_read(&s, LSR), 0x60);
}

static void
transmit_interrupt(void **state)
{
	(void)state;
	type("a", 1);
	assert_int_equal(interrupts(), 0); /* not enabled */
	serial_write(&s, IER, 0x02);
	assert_int_equal(interrupts(), 1); /* empty now */
	assert_int_equal(serial_read(&s, IIR) & 0x0f, 0x02);
	assert_int_equal(serial_read(&s, IIR) & 0x0f, 0x01); /* read: acknowledged */
	type("0123456789abcdef", 16);
	assert_int_equal(interrupts(), 1); /* one edge for the lot */
	assert_int_equal(serial_read(&s, IIR) & 0x0f, 0x02);
	serial_write(&s, IER, 0);
	type("a", 1);
	assert_int_equal(interrupts(), 0);
	assert_int_equal(serial_read(&s, IIR) & 0x0f, 0x01);
	serial_write(&s, IER, 0x02); /* enabled anew: told anew */
	assert_int_equal(interrupts(), 1);
}

static void
unknown_registers(void **state)
{
	(void)state;
	for (unsigned reg = 8; reg < 300; reg++) {
		serial_write(&s, reg, 0xff);
		assert_int_equal(serial_read(&s, reg), 0);
	}
	assert_int_equal(s.total, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(tail),	  T(log_is_bounded),	 T(contains),
	    T(detection), T(transmit_interrupt), T(unknown_registers),
	};

	return cmocka_run_group_tests_name("kvm serial", tests, NULL, NULL);
}
