/* SPDX-License-Identifier: MIT
 *
 * vmpool.h - borrow prewarmed Linux microVMs from the pool of this host.
 *
 *	struct vmpool *pool;
 *	struct vmpool_vm *vm;
 *	struct vmpool_result r;
 *	const char *argv[] = {"uname", "-a", NULL};
 *
 *	if (vmpool_attach(&pool, NULL) == 0 && vmpool_acquire(pool, NULL, &vm) == 0) {
 *		if (vmpool_exec(vm, argv, NULL, &r) == 0)
 *			fwrite(r.out, 1, r.out_len, stdout);
 *		vmpool_result_fini(&r);
 *		vmpool_release(vm);
 *	}
 *
 * Every function returns 0, or a negative error: -errno, or one of the
 * VMPOOL_E* values below, which lie outside errno's range. vmpool_strerror
 * gives the general text of an error, vmpool_error(pool) the last failure's
 * own line. Times are milliseconds (timeout_ms) or nanoseconds (_ns).
 *
 * Threads: any thread may call any function. Several threads may hold
 * different VMs of one pool handle, and several threads may work on different
 * commands of one VM. (For one command: vmpool_proc_next from one thread at a
 * time; vmpool_proc_write, _close_stdin and _kill from any.) What ends a handle
 * (detach, release, proc_free) must be the last call on it. A handle must not
 * be used in a child after fork without exec: every call there returns
 * VMPOOL_EFORKED and frees nothing; vmpool_detach closes what it inherited.
 *
 * Signals: a blocking call that a signal handler interrupts returns -EINTR and
 * leaves the pool as if the call had not been made (a wait in the queue is
 * given up), or, in vmpool_proc_next, can simply be called again.
 */
#ifndef VMPOOL_H
#define VMPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMPOOL_VERSION "0.1.0"

struct vmpool;	    /* an attachment to one pool */
struct vmpool_vm;   /* a lease on one VM, or a part in another's */
struct vmpool_proc; /* a running command */

enum vmpool_errno {
	VMPOOL_ECONFIG = -4001,	   /* invalid configuration or option */
	VMPOOL_ENOPOOL = -4002,	   /* no supervisor of that name is running */
	VMPOOL_ELAYOUT = -4003,	   /* the pool was built with another segment layout */
	VMPOOL_ECAPACITY = -4004,  /* no VM became free before the deadline */
	VMPOOL_ERELEASED = -4005,  /* this lease has ended */
	VMPOOL_EVMDIED = -4006,	   /* the VM ended under the lease; release it */
	VMPOOL_ETIMEDOUT = -4007,  /* the request's deadline passed */
	VMPOOL_ERESTARTED = -4008, /* the supervisor died or was replaced; attach again */
	VMPOOL_EFORKED = -4009,	   /* handle used in a forked child */
	VMPOOL_ENOTEXEC = -4010,   /* the command's file is not executable */
	VMPOOL_ENOTFOUND = -4011,  /* the command was not found */
	VMPOOL_ECWD = -4012,	   /* the working directory cannot be entered */
	VMPOOL_EUSER = -4013,	   /* no such user in the guest */
	VMPOOL_EGUEST = -4014,	   /* the guest refused or could not start the command */
	VMPOOL_EDRAINING = -4015,  /* the pool is shutting down and serves nobody new */
	VMPOOL_ESTART = -4016,	   /* VMs fail to start; vmpool_error says why */
	VMPOOL_EPROTOCOL = -4017,  /* the guest or its worker broke the protocol; release the VM */

	/* Of files in the VM. vmpool_error names the file, and the guest's own errno. */
	VMPOOL_EFILE_NOTFOUND = -4030, /* ENOENT */
	VMPOOL_EFILE_PERM = -4031,     /* EACCES, EPERM; EXDEV: the path leads out of the root */
	VMPOOL_EFILE_NOSPACE = -4032,  /* ENOSPC, EDQUOT */
	VMPOOL_EFILE_ISDIR = -4033,    /* EISDIR */
	VMPOOL_EFILE_NOTDIR = -4034,   /* ENOTDIR */
	VMPOOL_EFILE_LINKS = -4035,    /* ELOOP, EMLINK; with a root, any symbolic link */
	VMPOOL_EFILE_EXISTS = -4036,   /* EEXIST */
	VMPOOL_EFILE_NOTEMPTY = -4037, /* ENOTEMPTY */
	VMPOOL_EFILE_READONLY = -4038, /* EROFS */
	VMPOOL_EFILE_IO = -4039, /* whatever else; EINVAL: not a regular file, or not a link */
};

