/* SPDX-License-Identifier: MIT
 *
 * file_req.h - one FILE request, taken apart and checked.
 */
#ifndef GUEST_FILE_REQ_H
#define GUEST_FILE_REQ_H

#include "kvm/guest/util.h"
#include "kvm/proto.h"

struct file_req {
	struct proto_file head;
	const char *path, *other, *root; /* lie in the request's bytes */
};

/* Check bytes[0..len) and point into them. NULL, or what is wrong with it. */
const char *file_req_parse(struct file_req *q, const uint8_t *bytes, size_t len) must_check;

#endif
