/* SPDX-License-Identifier: MIT
 *
 * layout.h - every byte of the shared segment.
 *
 * One memfd, sealed against resizing, made by the supervisor. Offsets and
 * indices only, no pointers: each process maps it where it likes.
 *
 *   +------------------+ 0
 *   | struct shm_head  |  identity · policy · lifeline · pool lock · journal ·
 *   |                  |  derived counts · pool statistics
 *   +------------------+ head.idle_off      uint32_t[nslots]       idle ring
 *   +------------------+ head.wait_off      struct shm_waiter[nwaiters]
 *   +------------------+ head.client_off    struct shm_client[nclients]
 *   +------------------+ head.slot_off      struct shm_slot[nslots]
 *   +------------------+ head.chan_off      struct shm_chan[nslots], page aligned
 *   |  per slot: page of its worker · request ring · response ring
 *   +------------------+ head.size
 *
 * Who may write what is argued in shm/README.md. In short: everything up to
 * chan_off changes only under the pool lock, through the journal (lock.h); a
 * channel's control page and rings have one writer per word, named below.
 */
#ifndef VMPOOL_LAYOUT_H
#define VMPOOL_LAYOUT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SHM_MAGIC 0x31304c4f4f504d56ull /* "VMPOOL01" */
#define SHM_VERSION 1u
#define SHM_PAGE 4096u
#define SHM_CACHELINE 64u
#define SHM_SLOTS_MAX 4096u
#define SHM_CLIENTS 1024u
#define SHM_WAITERS 1024u
#define SHM_RING_SIZE (64u << 10) /* bytes, a power of two; holds three of the largest frames */
#define SHM_NO_CLIENT 0xffffu

/* --- slot state word ------------------------------------------------------
 * 63            24 23          8 7      0
 * [  generation   |  client id  | state ]     generation grows with every claim
 * The word is the truth about a slot; idle ring and counts are derived from it. */
enum slot_state {
	SLOT_EMPTY = 0, /* no VM */
	SLOT_STARTING,	/* a worker is being made or its guest boots */
	SLOT_IDLE,	/* ready, untouched, in the idle ring */
	SLOT_IN_USE,	/* leased to the client in the word */
	SLOT_RESETTING, /* nobody's: being reset, or its worker is being ended */
	SLOT_DEAD,	/* the VM ended under a lease; the client in the word has yet to let go */
	SLOT_STATES,
};

/* A req_mark that no tail equals: the VM counts as touched, whatever its holder did. */
#define SHM_MARK_TOUCHED UINT64_MAX

/* Why a slot is RESETTING. */
enum slot_resetting {
	RESETTING_EVICTED = 0, /* its idle VM has to go */
	RESETTING_USED,	       /* its lease has ended */
	RESETTING_CHECK,       /* its idle VM is being health-checked */
};

struct shm_slot {
	_Atomic uint64_t word;	     /* see above; changed under the pool lock */
	_Atomic uint64_t since_ns;   /* when the state last changed, CLOCK_MONOTONIC (IDLE and
					IN_USE: to a clock tick, behind by 10 ms at most; IN_USE:
					when the call began) */
	_Atomic uint64_t idle_seq;   /* order in the idle ring: larger = newer */
	_Atomic uint64_t born_ns;    /* when the VM became ready, CLOCK_MONOTONIC */
	_Atomic uint32_t worker_pid; /* 0 = none */
	_Atomic uint32_t resetting;  /* RESETTING: enum slot_resetting, why */
	_Atomic uint64_t req_mark; /* chan.req.tail when the VM became ready: untouched while equal;
				      SHM_MARK_TOUCHED: the lease was joined by others */
	_Atomic uint32_t life;	   /* the worker's thread id, then FUTEX_OWNER_DIED (lifeline_tie);
				      0: it has not said */
	_Atomic uint32_t pad;
	_Atomic uint64_t pad2;
} __attribute__((aligned(64)));

/* --- clients and waiters --------------------------------------------------- */
struct shm_client {
	_Atomic uint32_t pid; /* 0 = free; written by the supervisor, under the lock */
	_Atomic uint32_t pad;
};

enum waiter_state {
	WAITER_FREE = 0,
	WAITER_WAITING,
	WAITER_GRANTED, /* lease and slot say which lease is the waiter's now */
};
/* state: low byte enum waiter_state, changed under the pool lock; the upper
 * bits grow by nudges (atomic adds, no lock) that wake the sleeper to look
 * again. claim: what became of the wait, decided without the lock. */
