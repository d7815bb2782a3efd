/* SPDX-License-Identifier: MIT
 *
 * test_kvm_console.c - the guest channel's device: the conversation on its
 * control queues, bytes both ways, and drivers that talk nonsense, break their
 * queues or reset the device in between.
 */
#include "kvm/proto.h"
#include "kvm/virtio_console.h"
#include "tests/lib/kvm_ring.h"
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#define CTRL_RX 2u
#define CTRL_TX 3u
#define RX VCON_QUEUE_RX
#define TX VCON_QUEUE_TX
#define QUEUES 6u
#define MULTIPORT (1ull << VIRTIO_CONSOLE_F_MULTIPORT)

struct fixture {
	struct gmem m;
	struct vcon c;
	int irq, kick;
};

static int
setup(void **state)
{
	static struct fixture f;

	*state = &f;
	f.irq = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	f.kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (gmem_init(&f.m, RING_MEM, -1) < 0)
		return -1;
	vcon_init(&f.c, &f.m, f.irq, f.kick);
	ring_start(&f.c.virtio, MULTIPORT, QUEUES);
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	vcon_fini(&f->c);
	gmem_fini(&f->m);
	(void)close(f->kick);
	return close(f->irq);
}

static bool
raised(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n);
}

static void
notify(struct fixture *f, unsigned queue)
{
	ring_set(&f->c.virtio, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

/* The guest says something; descriptor i of the control queue carries it. */
static void
say(struct fixture *f, unsigned i, uint32_t id, uint16_t event, uint16_t value)
{
	const struct virtio_console_control m = {.id = id, .event = event, .value = value};

	ring_put(&f->m, CTRL_TX, i, &m, sizeof(m), 0);
	notify(f, CTRL_TX);
}

static void
give_control_buffers(struct fixture *f, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		ring_put(&f->m, CTRL_RX, i, NULL, 64, RING_WRITE);
	notify(f, CTRL_RX);
}

/* What the host said in its i-th message: the event, and what follows it. */
static uint16_t
heard(struct fixture *f, unsigned i, char *text, size_t len)
{
	struct virtio_console_control m;
	uint32_t id, n;

	ring_used_elem(&f->m, CTRL_RX, i, &id, &n);
	assert_in_range(n, sizeof(m), sizeof(m) + len - 1);
	AZ(gmem_read(&f->m, RING_BUF(CTRL_RX, id), &m, sizeof(m)));
	AZ(gmem_read(&f->m, RING_BUF(CTRL_RX, id) + sizeof(m), text, n - sizeof(m)));
	text[n - sizeof(m)] = '\0';
	assert_int_equal(m.id, 1);
	assert_int_equal(m.value, 1);
	return m.event;
}

static void
open_port(struct fixture *f)
{
	give_control_buffers(f, 0, 4);
	say(f, 0, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	say(f, 1, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	say(f, 2, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

static void
conversation(void **state)
{
	struct fixture *f = *state;
	char text[64];

	give_control_buffers(f, 0, 4);
	assert_int_equal(ring_used(&f->m, CTRL_RX), 0);
	say(f, 0, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_int_equal(ring_used(&f->m, CTRL_TX), 1);
	assert_int_equal(ring_used(&f->m, CTRL_RX), 1);
	assert_int_equal(heard(f, 0, text, sizeof(text)), VIRTIO_CONSOLE_PORT_ADD);
	assert_true(raised(f->irq));
	say(f, 1, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_int_equal(ring_used(&f->m, CTRL_RX), 3);
	assert_int_equal(heard(f, 1, text, sizeof(text)), VIRTIO_CONSOLE_PORT_NAME);
	assert_string_equal(text, PROTO_PORT_NAME);
	assert_int_equal(heard(f, 2, text, sizeof(text)), VIRTIO_CONSOLE_PORT_OPEN);
	assert_false(raised(f->kick));
	say(f, 2, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	assert_true(raised(f->kick));
	assert_true(f->c.st.guest_open);
	say(f, 3, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	assert_true(raised(f->kick));
	assert_false(f->c.st.guest_open);
}

/* Messages wait for the guest to have room for them. */
static void
no_room_for_messages(void **state)
{
	struct fixture *f = *state;
	char text[64];

	say(f, 0, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	say(f, 1, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_int_equal(ring_used(&f->m, CTRL_RX), 0);
	give_control_buffers(f, 0, 1);
	assert_int_equal(ring_used(&f->m, CTRL_RX), 1);
	give_control_buffers(f, 1, 4);
	assert_int_equal(ring_used(&f->m, CTRL_RX), 3);
	assert_int_equal(heard(f, 2, text, sizeof(text)), VIRTIO_CONSOLE_PORT_OPEN);
	assert_false(f->c.virtio.broken);
}

/* Every id, event and value there is some of, short and long messages: nothing
 * breaks, nothing is opened that is not port 1, and little is answered. */
static void
garbage(void **state)
{
	struct fixture *f = *state;
	static const uint32_t ids[] = {0, 2, 31, 0x7fffffff, 0xffffffff};
	unsigned n = 0;
	uint8_t junk[200];

	give_control_buffers(f, 0, RING_NUM);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		for (uint32_t event = 1; event < 12; event++)
			for (uint32_t value = 0; value < 3; value++)
				say(f, n++ % RING_NUM, ids[i], (uint16_t)event, (uint16_t)value);
	for (uint32_t len = 1; len < sizeof(junk); len += 3) {
		memset(junk, (int)len, sizeof(junk));
		ring_put(&f->m, CTRL_TX, n++ % RING_NUM, junk, len, 0);
		notify(f, CTRL_TX);
	}
	assert_int_equal(ring_used(&f->m, CTRL_TX), n);
	assert_int_equal(ring_used(&f->m, CTRL_RX), 0);
	/* a byte short of opening the port */
	memcpy(junk, "\1\0\0\0\6\0\1", 7);
	ring_put(&f->m, CTRL_TX, n++ % RING_NUM, junk, 7, 0);
	notify(f, CTRL_TX);
	assert_false(f->c.st.guest_open);
	assert_false(f->c.virtio.broken);
	for (unsigned i = 0; i < 1000; i++) /* repetition gets one answer at a time */
		say(f, n++ % RING_NUM, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_int_equal(ring_used(&f->m, CTRL_RX), RING_NUM);
}

static void
control_buffer_too_small(void **state)
{
	struct fixture *f = *state;

	ring_put(&f->m, CTRL_RX, 0, NULL, 7, RING_WRITE);
	say(f, 0, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_true(f->c.virtio.broken);
}

static void
bytes_from_guest(void **state)
{
	struct fixture *f = *state;
	char buf[64] = "";

	open_port(f);
	assert_int_equal(vcon_recv(&f->c, buf, sizeof(buf)), 0);
	ring_put(&f->m, TX, 0, "hello ", 6, 0);
	ring_put(&f->m, TX, 1, "world", 5, 0);
	assert_int_equal(vcon_recv(&f->c, buf, 3), 3); /* in pieces across chains */
	assert_int_equal(ring_used(&f->m, TX), 0);
	assert_int_equal(vcon_recv(&f->c, buf + 3, 5), 5);
	assert_int_equal(ring_used(&f->m, TX), 1);
	assert_int_equal(vcon_recv(&f->c, buf + 8, sizeof(buf) - 8), 3);
	assert_string_equal(buf, "hello world");
	assert_int_equal(ring_used(&f->m, TX), 2);
	assert_true(raised(f->irq));
}

static void
bytes_to_guest(void **state)
{
	struct fixture *f = *state;
	char buf[16] = "";
	uint32_t id, len;

	assert_int_equal(vcon_send(&f->c, "x", 1), 0);
	ring_put(&f->m, RX, 0, NULL, 4, RING_WRITE);
	assert_int_equal(vcon_send(&f->c, "x", 1), 0); /* nobody has the port open */
	open_port(f);
	(void)raised(f->kick);
	ring_put(&f->m, RX, 1, NULL, 100, RING_WRITE);
	assert_int_equal(vcon_send(&f->c, "0123456789", 10), 10);
	assert_int_equal(ring_used(&f->m, RX), 2);
	ring_used_elem(&f->m, RX, 0, &id, &len);
	assert_int_equal(len, 4);
	ring_used_elem(&f->m, RX, 1, &id, &len);
	assert_int_equal(len, 6);
	AZ(gmem_read(&f->m, RING_BUF(RX, 1), buf, 6));
	assert_string_equal(buf, "456789");
	assert_int_equal(vcon_send(&f->c, "x", 1), 0); /* no buffers left */
	assert_false(raised(f->kick));
}

static void
broken_data_queues(void **state)
{
	struct fixture *f = *state;
	char buf[16];

	open_port(f);
	ring_desc(&f->m, TX, 0, RING_MEM, 5, 0, 0);
	ring_offer(&f->m, TX, 0);
	assert_int_equal(vcon_recv(&f->c, buf, sizeof(buf)), -EPROTO);
	assert_int_equal(vcon_recv(&f->c, buf, sizeof(buf)), -EPROTO);
	assert_int_equal(vcon_send(&f->c, "x", 1), -EPROTO);
	assert_true((ring_reg(&f->c.virtio, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) !=
		    0);
}

static void
broken_receive_queue(void **state)
{
	struct fixture *f = *state;

	open_port(f);
	ring_put(&f->m, RX, 0, NULL, 5, 0); /* not writable */
	assert_int_equal(vcon_send(&f->c, "x", 1), -EPROTO);
}

/* A reset in the middle of a chain: its rest must not be read from the queue
 * that the driver sets up next. */
static void
reset_in_between(void **state)
{
	struct fixture *f = *state;
	char buf[16] = "";

	open_port(f);
	ring_put(&f->m, TX, 0, "old bytes", 9, 0);
	assert_int_equal(vcon_recv(&f->c, buf, 3), 3);
	ring_set(&f->c.virtio, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(vcon_recv(&f->c, buf, sizeof(buf)), 0);
	assert_int_equal(vcon_send(&f->c, "x", 1), 0);
	for (unsigned q = 0; q < QUEUES; q++) {
		ring_store16(&f->m, RING_AVAIL(q) + 2, 0);
		ring_store16(&f->m, RING_USED(q) + 2, 0);
	}
	ring_start(&f->c.virtio, MULTIPORT, QUEUES);
	assert_false(f->c.st.guest_open);
	open_port(f);
	ring_put(&f->m, TX, 0, "new", 3, 0);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(vcon_recv(&f->c, buf, sizeof(buf)), 3);
	assert_string_equal(buf, "new");
}

/* A driver whose available index comes and goes cannot keep the owner inside
 * a call. */
static void *
flicker(void *arg)
{
	struct fixture *f = arg;
	uint16_t idx = ring_load16(&f->m, RING_AVAIL(TX) + 2);

	for (unsigned i = 0; i < 300000; i++)
		ring_store16(&f->m, RING_AVAIL(TX) + 2, (uint16_t)(idx + (i & 1)));
	return NULL;
}

static void
flickering_index(void **state)
{
	struct fixture *f = *state;
	unsigned calls = 0;
	pthread_t t;
	char buf[64];
	ssize_t n;

	open_port(f);
	ring_desc(&f->m, TX, 0, RING_BUF(TX, 0), 1, 0, 0);
	AZ(pthread_create(&t, NULL, flicker, f));
	while (pthread_tryjoin_np(t, NULL) != 0) {
		n = vcon_recv(&f->c, buf, 1);
		assert_true(n == 0 || n == 1 || n == -EPROTO);
		calls++;
	}
	print_message("# %u calls\n", calls);
}

/* The guest resets and restarts the device from its vCPU while the owner moves
 * bytes: every call returns, nothing outside the buffers is touched. */
static void *
resetting(void *arg)
{
	struct fixture *f = arg;

	for (unsigned i = 0; i < 2000; i++) {
		ring_set(&f->c.virtio, VIRTIO_MMIO_STATUS, 0);
		for (unsigned q = 0; q < QUEUES; q++)
			ring_store16(&f->m, RING_AVAIL(q) + 2, 0);
		ring_start(&f->c.virtio, MULTIPORT, QUEUES);
		open_port(f);
		ring_put(&f->m, TX, 0, "abc", 3, 0);
		ring_put(&f->m, RX, 0, NULL, 3, RING_WRITE);
	}
	return NULL;
}

static void
concurrent_reset(void **state)
{
	struct fixture *f = *state;
	unsigned got = 0;
	pthread_t t;

	AZ(pthread_create(&t, NULL, resetting, f));
	while (pthread_tryjoin_np(t, NULL) != 0) {
		char buf[3] = "";
		ssize_t n = vcon_recv(&f->c, buf, 2);

		assert_true(n == -EPROTO || (n >= 0 && n <= 2));
		got += n > 0;
		n = vcon_send(&f->c, "abcdef", 6);
		assert_true(n == -EPROTO || (n >= 0 && n <= 3));
		assert_int_equal(buf[2], 0);
	}
	print_message("# %u pieces received\n", got);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(conversation),
	    T(no_room_for_messages),
	    T(garbage),
	    T(control_buffer_too_small),
	    T(bytes_from_guest),
	    T(bytes_to_guest),
	    T(broken_data_queues),
	    T(broken_receive_queue),
	    T(reset_in_between),
	    T(flickering_index),
	    T(concurrent_reset),
	};

	return cmocka_run_group_tests_name("kvm console", tests, NULL, NULL);
}
