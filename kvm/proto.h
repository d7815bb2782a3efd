/* SPDX-License-Identifier: MIT
 *
 * proto.h - the frames that host and guest exchange over the guest channel.
 *
 * Included by the guest's agent, by the worker and by libvmpool, hence
 * freestanding: no other header of the project, no pointers, fixed widths,
 * little-endian (x86-64 on both sides, asserted below).
 *
 *      0        4      5      6      8           12
 *      +--------+------+------+------+-----------+---------------------+
 *      | length | type | flags| zero | stream id | length bytes payload |
 *      +--------+------+------+------+-----------+---------------------+
 *
 * Stream 0 is the machine itself (READY, PING, PONG, RENEW, RENEWED). Every other
 * stream is one command or one file operation: the client picks an unused id, sends
 * EXEC or FILE on it, and the stream ends with exactly one EXIT or FILE_DONE, or
 * ERROR, from the guest. Frames of one stream arrive in the order in which they
 * were sent.
 *
 * Flow control. STDOUT + STDERR bytes of a stream (together) and STDIN bytes of
 * a stream each have a window of PROTO_WINDOW bytes at the start. A sender
 * never has more payload bytes outstanding than the window plus the sum of the
 * CREDIT frames it has received for that stream. A receiver grants what it has
 * consumed. A sender that exceeds its window breaks the protocol.
 * At a command's time-out the guest drops what exceeds the window then: EXIT
 * needs no credit and does not wait for a reader that may never come.
 *
 * A file operation moves its bytes in the same frames: STDIN carries what a WRITE
 * writes, its EOF makes the file appear; STDOUT carries what a READ reads, LIST's
 * entries, READLINK's text. FILE_DONE says how it went, whenever that is clear: a
 * WRITE may end before its EOF. KILL ends it (ECANCELED) and undoes a WRITE.
 *
 * Shared pages. Bytes need not go through the channel: a guest whose host has offered it
 * (F_SHARE of RENEW) names pages of its memory once (SHARE) through which they may go. The first
 * page is a struct proto_share, then come two rings of PROTO_RING_BYTES, for what the guest sends
 * and for what it receives. A data frame with F_SHARED has a uint32 as its payload: so many bytes,
 * 1..PROTO_PAYLOAD_MAX, are next in the ring of its direction, whatever the stream. Who has taken
 * them says so in struct proto_share; who finds no room there sends the bytes in the frame. It is
 * the guest's own memory: it can only lie to itself.
 *
 * Both directions are hostile to the host: the guest's kernel may forge any
 * byte. The worker checks every frame with proto_check before it acts on one.
 */
#ifndef VMPOOL_PROTO_H
#define VMPOOL_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTO_VERSION 4u /* sent in READY; host and agent must agree */

#define PROTO_PAYLOAD_MAX (16u << 10) /* bytes of payload in one frame */
#define PROTO_WINDOW (16u << 10)      /* initial credit per stream and direction, bytes */
#define PROTO_STREAMS_MAX 128u	      /* open streams of one VM, stream 0 not counted */
#define PROTO_EXEC_MAX (2u << 20)     /* bytes of one assembled EXEC request */
#define PROTO_PATH_MAX 4096u	      /* bytes of a path with its NUL */
#define PROTO_NAME_MAX 255u	      /* bytes of a name in a directory */
#define PROTO_PORT_NAME "vmpool.0"    /* virtio-console port name; /dev/vport0p1 */

struct proto_hdr {
	uint32_t length; /* payload bytes that follow, <= PROTO_PAYLOAD_MAX */
	uint8_t type;	 /* enum proto_type */
	uint8_t flags;	 /* PROTO_F_*, only where the type's row allows them */
	uint16_t zero;	 /* must be 0 */
	uint32_t stream; /* 0 or the command's id */
};

enum proto_type {
	/* host to guest */
	PROTO_PING = 1, /* stream 0; payload is echoed, at most 64 bytes */
	PROTO_EXEC =
	    2, /* a piece of a struct proto_exec and its strings; F_MORE: another follows */
	PROTO_STDIN = 3,  /* bytes for the command; F_EOF: the last ones (may be empty) */
	PROTO_KILL = 4,	  /* payload uint32: signal, sent to every process of the command */
	PROTO_CREDIT = 5, /* payload uint32: further bytes the receiver may send; both directions */
	PROTO_RENEW = 6,  /* stream 0; struct proto_renew; answered by one RENEWED */
	PROTO_FILE = 7,	  /* struct proto_file and its strings: opens a stream */
	PROTO_WINSIZE = 8, /* struct proto_winsize: the size of a command's terminal, from now on */
	PROTO_VMSTAT = 9,  /* empty; opens a stream, which one VMSTATS (or ERROR) ends */
	/* guest to host */
	PROTO_READY = 32,  /* stream 0; struct proto_ready; the first frame after boot */
	PROTO_PONG = 33,   /* stream 0; the PING's payload */
	PROTO_STDOUT = 34, /* bytes, as the command writes them */
	PROTO_STDERR = 35,
	PROTO_EXIT = 36, /* struct proto_exit; ends the stream, after its last output */
	PROTO_ERROR =
	    37, /* struct proto_error + text; the command did not start; ends the stream */
	PROTO_RENEWED = 38,   /* stream 0; struct proto_renewed; the answer to RENEW */
	PROTO_FILE_DONE = 39, /* struct proto_file_done; ends the stream, after its last output */
	PROTO_VMSTATS = 40,   /* struct proto_vmstats; ends the stream that a VMSTAT has opened */
	PROTO_SHARE = 44, /* stream 0; the addresses of PROTO_SHARE_PAGES pages, a uint64 each */
};

