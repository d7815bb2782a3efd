/* SPDX-License-Identifier: MIT
 *
 * job.h - what clients ask of a VM: from a request ring to the guest, and the guest's
 * answers back into a response ring. READ FIRST.
 *
 * File operations go the same way, with FILE and FILE_DONE for EXEC and EXIT.
 *
 * The way of one command: libvmpool writes EXEC records into its request ring
 * and rings the doorbell -> job_pump checks them, opens a stream (stream.h), and passes
 * them on as frames (chan.h) -> the agent runs the command and sends frames ->
 * job_pump checks those against the open streams and their windows, and puts
 * them into the response ring of the port (port.h) whose command it is, waking its client.
 *
 * Failure modes, beside the happy path:
 *   client writes rubbish, or exceeds a window   the VM is ended: "client broke ...";
 *                                                one that has joined is cut off instead
 *   client's lease has ended                     its records are dropped
 *   client stops reading                         its windows close; then its ring
 *                                                fills, and the guest's queue waits;
 *                                                for one that has joined answers are
 *                                                kept, up to PORT_LATE_MAX, or it is cut off
 *   client that has joined goes away             job_leave.c: its commands are killed
 *   clients open more streams than a VM has      the last of them hears an ERROR
 *   guest sends rubbish, or exceeds a window     the VM is ended: "guest broke ..."
 *   guest does not kill a command in time        JOB_GRACE_NS later the VM is ended
 *   guest stops reading                          requests wait in the ring
 */
#ifndef VMPOOL_JOB_H
#define VMPOOL_JOB_H

#include "shm/segment.h"
#include "worker/chan.h"
#include "worker/port.h"
#include "worker/share.h"

#define JOB_GRACE_NS 5000000000ull  /* the host's backstop fires this much after the guest's own */
#define JOB_LEAVE_NS 30000000000ull /* a client's commands end this long after it has gone */
#define JOB_CHECK_MS 5000u	    /* a healthy guest runs /bin/true within this time */
#define JOB_LATE_NS 25000000	    /* a guest's clock may be this much behind; else */
#define JOB_RENEWALS 4u		    /* it is renewed again, so many times in all */
#define JOB_PINGS 256u		    /* PINGs that may be unanswered; more wait in their rings */

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

/* PINGs under way: the guest answers in order. */
struct job_pings {
	unsigned first, n;
	uint8_t port[JOB_PINGS]; /* whose; PORTS_MAX: of one that has gone, or job_quiet's */
};

struct job {
	unsigned magic;
	struct seg *seg;
	uint32_t slot;
	struct shm_chan *shm; /* the slot's, for its statistics */
	bool ready;	      /* the agent has said READY or RENEWED */
	bool renewing;	      /* RENEW is not answered yet */
	unsigned renewals;
	unsigned open;	  /* streams that the guest has, of all ports */
	unsigned leaving; /* ports whose clients have gone, and whose commands have not ended */
	unsigned nports;  /* all entries of port[] from here on are NULL */
	unsigned turn;	  /* whose requests come first */
	uint32_t uses;	  /* streams so far */
	struct port *port[PORTS_MAX];
	struct port holder; /* port 0 */
	struct job_pings pings;
	enum job_check check;
	enum job_quiet quiet;
	char failure[160]; /* why the VM must end; "" = it need not */
	struct chan chan;
	struct share share;
	uint8_t payload[RING_PAYLOAD_MAX];
	uint8_t shared[RING_PAYLOAD_MAX]; /* bytes of a guest's frame that came past the channel */
};

/* For a machine that starts; for one that starts over, after job_fini. */
void job_init(struct job *job, struct seg *seg, uint32_t slot, int response_fd,
	      const struct machine_ops *ops, struct machine *machine);

/* Close every port but the holder's, and let go of what the job keeps. */
void job_fini(struct job *job);

/* The machine runs from its template: make it one of its own (RENEW: entropy, clock,
 * identity). It is ready once the agent has answered; failure says if it cannot. An
 * answer that came late is asked for again: the time that was sent had passed by then. */
void job_renew(struct job *job);

/* A client has joined the lease: its channel becomes this port, which is the caller's,
 * to be kept until it is GONE (then port_fini). 0; -EUSERS: there are PORTS_MAX. */
int job_join(struct job *job, struct port *port, struct shm_chan *shm, int response_fd) must_check;

/* That client has gone, or goes: close its port and have its commands ended. Nothing
 * if it is not OPEN. */
void job_leave(struct job *job, struct port *port);

/* The lease that holds now, 0 if none does: its generation. */
uint64_t job_lease(const struct job *job);

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

/* The earliest backstop deadline of all commands and of clients that leave, 0 if there
 * is none; and the check that one has passed, which sets failure. */
uint64_t job_deadline(const struct job *job);
void job_expire(struct job *job, uint64_t now);

#endif
