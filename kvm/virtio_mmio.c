/* SPDX-License-Identifier: MIT
 *
 * virtio_mmio.c - the register page of a virtio device. See virtio_mmio.h.
 * Accesses of a wrong width, to unknown or read-only registers or at the wrong
 * time are ignored and read as zero: a guest can only harm itself by them.
 */
#include "kvm/virtio_mmio.h"
#include "kvm/event.h"
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define BIT_EVENT_IDX (1ull << VIRTIO_RING_F_EVENT_IDX)
#define BIT_VERSION_1 (1ull << VIRTIO_F_VERSION_1)
#define VIRTIO_MAGIC 0x51e7da7au
#define MMIO_MAGIC 0x74726976u /* "virt" */
#define MMIO_VERSION 2u
#define MMIO_VENDOR 0x4c504d56u /* "VMPL" */
#define ISR_QUEUE 1u
#define ISR_CONFIG 2u
#define STATUS_ALL \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

_Static_assert(VIRTIO_MMIO_NOTIFY == VIRTIO_MMIO_QUEUE_NOTIFY, "notify register");

static uint64_t
offered(const struct virtio_ops *ops)
{
	return ops->features | BIT_VERSION_1 | BIT_EVENT_IDX;
}

static void
state_reset(struct virtio_dev *v)
{
	v->st = (struct virtio_state){0};
	v->broken = false;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		AN(v->ops->queue_max[i] <= VIRTQ_NUM_MAX);
		v->st.q[i].num_max = v->ops->queue_max[i];
	}
}

void
virtio_init(struct virtio_dev *v, const struct virtio_ops *ops, void *dev, struct gmem *mem,
	    int irq_fd)
{
	*v = (struct virtio_dev){
	    .magic = VIRTIO_MAGIC, .ops = ops, .dev = dev, .mem = mem, .irq_fd = irq_fd};
	AZ(pthread_mutex_init(&v->lock, NULL));
	state_reset(v);
}

void
virtio_fini(struct virtio_dev *v)
{
	CHECK_OBJ(v, VIRTIO_MAGIC);
	AZ(pthread_mutex_destroy(&v->lock));
	v->magic = 0;
}

bool
virtio_has_event_idx(const struct virtio_state *st)
{
	return (st->driver_features & BIT_EVENT_IDX) != 0;
}

bool
virtio_status_ok(const struct virtio_ops *ops, const struct virtio_state *st)
{
	bool agreed = (st->status & VIRTIO_CONFIG_S_FEATURES_OK) != 0;

	if ((st->status & ~(uint32_t)(STATUS_ALL | VIRTIO_CONFIG_S_NEEDS_RESET)) != 0)
		return false;
	if (!agreed)
		return (st->status & VIRTIO_CONFIG_S_DRIVER_OK) == 0;
	return (st->driver_features & ~offered(ops)) == 0 &&
	       (st->driver_features & BIT_VERSION_1) != 0;
}

static void
interrupt(struct virtio_dev *v, uint32_t why)
{
	v->st.isr |= why;
	event_raise(v->irq_fd);
}

bool
virtio_live(const struct virtio_dev *v, unsigned queue)
{
	return !v->broken && (v->st.status & VIRTIO_CONFIG_S_DRIVER_OK) != 0 &&
	       v->st.q[queue].ready;
}

void
virtio_signal(struct virtio_dev *v, unsigned queue)
{
	int r = virtq_want_signal(&v->st.q[queue], v->mem);

	if (r < 0)
		(void)virtio_break(v);
	else if (r > 0)
		interrupt(v, ISR_QUEUE);
}

int
virtio_break(struct virtio_dev *v)
{
	if (!v->broken) {
		v->broken = true;
		v->st.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
		interrupt(v, ISR_CONFIG);
	}
	return -EPROTO;
}

static const struct virtq *
selected(const struct virtio_dev *v)
{
	static const struct virtq none;

	return v->st.queue_sel < VIRTIO_QUEUES_MAX ? &v->st.q[v->st.queue_sel] : &none;
}

static uint32_t
read_register(const struct virtio_dev *v, uint64_t off)
{
	const struct virtio_state *st = &v->st;

	switch (off) {
	case VIRTIO_MMIO_MAGIC_VALUE: return MMIO_MAGIC;
	case VIRTIO_MMIO_VERSION: return MMIO_VERSION;
	case VIRTIO_MMIO_DEVICE_ID: return v->ops->device_id;
	case VIRTIO_MMIO_VENDOR_ID: return MMIO_VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return st->features_sel < 2 ? (uint32_t)(offered(v->ops) >> (32 * st->features_sel))
					    : 0;
	case VIRTIO_MMIO_QUEUE_NUM_MAX: return selected(v)->num_max;
	case VIRTIO_MMIO_QUEUE_READY: return selected(v)->ready;
	case VIRTIO_MMIO_INTERRUPT_STATUS: return st->isr;
	case VIRTIO_MMIO_STATUS: return st->status;
	case VIRTIO_MMIO_SHM_LEN_LOW:
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH: return UINT32_MAX; /* no shared memory */
	default: return 0; /* the configuration never changes: its generation is 0 */
	}
}

