/* SPDX-License-Identifier: MIT
 *
 * client.h - what the parts of libvmpool share; private to shm/client*.c.
 *
 *   client.c        handles: attach, detach, stop; talking to the supervisor
 *   client_error.c  error texts, one line per thread
 *   client_lease.c  acquire, release, warm
 *   client_join.c   a lease's name; joining and leaving it
 *   client_conn.c   a VM's channel: rings, doorbells, waiting, who gets which record
 *   client_stream.c one command: its stream, its windows, its end
 *   client_outq.c   ... its output that has not been fetched
 *   client_proc.c   ... and the handle that the caller has of it
 *   client_exec.c   requests, collected commands, pings
 *   client_vmstat.c how a VM does
 *   client_signal.c names of signals
 *   client_copy.c   snapshots and forks
 *   client_file.c   file operations: the request, the answer, what is done in one step
 *   client_file_io.c  ... and what takes many: reading, writing, listing
 *   client_info.c   statistics and lists
 *
 * Locks, in this order: pool->lock guards the lists of VMs; pool->sock_lock the
 * socket and the cache of doorbells; vm->lock all that belongs to one VM. Nobody
 * sleeps while holding pool->lock or vm->lock; sock_lock is held over one
 * bounded exchange with the supervisor, and never together with another.
 *
 * Whatever comes out of the segment was written by others: it is copied, then
 * checked. A VM whose records make no sense is broken for good (conn_break).
 */
#ifndef VMPOOL_CLIENT_H
#define VMPOOL_CLIENT_H

#include "kvm/proto.h"
#include "shm/ctl.h"
#include "shm/lease.h"
#include "shm/lock.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/vmpool.h"

#include <pthread.h>

#define CLIENT_POOL_MAGIC 0xc11e47a1u
#define CLIENT_VM_MAGIC 0xc11e4771u
#define CLIENT_PROC_MAGIC 0xc11e4772u

#define CLIENT_SOCK_MS 5000	      /* one exchange with the supervisor */
#define CLIENT_SEND_MS 30000	      /* a worker takes requests within this, or is stuck */
#define CLIENT_BACKSTOP_MS 30000      /* an answer comes this long after a command's own deadline */
#define CLIENT_GRANT_MIN (192u << 10) /* output credit is returned in pieces of at least this */
#define CLIENT_SIGNAL_MAX 64
#define CLIENT_ERRNO_MAX 4095
#define CLIENT_WINDOW (384u << 10)    /* output of a stream that is under way to here */
#define CLIENT_STDIN_MAX (1ull << 30) /* credit beyond this is a forgery */

struct bells {
	int req, rsp; /* eventfds of a slot; -1 = not fetched yet */
};

struct vmpool {
	unsigned magic;
	bool read_only;
	char name[64];
	struct seg *seg;
	uint32_t client;
	uint64_t generation;
	int sock;    /* open for as long as we are attached */
	int kick_fd; /* the supervisor's doorbell; -1 for monitors */
	/* One page that reads as zero in a forked child (MADV_WIPEONFORK). */
	const volatile uint32_t *same_process;

	pthread_mutex_t lock;
	struct vmpool_vm *vms;	 /* every handle there is; magic tells those with a lease */
	struct vmpool_vm *spare; /* those without one */

	pthread_mutex_t sock_lock;
	struct bells *bells; /* one per slot */
	int sock_error;	     /* the exchange is out of step: every later one fails */
};

/* What a handle has that has joined another's lease. */
struct join_ends {
	struct shm_chan *shm; /* its own channel; NULL: the handle holds the lease itself */
	struct bells bells;
	int life; /* socket: hangs up when the worker has gone, or has cut us off */
};

struct vmpool_vm {
	unsigned magic;
	struct vmpool *pool;
	struct vmpool_vm *next;	      /* in pool->vms, for good */
	struct vmpool_vm *next_spare; /* in pool->spare */
	struct lease lease;
	struct shm_chan *shm;
	struct join_ends join;
	pthread_mutex_t lock;
	struct conn *conn; /* NULL until the VM is first asked for something */
};

/* A ping under way; lives on the stack of the thread that waits for it. */
struct conn_ping {
	struct conn_ping *next;
	uint64_t nonce;
	bool answered;
};

/* The client's end of a VM's channel. */
struct conn {
	struct ring req, rsp;
	int req_fd, rsp_fd; /* the pool's, or the join's */
	int broken;	    /* VMPOOL_E*: everything fails with it */
	char why[96];	    /* ... for this reason */
	bool stalled;	    /* a request found no room since the descriptors were read */
	uint32_t next_stream;
	unsigned orphans; /* streams whose handle was freed */
	uint64_t nonce;
	struct conn_ping *pings;
	struct vmpool_proc *procs;		       /* handles */
	struct vmpool_proc *stream[PROTO_STREAMS_MAX]; /* stream id modulo size */
	uint8_t payload[RING_PAYLOAD_MAX];
};