/* The general text of an error number of this library (or an errno). Never NULL. */
const char *vmpool_strerror(int err);

/* The last failure of this thread on this pool, one line; "" if none. Valid
 * until this thread's next call. pool may be NULL: the last failed attach. */
const char *vmpool_error(const struct vmpool *pool);

/* Attach to the pool NAME (NULL: "default") found in the runtime directory
 * ($VMPOOL_RUNDIR, else $XDG_RUNTIME_DIR/vmpool, else /run/vmpool). *out is the
 * caller's, to be given to vmpool_detach. Blocks at most 5 s. */
int vmpool_attach(struct vmpool **out, const char *name);

/* The same, read-only: statistics and the list only; takes no lock, goes on
 * working while one is held and after the supervisor has died. */
int vmpool_monitor(struct vmpool **out, const char *name);

/* End every lease of this handle and free it, its VMs and its commands. NULL is fine. */
void vmpool_detach(struct vmpool *pool);

/* Tell the pool NAME (NULL: "default") to stop: it serves nobody new, waits at
 * most drain_ms for leases to end, and ends. Returns when it has ended, or
 * VMPOOL_ETIMEDOUT after timeout_ms (< 0: wait for ever). -EINTR: it stops all
 * the same. */
int vmpool_stop(const char *name, uint32_t drain_ms, int64_t timeout_ms);

struct vmpool_acquire_opts {
	int64_t timeout_ms; /* < 0: wait for ever; 0: do not wait */
};

/* Borrow a VM nobody has used. Newest idle VM first; else one is started while
 * the pool's total allows; else callers wait in arrival order. opts NULL: 60 s.
 * Errors: VMPOOL_ECAPACITY, _ERESTARTED, _EDRAINING, _ESTART, -EINTR. *out is the
 * caller's, to be given to vmpool_release. */
int vmpool_acquire(struct vmpool *pool, const struct vmpool_acquire_opts *opts,
		   struct vmpool_vm **out);

/* End the lease (or leave the one joined) and free vm and its commands, whatever it returns. Never
 * waits for the VM. VMPOOL_EVMDIED if the VM had ended by itself. */
int vmpool_release(struct vmpool_vm *vm);

/* Share a lease with other processes (or threads, or handles): its name, for
 * vmpool_join. Whoever may attach to the pool can use it; it is no secret. buf of
 * VMPOOL_LEASE_SIZE bytes is large enough; else -ENAMETOOLONG. */
#define VMPOOL_LEASE_SIZE 128
int vmpool_lease(const struct vmpool_vm *vm, char *buf, size_t len);
/* The name of the pool that the lease of this name is of, for vmpool_attach. buf of 64
 * bytes is large enough. VMPOOL_ECONFIG: it is no such name (vmpool_error(NULL)). */
int vmpool_lease_pool(const char *lease, char *buf, size_t len);

/* Work on the VM of a lease that somebody else holds. *out is the caller's, used like
 * any other; commands of different handles do not see each other, the VM is the same.
 * vmpool_release only leaves: commands of this handle are killed, the lease goes on. It
 * ends when its holder releases it or dies; from then on calls return VMPOOL_ERELEASED.
 * A handle that leaves its commands' output unread, far beyond what the windows allow, is
 * cut off (VMPOOL_EPROTOCOL), so that the others can go on. At most 31 join at a time.
 * Errors: VMPOOL_ERELEASED, _ECONFIG (no such name; of another pool), _ERESTARTED (of an
 * earlier one), _ECAPACITY (too many), _EVMDIED, _ETIMEDOUT. Blocks at most 35 s. */
int vmpool_join(struct vmpool *pool, const char *lease, struct vmpool_vm **out);

