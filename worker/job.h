/* SPDX-License-Identifier: MIT
 *
 * job.h - what a client asks of a VM: from its request ring to the guest, and
 * the guest's answers back into its response ring. READ FIRST.
 *
 * The way of one command: libvmpool writes EXEC records into the request ring
 * and rings the doorbell -> job_pump checks them, opens a stream, and passes
 * them on as frames (chan.h) -> the agent runs the command and sends frames ->
 * job_pump checks those against the open streams and their windows, and puts
 * them into the response ring, waking the client.
 *
 * Failure modes, beside the happy path:
 *   client writes rubbish, or exceeds a window   the VM is ended: "client broke ..."
 *   client's lease has ended                     its records are dropped
 *   client stops reading                         its windows close; then its ring
 *                                                fills, and the guest's queue waits
 *   guest sends rubbish, or exceeds a window     the VM is ended: "guest broke ..."
 *   guest does not kill a command in time        JOB_GRACE_NS later the VM is ended
 *   guest stops reading                          requests wait in the ring
 */
#ifndef VMPOOL_JOB_H
#define VMPOOL_JOB_H

#include "shm/ring.h"
#include "shm/segment.h"
#include "worker/chan.h"

#define JOB_GRACE_NS 5000000000ull  /* the host's backstop fires this much after the guest's own */
#define JOB_CHECK_STREAM UINT32_MAX /* the health check's; clients may not use it */
#define JOB_CHECK_MS 5000u	    /* a healthy guest runs /bin/true within this time */

enum job_check {
	CHECK_NONE,
	CHECK_RUNNING,
	CHECK_PASSED, /* the guest ran /bin/true and it ended with status 0 */
	CHECK_FAILED,
};

/* Standing still, to be captured (job_quiet). */
enum job_quiet {
	QUIET_NO,
	QUIET_ASKED, /* no request is taken; a PING is under way */
	QUIET_YES,   /* the agent has answered, and has nothing else to say */
};

struct job_stream {
	uint32_t id;	       /* 0 = free entry */
	bool sending;	       /* further EXEC pieces are to come */
	uint32_t request_size; /* bytes of EXEC so far */
	uint64_t start_ns;
	uint64_t deadline_ns; /* the backstop; 0 = none */
	uint64_t out_window;  /* output bytes the guest may still send */
	uint64_t in_window;   /* stdin bytes the client may still send */
};

struct job {
	unsigned magic;
	struct seg *seg;
	uint32_t slot;
	struct shm_chan *shm;
	int response_fd; /* eventfd for clients that poll */
	struct chan chan;
	struct ring req, rsp;
	bool ready;	/* the agent has said READY or RENEWED */
	bool renewing;	/* RENEW is not answered yet */
	uint32_t pings; /* PINGs not answered yet */
	unsigned open;	/* streams in use */
	bool published; /* records were written since the client was last woken */
	enum job_check check;
	enum job_quiet quiet;
	struct job_stream stream[PROTO_STREAMS_MAX];
	uint8_t payload[RING_PAYLOAD_MAX];
	char failure[160]; /* why the VM must end; "" = it need not */
};

void job_init(struct job *job, struct seg *seg, uint32_t slot, int response_fd,
	      const struct machine_ops *ops, struct machine *machine);

/* The machine runs from its template: make it one of its own (RENEW: entropy, clock,
 * identity). It is ready once the agent has answered; failure says if it cannot. */
void job_renew(struct job *job);

/* Move what can be moved, a bounded amount; true if anything was. Afterwards
 * look at failure (the VM must be ended) and ready. */
bool job_pump(struct job *job);

/* Nothing more can be moved: tell the other side to ring us before the loop
 * sleeps. false if something has come meanwhile. */
bool job_sleep(struct job *job);
void job_awake(struct job *job);

/* Run /bin/true in the guest; check says how it ended. -EBUSY: the guest is not
 * ready, or does something else. A guest that stays silent fails by its deadline
 * (job_expire). */
int job_check(struct job *job) must_check;

/* The VM of the lease of this generation is to stand still: take no more requests, and
 * have its agent prove that it is at rest (quiet says when). -ESTALE: the lease has
 * ended; -EBUSY: commands run. Until job_unquiet. */
int job_quiet(struct job *job, uint64_t generation) must_check;
void job_unquiet(struct job *job);

/* The earliest backstop deadline of all commands, 0 if there is none; and the
 * check that one has passed, which sets failure. */
uint64_t job_deadline(const struct job *job);
void job_expire(struct job *job, uint64_t now);

#endif