#define WAITER_STATE(word) ((enum waiter_state)((word)&0xffu))
#define WAITER_NUDGE 0x100u
enum waiter_claim {
	CLAIM_OPEN = 0,
	CLAIM_TAKEN,	 /* by the caller: it has the grant, or left the queue in order */
	CLAIM_ABANDONED, /* by the caller: it gave up while the lock could not be had */
	CLAIM_REVOKED,	 /* by a lock holder: ABANDONED was seen, its grant is taken back */
};
struct shm_waiter {
	_Atomic uint32_t state;	 /* the futex the caller sleeps on */
	_Atomic uint32_t client; /* client id */
	_Atomic uint64_t ticket; /* arrival order */
	_Atomic uint64_t lease;	 /* GRANTED: the slot's state word after the claim */
	_Atomic uint32_t slot;
	_Atomic uint32_t claim; /* enum waiter_claim */
} __attribute__((aligned(64)));

/* --- statistics ------------------------------------------------------------ */
/* Histogram of nanoseconds: bucket = 4 * floor(log2 v) + next two bits; within 12.5 %. */
#define HIST_BUCKETS 160u /* up to 2^40 ns, 18 minutes; larger values count in the last */
struct shm_hist {
	_Atomic uint64_t sum;
	_Atomic uint64_t max;
	_Atomic uint64_t bucket[HIST_BUCKETS];
};

enum pool_counter {
#define POOL_COUNTER(name, unit, help) C_##name,
#include "shm/stat.def"
	POOL_COUNTERS,
};
enum slot_counter {
#define SLOT_COUNTER(name, unit, help) C_##name,
#include "shm/stat.def"
	SLOT_COUNTERS,
};
enum pool_hist {
#define POOL_HIST(name, unit, help) H_##name,
#include "shm/stat.def"
	POOL_HISTS,
};
enum slot_hist {
#define SLOT_HIST(name, unit, help) H_##name,
#include "shm/stat.def"
	SLOT_HISTS,
};

/* --- rings and the channel of a slot ---------------------------------------- */
/* A byte ring of records: struct ring_rec, then length payload bytes. Positions
 * only grow; position % SHM_RING_SIZE is the place. One producer, one consumer. */
struct shm_ring {
	_Atomic uint64_t tail __attribute__((aligned(64))); /* producer */
	_Atomic uint64_t head __attribute__((aligned(64))); /* consumer */
};

#define SHM_CHAN_CLOSED 2u /* of worker_asleep */
struct shm_chan {
	/* The worker's page: written by the slot's worker unless said otherwise. */
	struct shm_ring req; /* producer: client; consumer: worker */
	struct shm_ring rsp; /* producer: worker; consumer: client */
	_Atomic uint32_t rsp_seq
	    __attribute__((aligned(64))); /* futex: grows with every publication */
	_Atomic uint32_t
	    rsp_stalled; /* worker: 1 = rsp was full, client must ring after draining */
	/* Written by the client: who sleeps, so that the worker wakes only then. */
	_Atomic uint32_t rsp_sleepers
	    __attribute__((aligned(64))); /* threads in futex wait on rsp_seq */
	_Atomic uint32_t rsp_pollers;	  /* 1 = the rsp eventfd is being polled too */
	_Atomic uint32_t
	    req_stalled; /* client: 1 = req was full, worker bumps rsp_seq after draining */
	/* The worker sleeps in its event loop: 1 = ring the request eventfd (worker writes).
	 * SHM_CHAN_CLOSED: it serves this channel no more (a client's that has joined). */
	_Atomic uint32_t worker_asleep __attribute__((aligned(64)));
	_Atomic uint64_t counter[SLOT_COUNTERS] __attribute__((aligned(64)));
	struct shm_hist hist[SLOT_HISTS]; /* acquire_ns: written by the lease's holder */
	uint8_t req_data[SHM_RING_SIZE] __attribute__((aligned(4096)));
	uint8_t rsp_data[SHM_RING_SIZE];
} __attribute__((aligned(4096)));

/* --- the head --------------------------------------------------------------- */
/* The pool lock: a robust futex (lock.h says why it is not a pthread mutex). */
struct shm_lock {
	_Atomic uint32_t word; /* thread id of the holder | FUTEX_WAITERS | FUTEX_OWNER_DIED */
} __attribute__((aligned(64)));

/* The journal makes a critical section atomic across the death of its process:
 * (offset, value) pairs are written, committed by n, applied, and n cleared.
 * Whoever repairs re-applies a committed journal; values are absolute, so doing
 * it twice is harmless. */
#define JOURNAL_MAX 32u
struct shm_journal {
	_Atomic uint64_t n; /* 0 = nothing committed */
	struct {
		_Atomic uint64_t place; /* offset of the word | its size (4 or 8) << 32 */
		_Atomic uint64_t value;
	} e[JOURNAL_MAX];
};

