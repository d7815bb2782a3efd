/* SPDX-License-Identifier: MIT
 *
 * template.h - the two files that a template is: memory and state, in this order.
 */
#ifndef VMPOOL_TEMPLATE_FILES_H
#define VMPOOL_TEMPLATE_FILES_H

#include "shm/base.h"

enum { TEMPLATE_MEM, TEMPLATE_STATE, TEMPLATE_FILES };

/* Two new memfds, the memory's with mem_mib MiB of zeros. 0, or -errno with err and
 * both -1. The caller's to close. */
int template_make(int fds[TEMPLATE_FILES], uint32_t mem_mib, char *err, size_t errlen) must_check;

/* Nobody writes to them any more, or changes their size. 0 or -errno with err. */
int template_seal(const int fds[TEMPLATE_FILES], char *err, size_t errlen) must_check;

void template_close(int fds[TEMPLATE_FILES]);

#endif
