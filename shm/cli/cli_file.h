/* SPDX-License-Identifier: MIT
 *
 * cli_file.h - what the commands on files of a VM share.
 */
#ifndef VMPOOL_CLI_FILE_H
#define VMPOOL_CLI_FILE_H

#include "shm/cli/cli_vm.h"

#include <sys/stat.h>

/* Options that all of them have; CLI_FILE_OPTIONS are their rows. */
struct cli_file_args {
	const char *root;
	int64_t wait_ms;
};
#define CLI_FILE_ARGS \
	{ \
		.wait_ms = 60000 \
	}
#define CLI_FILE_OPTIONS(args) \
	{0,	     "root", \
	 "DIR",	     "take paths from this directory of the VM, and let none lead out", \
	 CLI_STRING, &(args)->root}, \
	{ \
		0, "wait", "SECS", "wait at most SECS for a VM (default: 60)", CLI_SECONDS, \
		    &(args)->wait_ms \
	}

/* Octal permission bits; false: they are none. */
bool cli_file_mode(const char *text, uint32_t *mode);

/* The last name of a path, or NULL if it has none that could be one here. */
const char *cli_file_name(const char *path, char *buf, size_t len);

/* A path of the VM to put src at: path itself, or, if that ends in a slash, src's name
 * in there. NULL: there is no such name, or no memory for it. Freed by the caller. */
char *cli_file_target(const char *path, const char *src);

/* MiB of an option to bytes; NULL: 0. False: it is no number. */
bool cli_file_limit(const char *text, uint64_t *bytes);

/* A name, or a link's target, to stdout: bytes as they are, but on a terminal without what
 * could command it. */
void cli_print_name(const char *name, char end);

/* --- a file of this host being made: cli_file_host.c ----------------------------------- */

/* It has no name until it is whole, so that whatever ends this program leaves nothing.
 * What is not a regular file (a pipe, a device, standard output) is written directly. */
struct host_file {
	int fd;
	const char *path; /* for messages */
	bool direct, sparse;
	int dir_fd; /* where it will be */
	char name[256], temp[32];
	uint64_t size; /* bytes taken */
	int error;     /* errno of what failed here; 0 = nothing */
};
/* "-" is standard output. 0, or -errno with one line said. */
int host_file_open(struct host_file *h, const char *path, bool sparse);
/* Add bytes; -errno, also in h->error. */
int host_file_write(struct host_file *h, const void *buf, size_t len);
/* Give it mode and time (NULL: leave them) and its name. -errno as above. */
int host_file_commit(struct host_file *h, const struct vmpool_file_stat *st);
/* Whatever became of it. */
void host_file_close(struct host_file *h);

/* --- progress on a terminal: cli_progress.c ---------------------------------------------- */

struct progress {
	const char *what;
	uint64_t total; /* bytes; 0 = not known */
	uint64_t done, start_ns, drawn_ns;
	bool on, shown;
};
/* Nothing is drawn in the first second, nor when stderr is no terminal. */
void progress_init(struct progress *p, const char *what, uint64_t total, bool quiet);
void progress_add(struct progress *p, uint64_t bytes);
void progress_end(struct progress *p);

/* --- the bytes of files: cli_transfer.c ------------------------------------------------- */

/* What a file of this host is like, the one in the VM becomes, unless opts say otherwise. */
void cli_file_adopt(struct vmpool_file_opts *opts, const struct stat *st);

/* From a descriptor into a file of the VM; host is for messages. 0, or CLI_FAILED and said. */
int cli_file_send(struct cli_vm *v, int fd, const char *host, const char *guest,
		  const struct vmpool_file_opts *opts, struct progress *progress);

struct file_writer {
	struct host_file host; /* open */
	struct progress *progress;
	uint64_t limit; /* of progress->done; 0 = none */
	bool beyond;
};
/* From a file of the VM into w->host, which appears. 0, or CLI_FAILED and said. */
int cli_file_fetch(struct cli_vm *v, const char *guest, const struct vmpool_file_opts *opts,
		   struct file_writer *w);
/* The exit status of a call of the library that returned r: 0, or CLI_FAILED and said. */
int cli_file_done(struct cli_vm *v, struct progress *progress, int r);
/* Say what is wrong with a path; CLI_FAILED. */
int cli_file_failed(struct progress *progress, const char *path, int error);
/* Say that the VM sent more than the limit; CLI_FAILED. */
int cli_file_beyond(struct progress *progress, const char *guest, uint64_t limit);

#endif
