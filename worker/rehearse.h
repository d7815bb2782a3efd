/* SPDX-License-Identifier: MIT
 *
 * rehearse.h - what a guest touches between its start from a template and its
 * first answer: found out by trying, once, when the template is made.
 */
#ifndef VMPOOL_REHEARSE_H
#define VMPOOL_REHEARSE_H

#include "kvm/vm.h"
#include "shm/base.h"

/* vm: the paused machine of which tmpl is the capture, mem_mib and vcpus its
 * size. Starts a few machines from tmpl, lets each renew itself and answer a PING, and
 * gives vm the pages that all of them touched: the next vm_save writes them down.
 * Blocks while they run: some tens of milliseconds, at most REHEARSE_MS each.
 * 0, or -errno with err; then the template is as good, only its machines slower. */
#define REHEARSE_MS 5000
int rehearse(struct vm *vm, const struct vm_template *tmpl, uint32_t mem_mib, uint32_t vcpus,
	     char *err, size_t errlen) must_check;

#endif
