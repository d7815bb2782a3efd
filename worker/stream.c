/* SPDX-License-Identifier: MIT
 *
 * stream.c - the table of a client's commands. Runs in a worker.
 */
#include "worker/stream.h"

#include <string.h>

#define WINDOW_MAX (1u << 30) /* credit beyond this is not counted */
#define USES ((1u << (32 - STREAM_USE_SHIFT)) - 1)

_Static_assert(PROTO_STREAMS_MAX == 1u << STREAM_ENTRY_BITS, "an id has room for the entry");

struct stream *
streams_take(struct streams *streams, uint32_t use, uint32_t port, uint32_t client_id)
{
	unsigned i = 0;

	while (i < streams->end && streams->at[i].id != 0)
		i++;
	if (i == PROTO_STREAMS_MAX)
		return NULL;
	streams->end = MAX(streams->end, i + 1);
	streams->n++;
	streams->at[i] = (struct stream){
	    .id = (1 + use % USES) << STREAM_USE_SHIFT | port << STREAM_ENTRY_BITS | i,
	    .client_id = client_id,
	    .out_window = PROTO_WINDOW,
	    .in_window = PROTO_WINDOW,
	};
	return &streams->at[i];
}

void
streams_drop(struct streams *streams, struct stream *stream)
{
	AN(stream->id);
	stream->id = 0;
	streams->n--;
	while (streams->end > 0 && streams->at[streams->end - 1].id == 0)
		streams->end--;
}

struct stream *
streams_find(struct streams *streams, uint32_t client_id)
{
	for (unsigned i = 0; i < streams->end; i++)
		if (streams->at[i].client_id == client_id && streams->at[i].id != 0)
			return &streams->at[i];
	return NULL;
}

struct stream *
streams_find_guest(struct streams *streams, uint32_t id)
{
	struct stream *s = &streams->at[id & (PROTO_STREAMS_MAX - 1)];

	return id != 0 && s->id == id && !s->refused ? s : NULL;
}

uint64_t
streams_deadline(const struct streams *streams)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < streams->end; i++) {
		const struct stream *s = &streams->at[i];

		if (s->id != 0 && s->deadline_ns != 0 && (first == 0 || s->deadline_ns < first))
			first = s->deadline_ns;
	}
	return first;
}

uint64_t
stream_window(uint64_t window, const uint8_t *payload)
{
	uint32_t more;

	memcpy(&more, payload, sizeof(more));
	return MIN(window + more, WINDOW_MAX);
}
