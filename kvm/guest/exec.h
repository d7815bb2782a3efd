/* SPDX-License-Identifier: MIT
 *
 * exec.h - EXEC frames: pieces in, a running command or a PROTO_ERROR out.
 */
#ifndef GUEST_EXEC_H
#define GUEST_EXEC_H

#include "kvm/guest/chan.h"
#include "kvm/guest/util.h"

/* One EXEC frame of a stream. A request that is refused is refused after its
 * last piece, so that the stream's one ERROR cannot be taken for the answer to
 * something later; a piece for a running command ends that command too. */
void exec_piece(struct chan *c, const struct proto_hdr *h, const uint8_t *payload);

/* Is a request of that stream being assembled? Then it is refused with this. */
bool exec_refuse(uint32_t stream, int err, const char *text);

/* Forget requests whose last piece has not come. */
void exec_fini(void);

#endif
