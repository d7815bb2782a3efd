/* SPDX-License-Identifier: MIT
 *
 * chan.h - frames of kvm/proto.h over one non-blocking descriptor: the virtio
 * port, or a socket in tests. Buffers both ways are bounded; neither side of
 * them ever blocks.
 */
#ifndef GUEST_CHAN_H
#define GUEST_CHAN_H

#include "kvm/guest/util.h"
#include "kvm/proto.h"

#include <sys/types.h>

#define CHAN_IN (64u << 10)
#define CHAN_OUT (96u << 10)
/* Room that output of commands leaves free, so that what the host asked for
 * can always be answered: input is read only while this much is there. */
#define CHAN_RESERVE 4096u

struct chan {
	unsigned magic;
	int fd;
	bool port;	/* a read of 0 means "host not connected", not "gone" */
	bool readable;	/* no EAGAIN since the last event */
	size_t in_head; /* [in_head, in_tail) is received and not yet parsed */
	size_t in_tail;
	size_t out_head; /* [out_head, out_tail) is queued and not yet written */
	size_t out_tail;
	uint64_t in_bytes, out_bytes; /* so far; whoever likes sets them to 0 */
	uint8_t in[CHAN_IN];
	uint8_t out[CHAN_OUT];
};

/* fd must be O_NONBLOCK; it stays the caller's. */
void chan_init(struct chan *c, int fd, bool port);

/* An edge-triggered event came: try to read again. */
void chan_wake(struct chan *c);

/* Read what is there, as far as the buffer has room. 0; -ECONNRESET when the
 * peer is gone for good (sockets only); or another -errno. */
int chan_fill(struct chan *c) must_check;

/* Take the next whole frame out of what was read.
 *  1: *h and *payload (valid until the next chan_fill) hold a valid frame
 *  2: the same, but the frame breaks the rules of its type
 *  0: no whole frame yet
 *  -EPROTO: not a frame at all; the two ends no longer agree where frames begin */
int chan_next(struct chan *c, struct proto_hdr *h, const uint8_t **payload) must_check;

/* Can payload bytes more be queued in one frame; for output of commands, the
 * reserve is kept free. */
bool chan_has_room(const struct chan *c, size_t payload);
bool chan_has_data_room(const struct chan *c);

/* Is anything queued that has not been written? */
bool chan_pending(const struct chan *c);

/* Where the payload of the next frame goes; at least max bytes, which the
 * caller has asked chan_has_room for. chan_commit then queues the frame. */
uint8_t *chan_reserve(struct chan *c, size_t max);
void chan_commit(struct chan *c, uint8_t type, uint32_t stream, size_t len);

/* Queue a frame with what fd has, at most len bytes (<= PROTO_PAYLOAD_MAX); there must be data
 * room. How many; 0: fd is at its end; or -errno. *passed, which is the fd's and 0 at first,
 * counts them: after CHAN_MUCH they go through shared pages, if the host offers that. */
#define CHAN_MUCH (64u << 10)
ssize_t chan_pass(struct chan *c, uint8_t type, uint32_t stream, int fd, size_t len,
		  uint64_t *passed) must_check;

/* Reserve, copy and commit. */
void chan_put(struct chan *c, uint8_t type, uint32_t stream, const void *payload, size_t len);

/* Queue a PROTO_ERROR: the end of a stream whose command did not start. text is
 * cut at what the frame may hold; control characters become '?'. */
void chan_put_error(struct chan *c, uint32_t stream, uint32_t stage, int err, const char *text);

/* Write what is queued until the descriptor takes no more (then chan_pending).
 * 0 or -errno. */
int chan_flush(struct chan *c) must_check;

#endif
