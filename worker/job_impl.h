/* SPDX-License-Identifier: MIT
 *
 * job_impl.h - private to job.c (life, pumping), job_client.c (what a client says),
 * job_guest.c (what the guest says) and job_leave.c (the end of a client).
 */
#ifndef VMPOOL_JOB_IMPL_H
#define VMPOOL_JOB_IMPL_H

#include "worker/job.h"

/* --- job.c ---------------------------------------------------------------------------- */

/* The VM must end, for this reason; the first one stays. */
void job_fail(struct job *job, const char *fmt, ...) printf_like(2, 3);
/* The client of this port broke a rule: the VM must end; or, if it has only joined, its
 * part in it (job_leave). */
void job_client_broke(struct job *job, struct port *port, const char *fmt, ...) printf_like(3, 4);
/* Is there still something to do for this client? */
bool job_serves(const struct job *job, const struct port *port);
/* An answer to a client, unless its port is closed. hdr has the client's stream. */
void job_respond(struct job *job, struct port *port, const struct proto_hdr *hdr,
		 const void *payload);
void job_count(struct job *job, enum slot_counter counter);

/* --- the others ------------------------------------------------------------------------ */

/* Take some requests of an open port; true if there were any. */
bool job_take_requests(struct job *job, struct port *port);
/* Act on one frame of the guest, which proto_check has let through. */
void job_guest_frame(struct job *job, const struct proto_hdr *said, const uint8_t *payload);
/* Go on ending the commands of those that have left. */
void job_tend_leavers(struct job *job);

#endif
