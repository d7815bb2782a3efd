/* SPDX-License-Identifier: MIT
 *
 * ctl.h - the messages on the supervisor's sockets. All are SOCK_SEQPACKET: one
 * message, one packet, of exactly its struct's size.
 *
 *   client  <-> supervisor   NAME.sock in the runtime directory
 *   supervisor <-> fork server, supervisor <-> worker: socketpairs
 *
 * A peer that sends anything else (size, magic, kind, value) is cut off.
 */
#ifndef VMPOOL_CTL_H
#define VMPOOL_CTL_H

#include "shm/base.h"

#define CTL_MAGIC 0x4c544356u /* "VCTL" */
#define CTL_TEXT 1024
#define CTL_FDS 5 /* descriptors with one message, at most */

/* --- client and supervisor ---------------------------------------------------
 * ATTACH    -> ATTACHED with the segment and the doorbell eventfd (monitors: the
 *              segment read-only, nothing else), or REFUSED with a reason
 * DOORBELLS -> DOORBELLS with slot's request and response eventfds, or REFUSED
 * JOIN      -> JOIN with the client's end of a channel to the VM of another's lease: four
 *              descriptors, see below; or REFUSED (-ESTALE: that lease has ended)
 * STOP      -> OK at once; the supervisor drains, then ends (the socket closes)
 * SNAPSHOT  -> goes with a file, open for reading and writing: the VM of this lease
 *              is written into it; OK when it is complete, or REFUSED
 * FORK      -> FORKED with a lease of the client's on a copy of that VM, or REFUSED
 * These two take their time: each has a connection of its own, whose closing means
 * that nobody waits for the answer any more.
 * The client's socket stays open for as long as it is attached: its closing
 * ends the client's leases. */
enum ctl_kind {
	CTL_ATTACH = 1,
	CTL_MONITOR,
	CTL_DOORBELLS,
	CTL_STOP,
	CTL_SNAPSHOT,
	CTL_FORK,
	CTL_JOIN,
	CTL_ATTACHED = 64,
	CTL_OK,
	CTL_REFUSED,
	CTL_FORKED,
};
struct ctl_request {
	uint32_t magic, kind;
	uint64_t format;   /* ATTACH, MONITOR: SHM_FORMAT of the sender */
	uint32_t slot;	   /* DOORBELLS, JOIN, SNAPSHOT, FORK */
	uint32_t drain_ms; /* STOP: wait this long for leases to end */
	uint64_t lease;	   /* JOIN, SNAPSHOT, FORK: the lease's generation */
	uint32_t client;   /* FORK: who is to have the copy, attached by the same process */
	uint32_t zero;
};
struct ctl_reply {
	uint32_t magic, kind;
	int32_t error;	 /* REFUSED: -errno */
	uint32_t client; /* ATTACHED: client id */
	uint64_t generation;
	uint64_t word; /* FORKED: the new lease, as in lease.h */
	uint32_t slot, zero;
	char text[CTL_TEXT]; /* REFUSED: one line */
};

/* What a machine was made of, so that a snapshot of it can say so: hashes of kernel
 * and image as they were booted and of the CPU's features, and, for an emulated
 * machine, the TSC rate that its guest was told (0: the state itself knows). */
struct ctl_origin {
	uint8_t kernel[16], image[16], cpu[16];
	uint32_t tsc_khz, zero;
};

/* What goes with JOIN, to the client and to the worker: the channel (joined.h), its two
 * eventfds, and each side's end of a socket. On that the worker says once how it went;
 * nothing else: its closing is how either side learns that the other is gone. */
enum {
	CTL_JOIN_CHAN = 0,
	CTL_JOIN_REQUEST,
	CTL_JOIN_RESPONSE,
	CTL_JOIN_LIFE,
	CTL_JOIN_FDS,
};
struct ctl_joined {
	uint32_t magic;
	int32_t error; /* 0; -ESTALE: the lease has ended; -EUSERS: too many have joined it */
};

/* A template as it is handed on: memory and state, by two descriptors, in this
 * order (machine.h). */
struct ctl_template {
	uint64_t mem_off, state_off, state_len;
	struct ctl_origin origin;
};