#define PROTO_F_MORE 0x01u /* EXEC: the request goes on in the next EXEC frame */
#define PROTO_F_EOF 0x01u  /* STDIN: no bytes will follow */
/* STDIN, STDOUT, STDERR: the bytes are in the shared pages. No other type has this bit. */
#define PROTO_F_SHARED 0x02u
#define PROTO_F_SHARE 0x01u /* RENEW: the host can reach pages that the guest shares */

#define PROTO_PAGE 4096u
#define PROTO_RING_PAGES 128u
#define PROTO_RING_BYTES (PROTO_RING_PAGES * PROTO_PAGE)
#define PROTO_SHARE_PAGES (1u + 2 * PROTO_RING_PAGES)

/* Bytes of either ring that its receiver has taken, modulo 2^32. */
struct proto_share {
	uint32_t out_taken; /* written by the host */
	uint32_t in_taken;  /* and by the guest */
};

/* An EXEC request, assembled from its pieces: this header, then
 * argc + envc + unsetc + 2 NUL-terminated strings: the arguments, the environment
 * entries ("K=V"), the names that the default environment shall lack, the working
 * directory and the user ("" = default: "/" and root). argv[0] is looked up in PATH
 * when it has no slash. size is the whole length, header included.
 *
 * A limit of 0 is none. Memory and processes are limits of all that the command starts,
 * together; the others are each process's own. */
struct proto_exec {
	uint32_t size;
	uint32_t argc; /* >= 1 */
	uint32_t envc;
	uint32_t timeout_ms; /* 0 = none; then everything the command started is killed */
	uint32_t flags;	     /* PROTO_EXEC_* */
	uint32_t zero;
	uint32_t unsetc;
	uint32_t umask;	     /* EXEC_UMASK: at most 0777; else 0, and it is 022 */
	uint32_t cpu_s;	     /* seconds of CPU time: then SIGXCPU, a second later SIGKILL */
	uint32_t memory_mib; /* then the kernel kills */
	uint32_t procs;	     /* processes and threads: then fork fails */
	uint32_t files;	     /* open files: then open fails */
	uint16_t rows, cols; /* EXEC_TTY: its size, 0 = unknown; else 0 */
};
#define PROTO_EXEC_STDIN 0x01u	   /* STDIN frames will come; otherwise stdin is /dev/null */
#define PROTO_EXEC_CLEAN_ENV 0x02u /* do not start from the agent's default environment */
/* stdin, stdout and stderr are a terminal, which controls the command's session: all its
 * output comes as STDOUT. STDIN's EOF is the terminal's end-of-file character. Needs
 * EXEC_STDIN. */
#define PROTO_EXEC_TTY 0x04u
#define PROTO_EXEC_UMASK 0x08u

struct proto_winsize {
	uint16_t rows, cols;
};

/* How the machine does, as its kernel says; times and counts since it was booted (for
 * one from a template: the template). */
struct proto_vmstats {
	uint64_t uptime_ns;
	uint64_t cpu_ns;    /* of all processors, idle time left out */
	uint64_t mem_total; /* bytes */
	uint64_t mem_used;  /* what is not available to programs without taking it from others */
	uint64_t page_faults;
	uint64_t major_faults; /* those of them that had to read */
	uint64_t bytes_in;     /* of frames from the host, since READY or the last RENEW */
	uint64_t bytes_out;    /* and to it */
	uint32_t processes;    /* kernel threads left out, the agent among them */
	uint32_t commands;     /* open streams of commands */
};

enum proto_file_op {
	PROTO_FILE_READ = 1,
	PROTO_FILE_WRITE = 2,
	PROTO_FILE_LIST = 3,   /* a struct proto_dirent and its name per entry; no "." or ".." */
	PROTO_FILE_STAT = 4,   /* FILE_DONE has the answer */
	PROTO_FILE_REMOVE = 5, /* a file, a link, an empty directory */
	PROTO_FILE_RENAME = 6, /* path to other */
	PROTO_FILE_MKDIR = 7,
	PROTO_FILE_SETATTR = 8, /* mode, mtime */
	PROTO_FILE_SYMLINK = 9, /* path becomes a link that says other */
	PROTO_FILE_READLINK = 10,
	PROTO_FILE_LINK = 11, /* path becomes another name of the file other: a hard link */
};

