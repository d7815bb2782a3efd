/* SPDX-License-Identifier: MIT
 *
 * chan.h - the host end of the guest channel: bytes of a machine, as frames.
 *
 * Bounded in both directions: one incoming frame is assembled at a time, and
 * outgoing frames wait in a buffer of CHAN_OUT bytes.
 */
#ifndef VMPOOL_CHAN_H
#define VMPOOL_CHAN_H

#include "kvm/proto.h"
#include "worker/machine.h"

#define CHAN_FRAME (sizeof(struct proto_hdr) + PROTO_PAYLOAD_MAX)
#define CHAN_IN (2 * CHAN_FRAME)
#define CHAN_OUT (2 * CHAN_FRAME)

struct chan {
	const struct machine_ops *ops;
	struct machine *machine;
	size_t in_off, in_len, out_off, out_len;
	uint8_t in[CHAN_IN], out[CHAN_OUT];
};

void chan_init(struct chan *chan, const struct machine_ops *ops, struct machine *machine);

/* The next frame from the guest: 1, and *payload valid until the next call; 0:
 * none is complete; -EPROTO: the guest broke the framing or the device. */
int chan_recv(struct chan *chan, struct proto_hdr *hdr, const uint8_t **payload) must_check;

/* Is there room for a frame of any size? Then chan_send takes it. */
bool chan_room(const struct chan *chan);
void chan_send(struct chan *chan, const struct proto_hdr *hdr, const void *payload);

/* Give the guest what waits: true if some of it moved; *err is 0 or -EPROTO. */
bool chan_flush(struct chan *chan, int *err);

/* CLOCK_REALTIME, nanoseconds: what a renewal tells a guest. */
uint64_t chan_wall_ns(void);

/* Fill in what makes a machine one of its own (RENEW): random bytes, and the time. 0 or
 * -errno. */
int chan_renewal(struct proto_renew *renew) must_check;

#endif
