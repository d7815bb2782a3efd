/* SPDX-License-Identifier: MIT
 *
 * event.h - raise an eventfd: an irqfd, a kick of the owner, the machine's end.
 */
#ifndef VMPOOL_EVENT_H
#define VMPOOL_EVENT_H

#include "shm/base.h"

/* Never blocks (the descriptor is EFD_NONBLOCK); -1 is nobody. A write fails
 * only when the counter is full, and then the event is pending anyway. */
static inline void
event_raise(int fd)
{
	const uint64_t one = 1;
	ssize_t n = fd >= 0 ? write(fd, &one, sizeof(one)) : 0;

	(void)n;
}

#endif
