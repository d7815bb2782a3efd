/* SPDX-License-Identifier: MIT
 *
 * blob.h - how a machine's state is written down: sections of little-endian
 * values, each with its kind, the vCPU it belongs to, and its length.
 *
 *      0      4       8        16
 *      +------+-------+--------+------------------+
 *      | kind | index | length | length bytes     |  one section; no padding
 *      +------+-------+--------+------------------+
 *
 * Writing never fails half-way: a blob that ran out of memory says so once, at
 * the end. Reading never goes past the end: a view that was asked for more than
 * it has gives zeros from then on, and says so at the end.
 */
#ifndef VMPOOL_BLOB_H
#define VMPOOL_BLOB_H

#include "shm/base.h"

struct blob {
	uint8_t *data;
	size_t len, room;
	size_t section; /* offset of the open section's length; 0: none is open */
	bool failed;	/* out of memory */
};

void blob_fini(struct blob *b);
void blob_bytes(struct blob *b, const void *bytes, size_t len);
void blob_u8(struct blob *b, uint8_t v);
void blob_u16(struct blob *b, uint16_t v);
void blob_u32(struct blob *b, uint32_t v);
void blob_u64(struct blob *b, uint64_t v);
/* Begin a section, after which only its content is written until blob_end. */
void blob_begin(struct blob *b, uint32_t kind, uint32_t index);
void blob_end(struct blob *b);

struct view {
	const uint8_t *p;
	size_t left;
	bool failed;
};

void view_bytes(struct view *v, void *bytes, size_t len);
uint8_t view_u8(struct view *v);
uint16_t view_u16(struct view *v);
uint32_t view_u32(struct view *v);
uint64_t view_u64(struct view *v);
/* A byte that must be 0 or 1. */
bool view_bool(struct view *v);
/* The next section: its kind and index, and a view of its content. false: there
 * is none (v->left is 0), or it is cut off (v->failed). */
bool view_section(struct view *v, uint32_t *kind, uint32_t *index, struct view *content);
/* Everything was there, and nothing is left over. */
bool view_done(const struct view *v);

#endif