/* The VM's slot number in the pool, as `vmpool list` shows it. */
unsigned vmpool_slot(const struct vmpool_vm *vm);

/* Write the VM as it stands into a snapshot file, of which vmpoold --snapshot makes
 * pools: its files, its running processes, its memory. The VM must be quiescent: no command of
 * vmpool_spawn or vmpool_exec runs in it (else -EBUSY; what such a command has left running
 * in the background goes into the snapshot); it stands still meanwhile, and runs on
 * afterwards. path is replaced in one step, once the file is complete and on disk; it is readable
 * by its owner only. Waits at most timeout_ms (< 0: for ever), then VMPOOL_ETIMEDOUT; no file is
 * left behind by a failure. Errors besides: the lease's, and -errno of the file (-ENOSPC, ...). */
int vmpool_snapshot(struct vmpool_vm *vm, const char *path, int64_t timeout_ms);

/* Borrow another VM that goes on from a copy of this one's present state (which must be
 * quiescent, as for vmpool_snapshot), with entropy, ids and clock of its own. *out is a lease
 * like any other, given back by vmpool_release; the VM ends then. timeout_ms as above.
 * VMPOOL_ECAPACITY: the pool has max-total VMs. */
int vmpool_fork(struct vmpool_vm *vm, int64_t timeout_ms, struct vmpool_vm **out);

/* Keep count VMs idle (at most max-idle) until the target is lowered: start
 * what is missing. Returns the number of VMs inserted meanwhile
 * (0..count) once count are idle, or fewer when timeout_ms (as in acquire opts)
 * has passed; or an error, e.g. VMPOOL_ESTART. */
int vmpool_warm(struct vmpool *pool, unsigned count, int64_t timeout_ms);

/* One round trip to the guest's agent; *rtt_ns (may be NULL) is its time. */
int vmpool_ping(struct vmpool_vm *vm, int64_t timeout_ms, uint64_t *rtt_ns);
/* The same to the VM's worker process on this host, without the guest. */
int vmpool_ping_worker(struct vmpool_vm *vm, int64_t timeout_ms, uint64_t *rtt_ns);

/* How the VM does. Sizes are bytes. */
struct vmpool_vm_stats {
	/* What its kernel says (and who is root in the VM can make it say anything); times and
	 * counts are since it was booted, for a VM of a template since that was. */
	uint64_t guest_uptime_ns, guest_cpu_ns;
	uint64_t guest_memory, guest_memory_used;
	uint64_t guest_page_faults, guest_major_faults;
	uint64_t guest_bytes_in, guest_bytes_out; /* through its channel, since it was lent out */
	unsigned guest_processes;
	unsigned guest_commands; /* of vmpool_spawn and vmpool_exec, of all clients */
	/* What this host says about its processes, since they were started. */
	bool host_known;      /* false: not to be seen from here */
	uint64_t host_cpu_ns; /* virtual processors included */
	uint64_t host_memory; /* private; 0: not to be seen by this user */
	uint64_t host_page_faults;
};
/* Waits at most timeout_ms (< 0: for ever) for the VM, then VMPOOL_ETIMEDOUT. */
int vmpool_vm_stats(struct vmpool_vm *vm, int64_t timeout_ms, struct vmpool_vm_stats *out);

struct vmpool_exec_opts {
	const char *const *env; /* "K=V", NULL-terminated, added to the default one; or NULL */
	bool clean_env;		/* do not start from the default environment */
	const char *const *unset_env; /* names that the default environment shall lack; or NULL */
	const char *cwd;	      /* NULL: "/" */
	const char *user;	      /* NULL: root */
	uint32_t timeout_ms;	      /* 0: none. Then everything the command started is killed */
	const void *input; /* bytes for stdin, stdin_len of them; NULL: /dev/null (vmpool_exec) */
	size_t input_len;
	bool want_stdin;     /* vmpool_spawn: stdin is a stream, see vmpool_proc_write */
	size_t output_limit; /* vmpool_exec: bytes kept per stream; 0: 64 MiB */
	bool set_umask;
	unsigned umask; /* at most 0777; 022 unless set_umask */
	/* Limits, 0: none. Of each process: then SIGXCPU, a second later SIGKILL; and open
	 * fails. Of all that the command starts, together: then the kernel kills (SIGKILL);
	 * and fork fails. */
	uint32_t cpu_s, max_files;
	uint32_t memory_mib, max_procs;
	/* stdin, stdout and stderr are a terminal of this size (0: unknown), which controls the
	 * command's session; all its output comes as STDOUT. stdin is a stream then. */
	bool tty;
	unsigned short rows, cols;
};