/* Three NUL-terminated strings follow: path, other ("" where the op has no use for
 * it) and root. With a root, paths are taken from there, cannot leave it, and no
 * symbolic link is followed on the way; without, they are the guest's own paths,
 * relative ones from "/". */
struct proto_file {
	uint32_t op;	/* enum proto_file_op */
	uint32_t flags; /* PROTO_FILE_F_*, only those that the op knows */
	uint32_t mode;	/* SET_MODE: permission bits, at most 07777; else 0 */
	uint32_t mtime_nsec;
	int64_t mtime_sec; /* SET_MTIME; else 0 */
	uint64_t offset;   /* READ: bytes to pass over; else 0 */
	uint64_t length;   /* READ: at most so many, 0 = to the end; else 0 */
};
#define PROTO_FILE_F_PARENTS \
	0x001u /* WRITE, RENAME, MKDIR, SYMLINK, LINK: make the directories above; \
		  MKDIR: its being there already is fine */
#define PROTO_FILE_F_APPEND 0x002u    /* WRITE: to the end of what is there */
#define PROTO_FILE_F_IN_PLACE 0x004u  /* WRITE: over what is there, seen while it is written */
#define PROTO_FILE_F_EXCL 0x008u      /* WRITE, RENAME: EEXIST rather than replace */
#define PROTO_FILE_F_SET_MODE 0x010u  /* WRITE, MKDIR, SETATTR */
#define PROTO_FILE_F_SET_MTIME 0x020u /* WRITE, SETATTR */
#define PROTO_FILE_F_NOFOLLOW 0x040u  /* STAT, SETATTR: the link itself */
#define PROTO_FILE_F_TREE 0x080u      /* REMOVE: a directory with all that is in it */
#define PROTO_FILE_F_SPARSE 0x100u    /* WRITE: zeros become holes */

struct proto_stat {
	uint32_t mode; /* type and permissions, as in stat(2) */
	uint32_t nlink;
	uint32_t uid, gid;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes */
	uint64_t ino;
	int64_t atime_sec, mtime_sec, ctime_sec;
	uint32_t atime_nsec, mtime_nsec, ctime_nsec;
	uint32_t zero;
};

/* Entries may begin in one frame and go on in the next. */
struct proto_dirent {
	struct proto_stat stat; /* of the entry itself, links not followed */
	uint32_t name_len;	/* bytes that follow, 1..PROTO_NAME_MAX, no '/' and no NUL */
	uint32_t zero;
};

struct proto_file_done {
	uint32_t err; /* 0, or why not: errno, Linux x86-64 numbering */
	uint32_t zero;
	struct proto_stat stat; /* READ, WRITE, STAT, MKDIR, SETATTR: of the file, as it is now */
};

struct proto_ready {
	uint32_t version; /* PROTO_VERSION */
	uint32_t vcpus;	  /* processors the guest sees */
	uint64_t mem_kib; /* memory the guest sees */
};

/* What makes a machine that goes on from a state which others have too (a
 * template, a snapshot, a fork) a machine of its own. Sent once it runs again,
 * before any command of a client; it may come while commands of the template
 * run. All that comes after it is acted on after it. */
struct proto_renew {
	uint64_t wall_ns;	/* CLOCK_REALTIME of the host as this is sent */
	uint8_t entropy[64];	/* from the host's kernel; mixed in, credited, reseeded from */
	uint8_t boot_id[16];	/* random; the guest makes a UUID of version 4 of it */
	uint8_t machine_id[16]; /* the same, for /etc/machine-id */
};

/* The steps of a renewal, in their order. All are tried, whatever fails. */
enum proto_renew_step {
	PROTO_RENEW_ENTROPY = 1,    /* RNDADDENTROPY */
	PROTO_RENEW_RESEED = 2,	    /* RNDRESEEDCRNG */
	PROTO_RENEW_CLOCK = 3,	    /* clock_settime */
	PROTO_RENEW_BOOT_ID = 4,    /* /proc/sys/kernel/random/boot_id */
	PROTO_RENEW_MACHINE_ID = 5, /* /etc/machine-id */
};

struct proto_renewed {
	uint64_t wall_ns; /* the guest's CLOCK_REALTIME when all was done */
	uint32_t failed;  /* 0, or the first enum proto_renew_step that failed */
	uint32_t err;	  /* its errno, Linux x86-64 numbering; 0 */
};

