/* SPDX-License-Identifier: MIT
 *
 * port.c - a client's channel, seen from its worker. Runs in a worker; owns the
 * consumer side of the request ring, the producer side of the response ring, and
 * the answers that wait for room.
 */
#include "worker/port.h"
#include "kvm/proto.h"
#include "shm/lifeline.h"

#include <limits.h>
#include <string.h>

#define PORT_MAGIC 0x90127a3bu

_Static_assert(RING_PAYLOAD_MAX == PROTO_PAYLOAD_MAX, "a record carries a frame");

void
port_init(struct port *port, uint32_t index, struct shm_chan *shm, int response_fd)
{
	memset(port, 0, sizeof(*port));
	port->magic = PORT_MAGIC;
	port->index = index;
	port->shm = shm;
	port->response_fd = response_fd;
	ring_init_consumer(&port->req, &shm->req, shm->req_data);
	ring_init_producer(&port->rsp, &shm->rsp, shm->rsp_data);
}

void
port_fini(struct port *port)
{
	CHECK_OBJ(port, PORT_MAGIC);
	free(port->late);
	port->late = NULL;
	port->magic = 0;
}

/* --- answers --------------------------------------------------------------------- */

/* Ask the client to ring when it has drained; the caller looks once more. */
static void
stalled(struct port *port)
{
	/* Pairs with the exchange in the client after it has drained. */
	atomic_store_explicit(&port->shm->rsp_stalled, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

int
port_room(struct port *port)
{
	for (int look = 0; look < 2; look++) {
		ssize_t space = ring_space(&port->rsp);

		if (space < 0)
			return -EPROTO;
		if (port->late_len == 0 && space >= (ssize_t)RING_PAYLOAD_MAX)
			return 1;
		stalled(port);
	}
	return 0;
}

/* Make room for more bytes behind those that are kept. */
static int
late_reserve(struct port *port, size_t more)
{
	size_t cap = MAX(port->late_cap, 4096u);
	uint8_t *grown;

	if (port->late_len + more > PORT_LATE_MAX)
		return -ENOBUFS;
	if (port->late_off > 0 && port->late_off + port->late_len + more > port->late_cap) {
		memmove(port->late, port->late + port->late_off, port->late_len);
		port->late_off = 0;
	}
	while (cap < port->late_len + more)
		cap *= 2;
	if (cap == port->late_cap)
		return 0;
	grown = realloc(port->late, cap);
	if (grown == NULL)
		return -ENOMEM;
	port->late = grown;
	port->late_cap = cap;
	return 0;
}

/* Does this go on what the last record says? Then it makes that one longer: many small
 * pieces must not take more room than their bytes. */
static bool
late_continues(const struct port *port, const struct ring_rec *rec)
{
	struct ring_rec last;

	if (port->late_len == 0 || (rec->type != PROTO_STDOUT && rec->type != PROTO_STDERR))
		return false;
	memcpy(&last, port->late + port->late_off + port->late_last, sizeof(last));
	return last.type == rec->type && last.stream == rec->stream && last.lease == rec->lease &&
	       last.length + rec->length <= RING_PAYLOAD_MAX;
}

static int
late_add(struct port *port, const struct ring_rec *rec, const void *payload)
{
	bool more = late_continues(port, rec);
	size_t len = rec->length + (more ? 0 : sizeof(*rec));
	int r = late_reserve(port, len);
	struct ring_rec head = *rec;
	uint8_t *start, *at;

	if (r < 0)
		return r;
	start = port->late + port->late_off;
	if (more) {
		memcpy(&head, start + port->late_last, sizeof(head));
		head.length += rec->length;
	} else {
		port->late_last = port->late_len;
	}
	at = start + port->late_len + len - rec->length;
	memcpy(start + port->late_last, &head, sizeof(head));
	memcpy(at, payload, rec->length);
	port->late_len += len;
	return 0;
}

int
port_respond(struct port *port, const struct ring_rec *rec, const void *payload)
{
	int r = port->late_len == 0 ? ring_write(&port->rsp, rec, payload) : -EAGAIN;

	if (r == -EAGAIN)
		return late_add(port, rec, payload);
	port->published = true;
	return r;
}

/* One kept answer into the ring: 1, 0: no room, -EPROTO. */
static int
late_move(struct port *port)
{
	const uint8_t *from = port->late + port->late_off;
	struct ring_rec rec;
	int r;

	memcpy(&rec, from, sizeof(rec));
	r = ring_write(&port->rsp, &rec, from + sizeof(rec));
	if (r == -EAGAIN) {
		stalled(port);
		r = ring_write(&port->rsp, &rec, from + sizeof(rec));
	}
	if (r < 0)
		return r == -EAGAIN ? 0 : r;
	port->late_off += sizeof(rec) + rec.length;
	port->late_len -= sizeof(rec) + rec.length;
	port->late_last -= MIN(port->late_last, sizeof(rec) + rec.length);
	port->published = true;
	return 1;
}

int
port_flush(struct port *port)
{
	bool moved = false;

	while (port->late_len > 0) {
		int r = late_move(port);

		if (r < 0)
			return r;
		if (r == 0)
			return moved;
		moved = true;
	}
	if (port->late != NULL) {
		free(port->late);
		port->late = NULL;
		port->late_off = port->late_cap = 0;
	}
	return moved;
}

/* --- who sleeps ------------------------------------------------------------------- */

void
port_taken(struct port *port)
{
	/* Pairs with the store in the client, which then waits on rsp_seq. */
	if (atomic_exchange_explicit(&port->shm->req_stalled, 0, memory_order_seq_cst) != 0)
		port->published = true;
}

void
port_publish(struct port *port)
{
	static const uint64_t one = 1;

	if (!port->published)
		return;
	port->published = false;
	/* The fence pairs with the one in libvmpool between announcing a sleeper and
	 * looking at the ring once more. */
	(void)atomic_fetch_add_explicit(&port->shm->rsp_seq, 1, memory_order_release);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&port->shm->rsp_sleepers, memory_order_relaxed) != 0)
		lifeline_wake(&port->shm->rsp_seq, INT_MAX);
	if (atomic_load_explicit(&port->shm->rsp_pollers, memory_order_relaxed) != 0)
		(void)!write(port->response_fd, &one, sizeof(one));
}

void
port_close(struct port *port)
{
	CHECK_OBJ(port, PORT_MAGIC);
	AZ(port->state);
	/* Before rsp_seq grows (release): who sees that sees this, too (conn_check). */
	atomic_store_explicit(&port->shm->worker_asleep, SHM_CHAN_CLOSED, memory_order_relaxed);
	port->published = true;
	port_publish(port);
	port->state = PORT_LEAVING;
	port->shm = NULL;
	free(port->late);
	port->late = NULL;
	port->late_off = port->late_len = port->late_cap = 0;
}
