/* SPDX-License-Identifier: MIT
 *
 * jobtest.h - a worker's job between a real segment and a fake machine, whose guest
 * end and whose clients a test plays.
 */
#ifndef VMPOOL_TESTS_JOBTEST_H
#define VMPOOL_TESTS_JOBTEST_H

#include "tests/lib/fakememory.h"
#include "worker/job.h"

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#define GENERATION 7u

/* The guest end: bytes towards the guest, bytes from it. */
struct fake {
	uint8_t to_guest[1u << 20], from_guest[1u << 20];
	size_t to_len, to_off, from_len, from_off;
	size_t accept; /* bytes the guest still takes */
	struct fakememory memory;
};
extern struct fake fake;

/* A client's end of a channel. */
struct peer {
	struct ring req, rsp;
	struct shm_chan *chan;
	struct port port;		   /* joined: the worker's end */
	uint8_t payload[RING_PAYLOAD_MAX]; /* of the last answer */
};

/* The job of slot 1, leased (GENERATION) and ready; its holder. */
struct fixture {
	struct seg *seg;
	struct job *job;
	struct peer holder;
};
int jobtest_setup(void **state);
int jobtest_teardown(void **state);

/* A client joins; leaves, if it has not, and is freed (its commands have ended). */
struct peer *jobtest_join(struct fixture *f);
void jobtest_leave(struct fixture *f, struct peer *peer);

/* The guest has been renewed, as each is that starts from a template; the flags of that. */
uint8_t jobtest_renew(struct fixture *f);

/* With flags. */
void guest_says_so(uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
		   uint32_t length);
void guest_says(uint8_t type, uint32_t stream, const void *payload, uint32_t length);
/* The next frame that the guest got and this has not returned; false: there is none. */
bool guest_hears(struct proto_hdr *hdr, uint8_t payload[PROTO_PAYLOAD_MAX]);

int client_says(struct peer *peer, uint8_t type, uint8_t flags, uint32_t stream,
		const void *payload, uint32_t length);
/* The next answer to a client, its payload in peer->payload; false: there is none. */
bool client_hears(struct peer *peer, struct ring_rec *rec);

void pump_all(struct fixture *f);

/* A file operation or a command of a client, pumped; returns what the guest knows it by. */
uint32_t start_file(struct fixture *f, struct peer *peer, uint32_t stream, uint32_t op);
uint32_t start_command(struct fixture *f, struct peer *peer, uint32_t stream, uint32_t timeout_ms);

#endif
