/* SPDX-License-Identifier: MIT
 *
 * share.h - the pages that the agent shares with the host (kvm/proto.h), through which
 * bytes of data go without passing the channel.
 */
#ifndef GUEST_SHARE_H
#define GUEST_SHARE_H

#include "kvm/guest/util.h"

/* The host offers to use such pages, or it does not; it knows of none now. */
void share_offer(bool offered);

/* If there are none yet although the host offers: make them, and leave their addresses in
 * pages (PROTO_SHARE_PAGES), for the host to be told. False: nothing to be told. */
bool share_begin(uint64_t *pages);

/* Room for len bytes to the host, contiguous; NULL: none now, or nothing is shared. What is
 * put there is sent by share_sent and a frame that says so. */
uint8_t *share_room(size_t len);
void share_sent(size_t len);

/* The next len bytes from the host, which stay put until share_taken; NULL: there can be none. */
const uint8_t *share_next(size_t len);
void share_taken(size_t len);

#endif