struct vmpool_result {
	int exit_code;	 /* 0..255, 0 when signalled */
	int signal;	 /* signal that ended the command, 0 if it exited */
	bool timed_out;	 /* killed at its deadline */
	bool truncated;	 /* output beyond output_limit was dropped */
	char *out, *err; /* collected stdout and stderr, NUL-terminated, out_len/err_len bytes */
	size_t out_len, err_len;
	uint64_t elapsed_ns; /* measured here, request to result */
	uint64_t guest_ns;   /* measured by the agent, fork to wait */
};

/* Run argv (NULL-terminated; no shell) in the VM and collect what it prints.
 * 0 when the command ran, whatever its exit status. On success and on error
 * *result is initialised; give it to vmpool_result_fini. Errors besides the
 * lease's: _ENOTFOUND, _ENOTEXEC, _ECWD, _EUSER, _EGUEST, _ECONFIG, -E2BIG; and
 * VMPOOL_ETIMEDOUT if, well after opts.timeout_ms, the VM has not answered. */
int vmpool_exec(struct vmpool_vm *vm, const char *const *argv, const struct vmpool_exec_opts *opts,
		struct vmpool_result *result);
void vmpool_result_fini(struct vmpool_result *result);

enum vmpool_event_type {
	VMPOOL_STDOUT = 1,
	VMPOOL_STDERR,
	VMPOOL_EXIT,	/* the last event of a command: exit_code, signal, guest_ns */
	VMPOOL_TIMEOUT, /* the last event of a command killed at its deadline */
};

struct vmpool_event {
	enum vmpool_event_type type;
	const void
	    *data; /* STDOUT, STDERR: len bytes, valid until the next vmpool_proc_next on it */
	size_t len;
	int exit_code;
	int signal;
	uint64_t guest_ns;
};

/* Start argv and return at once; *out is the caller's, for vmpool_proc_free. A
 * command that cannot start is reported by vmpool_proc_next. */
int vmpool_spawn(struct vmpool_vm *vm, const char *const *argv, const struct vmpool_exec_opts *opts,
		 struct vmpool_proc **out);

/* The next event. Waits at most timeout_ms (< 0 for ever), then -EAGAIN. After
 * EXIT, TIMEOUT or an error other than -EAGAIN and -EINTR the command has ended,
 * and further calls repeat that. Output that is not fetched stops the writer in
 * the guest: 16 KiB are in flight, 384 of one that has been read from, and 256 KiB wait in
 * its pipe. */
int vmpool_proc_next(struct vmpool_proc *proc, int64_t timeout_ms, struct vmpool_event *event);

/* Bytes for stdin: returns how many were taken (1..len), -EAGAIN when the guest
 * takes no more now and timeout_ms has passed, -EPIPE after close or exit. */
ssize_t vmpool_proc_write(struct vmpool_proc *proc, const void *buf, size_t len,
			  int64_t timeout_ms);
int vmpool_proc_close_stdin(struct vmpool_proc *proc);

/* Send a signal to every process of the command. */
int vmpool_proc_kill(struct vmpool_proc *proc, int signal);

/* The number of a signal that is named like "TERM", "SIGTERM" (in any case), "RTMIN+2"
 * or "15"; VMPOOL_ECONFIG if there is none. Guest and host number them alike. */
int vmpool_signal(const char *name);

/* The command's terminal has another size; nothing for one without. */
int vmpool_proc_resize(struct vmpool_proc *proc, unsigned short rows, unsigned short cols);