/* Output in the order of its arrival: runs of bytes of one kind. */
struct outq {
	uint8_t *buf;
	size_t len, cap, pos;
	size_t last; /* place of the last run's header */
};

struct vmpool_proc {
	unsigned magic;
	struct vmpool_vm *vm;
	struct vmpool_proc *next; /* in conn->procs */
	uint32_t stream;
	bool open;     /* the guest's end of the stream exists */
	bool orphan;   /* no handle: whatever comes is dropped */
	bool kill_due; /* ... and it has yet to be killed */
	bool stdin_open;
	struct outq in;	 /* filled by whoever drains the ring */
	struct outq out; /* being handed out */
	uint32_t window; /* bytes the guest may still send; CLIENT_WINDOW when all is granted */
	uint32_t owed;	 /* bytes consumed and not granted again */
	bool wide;	 /* more than the protocol's window has been granted */
	uint64_t stdin_credit;
	uint64_t backstop_ns; /* no answer comes after this; UINT64_MAX = none */
	int error;	      /* how it ended, unless with EXIT */
	char why[256];
	struct vmpool_event last;
	int event_fd, poll_fd;	  /* -1 until asked for */
	char *argv0, *cwd, *user; /* for messages */
	bool vmstat;		  /* no command: a question about the VM, and its answer */
	struct proto_vmstats vmstats;
	bool file; /* a file operation, not a command; last is its end */
	struct proto_file_done done;
};

/* --- client_error.c ----------------------------------------------------------- */

/* Leave a line for vmpool_error and return code (an error, as it is). */
int client_fail(const struct vmpool *pool, int code, const char *fmt, ...) printf_like(3, 4);
void client_forget_error(const struct vmpool *pool);

/* Copy at most len-1 bytes of untrusted text, unprintable ones as '?'; stops at NUL. */
void client_printable(char *dst, size_t len, const void *src, size_t n);

/* --- client.c ------------------------------------------------------------------- */

/* Entry of every call: VMPOOL_EFORKED in a forked child, -EROFS for writers on
 * a monitor's handle. */
int client_enter(const struct vmpool *pool, bool writes) must_check;
bool client_forked(const struct vmpool *pool);
/* Until fd has one of these events: 0; -ETIMEDOUT (LOCK_FOREVER: never), -EINTR, -errno. */
int client_poll(int fd, short events, uint64_t deadline_ns) must_check;
/* Connect to the pool's socket; every exchange on it is bounded. */
int client_connect(const char *name, int *out) must_check;
/* r: the result of receiving reply, which should be of this kind. 0, or the error that it
 * stands for, whose line goes to pool. */
int client_reply(const struct vmpool *pool, int r, const struct ctl_reply *reply,
		 uint32_t kind) must_check;
/* The doorbells of a slot, from the cache or the supervisor. */
int client_bells(struct vmpool *pool, uint32_t slot, struct bells *out) must_check;
/* One request to the supervisor and the descriptors of its reply, all of them. */
int client_ask(struct vmpool *pool, const struct ctl_request *req, int *fds,
	       unsigned nfds) must_check;
/* CLOCK_MONOTONIC deadline; < 0: LOCK_FOREVER. */
uint64_t client_deadline(int64_t timeout_ms);
uint64_t client_deadline_from(uint64_t now, int64_t timeout_ms);

/* --- client_lease.c ------------------------------------------------------------------- */

/* A lease as vmpool_acquire gets it, with lease.h's errors. */
int client_acquire(const struct vmpool *pool, int64_t timeout_ms, struct lease *out) must_check;
/* A handle of a lease that was got in another way; NULL: out of memory. */
struct vmpool_vm *client_vm(struct vmpool *pool, const struct lease *lease);
/* No other thread uses the pool any more: end every lease; free the handles, with a
 * lease or not. */
void client_release_all(struct vmpool *pool);
void client_free_vms(struct vmpool *pool);
/* A handle for a lease; NULL: out of memory. And back, when it has none any more. */
struct vmpool_vm *client_vm_get(struct vmpool *pool) must_check;
void client_vm_put(struct vmpool_vm *vm);

/* --- client_join.c --------------------------------------------------------------------- */

/* Let go of what a handle has joined, if it has; the lease goes on. */
void client_join_end(struct vmpool_vm *vm);

/* --- client_conn.c: vm->lock is held by the caller, unless said otherwise --------- */

/* Entry of every call on a VM: checks, opens the channel when needed, takes
 * vm->lock (on success only; broken VMs too are a failure). */
int conn_enter(struct vmpool_vm *vm) must_check;
void conn_leave(struct vmpool_vm *vm);
/* Free the channel of a VM that is being released, and all its commands. */
void conn_free(struct vmpool_vm *vm);

