/* SPDX-License-Identifier: MIT
 *
 * virtq.c - the guest channel's device and a driver that does what the input says:
 * register accesses, kicks, chains that are right or not, and any bytes anywhere in the
 * memory that the queues are in. Nothing beyond that memory is touched, every call
 * returns what its contract says, and a reset mends everything.
 */
#include "kvm/virtio_console.h"
#include "tests/lib/fuzz.h"

#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>

#define MEM (64u << 10)
#define FIRST 2u /* queues that are used: control and port */
#define AREA 0x1000u
#define DESC(n) (AREA * (n))
#define AVAIL(n) (DESC(n) + 0x900u)
#define USED(n) (DESC(n) + 0xb00u)
#define NUM_MAX 128u /* as many fit */
#define BUFFERS (AREA * VIRTIO_QUEUES_MAX)
#define MOVE_MAX 8192u

static struct fuzz input;
static struct gmem mem; /* with a page on each side that nobody may touch */
static struct vcon vcon;
static uint16_t offered[VIRTIO_QUEUES_MAX]; /* available indices of the driver */

/* --- the driver --------------------------------------------------------------------------- */

static void
reg_write(uint64_t off, uint32_t val)
{
	int r = virtio_mmio_write(&vcon.virtio, off, &val, sizeof(val));

	assert(r == (vcon.virtio.broken ? -EPROTO : 0));
}

static uint64_t
any_register(void)
{
	static const uint16_t known[] = {
	    VIRTIO_MMIO_DEVICE_FEATURES_SEL,
	    VIRTIO_MMIO_DRIVER_FEATURES,
	    VIRTIO_MMIO_DRIVER_FEATURES_SEL,
	    VIRTIO_MMIO_QUEUE_SEL,
	    VIRTIO_MMIO_QUEUE_NUM,
	    VIRTIO_MMIO_QUEUE_READY,
	    VIRTIO_MMIO_QUEUE_NOTIFY,
	    VIRTIO_MMIO_INTERRUPT_ACK,
	    VIRTIO_MMIO_STATUS,
	    VIRTIO_MMIO_QUEUE_DESC_LOW,
	    VIRTIO_MMIO_QUEUE_DESC_HIGH,
	    VIRTIO_MMIO_QUEUE_AVAIL_LOW,
	    VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
	    VIRTIO_MMIO_QUEUE_USED_LOW,
	    VIRTIO_MMIO_QUEUE_USED_HIGH,
	    VIRTIO_MMIO_CONFIG,
	};
	unsigned i = fuzz_below(&input, 32);

	return i < ARRAY_SIZE(known) ? known[i] : fuzz_below(&input, GMEM_PAGE);
}

static void
access_register(void)
{
	uint64_t off = any_register(), value = fuzz_value(&input);
	unsigned how = fuzz_below(&input, 16), len = how < 8 ? 4 : 1u << how % 4;
	int r;

	if (fuzz_below(&input, 4) == 0)
		r = virtio_mmio_read(&vcon.virtio, off, &value, len);
	else
		r = virtio_mmio_write(&vcon.virtio, off, &value, len);
	assert(r == (vcon.virtio.broken ? -EPROTO : 0));
}

static void
enable(unsigned queue, uint32_t num)
{
	reg_write(VIRTIO_MMIO_QUEUE_SEL, queue);
	reg_write(VIRTIO_MMIO_QUEUE_NUM, num);
	reg_write(VIRTIO_MMIO_QUEUE_DESC_LOW, DESC(queue));
	reg_write(VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL(queue));
	reg_write(VIRTIO_MMIO_QUEUE_USED_LOW, USED(queue));
	reg_write(VIRTIO_MMIO_QUEUE_READY, 1);
}

/* As a good driver does it. */
static void
start(void)
{
	bool event_idx = fuzz_below(&input, 2) != 0;
	uint32_t order = fuzz_below(&input, 8);

	reg_write(VIRTIO_MMIO_STATUS, 0);
	assert(!vcon.virtio.broken);
	memset(offered, 0, sizeof(offered));
	memset(mem.base, 0, BUFFERS);
	reg_write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	reg_write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	reg_write(VIRTIO_MMIO_DRIVER_FEATURES, event_idx ? 1u << VIRTIO_RING_F_EVENT_IDX : 0);
	reg_write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	reg_write(VIRTIO_MMIO_DRIVER_FEATURES, 1); /* VERSION_1 */
	reg_write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
	for (unsigned q = FIRST; q < VIRTIO_QUEUES_MAX; q++)
		enable(q, MIN(1u << order, vcon_queue_max(q)));
	reg_write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
	assert(!vcon.virtio.broken);
}

/* --- memory ------------------------------------------------------------------------------ */

static void
poke(uint64_t gpa, const void *bytes, size_t len)
{
	(void)!gmem_write(&mem, gpa, bytes, len);
}

/* A control message that Linux would send, or nearly. */
static void
put_message(uint64_t gpa)
{
	const struct virtio_console_control m = {
	    .id = 1 ^ (fuzz_below(&input, 8) == 1),
	    .event = (uint16_t)fuzz_below(&input, 8),
	    .value = 1 ^ (fuzz_below(&input, 8) == 1),
	};

	poke(gpa, &m, sizeof(m));
}

