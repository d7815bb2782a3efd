/* SPDX-License-Identifier: MIT
 *
 * dev_state.c - our devices' state, field by field. See dev_state.h. Runs in
 * the worker, on the owner's thread.
 */
#include "kvm/dev_state.h"
#include <string.h>

void
dev_state_get(struct dev_state *s, struct serial *serial, struct vcon *vcon)
{
	AZ(pthread_mutex_lock(&serial->lock));
	s->serial = serial->st;
	s->log_total = serial->total;
	s->log_len = (uint32_t)MIN(serial->total, sizeof(s->log));
	for (uint32_t i = 0; i < s->log_len; i++)
		s->log[i] = serial->log[(serial->total - s->log_len + i) % sizeof(serial->log)];
	AZ(pthread_mutex_unlock(&serial->lock));
	AZ(pthread_mutex_lock(&vcon->virtio.lock));
	s->virtio = vcon->virtio.st;
	s->broken = vcon->virtio.broken;
	s->vcon = vcon->st;
	AZ(pthread_mutex_unlock(&vcon->virtio.lock));
}

void
dev_state_set(const struct dev_state *s, struct serial *serial, struct vcon *vcon)
{
	AZ(pthread_mutex_lock(&serial->lock));
	serial->st = s->serial;
	/* What an earlier life wrote is overwritten, not just out of reach. */
	memset(serial->log, 0, sizeof(serial->log));
	serial->total = s->log_total;
	for (uint32_t i = 0; i < s->log_len; i++)
		serial->log[(s->log_total - s->log_len + i) % sizeof(serial->log)] = s->log[i];
	AZ(pthread_mutex_unlock(&serial->lock));
	AZ(pthread_mutex_lock(&vcon->virtio.lock));
	vcon->virtio.st = s->virtio;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		vcon->virtio.st.q[i].num_max = vcon->virtio.ops->queue_max[i];
	vcon->virtio.broken = s->broken;
	vcon->st = s->vcon;
	AZ(pthread_mutex_unlock(&vcon->virtio.lock));
}

void
dev_state_encode_serial(const struct dev_state *s, struct blob *b)
{
	const struct serial_state *st = &s->serial;
	const uint8_t regs[] = {st->ier, st->lcr, st->mcr,  st->scr,
				st->dll, st->dlm, st->fifo, st->thr_irq};

	blob_bytes(b, regs, sizeof(regs));
	blob_u64(b, s->log_total);
	blob_bytes(b, s->log, s->log_len);
}

int
dev_state_decode_serial(struct dev_state *s, struct view content, char *err, size_t errlen)
{
	struct serial_state *st = &s->serial;

	st->ier = view_u8(&content) & 0x0f;
	st->lcr = view_u8(&content);
	st->mcr = view_u8(&content) & 0x1f;
	st->scr = view_u8(&content);
	st->dll = view_u8(&content);
	st->dlm = view_u8(&content);
	st->fifo = view_bool(&content);
	st->thr_irq = view_bool(&content);
	s->log_total = view_u64(&content);
	s->log_len = (uint32_t)MIN(content.left, sizeof(s->log));
	view_bytes(&content, s->log, s->log_len);
	if (!view_done(&content) || s->log_len != MIN(s->log_total, sizeof(s->log)))
		return fail(EINVAL, err, errlen, "the state's serial port makes no sense");
	return 0;
}

static void
encode_queue(const struct virtq *q, struct blob *b)
{
	blob_u64(b, q->desc);
	blob_u64(b, q->avail);
	blob_u64(b, q->used);
	blob_u16(b, q->num);
	blob_u8(b, q->ready);
	blob_u8(b, q->event_idx);
	blob_u16(b, q->last_avail);
	blob_u16(b, q->used_idx);
	blob_u16(b, q->signalled);
}

static void
decode_queue(struct virtq *q, struct view *v)
{
	q->desc = view_u64(v);
	q->avail = view_u64(v);
	q->used = view_u64(v);
	q->num = view_u16(v);
	q->ready = view_bool(v);
	q->event_idx = view_bool(v);
	q->last_avail = view_u16(v);
	q->used_idx = view_u16(v);
	q->signalled = view_u16(v);
}

static void
encode_chain(const struct virtq_chain *c, struct blob *b)
{
	blob_u8(b, c->active);
	blob_u8(b, c->more);
	blob_u16(b, c->head);
	blob_u16(b, c->desc);
	blob_u16(b, c->seen);
	blob_u32(b, c->off);
	blob_u32(b, c->bytes);
}

static void
decode_chain(struct virtq_chain *c, struct view *v)
{
	c->active = view_bool(v);
	c->more = view_bool(v);
	c->head = view_u16(v);
	c->desc = view_u16(v);
	c->seen = view_u16(v);
	c->off = view_u32(v);
	c->bytes = view_u32(v);
}

void
dev_state_encode_vcon(const struct dev_state *s, struct blob *b)
{
	blob_u64(b, s->virtio.driver_features);
	blob_u32(b, s->virtio.features_sel);
	blob_u32(b, s->virtio.driver_sel);
	blob_u32(b, s->virtio.queue_sel);
	blob_u32(b, s->virtio.status);
	blob_u32(b, s->virtio.isr);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		encode_queue(&s->virtio.q[i], b);
	blob_u8(b, s->broken);
	blob_u8(b, s->vcon.tell_add);
	blob_u8(b, s->vcon.tell_name);
	blob_u8(b, s->vcon.tell_open);
	blob_u8(b, s->vcon.guest_open);
	encode_chain(&s->vcon.tx, b);
}

static bool
queue_is_sane(const struct virtio_state *st, unsigned i, uint64_t mem_size)
{
	const struct gmem mem = {.size = mem_size};
	struct virtq q = st->q[i];

	q.num_max = vcon_queue_max(i);
	if (!q.ready)
		return q.num <= q.num_max;
	return virtq_check(&q, &mem) == 0 && q.event_idx == virtio_has_event_idx(st);
}

int
dev_state_decode_vcon(struct dev_state *s, struct view content, uint64_t mem_size, char *err,
		      size_t errlen)
{
	struct virtio_state *st = &s->virtio;
	struct view *v = &content;
	bool sane;

	st->driver_features = view_u64(v);
	st->features_sel = view_u32(v);
	st->driver_sel = view_u32(v);
	st->queue_sel = view_u32(v);
	st->status = view_u32(v);
	st->isr = view_u32(v);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		decode_queue(&st->q[i], v);
	s->broken = view_bool(v);
	s->vcon.tell_add = view_bool(v);
	s->vcon.tell_name = view_bool(v);
	s->vcon.tell_open = view_bool(v);
	s->vcon.guest_open = view_bool(v);
	decode_chain(&s->vcon.tx, v);
	sane = view_done(v) && vcon_features_ok(st) && s->vcon.tx.head < VIRTQ_NUM_MAX;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX && sane; i++)
		sane = queue_is_sane(st, i, mem_size);
	return sane ? 0 : fail(EINVAL, err, errlen, "the state's guest channel makes no sense");
}
