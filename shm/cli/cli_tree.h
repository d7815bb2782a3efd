/* SPDX-License-Identifier: MIT
 *
 * cli_tree.h - tar in the VM, as the far end of libarchive here.
 */
#ifndef VMPOOL_CLI_TREE_H
#define VMPOOL_CLI_TREE_H

#include "shm/cli/cli_file.h"

#include <archive.h>
#include <pthread.h>

/* A tar that runs in the VM: what it says on stderr, and how it ended. */
struct tar {
	struct vmpool *pool;
	struct vmpool_proc *proc;
	struct progress *progress;
	uint64_t limit; /* of what it sends; 0 = none */
	char text[512]; /* of its stderr: the first line, NUL-terminated */
	size_t text_len;
	bool ended, ok;
	bool broken; /* it has ended before it had all: it says why */
	int error;   /* of the library, 0 = none */
	bool writing;
	pthread_t listener; /* while we write: takes what it says */
};

/* Start tar in that directory of the VM: to unpack what tar_write gives it, or to
 * pack what tar_read takes. 0, or an error that has been said. */
int tar_start(struct tar *t, struct cli_vm *v, const char *dir, bool unpack,
	      struct progress *progress);

/* libarchive's ends of it. */
la_ssize_t tar_read(struct archive *a, void *tar, const void **buf);
la_ssize_t tar_write(struct archive *a, void *tar, const void *buf, size_t len);

/* Its end of the pipe is of no use any more: kill it, if it has not ended by itself. */
void tar_abort(struct tar *t);

/* Until it has ended: true if it did so with success; otherwise, unless quiet, a line
 * says what went wrong. */
bool tar_finish(struct tar *t, bool quiet);

/* May this entry of an archive from a VM be made here? NULL, or what is wrong with it. */
const char *tar_refuse(struct archive_entry *e);

#endif
