/* SPDX-License-Identifier: MIT
 *
 * parts.h - where the parts of this installation are, and what this host can do.
 */
#ifndef VMPOOL_PARTS_H
#define VMPOOL_PARTS_H

#include <limits.h>

#include "supervisor/config.h"

struct parts {
	char worker[PATH_MAX];
	char kernel[PATH_MAX], image[PATH_MAX]; /* absolute, links resolved */
	char accel[8], why[256];
	int snapshot_fd;	    /* -1 = none */
	uint32_t memory_mib, vcpus; /* the configuration's, or the snapshot's */
	bool resets;		    /* a VM can be put back to its template; else it is replaced */
};

/* Find the worker program, ask it which accelerator to use, find kernel and
 * image for that, open the snapshot. 0, or -errno with one line in err. Takes
 * milliseconds, at most 10 s when the probe hangs. */
int parts_find(struct parts *in, const struct config *cfg, char *err, size_t errlen) must_check;
void parts_close(struct parts *in);

#endif