enum pool_state {
	POOL_RUNNING = 1,
	POOL_DRAINING,
};

/* What the supervisor's configuration says; atomics, changed by SIGHUP. */
struct shm_policy {
	_Atomic uint32_t min_idle, max_idle, max_total;
	_Atomic uint32_t max_idle_time; /* seconds */
	_Atomic uint32_t health_interval;
	_Atomic uint32_t recycle; /* 0 = discard, 1 = reset */
};

struct shm_head {
	/* Identity: written once, before the segment is shared. */
	uint64_t magic;	     /* SHM_MAGIC */
	uint64_t format;     /* SHM_FORMAT: version, sizes and counts of this build */
	uint64_t size;	     /* of the whole segment */
	uint64_t generation; /* of this supervisor: random */
	uint32_t nslots, nclients, nwaiters, supervisor_pid;
	uint32_t idle_off, wait_off, client_off, slot_off;
	uint64_t chan_off;
	uint32_t memory_mib, vcpus;
	char name[64]; /* NUL-terminated */
	char accel[8]; /* "kvm" or "tcg" */
	char why[256]; /* why that accelerator */

	/* Written by the supervisor alone. */
	struct shm_policy policy __attribute__((aligned(64)));
	_Atomic uint64_t heartbeat_ns; /* CLOCK_MONOTONIC */
	_Atomic uint32_t state;	       /* enum pool_state */
	_Atomic uint32_t failing;      /* starts failed in a row; 0 = healthy */
	char last_failure[256];	       /* text; readers copy and terminate it themselves */

	/* Held by the supervisor for life; its death wakes whoever waits on it. */
	pthread_mutex_t lifeline __attribute__((aligned(64)));

	/* The pool lock, and what it guards. What every claim and release touches is
	 * together: the lock, the words behind it, the first counters. */
	struct shm_journal journal __attribute__((aligned(64)));
	struct shm_lock lock __attribute__((aligned(128)));
	_Atomic uint64_t seq
	    __attribute__((aligned(64))); /* idle_seq and ticket numbers given out so far */
	_Atomic uint32_t warm_target;	  /* hold at least this many idle until lowered */
	_Atomic uint32_t change_seq;	  /* futex, see lease_change_expect: grows when a slot
					     becomes idle or a start fails */
	/* Derived from the slot and waiter tables; rebuilt by repair. */
	_Atomic uint32_t count[SLOT_STATES];
	_Atomic uint32_t idle_head; /* place of the oldest in the idle ring */
	_Atomic uint32_t waiting;
	/* Statistics, under the lock. */
	_Atomic uint64_t counter[POOL_COUNTERS] __attribute__((aligned(64)));
	struct shm_hist hist[POOL_HISTS];
	/* Leases that ended so far with a used VM, those whose VM had died, and used
	 * VMs that were reset and became idle again: what repair needs to tell
	 * hit_count, release_count and recycle_count from the slots' generations. */
	_Atomic uint64_t ended_used, ended_dead, reset_leased;
};

/* The format word: a build with any other size, count or place has another word. */
#define SHM_MIX(h, v) (((h) ^ (uint64_t)(v)) * 0x100000001b3ull)
#define SHM_FORMAT_SIZES \
	SHM_MIX(SHM_MIX(SHM_MIX(SHM_MIX(0xcbf29ce484222325ull, sizeof(struct shm_head)), \
				sizeof(struct shm_chan)), \
			sizeof(struct shm_slot)), \
		sizeof(struct shm_waiter))
#define SHM_FORMAT_COUNTS \
	SHM_MIX(SHM_MIX(SHM_MIX(SHM_MIX(SHM_FORMAT_SIZES, POOL_COUNTERS), SLOT_COUNTERS), \
			SHM_CLIENTS), \
		SHM_WAITERS)
#define SHM_FORMAT_PLACES \
	SHM_MIX(SHM_MIX(SHM_MIX(SHM_FORMAT_COUNTS, offsetof(struct shm_head, lock)), \
			offsetof(struct shm_head, counter)), \
		offsetof(struct shm_chan, counter))
#define SHM_FORMAT ((uint64_t)SHM_VERSION << 56 | (SHM_FORMAT_PLACES & 0x00ffffffffffffffull))

_Static_assert(sizeof(struct shm_slot) == 64, "one slot, one cache line");
_Static_assert(sizeof(struct shm_waiter) == 64, "one waiter, one cache line");
_Static_assert(offsetof(struct shm_chan, req_data) == 4096, "the worker's page is one page");
_Static_assert(sizeof(struct shm_chan) == 4096 + 2 * SHM_RING_SIZE, "channel");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "plain atomics");

#endif
