/* SPDX-License-Identifier: MIT
 *
 * renew.h - makes a machine that goes on from a state which others have too a
 * machine of its own: random numbers, wall clock, boot id, machine id.
 */
#ifndef GUEST_RENEW_H
#define GUEST_RENEW_H

#include "kvm/guest/util.h"
#include "kvm/proto.h"

/* Get ready, once, after all mounts are there: what a renewal needs is open from
 * here on, and both ids are random ones. What fails is logged, and tried again by
 * each renewal. With dir nothing of the machine is touched: the ids are the files
 * boot_id and machine-id in dir, which must stay a valid string. */
void renew_init(const char *dir);

/* Do all steps and say what came of them. Before renew_init: nothing is done, and
 * the first step fails with EPERM. Blocks for a handful of system calls. */
void renew_run(const struct proto_renew *renew, struct proto_renewed *done);

#endif