/* One descriptor of a chain, mostly of the right kind. */
static void
put_desc(unsigned queue, unsigned at, bool last)
{
	unsigned odd = fuzz_below(&input, 16);
	struct vring_desc d = {
	    .addr = odd == 1 ? fuzz_value(&input) : BUFFERS + fuzz_below(&input, MEM - BUFFERS),
	    .len = odd == 2 ? (uint32_t)fuzz_value(&input) : 1 + fuzz_below(&input, 256),
	    .flags = odd == 3 ? (uint16_t)fuzz_below(&input, 256)
			      : (queue % 2 == 0 ? VRING_DESC_F_WRITE : 0) |
				    (last ? 0 : VRING_DESC_F_NEXT),
	    .next = odd == 4 ? (uint16_t)fuzz_value(&input) : (uint16_t)((at + 1) % NUM_MAX),
	};

	if (queue % 2 != 0 && odd > 4)
		put_message(d.addr);
	poke(DESC(queue) + at * sizeof(d), &d, sizeof(d));
}

static void
offer(unsigned queue, uint16_t head, uint16_t n)
{
	uint16_t num = MAX(vcon.virtio.st.q[queue].num, 1);

	poke(AVAIL(queue) + 4 + offered[queue] % num * 2u, &head, sizeof(head));
	offered[queue] = (uint16_t)(offered[queue] + n);
	poke(AVAIL(queue) + 2, &offered[queue], sizeof(offered[queue]));
}

static void
offer_chain(void)
{
	unsigned queue = FIRST + fuzz_below(&input, VIRTIO_QUEUES_MAX - FIRST);
	unsigned len = 1 + fuzz_below(&input, 4), head = fuzz_below(&input, NUM_MAX);
	unsigned odd = fuzz_below(&input, 16);

	for (unsigned i = 0; i < len; i++)
		put_desc(queue, (head + i) % NUM_MAX, i + 1 == len);
	offer(queue, odd == 1 ? (uint16_t)fuzz_value(&input) : (uint16_t)head,
	      odd == 2 ? (uint16_t)fuzz_value(&input) : 1);
	if (odd > 4)
		reg_write(VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static void
write_bytes(void)
{
	uint8_t bytes[64];
	uint64_t gpa = fuzz_below(&input, MEM);

	fuzz_fill(&input, bytes, sizeof(bytes));
	poke(gpa, bytes, 1 + fuzz_below(&input, sizeof(bytes)));
}

/* --- the owner --------------------------------------------------------------------------- */

/* In a buffer of exactly that size, which the address sanitizer watches. */
static void
transfer(bool receive)
{
	size_t len = 1 + fuzz_below(&input, MOVE_MAX);
	uint8_t *buf = malloc(len);
	ssize_t n;

	AN(buf);
	memset(buf, 0x5a, receive ? 0 : len);
	n = receive ? vcon_recv(&vcon, buf, len) : vcon_send(&vcon, buf, len);
	assert(vcon.virtio.broken ? n == -EPROTO : n >= 0 && (size_t)n <= len);
	for (ssize_t i = 0; receive && i < n; i++)
		(void)*(volatile uint8_t *)&buf[i];
	free(buf);
}

static void
step(void)
{
	switch (fuzz_below(&input, 16)) {
	case 0: start(); break;
	case 1:
	case 2: access_register(); break;
	case 3: fuzz_mutate(&input, mem.base, BUFFERS); break;
	case 4: write_bytes(); break;
	case 5: reg_write(VIRTIO_MMIO_QUEUE_NOTIFY, fuzz_below(&input, 8)); break;
	case 6:
	case 7:
	case 8: transfer(true); break;
	case 9:
	case 10: transfer(false); break;
	default: offer_chain();
	}
}

static void
check(void)
{
	const struct virtio_state *st = &vcon.virtio.st;

	assert(vcon.virtio.broken == ((st->status & VIRTIO_CONFIG_S_NEEDS_RESET) != 0));
	assert(vcon_features_ok(st));
	/* Or a chain could go on for ever. */
	assert(!vcon.st.tx.active || vcon.virtio.broken ||
	       vcon.st.tx.seen <= st->q[VCON_QUEUE_TX].num_max);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		assert(st->q[i].num_max == vcon_queue_max(i));
		assert(!st->q[i].ready || virtq_check(&st->q[i], &mem) == 0);
	}
}

static void
make_memory(void)
{
	AZ(gmem_init(&mem, MEM + 2 * GMEM_PAGE, -1));
	AZ(mprotect(mem.base, GMEM_PAGE, PROT_NONE));
	mem.base += GMEM_PAGE;
	AZ(mprotect(mem.base + MEM, GMEM_PAGE, PROT_NONE));
	mem.size = MEM;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = fuzz_input(data, size);
	if (mem.base == NULL)
		make_memory();
	memset(mem.base, 0, MEM);
	vcon_init(&vcon, &mem, -1, -1);
	if (fuzz_below(&input, 4) != 1)
		start();
	while (fuzz_left(&input) > 0) {
		step();
		check();
	}
	start();
	vcon_fini(&vcon);
	return 0;
}
