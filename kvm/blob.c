/* SPDX-License-Identifier: MIT
 *
 * blob.c - the encoding of a machine's state. See blob.h. Runs in the worker;
 * owns nothing but the buffer that it fills.
 */
#include "kvm/blob.h"
#include <string.h>

#define ROOM_MIN 4096u

void
blob_fini(struct blob *b)
{
	free(b->data);
	*b = (struct blob){0};
}

static bool
make_room(struct blob *b, size_t len)
{
	size_t room = MAX(b->room, ROOM_MIN);
	uint8_t *data;

	while (room - b->len < len)
		room *= 2;
	if (room == b->room)
		return true;
	data = realloc(b->data, room);
	if (data == NULL) {
		b->failed = true;
		return false;
	}
	b->data = data;
	b->room = room;
	return true;
}

void
blob_bytes(struct blob *b, const void *bytes, size_t len)
{
	if (len == 0 || b->failed || !make_room(b, len))
		return;
	memcpy(b->data + b->len, bytes, len);
	b->len += len;
}

void
blob_u8(struct blob *b, uint8_t v)
{
	blob_bytes(b, &v, sizeof(v));
}

void
blob_u16(struct blob *b, uint16_t v)
{
	blob_bytes(b, &v, sizeof(v));
}

void
blob_u32(struct blob *b, uint32_t v)
{
	blob_bytes(b, &v, sizeof(v));
}

void
blob_u64(struct blob *b, uint64_t v)
{
	blob_bytes(b, &v, sizeof(v));
}

void
blob_begin(struct blob *b, uint32_t kind, uint32_t index)
{
	AZ(b->section);
	blob_u32(b, kind);
	blob_u32(b, index);
	b->section = b->len;
	blob_u64(b, 0);
}

void
blob_end(struct blob *b)
{
	uint64_t len = b->len - b->section - sizeof(len);

	if (!b->failed)
		memcpy(b->data + b->section, &len, sizeof(len));
	b->section = 0;
}

void
view_bytes(struct view *v, void *bytes, size_t len)
{
	if (v->failed || len > v->left) {
		v->failed = true;
		memset(bytes, 0, len);
		return;
	}
	memcpy(bytes, v->p, len);
	v->p += len;
	v->left -= len;
}

uint8_t
view_u8(struct view *v)
{
	uint8_t x;

	view_bytes(v, &x, sizeof(x));
	return x;
}

uint16_t
view_u16(struct view *v)
{
	uint16_t x;

	view_bytes(v, &x, sizeof(x));
	return x;
}

uint32_t
view_u32(struct view *v)
{
	uint32_t x;

	view_bytes(v, &x, sizeof(x));
	return x;
}

uint64_t
view_u64(struct view *v)
{
	uint64_t x;

	view_bytes(v, &x, sizeof(x));
	return x;
}

bool
view_bool(struct view *v)
{
	uint8_t x = view_u8(v);

	if (x > 1)
		v->failed = true;
	return x == 1;
}

bool
view_section(struct view *v, uint32_t *kind, uint32_t *index, struct view *content)
{
	uint64_t len;

	if (v->left == 0 || v->failed)
		return false;
	*kind = view_u32(v);
	*index = view_u32(v);
	len = view_u64(v);
	if (v->failed || len > v->left) {
		v->failed = true;
		return false;
	}
	*content = (struct view){.p = v->p, .left = len};
	v->p += len;
	v->left -= len;
	return true;
}

bool
view_done(const struct view *v)
{
	return !v->failed && v->left == 0;
}
