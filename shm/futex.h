/* SPDX-License-Identifier: MIT
 *
 * futex.h - the futex system calls, on words shared between processes.
 *
 * Deadlines are CLOCK_MONOTONIC nanoseconds, UINT64_MAX for none. All functions
 * return 0 (or a count) or -errno and leave errno as it may be.
 */
#ifndef VMPOOL_FUTEX_H
#define VMPOOL_FUTEX_H

#include "shm/base.h"
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static inline struct timespec
futex_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
				 .tv_nsec = (long)(ns % 1000000000u)};
}

/* Sleep while *word == expected. 0, -EAGAIN (differs), -ETIMEDOUT, -EINTR. */
static inline int
futex_wait(const _Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns)
{
	struct timespec ts = futex_timespec(deadline_ns);

	if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected,
		    deadline_ns == UINT64_MAX ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY) == 0)
		return 0;
	return -errno;
}

/* A word to sleep on, and what it must hold. */
static inline struct futex_waitv
futex_word(const _Atomic uint32_t *word, uint32_t expected)
{
	return (struct futex_waitv){.val = expected, .uaddr = (uintptr_t)word, .flags = FUTEX_32};
}

/* Sleep while all n words hold what they must (Linux 5.16). As futex_wait, and -ENOSYS. */
static inline int
futex_wait_all(struct futex_waitv *words, unsigned n, uint64_t deadline_ns)
{
	struct timespec ts = futex_timespec(deadline_ns);

	if (syscall(SYS_futex_waitv, words, n, 0, deadline_ns == UINT64_MAX ? NULL : &ts,
		    CLOCK_MONOTONIC) >= 0)
		return 0;
	return -errno;
}

/* Wake at most n sleepers; returns how many were woken. */
static inline int
futex_wake(const _Atomic uint32_t *word, int n)
{
	long r = syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);

	return r < 0 ? -errno : (int)r;
}

#endif