/* Write one record: 0, -EAGAIN (ring full; the worker will wake us), or the
 * error of a broken VM. conn_send_wait waits for room until the deadline,
 * taking responses meanwhile; VMPOOL_ETIMEDOUT and the lease's errors. */
int conn_send(struct vmpool_vm *vm, uint32_t stream, uint8_t type, uint8_t flags, const void *p,
	      size_t len) must_check;
int conn_send_wait(struct vmpool_vm *vm, uint32_t stream, uint8_t type, uint8_t flags,
		   const void *p, size_t len, uint64_t deadline_ns) must_check;

/* The word to sleep on: read it before conn_drain and before looking for what
 * is wanted, then give it to conn_wait. */
uint32_t conn_seq(const struct vmpool_vm *vm);
/* Take what is in the response ring and hand it to its owners. The caller's own
 * command (or NULL) needs no notice on its descriptor. */
void conn_drain(struct vmpool_vm *vm, const struct vmpool_proc *caller);
/* Does the VM still answer? 0, or the error, with its text left. */
int conn_check(struct vmpool_vm *vm) must_check;
/* Sleep (without vm->lock) until something may have changed since seq. 0;
 * -EAGAIN: deadline; -EINTR. A dead supervisor or VM is for conn_check. */
int conn_wait(struct vmpool_vm *vm, uint32_t seq, uint64_t deadline_ns) must_check;
/* Give the VM up; the first reason stays. */
void conn_break(struct vmpool_vm *vm, int code, const char *fmt, ...) printf_like(3, 4);

/* --- client_exec.c ------------------------------------------------------------------ */

/* Bytes being collected, always NUL-terminated once something was added. */
struct collector {
	char *buf;
	size_t len, cap;
};
/* Keep what the limit allows of len bytes; 1: some was dropped; -ENOMEM. */
int collect(struct collector *c, const void *p, size_t len, size_t limit) must_check;

/* --- client_file.c ------------------------------------------------------------------ */

/* One file operation; lives on its caller's stack. */
struct file_call {
	struct vmpool_vm *vm;
	uint32_t op;
	const struct vmpool_file_opts *opts; /* never NULL */
	const char *path, *other;	     /* other: NULL = none */
	struct vmpool_proc *proc;
};
/* Begin the operation, with these flags beside those that the options ask for. 0
 * (then file_end), or an error. opts may be NULL. */
int file_begin(struct file_call *c, struct vmpool_vm *vm, uint32_t op, uint32_t flags,
	       const char *path, const char *other, const struct vmpool_file_opts *opts) must_check;
/* Its next bytes: 1, and *event; 0: it has ended; or an error, of the VM, the
 * lease, or the file. */
int file_next(struct file_call *c, struct vmpool_event *event) must_check;
/* How long it waits for the VM, in milliseconds, as in opts of acquire. */
int64_t file_silence(const struct file_call *c);
/* What a wait on it that ended with -EAGAIN or -EINTR comes to. */
int file_wait_fail(const struct file_call *c, int r) must_check;
/* Forget it; cancels it if it goes on. */
void file_end(struct file_call *c);
/* The attributes from the wire; false: no such file can exist. */
bool file_stat_in(struct vmpool_file_stat *out, const struct proto_stat *st);

/* --- client_outq.c ------------------------------------------------------------------ */

/* Append len bytes; false: out of memory. outq_take hands out the oldest run as
 * an event, whose data stays put until outq_reset; false: empty. */
bool outq_add(struct outq *q, bool is_stderr, const void *p, size_t len);
bool outq_take(struct outq *q, struct vmpool_event *event);
void outq_reset(struct outq *q);
void outq_fini(struct outq *q);

/* --- client_stream.c: vm->lock is held by the caller ------------------------------- */

/* A command with an unused stream id, known to the VM's channel; and its end. */
int proc_new(struct vmpool_vm *vm, struct vmpool_proc **out) must_check;
void proc_destroy(struct vmpool_proc *proc);
/* Its handle goes while it runs: kill it, drop what it says, destroy it at its end. */
void proc_orphan(struct vmpool_proc *proc);
/* A record for this command has come; false: it breaks the protocol. */
bool proc_receive(struct vmpool_proc *proc, const struct ring_rec *rec, const uint8_t *payload);
/* Send what is due (credit for consumed output, an orphan's kill) if the ring
 * has room; else the next call does. */
void proc_tend(struct vmpool_proc *proc);

/* --- client_proc.c: vm->lock is held by the caller ---------------------------------- */

/* Let its descriptor become readable. */
void proc_notify(const struct vmpool_proc *proc);
/* vmpool_proc_next and more: until an event is there (1), or, if want_write,
 * stdin takes bytes (2), or an error (-EAGAIN: deadline). */
int proc_poll(struct vmpool_proc *proc, uint64_t deadline_ns, bool want_write,
	      struct vmpool_event *event) must_check;

#endif
