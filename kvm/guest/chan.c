/* SPDX-License-Identifier: MIT
 *
 * chan.c - the agent's end of the guest channel: bytes in, frames out, and the
 * other way round. Runs in the agent (PID 1 of the guest). Owns the two
 * buffers; the descriptor is its caller's.
 */
#include "kvm/guest/chan.h"
#include "kvm/guest/share.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define CHAN_MAGIC 0xc4a2e117u
#define FRAME_MAX (sizeof(struct proto_hdr) + PROTO_PAYLOAD_MAX)
#define ERROR_TEXT_MAX 256u

_Static_assert(CHAN_IN >= 2 * FRAME_MAX, "a whole frame fits beside a partial one");
_Static_assert(CHAN_OUT >= 2 * FRAME_MAX + CHAN_RESERVE, "data and answers fit");
_Static_assert(CHAN_RESERVE >= 2 * (sizeof(struct proto_hdr) + sizeof(struct proto_error) + 256),
	       "one frame in causes at most two small ones out");

void
chan_init(struct chan *c, int fd, bool port)
{
	c->magic = CHAN_MAGIC;
	c->fd = fd;
	c->port = port;
	c->in_head = c->in_tail = 0;
	c->out_head = c->out_tail = 0;
	c->in_bytes = c->out_bytes = 0;
	chan_wake(c);
}

void
chan_wake(struct chan *c)
{
	CHECK_OBJ(c, CHAN_MAGIC);
	c->readable = true;
}

/* Move the unparsed rest to the front once the tail has come near the end. */
static void
in_compact(struct chan *c)
{
	if (c->in_head == c->in_tail) {
		c->in_head = c->in_tail = 0;
	} else if (CHAN_IN - c->in_tail < FRAME_MAX) {
		memmove(c->in, c->in + c->in_head, c->in_tail - c->in_head);
		c->in_tail -= c->in_head;
		c->in_head = 0;
	}
}

