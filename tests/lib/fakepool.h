/* SPDX-License-Identifier: MIT
 *
 * fakepool.h - a pool without machines, inside a test program: threads play the
 * supervisor (the socket, the segment, the lifeline) and the workers, whose
 * "guests" play scripts. For tests of libvmpool; everything between is real.
 *
 * A command's name chooses the script:
 *   echo ARGS             prints them; status 0
 *   exit N, signal N, timeout
 *   dump                  prints the whole request as it arrived, header included
 *   flood N               N bytes, byte i is i % 251
 *   both N                N times "o" on stdout and "e" on stderr, alternating
 *   cat                   stdin to stdout; sink: counts stdin; deaf: takes one window
 *   sleep                 until it is killed; mute: ignores that, too
 *   stubborn N            like flood N, and ignores being killed
 *   error STAGE ERRNO     refuses to start
 *   partial               prints "partial", then its VM dies
 *   cheat                 exceeds its window; credit: grants 4 GiB of stdin
 *   badexit, badtype      nonsense; badpos: the ring's tail is moved
 *   stale, stranger, late records of another lease, of no stream, after the end
 *   filedone              ends like a file operation
 * The path of a file operation chooses as well: see fakefile.c.
 *
 * Instead, each worker can be the real thing (worker/job.c) with the real agent,
 * which runs here and not in a VM: fakepool_open_agents.
 */
#ifndef VMPOOL_TESTS_FAKEPOOL_H
#define VMPOOL_TESTS_FAKEPOOL_H

#include "kvm/proto.h"
#include "shm/ring.h"
#include "shm/segment.h"

#include <pthread.h>

#define FAKE_SLOTS 8
#define FAKE_JOINED 8

struct fake_stream {
	uint32_t id; /* 0 = free */
	uint8_t *req;
	size_t req_len;
	bool started, eof;
	char script[16];
	uint64_t window; /* output it may still send */
	uint64_t left;	 /* flood, both: still to be sent */
	uint64_t sent, taken;
	uint8_t in[PROTO_WINDOW]; /* cat: not sent yet */
	size_t in_len;
};

struct fake_worker {
	struct fakepool *pool;
	uint32_t slot;
	bool running;
	pthread_t thread;
	atomic_bool stop, paused, parked;
	struct shm_chan *chan;
	int req_fd, rsp_fd;
	struct ring req, rsp;
	bool published;
	struct fake_stream stream[PROTO_STREAMS_MAX];
	uint8_t payload[RING_PAYLOAD_MAX];
};

struct fakepool {
	struct seg *seg;
	void *(*body)(void *worker); /* of a worker's thread */
	char dir[64], path[108], name[64];
	int listen_fd, door, control;
	struct {
		int req, rsp;
	} bells[FAKE_SLOTS];
	struct fake_worker worker[FAKE_SLOTS];
	/* Clients that have joined are each served by a worker of their own. */
	struct fake_joined {
		struct fake_worker worker;
		int life; /* the worker's end of the socket */
	} joined[FAKE_JOINED];
	unsigned njoined;		     /* so far */
	atomic_bool wants_death[FAKE_SLOTS]; /* a script asks for the end of its VM */
	pthread_t supervisor;
	pthread_mutex_t lock;	   /* starting and stopping of workers */
	atomic_bool die;	   /* the supervisor ends at once */
	atomic_bool silent_pings;  /* agents do not answer */
	atomic_bool silent_socket; /* the supervisor does not answer */
	atomic_bool wrong_format;  /* it pretends to be of another build */
	atomic_bool stop_asked;
	atomic_int join_error; /* what a worker says to who joins; 1: nothing */
	atomic_uint doorbell_requests, kills, credits, exits;
};

/* A pool NAME in a fresh runtime directory ($VMPOOL_RUNDIR is set), with `idle`
 * of FAKE_SLOTS slots idle. Asserts that it works. */
void fakepool_open(struct fakepool *fp, const char *name, unsigned idle);
void fakepool_open_agents(struct fakepool *fp, const char *name, unsigned idle);
void fakepool_close(struct fakepool *fp);

/* The supervisor dies as by SIGKILL. */
void fakepool_kill_supervisor(struct fakepool *fp);
/* The slot's VM ends by itself, whatever state it is in. */
void fakepool_kill_vm(struct fakepool *fp, uint32_t slot);
/* The slot's worker does nothing until told otherwise; it has stopped on return. */
void fakepool_pause(struct fakepool *fp, uint32_t slot, bool paused);
/* As a worker that cuts off the n-th who has joined. */
void fakepool_cut_off(struct fakepool *fp, unsigned n);
/* As the kernel marks the end of a slot's worker, which the supervisor has not noticed. */
void fakepool_sever(struct fakepool *fp, uint32_t slot);
/* A further VM becomes idle (in an empty slot). */
void fakepool_add_vm(struct fakepool *fp);

/* fakeguest.c: the worker's thread; and a record for its client. */
void *fakeguest_run(void *worker);
void fakeguest_respond(struct fake_worker *w, uint32_t stream, uint8_t type, const void *p,
		       size_t len);

/* fakefile.c: a file operation has come. */
void fakefile_request(struct fake_worker *w, const struct ring_rec *rec);

/* fakeagent.c: the same with job.c and an agent. Pausing does not work there. */
void *fakeagent_run(void *worker);

#endif
