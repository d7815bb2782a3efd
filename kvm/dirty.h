/* SPDX-License-Identifier: MIT
 *
 * dirty.h - guest memory that is a template's until it is written: which pages
 * have been written, and putting them back.
 *
 * Guest memory is a private mapping of the template. Whoever writes a page is
 * known: the guest and KVM itself by KVM's dirty log, this process by
 * gmem.written. A written page is put back in one of two ways:
 *   dropped      MADV_DONTNEED: the process shares the template's page again. The
 *                guest's next access faults, and a write copies the page again.
 *   copied back  pages that every life seems to write ("hot", a bounded number): the
 *                page stays private, mapped and writable, so no access faults.
 * A page becomes hot when it is written in two lives in a row, or in a life that
 * wrote few pages; it cools down when it was unchanged for some lives.
 * README.md has the measurements behind this.
 */
#ifndef VMPOOL_DIRTY_H
#define VMPOOL_DIRTY_H

#include "kvm/gmem.h"

#define DIRTY_HOT_MAX 96u /* pages; what an idle machine may keep for itself */

struct dirty_hot {
	uint32_t page, quiet; /* quiet: lives in a row that left it unchanged */
};

struct dirty {
	uint32_t magic;
	int vm_fd; /* not owned */
	struct gmem *mem;
	const uint8_t *tmpl; /* the template's pages, read-only */
	uint64_t words;	     /* of 64 pages, in each bitmap */
	uint64_t *log;	     /* what KVM says; also a scratch bitmap */
	uint64_t *dropped;   /* by the last dirty_restore */
	uint64_t *hot;
	struct dirty_hot list[DIRTY_HOT_MAX]; /* the same set */
	uint32_t hot_n;
	bool lived; /* dirty_restore has been called */
};

/* Before the memory slot is registered: let the owner of vm_fd decide when KVM
 * forgets what was written. 0 or -errno with err. */
int dirty_enable(int vm_fd, char *err, size_t errlen) must_check;

/* mem: a private, tracked mapping of fd from off. It and vm_fd outlive d. */
int dirty_init(struct dirty *d, int vm_fd, struct gmem *mem, int fd, uint64_t off, char *err,
	       size_t errlen) must_check;
void dirty_fini(struct dirty *d);

/* This page will be written in every life: hot from the start, if there is room. */
void dirty_expect(struct dirty *d, uint64_t page);

/* Put every page written since the last time back. *pages: how many had been
 * written (of the hot ones: had been changed). Nothing writes meanwhile. 0 or
 * -errno with err. */
int dirty_restore(struct dirty *d, uint64_t *pages, char *err, size_t errlen) must_check;

/* What has been written since the last dirty_restore, or may have been (hot
 * pages): a bit per page, valid until the next call. NULL with err. */
const uint64_t *dirty_pages(struct dirty *d, char *err, size_t errlen);

#endif
