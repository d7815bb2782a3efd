/* SPDX-License-Identifier: MIT
 *
 * errpipe.h - what the worker program writes to its stderr, line by line into
 * our log: so it is not lost when vmpoold is a daemon, and can be quoted.
 */
#ifndef VMPOOL_ERRPIPE_H
#define VMPOOL_ERRPIPE_H

#include "supervisor/evloop.h"

struct errpipe {
	struct evloop *loop;
	int read_fd, write_fd; /* write_fd: for the child's stderr; our copy stays open */
	struct ev_source src;
	char line[256]; /* the present line so far */
	size_t len;
	char last[256]; /* the last whole line */
};

int errpipe_open(struct errpipe *ep, struct evloop *loop) must_check;
void errpipe_close(struct errpipe *ep);

/* Log what has been written, now. */
void errpipe_drain(struct errpipe *ep);

#endif