/* --- supervisor and fork server ----------------------------------------------
 * BUILD goes with one descriptor: the builder's end of its control socket. The
 * answer is a SPAWN's, for slot FSRV_BUILDER.
 * TEMPLATE goes with the template's two, and has no answer: SPAWN needs it.
 * SPAWN goes with three: the worker's end of its control socket, the slot's
 * request and response eventfds. The answer carries the worker's pid and, as a
 * descriptor, its pidfd; or an errno. The worker is the supervisor's own child
 * (CLONE_PARENT).
 * FORK is a SPAWN of a VM that starts from the template in the message, and goes with
 * its two descriptors besides.
 * When its socket closes, the fork server removes the runtime files that it was
 * told at start, and ends. */
enum fsrv_kind {
	FSRV_SPAWN = 1,
	FSRV_BUILD,
	FSRV_TEMPLATE,
	FSRV_FORK,
};
#define FSRV_BUILDER UINT32_MAX
struct fsrv_request {
	uint32_t magic, kind;
	uint32_t slot, zero;
	uint64_t generation;
	struct ctl_template tmpl;
};
struct fsrv_spawned {
	uint32_t magic;
	uint32_t slot;
	uint64_t generation;
	int32_t pid;   /* > 0, or 0 with error */
	int32_t error; /* -errno */
};

/* --- supervisor and worker -----------------------------------------------------
 * The worker says READY once its guest's agent answers, or FAILED with a reason
 * before it ends. The supervisor says STOP (end now, politely), CHECK (run
 * /bin/true in the guest and answer CHECKED) or RESET (put the VM back into the
 * template's state and say READY again); closing the socket means STOP.
 * CAPTURE: write down the VM of this lease, which must be quiescent, and let it run on:
 * with a descriptor, as a snapshot into that file; without, as a template. The answer is
 * CAPTURED, with the template's two descriptors in the latter case, or with the error
 * and a text.
 * JOIN: a client joins the lease of this generation; four descriptors go with it, no answer.
 * A builder says TEMPLATE, with the template's two descriptors, or FAILED. */
enum worker_kind {
	WORKER_READY = 1,
	WORKER_FAILED,
	WORKER_CHECKED,
	WORKER_TEMPLATE,
	WORKER_CAPTURED,
	WORKER_STOP = 64,
	WORKER_CHECK,
	WORKER_RESET,
	WORKER_CAPTURE,
	WORKER_JOIN,
};
struct worker_msg {
	uint32_t magic, kind;
	int32_t error; /* FAILED, CHECKED, CAPTURED: 0 or -errno */
	uint32_t zero;
	uint64_t took_ns;	  /* READY, TEMPLATE, CAPTURED: since it was told to */
	uint64_t pages;		  /* READY: memory pages that the reset put back */
	uint64_t lease;		  /* CAPTURE, JOIN: the lease's generation */
	struct ctl_template tmpl; /* TEMPLATE, CAPTURED */
	char text[CTL_TEXT * 3];  /* FAILED: one line, then the tail of the console log;
				     TEMPLATE, CAPTURED: one line on how it was made, or why not */
};

/* Send one packet of len bytes with nfds (0..CTL_FDS) descriptors; receive one of
 * exactly len bytes. 0; -EAGAIN (non-blocking socket); -EPIPE (peer gone, no
 * signal); -EPROTO (wrong size, truncated, or more descriptors than nfds: all
 * are closed). ctl_recv sets fds[] to the descriptors received, -1 for absent
 * ones; close-on-exec. */
int ctl_send(int sock, const void *msg, size_t len, const int *fds, unsigned nfds) must_check;
int ctl_recv(int sock, void *msg, size_t len, int *fds, unsigned nfds) must_check;

/* The two ends of a control socket; ours does not block, theirs may. 0; -errno, both -1. */
int ctl_pair(int *ours, int *theirs) must_check;

/* The runtime directory into buf, and NAME's file with this suffix (".sock",
 * ".pid"). -ENAMETOOLONG with err: socket path too long; -EINVAL: bad name
 * (letters, digits, '-', '_', '.'; 1..63 bytes; not starting with '.'). */
int ctl_rundir(char *buf, size_t len, char *err, size_t errlen) must_check;
int ctl_path(char *buf, size_t len, const char *name, const char *suffix, char *err,
	     size_t errlen) must_check;

#endif