int
chan_fill(struct chan *c)
{
	ssize_t n;

	CHECK_OBJ(c, CHAN_MAGIC);
	in_compact(c);
	while (c->readable && c->in_tail < CHAN_IN) {
		n = read(c->fd, c->in + c->in_tail, CHAN_IN - c->in_tail);
		if (n > 0) {
			c->in_tail += (size_t)n;
		} else if (n == 0) {
			if (!c->port)
				return -ECONNRESET;
			c->readable = false; /* an event tells when the host connects */
		} else if (errno == EAGAIN) {
			c->readable = false;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

static bool
host_type(uint8_t type)
{
	return type >= PROTO_PING && type <= PROTO_VMSTAT;
}

int
chan_next(struct chan *c, struct proto_hdr *h, const uint8_t **payload)
{
	size_t have;

	CHECK_OBJ(c, CHAN_MAGIC);
	have = c->in_tail - c->in_head;
	if (have < sizeof(*h))
		return 0;
	memcpy(h, c->in + c->in_head, sizeof(*h));
	if (h->length > PROTO_PAYLOAD_MAX || h->zero != 0 || !host_type(h->type))
		return -EPROTO;
	if (have < sizeof(*h) + h->length)
		return 0;
	*payload = c->in + c->in_head + sizeof(*h);
	c->in_head += sizeof(*h) + h->length;
	c->in_bytes += sizeof(*h) + h->length;
	return proto_check(h, false) ? 1 : 2;
}

bool
chan_has_room(const struct chan *c, size_t payload)
{
	CHECK_OBJ(c, CHAN_MAGIC);
	return CHAN_OUT - (c->out_tail - c->out_head) >= sizeof(struct proto_hdr) + payload;
}

bool
chan_has_data_room(const struct chan *c)
{
	return chan_has_room(c, PROTO_PAYLOAD_MAX + CHAN_RESERVE);
}

bool
chan_pending(const struct chan *c)
{
	CHECK_OBJ(c, CHAN_MAGIC);
	return c->out_tail != c->out_head;
}

uint8_t *
chan_reserve(struct chan *c, size_t max)
{
	assert(chan_has_room(c, max));
	if (CHAN_OUT - c->out_tail < sizeof(struct proto_hdr) + max) {
		memmove(c->out, c->out + c->out_head, c->out_tail - c->out_head);
		c->out_tail -= c->out_head;
		c->out_head = 0;
	}
	return c->out + c->out_tail + sizeof(struct proto_hdr);
}

static void
commit(struct chan *c, const struct proto_hdr *h)
{
	CHECK_OBJ(c, CHAN_MAGIC);
	assert(proto_check(h, true));
	memcpy(c->out + c->out_tail, h, sizeof(*h));
	c->out_tail += sizeof(*h) + h->length;
	c->out_bytes += sizeof(*h) + h->length;
	assert(c->out_tail <= CHAN_OUT);
}

void
chan_commit(struct chan *c, uint8_t type, uint32_t stream, size_t len)
{
	commit(c, &(struct proto_hdr){.length = (uint32_t)len, .type = type, .stream = stream});
}

void
chan_put(struct chan *c, uint8_t type, uint32_t stream, const void *payload, size_t len)
{
	uint8_t *p = chan_reserve(c, len);

	if (len > 0)
		memcpy(p, payload, len);
	chan_commit(c, type, stream, len);
}

static ssize_t
pass_copy(struct chan *c, uint8_t type, uint32_t stream, int fd, size_t len)
{
	uint8_t *buf = chan_reserve(c, len);
	ssize_t n = read(fd, buf, len);

	if (n > 0)
		chan_commit(c, type, stream, (size_t)n);
	return n < 0 ? -errno : n;
}

/* The bytes into the shared pages, and a frame that says how many. */
static ssize_t
pass_shared(struct chan *c, uint8_t type, uint32_t stream, int fd, size_t len, uint8_t *room)
{
	struct proto_hdr h = {
	    .length = sizeof(uint32_t), .type = type, .flags = PROTO_F_SHARED, .stream = stream};
	ssize_t n = read(fd, room, len);
	uint32_t count = (uint32_t)n;

	if (n <= 0)
		return n < 0 ? -errno : 0;
	share_sent((size_t)n);
	memcpy(chan_reserve(c, sizeof(count)), &count, sizeof(count));
	commit(c, &h);
	c->out_bytes += (size_t)n;
	return n;
}

/* Somewhere for len bytes to go past the channel. The host hears of the pages first. */
static uint8_t *
shared_room(struct chan *c, size_t len)
{
	uint64_t pages[PROTO_SHARE_PAGES];

	if (share_begin(pages))
		chan_put(c, PROTO_SHARE, 0, pages, sizeof(pages));
	return chan_has_data_room(c) ? share_room(len) : NULL;
}

ssize_t
chan_pass(struct chan *c, uint8_t type, uint32_t stream, int fd, size_t len, uint64_t *passed)
{
	uint8_t *room = *passed >= CHAN_MUCH ? shared_room(c, len) : NULL;
	ssize_t n;

	CHECK_OBJ(c, CHAN_MAGIC);
	n = room != NULL ? pass_shared(c, type, stream, fd, len, room)
			 : pass_copy(c, type, stream, fd, len);
	if (n > 0)
		*passed += (uint64_t)n;
	return n;
}

void
chan_put_error(struct chan *c, uint32_t stream, uint32_t stage, int err, const char *text)
{
	struct proto_error e = {.stage = stage, .err = (uint32_t)err};
	size_t i, len = strnlen(text, ERROR_TEXT_MAX);
	uint8_t *p = chan_reserve(c, sizeof(e) + len);

	memcpy(p, &e, sizeof(e));
	for (i = 0; i < len; i++) {
		unsigned char ch = (unsigned char)text[i];

		p[sizeof(e) + i] = ch < 0x20 || ch == 0x7f ? '?' : ch;
	}
	chan_commit(c, PROTO_ERROR, stream, sizeof(e) + len);
}

int
chan_flush(struct chan *c)
{
	ssize_t n;

	CHECK_OBJ(c, CHAN_MAGIC);
	while (c->out_head < c->out_tail) {
		n = write(c->fd, c->out + c->out_head, c->out_tail - c->out_head);
		if (n > 0)
			c->out_head += (size_t)n;
		else if (n == 0 || errno == EAGAIN)
			break;
		else if (errno != EINTR)
			return -errno;
	}
	if (c->out_head == c->out_tail)
		c->out_head = c->out_tail = 0;
	return 0;
}
