/* SPDX-License-Identifier: MIT
 *
 * pool_client.h - clients for tests of the supervisor: through libvmpool, and by
 * hand with its messages. All fail the test rather than return an error.
 */
#ifndef VMPOOL_TESTS_POOL_CLIENT_H
#define VMPOOL_TESTS_POOL_CLIENT_H

#include "shm/ctl.h"
#include "shm/layout.h"
#include "shm/vmpool.h"

extern const struct vmpool_acquire_opts pool_client_10_s;

/* Attached to the pool "default"; a lease there, waiting at most 10 s. */
struct vmpool *pool_client_attach(void);
struct vmpool_vm *pool_client_acquire(struct vmpool *pool);

/* A connection to its socket; a well-formed request of this kind. */
int pool_client_connect(void);
struct ctl_request pool_client_request(uint32_t kind);

/* Connect, send, and receive the answer: the connection, and with _fd the
 * segment's descriptor (-1: none came). */
int pool_client_ask(const struct ctl_request *req, struct ctl_reply *reply);
int pool_client_ask_fd(const struct ctl_request *req, struct ctl_reply *reply, int *segment_fd);

#endif
