/* SPDX-License-Identifier: MIT
 *
 * chan.c - frames over a machine's byte channel. Runs in a worker.
 */
#include "worker/chan.h"

#include <string.h>
#include <sys/random.h>

void
chan_init(struct chan *chan, const struct machine_ops *ops, struct machine *machine)
{
	chan->ops = ops;
	chan->machine = machine;
	chan->in_off = chan->in_len = chan->out_off = chan->out_len = 0;
}

/* Is a whole frame in the buffer? 1 with the header copied, 0, or -EPROTO. */
static int
frame_ready(const struct chan *chan, struct proto_hdr *hdr)
{
	size_t have = chan->in_len - chan->in_off;

	if (have < sizeof(*hdr))
		return 0;
	memcpy(hdr, chan->in + chan->in_off, sizeof(*hdr));
	if (!proto_check(hdr, true))
		return -EPROTO;
	return have >= sizeof(*hdr) + hdr->length;
}

int
chan_recv(struct chan *chan, struct proto_hdr *hdr, const uint8_t **payload)
{
	int r;

	while ((r = frame_ready(chan, hdr)) == 0) {
		ssize_t n;

		memmove(chan->in, chan->in + chan->in_off, chan->in_len - chan->in_off);
		chan->in_len -= chan->in_off;
		chan->in_off = 0;
		n = chan->ops->recv(chan->machine, chan->in + chan->in_len,
				    sizeof(chan->in) - chan->in_len);
		if (n <= 0)
			return (int)n;
		chan->in_len += (size_t)n;
	}
	if (r < 0)
		return r;
	*payload = chan->in + chan->in_off + sizeof(*hdr);
	chan->in_off += sizeof(*hdr) + hdr->length;
	return 1;
}

bool
chan_room(const struct chan *chan)
{
	return sizeof(chan->out) - (chan->out_len - chan->out_off) >= CHAN_FRAME;
}

void
chan_send(struct chan *chan, const struct proto_hdr *hdr, const void *payload)
{
	assert(chan_room(chan) && hdr->length <= PROTO_PAYLOAD_MAX);
	if (sizeof(chan->out) - chan->out_len < CHAN_FRAME) {
		memmove(chan->out, chan->out + chan->out_off, chan->out_len - chan->out_off);
		chan->out_len -= chan->out_off;
		chan->out_off = 0;
	}
	memcpy(chan->out + chan->out_len, hdr, sizeof(*hdr));
	memcpy(chan->out + chan->out_len + sizeof(*hdr), payload, hdr->length);
	chan->out_len += sizeof(*hdr) + hdr->length;
}

bool
chan_flush(struct chan *chan, int *err)
{
	bool moved = false;

	*err = 0;
	while (chan->out_off < chan->out_len) {
		ssize_t n = chan->ops->send(chan->machine, chan->out + chan->out_off,
					    chan->out_len - chan->out_off);

		if (n < 0)
			*err = (int)n;
		if (n <= 0)
			return moved;
		chan->out_off += (size_t)n;
		moved = true;
	}
	chan->out_off = chan->out_len = 0;
	return moved;
}

uint64_t
chan_wall_ns(void)
{
	struct timespec now;

	AZ(clock_gettime(CLOCK_REALTIME, &now));
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int
chan_renewal(struct proto_renew *renew)
{
	if (getrandom(renew, sizeof(*renew), 0) != (ssize_t)sizeof(*renew))
		return -errno;
	renew->wall_ns = chan_wall_ns();
	return 0;
}
