/* SPDX-License-Identifier: MIT
 *
 * port.h - the virtio-console port that is the guest channel.
 */
#ifndef GUEST_PORT_H
#define GUEST_PORT_H

#include "kvm/guest/util.h"

/* Listen for device events; call before anything can cause one. The descriptor,
 * or -errno: port_wait then looks now and again instead. */
int port_listen(void) must_check;

/* Wait until a port has the name PROTO_PORT_NAME, and open it non-blocking.
 * The descriptor, or -errno: -ETIMEDOUT, no such port within the deadline. */
int port_wait(int events_fd, uint64_t deadline_ns) must_check;

#endif