struct proto_exit {
	uint32_t code;	    /* exit status 0..255, 0 when signalled */
	uint32_t signal;    /* the signal that ended it, 0 if it exited */
	uint32_t timed_out; /* 1: the agent killed it at its deadline */
	uint32_t zero;
	uint64_t elapsed_ns; /* fork to wait, on the guest's monotonic clock */
};

/* Where a command failed to start: which step, and the guest's errno. */
enum proto_stage {
	PROTO_STAGE_REQUEST = 1, /* malformed, too large, stream id in use, too many streams */
	PROTO_STAGE_FORK = 2,	 /* out of processes or memory */
	PROTO_STAGE_CWD = 3,	 /* working directory */
	PROTO_STAGE_USER = 4,	 /* no such user */
	PROTO_STAGE_EXEC = 5, /* execve: ENOENT not found, EACCES/ENOEXEC not executable, E2BIG */

	PROTO_STAGE_LIMITS = 6, /* a limit: EOPNOTSUPP the guest's kernel has none of that kind */
};
struct proto_error {
	uint32_t stage; /* enum proto_stage */
	uint32_t err;	/* errno, Linux x86-64 numbering */
			/* then a text without NUL, at most 256 bytes: what failed, for people */
};

_Static_assert(sizeof(struct proto_hdr) == 12, "frame header");
_Static_assert(sizeof(struct proto_exec) == 52, "exec header");
_Static_assert(sizeof(struct proto_vmstats) == 72, "statistics payload");
_Static_assert(sizeof(struct proto_exit) == 24, "exit payload");
_Static_assert(sizeof(struct proto_renew) == 104, "renew payload");
_Static_assert(sizeof(struct proto_renewed) == 16, "renewed payload");
_Static_assert(sizeof(struct proto_file) == 40, "file request");
_Static_assert(sizeof(struct proto_file) + 3 * PROTO_PATH_MAX <= PROTO_PAYLOAD_MAX, "one frame");
_Static_assert(sizeof(struct proto_stat) == 80, "attributes");
_Static_assert(sizeof(struct proto_dirent) == 88, "directory entry");
_Static_assert(sizeof(struct proto_file_done) == 88, "file answer");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "x86-64 only");

/* Which payload lengths a type may have, which flags, and who may send it. */
static inline bool
proto_check(const struct proto_hdr *h, bool from_guest)
{
	uint32_t min = 0, max = PROTO_PAYLOAD_MAX;
	uint8_t flags = 0;
	bool guest_type = true, machine = false;

	switch (h->type) {
	case PROTO_PING:
		machine = true;
		guest_type = false;
		max = 64;
		break;
	case PROTO_EXEC:
		guest_type = false;
		flags = PROTO_F_MORE;
		min = 1;
		break;
	case PROTO_STDIN:
		guest_type = false;
		flags = PROTO_F_EOF | PROTO_F_SHARED;
		if ((h->flags & PROTO_F_SHARED) != 0)
			min = max = 4;
		break;
	case PROTO_KILL:
		guest_type = false;
		min = max = 4;
		break;
	case PROTO_CREDIT:
		guest_type = from_guest;
		min = max = 4;
		break;
	case PROTO_RENEW:
		machine = true;
		guest_type = false;
		flags = PROTO_F_SHARE;
		min = max = sizeof(struct proto_renew);
		break;
	case PROTO_WINSIZE:
		guest_type = false;
		min = max = sizeof(struct proto_winsize);
		break;
	case PROTO_VMSTAT:
		guest_type = false;
		max = 0;
		break;
	case PROTO_FILE:
		guest_type = false;
		min = sizeof(struct proto_file) + 3;
		max = sizeof(struct proto_file) + 3 * PROTO_PATH_MAX;
		break;
	case PROTO_READY:
		machine = true;
		min = max = sizeof(struct proto_ready);
		break;
	case PROTO_PONG:
		machine = true;
		max = 64;
		break;
	case PROTO_STDOUT:
	case PROTO_STDERR:
		min = 1;
		flags = PROTO_F_SHARED;
		if (h->flags != 0)
			min = max = 4;
		break;
	case PROTO_SHARE:
		machine = true;
		min = max = PROTO_SHARE_PAGES * 8;
		break;
	case PROTO_EXIT: min = max = sizeof(struct proto_exit); break;
	case PROTO_ERROR:
		min = sizeof(struct proto_error);
		max = min + 256;
		break;
	case PROTO_RENEWED:
		machine = true;
		min = max = sizeof(struct proto_renewed);
		break;
	case PROTO_VMSTATS: min = max = sizeof(struct proto_vmstats); break;
	case PROTO_FILE_DONE: min = max = sizeof(struct proto_file_done); break;
	default: return false;
	}
	return guest_type == from_guest && machine == (h->stream == 0) && h->zero == 0 &&
	       (h->flags & ~flags) == 0 && h->length >= min && h->length <= max;
}

#endif
