/* SPDX-License-Identifier: MIT
 *
 * client_outq.c - output of a command that has come and was not fetched yet.
 * Runs in clients.
 *
 * Each run of bytes of one kind has a 4-byte header: its length, shifted left
 * by one, and 1 for stderr. Bytes are bounded by the stream's window, so a
 * queue never exceeds five times that (a header per byte).
 */
#include "shm/client.h"

#include <string.h>

#define HEADER sizeof(uint32_t)

static uint32_t
header_at(const struct outq *q, size_t at)
{
	uint32_t header;

	memcpy(&header, q->buf + at, HEADER);
	return header;
}

static bool
outq_reserve(struct outq *q, size_t more)
{
	size_t cap = q->cap;
	uint8_t *buf;

	while (cap - q->len < more)
		cap = cap == 0 ? 4096 : cap * 2;
	if (cap == q->cap)
		return true;
	buf = realloc(q->buf, cap);
	if (buf == NULL)
		return false;
	q->buf = buf;
	q->cap = cap;
	return true;
}

bool
outq_add(struct outq *q, bool is_stderr, const void *p, size_t len)
{
	uint32_t header = 0;

	if (!outq_reserve(q, HEADER + len))
		return false;
	if (q->len == 0 || (header_at(q, q->last) & 1u) != (uint32_t)is_stderr) {
		q->last = q->len;
		q->len += HEADER;
		header = is_stderr;
	} else {
		header = header_at(q, q->last);
	}
	header += (uint32_t)len << 1;
	memcpy(q->buf + q->last, &header, HEADER);
	memcpy(q->buf + q->len, p, len);
	q->len += len;
	return true;
}

bool
outq_take(struct outq *q, struct vmpool_event *event)
{
	uint32_t header;

	if (q->pos == q->len)
		return false;
	header = header_at(q, q->pos);
	*event = (struct vmpool_event){
	    .type = (header & 1u) != 0 ? VMPOOL_STDERR : VMPOOL_STDOUT,
	    .data = q->buf + q->pos + HEADER,
	    .len = header >> 1,
	};
	q->pos += HEADER + (header >> 1);
	return true;
}

void
outq_reset(struct outq *q)
{
	q->len = q->pos = q->last = 0;
}

void
outq_fini(struct outq *q)
{
	free(q->buf);
	*q = (struct outq){.buf = NULL};
}
