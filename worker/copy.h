/* SPDX-License-Identifier: MIT
 *
 * copy.h - writes a borrowed VM down while it stands still for a moment: as a snapshot
 * file, or as the template of one other VM (a fork).
 *
 *   copy_begin -> the job takes no more requests, and the guest proves by a round trip
 *   that it is at rest -> copy_pump -> capture -> copy_captured -> the VM runs on
 */
#ifndef VMPOOL_COPY_H
#define VMPOOL_COPY_H

#include "worker/job.h"
#include "worker/template.h"
#include "worker/worker.h"

#define COPY_QUIET_NS 30000000000ull /* for the guest's answer */

struct copy {
	const struct worker_config *cfg;
	struct job *job;
	struct machine *machine;
	bool busy;	/* from copy_begin to copy_captured, or an error of copy_pump */
	bool capturing; /* the machine writes itself down */
	uint64_t start_ns;
	int file;		 /* the snapshot, or -1: a fork */
	uint64_t state_off;	 /* of the snapshot's state */
	int fds[TEMPLATE_FILES]; /* of the fork; a snapshot's memory, on machines that copy */
};

/* All errors: -errno with a line in err, and the VM goes on as before. */

/* The VM of this lease is to be copied; takes *file. -ESTALE, -EBUSY, or as job_quiet. */
int copy_begin(struct copy *c, const struct worker_config *cfg, struct job *job,
	       struct machine *machine, uint64_t lease, int *file, char *err,
	       size_t errlen) must_check;
/* Look whether the guest is at rest, and then begin the capture. 0, or an error that ends it. */
int copy_pump(struct copy *c, char *err, size_t errlen) must_check;
/* When copy_pump is to be called at the latest; 0: no matter. */
uint64_t copy_deadline(const struct copy *c);
/* The machine's captured event: lets it run on, and completes the copy. Blocks while a
 * snapshot is summed and synced. A fork: tmpl and fds, the caller's to close. text: a
 * line on how it was made, or why not. */
int copy_captured(struct copy *c, int error, uint64_t state_len, const char *why,
		  struct ctl_template *tmpl, int fds[TEMPLATE_FILES], char *text,
		  size_t len) must_check;
/* Forget it: a machine that ends, or is loaded anew. */
void copy_fini(struct copy *c);

#endif
