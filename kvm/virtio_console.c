/* SPDX-License-Identifier: MIT
 *
 * virtio_console.c - the guest channel's device. See virtio_console.h. Runs on
 * vCPU threads and the owner's; owns the port's state.
 *
 * The conversation on the control queues, as Linux leads it:
 *   guest DEVICE_READY   ->  host PORT_ADD 1
 *   guest PORT_READY 1   ->  host PORT_NAME 1 "...", PORT_OPEN 1
 *   guest PORT_OPEN 1    ->  bytes may flow to the guest
 * What the guest says may come in any order, any number of times, or be
 * garbage: each message only sets a flag here.
 */
#include "kvm/virtio_console.h"
#include "kvm/event.h"
#include "kvm/proto.h"
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <string.h>

#define VCON_MAGIC 0x7c05a1e5u
#define QUEUE_CTRL_RX 2u
#define QUEUE_CTRL_TX 3u
#define PORT 1u
#define LOOK_AGAIN_MAX 16u

static const struct virtio_console_config config = {.max_nr_ports = PORT + 1};

static void vcon_notify(void *dev, unsigned queue);
static void vcon_reset(void *dev);

static const struct virtio_ops vcon_ops = {
    .device_id = VIRTIO_ID_CONSOLE,
    .features = 1ull << VIRTIO_CONSOLE_F_MULTIPORT,
    /* Linux fills every receiving queue with pages at start: keep the ones that
     * carry nothing small. */
    .queue_max = {4, 4, 16, 16, 128, 128},
    .config = &config,
    .config_len = sizeof(config),
    .notify = vcon_notify,
    .reset = vcon_reset,
};

void
vcon_init(struct vcon *c, struct gmem *mem, int irq_fd, int kick_fd)
{
	*c = (struct vcon){.magic = VCON_MAGIC, .kick_fd = kick_fd};
	virtio_init(&c->virtio, &vcon_ops, c, mem, irq_fd);
}

void
vcon_fini(struct vcon *c)
{
	CHECK_OBJ(c, VCON_MAGIC);
	virtio_fini(&c->virtio);
	c->magic = 0;
}

uint16_t
vcon_queue_max(unsigned i)
{
	AN(i < VIRTIO_QUEUES_MAX);
	return vcon_ops.queue_max[i];
}

bool
vcon_features_ok(const struct virtio_state *st)
{
	return virtio_status_ok(&vcon_ops, st);
}

static void
vcon_reset(void *dev)
{
	struct vcon *c = dev;

	CHECK_OBJ(c, VCON_MAGIC);
	c->st = (struct vcon_state){0};
}

/* Send one control message. 1: sent; 0: the guest has no buffer for it. */
static int
tell(struct vcon *c, uint16_t event, const char *name)
{
	struct virtio_dev *v = &c->virtio;
	struct virtq *q = &v->st.q[QUEUE_CTRL_RX];
	uint8_t msg[sizeof(struct virtio_console_control) + sizeof(PROTO_PORT_NAME)];
	const struct virtio_console_control head = {.id = PORT, .event = event, .value = 1};
	size_t len = sizeof(head), name_len = strlen(name);
	struct virtq_chain chain;
	ssize_t n;
	int r;

	memcpy(msg, &head, sizeof(head));
	memcpy(msg + len, name, name_len);
	len += name_len;
	r = virtq_pop(q, v->mem, &chain);
	if (r == 0)
		r = virtq_ask_notify(q, v->mem) == 1 ? virtq_pop(q, v->mem, &chain) : 0;
	if (r <= 0)
		return r;
	n = virtq_move(q, v->mem, &chain, VIRTQ_TO_GUEST, msg, len);
	if (n < 0 || (size_t)n < len)
		return -EPROTO; /* a buffer too small for a message: no driver does that */
	r = virtq_push(q, v->mem, &chain, (uint32_t)len);
	return r < 0 ? r : 1;
}

static int
tell_pending(struct vcon *c)
{
	struct {
		bool *flag;
		uint16_t event;
		const char *name;
	} const msgs[] = {
	    {&c->st.tell_add, VIRTIO_CONSOLE_PORT_ADD, ""},
	    {&c->st.tell_name, VIRTIO_CONSOLE_PORT_NAME, PROTO_PORT_NAME},
	    {&c->st.tell_open, VIRTIO_CONSOLE_PORT_OPEN, ""},
	};
	int r;

	if (!virtio_live(&c->virtio, QUEUE_CTRL_RX))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(msgs); i++) {
		if (!*msgs[i].flag)
			continue;
		r = tell(c, msgs[i].event, msgs[i].name);
		if (r <= 0)
			return r;
		*msgs[i].flag = false;
	}
	virtio_signal(&c->virtio, QUEUE_CTRL_RX);
	return 0;
}

static void
heard(struct vcon *c, const struct virtio_console_control *m)
{
	if (m->event == VIRTIO_CONSOLE_DEVICE_READY && m->value == 1) {
		c->st.tell_add = true;
	} else if (m->id == PORT && m->event == VIRTIO_CONSOLE_PORT_READY && m->value == 1) {
		c->st.tell_name = c->st.tell_open = true;
	} else if (m->id == PORT && m->event == VIRTIO_CONSOLE_PORT_OPEN) {
		c->st.guest_open = m->value != 0;
		event_raise(c->kick_fd);
	}
}

/* Read what the guest says. At most a queue's worth per notification: another
 * vCPU that keeps adding must not hold the lock for ever. */