/* A descriptor that polls readable when vmpool_proc_next may have something or
 * vmpool_proc_write may take more; or -errno. Owned by the command; only poll
 * it. Spurious readiness is normal: call with timeout 0 until -EAGAIN. */
int vmpool_proc_fd(struct vmpool_proc *proc);

/* Forget the command; kills it if it still runs. NULL is fine. */
void vmpool_proc_free(struct vmpool_proc *proc);

/* Files in the VM. Paths are bytes without NUL, at most 4095; relative ones begin
 * at "/". All calls act as the VM's root. Each is one operation of the VM's agent
 * and waits for its answer; several threads may have many under way, beside
 * commands, and none starves another. Errors besides the lease's: VMPOOL_EFILE_*,
 * VMPOOL_ETIMEDOUT after opts.timeout_ms of silence, _EGUEST (too many at once),
 * -EINTR: given up, and whether a rename, say, has happened is not known. */
struct vmpool_file_opts {
	const char *root;   /* a directory of the VM: paths begin there, cannot lead out of it,
			       and may go through no symbolic link; it neither. NULL: none */
	int64_t timeout_ms; /* the longest silence of the VM; 0: 60 s; < 0: for ever */
	bool parents;	    /* write, rename, mkdir, (sym)link: make the directories above */
	bool exclusive;	    /* write, rename: fail rather than replace */
	bool append;	    /* write: to the end of what is there; taken back if it is cut short */
	bool in_place;	    /* write: over what is there, not whole at once; follows links */
	bool sparse;	    /* write: blocks of zeros become holes */
	bool recursive;	    /* remove: a directory with all that is in it */
	bool no_follow;	    /* stat, set_mtime: the link itself */
	bool set_mode, set_mtime; /* write, mkdir (mode): give it these */
	uint32_t mode;		  /* permission bits, at most 07777 */
	struct timespec mtime;
	uint64_t offset, length; /* read: from here, at most so many bytes (0: all) */
	size_t limit;		 /* read_file, list_dir: bytes kept here; 0: 64 MiB */
};

struct vmpool_file_stat {
	uint32_t mode; /* type and permission bits, as in stat(2) */
	uint32_t nlink, uid, gid;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes: fewer than size for a file with holes */
	uint64_t ino;
	struct timespec atime, mtime, ctime;
};

/* The whole of a regular file (those of /proc, too): *buf is the caller's to free,
 * *len bytes and a NUL. -EFBIG beyond opts.limit. A file that changes meanwhile
 * may come as a mixture. */
int vmpool_read_file(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		     void **buf, size_t *len);

/* The same in pieces of at most 16 KiB, as they come, of any size in all. What sink
 * returns, unless 0, ends it and is returned. *st (may be NULL): of the file, after
 * the last byte. */
typedef int vmpool_sink(void *arg, const void *buf, size_t len);
int vmpool_read_file_to(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
			vmpool_sink *sink, void *arg, struct vmpool_file_stat *st);

/* Write a regular file. It appears, or replaces what has its name, when it is
 * whole and has its mode and time; a symbolic link is replaced, not followed. Until
 * then, and if the call fails or this process dies, nothing has changed (but see
 * append and in_place). Without opts.mode a file that is replaced passes on its mode
 * and owner, and a new one is 0644. */
int vmpool_write_file(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		      const void *buf, size_t len);

/* The same with bytes from source, of any number: it fills at most len bytes of buf and
 * returns how many, 0 at the end, or an error, which undoes it all and is returned.
 * *st (may be NULL): of the new file. */
typedef ssize_t vmpool_source(void *arg, void *buf, size_t len);
int vmpool_write_file_from(struct vmpool_vm *vm, const char *path,
			   const struct vmpool_file_opts *opts, vmpool_source *source, void *arg,
			   struct vmpool_file_stat *st);

/* A directory's entries, without "." and "..", in no order: *out is an array of
 * *count, for vmpool_list_dir_free. -EFBIG beyond opts.limit. */
struct vmpool_dirent {
	char *name;		    /* any bytes but '/' and NUL, never empty */
	struct vmpool_file_stat st; /* of the entry itself, links not followed */
};
int vmpool_list_dir(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		    struct vmpool_dirent **out, size_t *count);
void vmpool_list_dir_free(struct vmpool_dirent *list, size_t count);

