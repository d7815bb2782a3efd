/* SPDX-License-Identifier: MIT
 *
 * test_kvm_virtio_mmio.c - the register page: what a driver reads, in which
 * order it may write, and that odd accesses do no harm.
 */
#include "tests/lib/kvm_ring.h"
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#define MAGIC 0x74726976u
#define EVENT_IDX (1ull << VIRTIO_RING_F_EVENT_IDX)
#define S_OK (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)

struct fixture {
	struct gmem m;
	struct virtio_dev v;
	int irq;
	unsigned notified[VIRTIO_QUEUES_MAX], resets;
};

static void
on_notify(void *dev, unsigned queue)
{
	((struct fixture *)dev)->notified[queue]++;
}

static void
on_reset(void *dev)
{
	((struct fixture *)dev)->resets++;
}

static const uint8_t config[6] = {1, 2, 3, 4, 5, 6};
static const struct virtio_ops ops = {
    .device_id = 42,
    .features = 1,
    .queue_max = {8, 8},
    .config = config,
    .config_len = sizeof(config),
    .notify = on_notify,
    .reset = on_reset,
};

static int
setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	*state = &f;
	f.irq = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	virtio_init(&f.v, &ops, &f, &f.m, f.irq);
	return gmem_init(&f.m, RING_MEM, -1);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	virtio_fini(&f->v);
	gmem_fini(&f->m);
	return close(f->irq);
}

static bool
interrupted(struct fixture *f)
{
	uint64_t n;

	return read(f->irq, &n, sizeof(n)) == sizeof(n);
}

static void
identity(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_MAGIC_VALUE), MAGIC);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_DEVICE_ID), 42);
	ring_set(&f->v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_DEVICE_FEATURES), 1 | EVENT_IDX);
	ring_set(&f->v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_DEVICE_FEATURES), 1); /* VERSION_1 */
	ring_set(&f->v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0xffffffff);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_DEVICE_FEATURES), 0);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_CONFIG_GENERATION), 0);
}

/* Every offset of the page, every width, aligned or not: reads stay inside the
 * answer, writes change nothing that matters. */
static void
odd_accesses(void **state)
{
	struct fixture *f = *state;
	uint8_t data[16];

	for (uint64_t off = 0; off <= 0x1000; off++) {
		for (unsigned len = 1; len <= 8; len++) {
			memset(data, 0xa5, sizeof(data));
			assert_int_equal(virtio_mmio_read(&f->v, off, data, len), 0);
			for (unsigned i = len; i < sizeof(data); i++)
				assert_int_equal(data[i], 0xa5);
			if (len == 4 && off % 4 == 0)
				continue;
			memset(data, 0xff, sizeof(data));
			assert_int_equal(virtio_mmio_write(&f->v, off, data, len), 0);
		}
	}
	assert_int_equal(f->v.st.status, 0);
	assert_int_equal(f->v.st.queue_sel, 0);
	assert_int_equal(f->resets, 0);
	memset(data, 0xa5, sizeof(data));
	assert_int_equal(virtio_mmio_read(&f->v, 0, data, 2), 0);
	assert_int_equal(data[0], 0); /* registers are 32 bits wide, or nothing */
}

static void
configuration(void **state)
{
	struct fixture *f = *state;
	uint8_t d[8];

	assert_int_equal(virtio_mmio_read(&f->v, 0x100, d, 4), 0);
	assert_memory_equal(d, config, 4);
	assert_int_equal(virtio_mmio_read(&f->v, 0x105, d, 1), 0);
	assert_int_equal(d[0], 6);
	assert_int_equal(virtio_mmio_read(&f->v, 0x103, d, 4), 0); /* reaches over the end */
	assert_int_equal(d[0], 0);
	assert_int_equal(virtio_mmio_read(&f->v, 0xfff, d, 8), 0);
	assert_int_equal(d[0], 0);
	assert_int_equal(virtio_mmio_write(&f->v, 0x100, "XXXX", 4), 0);
	assert_int_equal(virtio_mmio_read(&f->v, 0x100, d, 4), 0);
	assert_int_equal(d[0], 1);
}

