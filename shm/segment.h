/* SPDX-License-Identifier: MIT
 *
 * segment.h - create, attach and validate the shared segment (layout.h).
 *
 * The only mmap of the segment. The private struct seg holds the numbers that
 * were validated once at attach; nobody reads an offset or a count from the
 * mapping again, since others could change it there.
 */
#ifndef VMPOOL_SEGMENT_H
#define VMPOOL_SEGMENT_H

#include "shm/base.h"
#include "shm/layout.h"

#define SEG_MAGIC 0x5e63e27u

struct seg {
	unsigned magic;
	int fd; /* the memfd; owned */
	bool read_only;
	size_t size;
	uint32_t nslots, nclients, nwaiters;
	struct shm_head *head;
	_Atomic uint32_t *idle; /* the idle ring, nslots entries */
	struct shm_waiter *waiter;
	struct shm_client *client;
	struct shm_slot *slot;
	struct shm_chan *chan;
	struct seg_scratch {
		uint64_t seq;
		uint32_t slot;
	} * scratch;		  /* nslots entries for the repair; used under the pool lock only */
	pthread_mutex_t lifeline; /* the lifeline as its holder, thread lifeline_tid, left it */
	uint32_t lifeline_tid;	  /* 0: not held in this process */
};

struct seg_params {
	const char *name; /* at most 63 bytes */
	const char *accel, *why;
	uint32_t nslots; /* 1..SHM_SLOTS_MAX */
	uint32_t memory_mib, vcpus;
};

/* Bytes of a segment with nslots slots. */
size_t seg_size(uint32_t nslots);

/* Make a segment in a sealed memfd (F_SEAL_SHRINK | GROW | SEAL), identity
 * filled in, locks initialised, every slot EMPTY, policy all zero, lifeline not
 * yet held. 0 or -errno with err. */
int seg_create(struct seg **out, const struct seg_params *params, char *err,
	       size_t errlen) must_check;

/* Map a segment received from a supervisor: takes ownership of fd (closed on
 * failure too). Checks seals, magic, format, sizes, offsets. -EPROTO: not a
 * segment; -EMEDIUMTYPE: another layout. */
int seg_attach(struct seg **out, int fd, bool read_only, char *err, size_t errlen) must_check;

/* A new read-only descriptor of the segment, for monitors; -errno. */
int seg_read_only_fd(const struct seg *seg) must_check;

/* Drop the lifeline if this thread holds it, unmap and close. NULL is fine. */
void seg_close(struct seg *seg);

#endif