int
virtio_mmio_read(struct virtio_dev *v, uint64_t off, void *data, unsigned len)
{
	uint64_t at = off - VIRTIO_MMIO_CONFIG;
	uint32_t reg;
	int r;

	CHECK_OBJ(v, VIRTIO_MAGIC);
	memset(data, 0, len);
	AZ(pthread_mutex_lock(&v->lock));
	if (off >= VIRTIO_MMIO_CONFIG) {
		if (at < v->ops->config_len && len <= v->ops->config_len - at)
			memcpy(data, (const uint8_t *)v->ops->config + at, len);
	} else if (len == sizeof(reg) && off % sizeof(reg) == 0) {
		reg = read_register(v, off);
		memcpy(data, &reg, sizeof(reg));
	}
	r = v->broken ? -EPROTO : 0;
	AZ(pthread_mutex_unlock(&v->lock));
	return r;
}

/* FEATURES_OK sticks only for a legal set; the driver reads it back. */
static void
write_status(struct virtio_dev *v, uint32_t status)
{
	uint32_t now = v->st.status, set = status & STATUS_ALL & ~now;

	if (status == 0) {
		state_reset(v);
		v->ops->reset(v->dev);
		return;
	}
	if ((set & VIRTIO_CONFIG_S_FEATURES_OK) != 0 &&
	    ((v->st.driver_features & ~offered(v->ops)) != 0 ||
	     (v->st.driver_features & BIT_VERSION_1) == 0))
		set &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
	if (((now | set) & VIRTIO_CONFIG_S_FEATURES_OK) == 0)
		set &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
	v->st.status |= set;
}

static void
write_driver_features(struct virtio_state *st, uint32_t val)
{
	unsigned shift = 32 * st->driver_sel;

	if (st->driver_sel < 2 && (st->status & VIRTIO_CONFIG_S_FEATURES_OK) == 0)
		st->driver_features =
		    (st->driver_features & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
}

static void
write_ready(struct virtio_dev *v, struct virtq *q, uint32_t val)
{
	if (val == 0) {
		q->ready = false; /* a driver may withdraw a queue; it comes back by a reset */
		return;
	}
	if (q->ready)
		return;
	q->event_idx = (v->st.driver_features & BIT_EVENT_IDX) != 0;
	if ((v->st.status & VIRTIO_CONFIG_S_FEATURES_OK) == 0 || virtq_check(q, v->mem) < 0)
		(void)virtio_break(v);
	else
		q->ready = true;
}

static void
set_half(uint64_t *addr, bool high, uint32_t val)
{
	*addr =
	    high ? (*addr & 0xffffffffull) | (uint64_t)val << 32 : (*addr & ~0xffffffffull) | val;
}

/* Queue registers: of the selected queue, and only while it is not in use. */
static void
write_queue(struct virtio_dev *v, uint64_t off, uint32_t val)
{
	struct virtq *q;

	if (v->st.queue_sel >= VIRTIO_QUEUES_MAX)
		return;
	q = &v->st.q[v->st.queue_sel];
	if (q->num_max == 0 || (q->ready && off != VIRTIO_MMIO_QUEUE_READY))
		return;
	switch (off) {
	case VIRTIO_MMIO_QUEUE_NUM: q->num = val <= q->num_max ? (uint16_t)val : 0; break;
	case VIRTIO_MMIO_QUEUE_READY: write_ready(v, q, val); break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW: set_half(&q->desc, false, val); break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH: set_half(&q->desc, true, val); break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW: set_half(&q->avail, false, val); break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH: set_half(&q->avail, true, val); break;
	case VIRTIO_MMIO_QUEUE_USED_LOW: set_half(&q->used, false, val); break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH: set_half(&q->used, true, val); break;
	default: break;
	}
}

static void
write_register(struct virtio_dev *v, uint64_t off, uint32_t val)
{
	switch (off) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL: v->st.features_sel = val; break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL: v->st.driver_sel = val; break;
	case VIRTIO_MMIO_DRIVER_FEATURES: write_driver_features(&v->st, val); break;
	case VIRTIO_MMIO_QUEUE_SEL: v->st.queue_sel = val; break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		if (val < VIRTIO_QUEUES_MAX && virtio_live(v, val))
			v->ops->notify(v->dev, val);
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK: v->st.isr &= ~val; break;
	case VIRTIO_MMIO_STATUS: write_status(v, val); break;
	default: write_queue(v, off, val); break;
	}
}

int
virtio_mmio_write(struct virtio_dev *v, uint64_t off, const void *data, unsigned len)
{
	uint32_t val;
	int r;

	CHECK_OBJ(v, VIRTIO_MAGIC);
	AZ(pthread_mutex_lock(&v->lock));
	if (len == sizeof(val) && off < VIRTIO_MMIO_CONFIG) {
		memcpy(&val, data, sizeof(val));
		write_register(v, off, val);
	}
	r = v->broken ? -EPROTO : 0;
	AZ(pthread_mutex_unlock(&v->lock));
	return r;
}