static int
listen_control(struct vcon *c)
{
	struct virtio_dev *v = &c->virtio;
	struct virtq *q = &v->st.q[QUEUE_CTRL_TX];
	struct virtio_console_control m = {0};
	struct virtq_chain chain;
	ssize_t n;
	int r = 1;

	for (unsigned i = 0; i < q->num && r > 0; i++) {
		r = virtq_pop(q, v->mem, &chain);
		if (r <= 0)
			break;
		n = virtq_move(q, v->mem, &chain, VIRTQ_FROM_GUEST, &m, sizeof(m));
		if (n < 0)
			return -EPROTO;
		if (n == sizeof(m))
			heard(c, &m);
		r = virtq_push(q, v->mem, &chain, 0);
		if (r < 0)
			return r;
		r = virtq_ask_notify(q, v->mem);
	}
	if (r >= 0)
		virtio_signal(v, QUEUE_CTRL_TX);
	return r;
}

static void
vcon_notify(void *dev, unsigned queue)
{
	struct vcon *c = dev;

	CHECK_OBJ(c, VCON_MAGIC);
	if ((queue == QUEUE_CTRL_TX && listen_control(c) < 0) ||
	    ((queue == QUEUE_CTRL_TX || queue == QUEUE_CTRL_RX) && tell_pending(c) < 0))
		(void)virtio_break(&c->virtio);
	else if (queue == VCON_QUEUE_RX || queue == VCON_QUEUE_TX)
		event_raise(c->kick_fd);
}

/* Copy from one chain. Bytes copied, 0 when there is no chain, -EPROTO. */
static ssize_t
recv_chain(struct vcon *c, uint8_t *buf, size_t len)
{
	struct virtio_dev *v = &c->virtio;
	struct virtq *q = &v->st.q[VCON_QUEUE_TX];
	ssize_t n;
	int r;

	if (!c->st.tx.active) {
		r = virtq_pop(q, v->mem, &c->st.tx);
		if (r <= 0)
			return r;
	}
	n = virtq_move(q, v->mem, &c->st.tx, VIRTQ_FROM_GUEST, buf, len);
	if (n < 0)
		return n;
	if (c->st.tx.more)
		return n;
	c->tx_used++;
	return virtq_push(q, v->mem, &c->st.tx, 0) < 0 ? -EPROTO : n;
}

/* Fill one chain. Bytes copied, 0 when there is no chain, -EPROTO. */
static ssize_t
send_chain(struct vcon *c, uint8_t *buf, size_t len)
{
	struct virtio_dev *v = &c->virtio;
	struct virtq *q = &v->st.q[VCON_QUEUE_RX];
	struct virtq_chain chain;
	ssize_t n;
	int r = virtq_pop(q, v->mem, &chain);

	if (r <= 0)
		return r;
	n = virtq_move(q, v->mem, &chain, VIRTQ_TO_GUEST, buf, len);
	if (n >= 0 && virtq_push(q, v->mem, &chain, (uint32_t)n) < 0)
		return -EPROTO;
	return n;
}

/* No chain is left: ask for a notification. 1 if one came in between, so that
 * the caller should look again; 0; -EPROTO. A driver that plays with its index
 * could keep us looking for ever: after some tries, be called again instead. */
static ssize_t
look_again(struct vcon *c, unsigned queue, unsigned *tries)
{
	int r = virtq_ask_notify(&c->virtio.st.q[queue], c->virtio.mem);

	if (r != 1 || ++*tries < LOOK_AGAIN_MAX)
		return r;
	event_raise(c->kick_fd);
	return 0;
}

/* Bytes have moved: is the guest to hear of it? An interrupt costs it more than a
 * frame, and its driver takes back what was transmitted whenever it transmits more. Only one
 * whose queue is full waits; all of that is still to come back then, so that telling of
 * every half a queue is soon enough. */
static void
tell_used(struct vcon *c, unsigned queue)
{
	if (queue == VCON_QUEUE_TX) {
		if (c->tx_used < MAX(c->virtio.st.q[queue].num / 2u, 1u))
			return;
		c->tx_used = 0;
	}
	virtio_signal(&c->virtio, queue);
}

static bool
may_transfer(const struct vcon *c, unsigned queue)
{
	return virtio_live(&c->virtio, queue) && (queue == VCON_QUEUE_TX || c->st.guest_open);
}

static ssize_t
transfer(struct vcon *c, unsigned queue, uint8_t *buf, size_t len,
	 ssize_t (*chain)(struct vcon *c, uint8_t *buf, size_t len))
{
	struct virtio_dev *v = &c->virtio;
	unsigned tries = 0;
	size_t done = 0;
	ssize_t n = 1;

	CHECK_OBJ(c, VCON_MAGIC);
	AZ(pthread_mutex_lock(&v->lock));
	while (n > 0 && done < len && may_transfer(c, queue)) {
		n = chain(c, buf + done, len - done);
		if (n > 0)
			done += (size_t)n;
		else if (n == 0)
			n = look_again(c, queue, &tries);
	}
	if (n < 0)
		(void)virtio_break(v);
	else if (done > 0)
		tell_used(c, queue);
	n = v->broken ? -EPROTO : (ssize_t)done;
	AZ(pthread_mutex_unlock(&v->lock));
	return n;
}

ssize_t
vcon_recv(struct vcon *c, void *buf, size_t len)
{
	return transfer(c, VCON_QUEUE_TX, buf, len, recv_chain);
}

ssize_t
vcon_send(struct vcon *c, const void *buf, size_t len)
{
	/* send_chain only reads through the pointer */
	return transfer(c, VCON_QUEUE_RX, (void *)(uintptr_t)buf, len, send_chain);
}