/* The same, one by one, of any number. What fn returns, unless 0, ends it and is
 * returned; the entry is valid during the call. */
typedef int vmpool_entry_fn(void *arg, const struct vmpool_dirent *entry);
int vmpool_list_dir_each(struct vmpool_vm *vm, const char *path,
			 const struct vmpool_file_opts *opts, vmpool_entry_fn *fn, void *arg);

int vmpool_stat(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		struct vmpool_file_stat *st);
/* 1; 0 if there is nothing of that name (or a link to nothing); or an error. */
int vmpool_file_exists(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts);

/* Remove a file, a link, an empty directory; with opts.recursive any directory,
 * though not what is mounted in it. A failure leaves the rest. */
int vmpool_remove_file(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts);
/* Within one file system, as rename(2). */
int vmpool_rename(struct vmpool_vm *vm, const char *from, const char *to,
		  const struct vmpool_file_opts *opts);
/* With opts.parents, a directory that is there already is fine. Mode 0755 unless given. */
int vmpool_mkdir(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts);
int vmpool_chmod(struct vmpool_vm *vm, const char *path, uint32_t mode,
		 const struct vmpool_file_opts *opts);
int vmpool_set_mtime(struct vmpool_vm *vm, const char *path, const struct timespec *mtime,
		     const struct vmpool_file_opts *opts);
/* path becomes a link that says target, which is not looked at. */
int vmpool_symlink(struct vmpool_vm *vm, const char *target, const char *path,
		   const struct vmpool_file_opts *opts);
/* path becomes another name of a file that is there, not of a directory. */
int vmpool_link(struct vmpool_vm *vm, const char *existing, const char *path,
		const struct vmpool_file_opts *opts);
/* What the link says: *target is a string, the caller's to free. */
int vmpool_readlink(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts,
		    char **target);

struct vmpool_hist {
	uint64_t count, sum_ns, p50_ns, p99_ns, max_ns;
};

/* One number of the pool. kind is "counter" (only grows), "gauge" or "histogram". */
struct vmpool_stat {
	const char *name; /* the exact names of the manual, e.g. "hit_count" */
	const char *kind;
	const char *unit;
	const char *help;
	uint64_t value;		 /* counters and gauges */
	struct vmpool_hist hist; /* histograms */
};

/* A snapshot of all statistics: *out points to *count rows, freed by
 * vmpool_stats_free. Takes no lock; each number is exact, and numbers of one
 * call may be a few events apart from each other. */
int vmpool_stats(struct vmpool *pool, struct vmpool_stat **out, size_t *count);
void vmpool_stats_free(struct vmpool_stat *stats);

/* The pool itself. state: "running", "draining", "dead" (supervisor gone). */
struct vmpool_info {
	char name[64];
	char accel[8]; /* "kvm" or "tcg" */
	char why[256]; /* why that accelerator */
	const char *state;
	int supervisor_pid;
	uint64_t generation;	   /* a restarted supervisor has another */
	uint64_t heartbeat_age_ns; /* since the supervisor's last sign of life */
	int lock_holder;	   /* thread id that holds the pool lock now, 0 = free */
	unsigned min_idle, max_idle, max_total, max_idle_time, health_interval;
	unsigned memory_mib, vcpus, slots;
	unsigned warm_target, waiting;
	char last_failure[256]; /* why the last VM failed to start, "" = none */
};
int vmpool_info(struct vmpool *pool, struct vmpool_info *out);

/* One row per slot that is not empty. */
struct vmpool_slot_info {
	unsigned slot;
	const char *state; /* "starting", "idle", "in_use", "resetting", "dead" */
	int worker_pid;
	int client_pid; /* 0 = nobody */
	uint64_t generation;
	uint64_t state_age_ns;
	uint64_t exec_count;
};
int vmpool_list(struct vmpool *pool, struct vmpool_slot_info **out, size_t *count);
void vmpool_list_free(struct vmpool_slot_info *list);

#ifdef __cplusplus
}
#endif

#endif
