/* SPDX-License-Identifier: MIT
 *
 * port.h - one client's channel as its worker has it: two rings, whom to wake, and
 * the client's commands.
 *
 * Port 0 is the slot's channel in the segment, and the lease's holder is its client.
 * The others are channels in memory of their own, of clients that have joined the
 * lease (joins.h). What a client can write is checked; its port alone answers for it.
 */
#ifndef VMPOOL_PORT_H
#define VMPOOL_PORT_H

#include "shm/ring.h"
#include "worker/stream.h"

#define PORTS_MAX (1u << STREAM_PORT_BITS)

/* Answers that a joined client has not made room for are kept, up to this: more than
 * one command can owe, byte by byte. The holder's wait in the guest. */
#define PORT_LATE_MAX (512u << 10)

enum port_state {
	PORT_OPEN,
	PORT_LEAVING, /* its client has gone, or was cut off: its commands are being ended */
	PORT_GONE,    /* they have; the job does not know it any more */
};

struct port {
	unsigned magic;
	uint32_t index;
	enum port_state state;
	struct shm_chan *shm; /* not touched unless OPEN */
	struct ring req, rsp;
	int response_fd; /* eventfd for clients that poll; not owned */
	bool published;	 /* records were written since the client was last woken */
	unsigned pings;	 /* not answered yet */
	struct streams streams;
	uint64_t leave_ns; /* LEAVING: its commands have ended by then */
	uint8_t *late;	   /* answers without room: records, late_len bytes from late_off */
	size_t late_off, late_len, late_cap;
	size_t late_last; /* where the last of them begins, from late_off */
};

void port_init(struct port *port, uint32_t index, struct shm_chan *shm, int response_fd);
void port_fini(struct port *port);

/* Is there room for an answer of any size, and none before it that waits? If not, ask
 * the client to ring. 1, 0, or -EPROTO: the client broke its ring. */
int port_room(struct port *port) must_check;

/* Put an answer into the ring, or keep it until there is room: 0; -EPROTO as above;
 * -ENOBUFS, -ENOMEM: too much is kept already. */
int port_respond(struct port *port, const struct ring_rec *rec, const void *payload) must_check;

/* Move what was kept, as far as there is room: 1 if any was, 0, or -EPROTO. */
int port_flush(struct port *port) must_check;

/* Requests were taken: if the client waits for room, it is woken by port_publish. */
void port_taken(struct port *port);

/* Wake the client, if something was published and it sleeps. */
void port_publish(struct port *port);

/* Nothing more can be moved: ask the client to ring. The caller's fence, and another
 * look at the ring, follow. And: it need not ring now. */
static inline void
port_sleep(struct port *port)
{
	/* Pairs with the fence in libvmpool between the ring's tail and this word. */
	atomic_store_explicit(&port->shm->worker_asleep, 1, memory_order_relaxed);
}
static inline void
port_awake(struct port *port)
{
	atomic_store_explicit(&port->shm->worker_asleep, 0, memory_order_relaxed);
}

/* Tell the client that this channel is not served any more, and touch it no more. */
void port_close(struct port *port);

#endif
