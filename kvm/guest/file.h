/* SPDX-License-Identifier: MIT
 *
 * file.h - file operations: one per open stream that a FILE frame began. What
 * needs one step is done as the frame comes; a READ, a LIST, the removal of a
 * tree go on in bounded turns, a WRITE as its bytes come.
 *
 *   FILE --> file_request --> done at once ----------------------> FILE_DONE
 *                        \--> turns, within credit --------------> FILE_DONE
 *                        \--> file_stdin ... EOF: the file appears  FILE_DONE
 *                                        \-- KILL, hang-up: undone
 */
#ifndef GUEST_FILE_H
#define GUEST_FILE_H

#include "kvm/guest/chan.h"
#include "kvm/guest/file_req.h"
#include "kvm/guest/place.h"
#include "kvm/guest/turn.h"

#include <dirent.h>
#include <sys/stat.h>

#define FILE_KEEP UINT32_MAX /* a mode or an owner that is not to be changed */

struct tree; /* file_tree.c */

struct file {
	unsigned magic;
	TAILQ_ENTRY(file) list;
	struct turn turn;
	uint32_t stream;
	uint32_t op, flags;   /* as in struct proto_file */
	int fd;		      /* what is read or written, or a link; -1 */
	uint64_t credit;      /* READ, LIST: bytes the host will take */
	uint64_t left;	      /* READ: bytes still wanted */
	uint64_t passed;      /* READ: bytes so far (chan_pass) */
	DIR *dir;	      /* LIST */
	struct tree *tree;    /* REMOVE of a tree */
	struct {	      /* WRITE */
		bool pending; /* there is something to undo */
		bool made;    /* in place: nothing was there before */
		int parent;   /* the directory it is in; -1: in place, and it was there */
		char name[PROTO_NAME_MAX + 1];
		char temp[32];	/* what it is called in there until it is whole; "" = in place */
		uint64_t start; /* APPEND: where it ended before */
		uint64_t at;	/* bytes taken, holes included */
		uint32_t mode, uid, gid; /* to get; FILE_KEEP: as they are */
		struct timespec mtime;
		size_t owed; /* taken, credit not sent yet */
	} w;
};

/* All operations answer to c. Call once, first. */
void file_init(struct chan *c);
/* Undo what is half done. */
void file_fini(void);

struct file *file_find(uint32_t stream);
unsigned file_count(void);

/* A FILE frame of a stream nobody uses. The channel has room for an answer. */
void file_request(uint32_t stream, const uint8_t *bytes, size_t len);

/* Bytes for a WRITE; anything else ignores them. */
void file_stdin(struct file *f, const uint8_t *bytes, size_t len, bool eof);
/* The host takes n bytes more. */
void file_credit(struct file *f, uint32_t n);
/* End it with this error, undone as far as that goes; file_abort: without a word. */
void file_cancel(struct file *f, int err);
void file_abort(struct file *f);

/* --- the kinds of operation; each returns -errno, or ------------------------------- */

enum file_step {
	FILE_DONE,  /* nothing more to do */
	FILE_MORE,  /* call again */
	FILE_WAITS, /* call again when there is more credit, or bytes */
};

/* file_ops.c: done in one step; *st is left alone unless the answer holds one. */
int file_stat(const struct file_req *q, const struct place *p, struct stat *st) must_check;
int file_rename(const struct file_req *q, const struct place *p) must_check;
int file_mkdir(const struct file_req *q, const struct place *p, struct stat *st) must_check;
int file_setattr(const struct file_req *q, const struct place *p, struct stat *st) must_check;
int file_symlink(const struct file_req *q, const struct place *p) must_check;
int file_link(const struct file_req *q, const struct place *p) must_check;

/* file_read.c: begin (nothing to undo if it fails), then steps that each send at
 * most one frame. */
int file_read_begin(struct file *f, const struct file_req *q, const struct place *p) must_check;
int file_read_step(struct file *f, struct chan *c) must_check;
int file_list_begin(struct file *f, const struct file_req *q, const struct place *p) must_check;
int file_list_step(struct file *f, struct chan *c) must_check;
int file_readlink_begin(struct file *f, const struct file_req *q, const struct place *p) must_check;
int file_readlink_step(struct file *f, struct chan *c) must_check;

/* file_write.c: begin, bytes as they come, then commit; or undo, which is safe to
 * call at any time after begin, also after commit. */
int file_write_begin(struct file *f, const struct file_req *q, const struct place *p) must_check;
int file_write_bytes(struct file *f, const uint8_t *bytes, size_t len) must_check;
int file_write_commit(struct file *f, struct stat *st) must_check;
void file_write_undo(struct file *f);

/* file_tree.c: remove what the request names; a tree goes on in steps. */
int file_remove_begin(struct file *f, const struct file_req *q, const struct place *p) must_check;
int file_remove_step(struct file *f) must_check;
void file_tree_free(struct tree *t);

/* The attributes as the wire has them. */
void file_stat_out(struct proto_stat *out, const struct stat *st);

#endif
