/* SPDX-License-Identifier: MIT
 *
 * fakememory.h - the memory of a guest that is none, for machine_ops.peek and poke.
 */
#ifndef TEST_FAKEMEMORY_H
#define TEST_FAKEMEMORY_H

#include "worker/machine.h"

#include <string.h>

struct fakememory {
	uint8_t *bytes; /* NULL: not to be reached */
	size_t len;
};

/* What peek and (poke) poke return. */
static inline int
fakememory_copy(const struct fakememory *m, const struct machine_place *at, unsigned n,
		uint8_t *buf, bool poke)
{
	if (m->bytes == NULL)
		return -EOPNOTSUPP;
	for (; n > 0; buf += at->len, at++, n--) {
		if (at->gpa > m->len || at->len > m->len - at->gpa)
			return -EFAULT;
		if (poke)
			memcpy(m->bytes + at->gpa, buf, at->len);
		else
			memcpy(buf, m->bytes + at->gpa, at->len);
	}
	return 0;
}

#endif
