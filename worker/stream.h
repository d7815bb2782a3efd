/* SPDX-License-Identifier: MIT
 *
 * stream.h - the commands of one client: what the guest calls them, what the client
 * calls them, and what either may still send.
 *
 * The guest knows a command by an id of the worker's own choosing, so that clients
 * cannot collide, or reach each other's:
 *
 *	31         12 11   7 6     0
 *	[ use        | port | entry ]     use counts, from 1, so that no id is 0
 */
#ifndef VMPOOL_STREAM_H
#define VMPOOL_STREAM_H

#include "kvm/proto.h"
#include "shm/base.h"

#define STREAM_ENTRY_BITS 7u
#define STREAM_PORT_BITS 5u
#define STREAM_USE_SHIFT (STREAM_ENTRY_BITS + STREAM_PORT_BITS)

struct stream {
	uint32_t id;	       /* towards the guest; 0 = free entry */
	uint32_t client_id;    /* the client's; 0, which no client can name: the health check's */
	bool sending;	       /* further EXEC pieces are to come */
	bool vmstat;	       /* no command: a question about the machine */
	bool file;	       /* no command: a file operation */
	bool refused;	       /* the guest does not know it: an ERROR follows the last piece */
	bool killed;	       /* its client has gone, and it was sent KILL */
	uint32_t request_size; /* bytes of EXEC so far */
	uint64_t start_ns;
	uint64_t deadline_ns; /* the backstop; 0 = none */
	uint64_t out_window;  /* output bytes the guest may still send */
	uint64_t in_window;   /* stdin bytes the client may still send */
};

/* All zero is an empty table. */
struct streams {
	unsigned n;   /* in use */
	unsigned end; /* all entries from here on are free */
	struct stream at[PROTO_STREAMS_MAX];
};

/* Where a guest's id belongs, whoever made it up. */
static inline uint32_t
stream_port(uint32_t id)
{
	return id >> STREAM_ENTRY_BITS & ((1u << STREAM_PORT_BITS) - 1);
}

/* A free entry as a new stream with full windows, use (any number) and port making up
 * its id; NULL: there is none. */
struct stream *streams_take(struct streams *streams, uint32_t use, uint32_t port,
			    uint32_t client_id);
void streams_drop(struct streams *streams, struct stream *stream);

/* By the client's id (not 0), by the guest's; NULL: there is none. */
struct stream *streams_find(struct streams *streams, uint32_t client_id);
struct stream *streams_find_guest(struct streams *streams, uint32_t id);

/* The earliest backstop of all, 0 if there is none. */
uint64_t streams_deadline(const struct streams *streams);

/* A window after a CREDIT's payload; never so large that it could overflow. */
uint64_t stream_window(uint64_t window, const uint8_t *payload);

#endif