static void
negotiation(void **state)
{
	struct fixture *f = *state;
	static const struct {
		uint32_t low, high;
		bool ok;
	} rows[] = {
	    {0, 1, true},	  {1, 1, true}, {1 | EVENT_IDX, 1, true},
	    {0, 0, false},	  /* not a modern driver */
	    {2, 1, false},	  /* not offered */
	    {1, 3, false},	  /* not offered */
	    {1u << 28, 1, false}, /* indirect descriptors are not offered */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		print_message("# row %zu\n", i);
		ring_set(&f->v, VIRTIO_MMIO_STATUS, 0);
		ring_set(&f->v, VIRTIO_MMIO_STATUS, S_OK);
		ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
		ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES, rows[i].low);
		ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
		ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES, rows[i].high);
		ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 7);
		ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES, 0xffffffff);
		ring_set(&f->v, VIRTIO_MMIO_STATUS, S_OK | VIRTIO_CONFIG_S_FEATURES_OK);
		assert_int_equal(
		    (ring_reg(&f->v, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK) != 0,
		    rows[i].ok);
		ring_set(&f->v, VIRTIO_MMIO_STATUS,
			 S_OK | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
		assert_int_equal(
		    (ring_reg(&f->v, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK) != 0,
		    rows[i].ok);
	}
	ring_start(&f->v, 0, 2);
	ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	ring_set(&f->v, VIRTIO_MMIO_DRIVER_FEATURES, 1); /* too late */
	assert_int_equal(f->v.st.driver_features, 1ull << 32);
}

static void
queues(void **state)
{
	struct fixture *f = *state;

	ring_start(&f->v, 0, 2);
	assert_true(virtio_live(&f->v, 0));
	assert_false(f->v.broken);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_QUEUE_READY), 1);
	/* a live queue keeps its place and size */
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NUM, 4);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_USED_HIGH, 1);
	assert_int_equal(f->v.st.q[1].num, RING_NUM);
	assert_int_equal(f->v.st.q[1].desc, RING_DESC(1));
	assert_int_equal(f->v.st.q[1].used, RING_USED(1));
	/* queues that do not exist */
	for (uint32_t sel = 2; sel < 70000; sel = sel * 3 + 1) {
		ring_set(&f->v, VIRTIO_MMIO_QUEUE_SEL, sel);
		assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		ring_set(&f->v, VIRTIO_MMIO_QUEUE_READY, 1);
		assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_QUEUE_READY), 0);
	}
	assert_false(f->v.broken);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NOTIFY, 2);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NOTIFY, 0xffffffff);
	assert_int_equal(f->notified[1], 1);
	assert_int_equal(f->notified[2], 0);
}

static void
bad_queue_breaks_device(void **state)
{
	struct fixture *f = *state;
	uint32_t val;

	ring_start(&f->v, 0, 1);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_SEL, 1);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NUM, 6);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_false(virtio_live(&f->v, 1));
	assert_false(virtio_live(&f->v, 0)); /* the device as a whole */
	assert_true(interrupted(f));
	assert_int_equal(virtio_mmio_read(&f->v, VIRTIO_MMIO_STATUS, &val, 4), -EPROTO);
	assert_true((val & VIRTIO_CONFIG_S_NEEDS_RESET) != 0);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	assert_int_equal(f->notified[0], 0);
	ring_start(&f->v, 0, 2); /* a reset heals it */
	assert_true(virtio_live(&f->v, 1));
}

static void
queue_size_from_64_bits(void **state)
{
	struct fixture *f = *state;

	ring_start(&f->v, 0, 0);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_SEL, 0);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NUM, 0x10008); /* 8, if it were cut to 16 bits */
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_true(f->v.broken);
}

static void
high_halves(void **state)
{
	struct fixture *f = *state;

	ring_start(&f->v, 0, 0);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_SEL, 0);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_DESC_HIGH, 0x12345678);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x9abcdef0);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, 1);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_USED_HIGH, 2);
	assert_true(f->v.st.q[0].desc == 0x123456789abcdef0ull);
	assert_true(f->v.st.q[0].avail == 1ull << 32);
	assert_true(f->v.st.q[0].used == 2ull << 32);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NUM, 8);
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_true(f->v.broken);
}

static void
interrupts(void **state)
{
	struct fixture *f = *state;
	struct virtq_chain c = {.head = 1};

	ring_start(&f->v, 0, 2);
	assert_int_equal(virtq_push(&f->v.st.q[1], &f->m, &c, 0), 0);
	virtio_signal(&f->v, 1);
	assert_true(interrupted(f));
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
	ring_set(&f->v, VIRTIO_MMIO_INTERRUPT_ACK, 1);
	assert_int_equal(ring_reg(&f->v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	virtio_signal(&f->v, 1);
	assert_false(interrupted(f)); /* nothing new */
}

static void
reset_forgets(void **state)
{
	struct fixture *f = *state;

	ring_start(&f->v, EVENT_IDX, 2);
	assert_true(f->v.st.q[0].event_idx);
	f->resets = 0;
	ring_set(&f->v, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(f->resets, 1);
	assert_int_equal(f->v.st.status, 0);
	assert_int_equal(f->v.st.driver_features, 0);
	assert_int_equal(f->v.st.q[0].num, 0);
	assert_int_equal(f->v.st.q[0].num_max, 8);
	assert_false(f->v.st.q[0].event_idx);
	assert_false(virtio_live(&f->v, 0));
	ring_set(&f->v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
	assert_int_equal(f->notified[0], 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(identity),
	    T(odd_accesses),
	    T(configuration),
	    T(negotiation),
	    T(queues),
	    T(bad_queue_breaks_device),
	    T(queue_size_from_64_bits),
	    T(high_halves),
	    T(interrupts),
	    T(reset_forgets),
	};

	return cmocka_run_group_tests_name("kvm virtio-mmio", tests, NULL, NULL);
}
