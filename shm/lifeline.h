/* SPDX-License-Identifier: MIT
 *
 * lifeline.h - futex waits that end when the supervisor dies.
 *
 * The supervisor holds a robust mutex (head.lifeline) for life. When it dies,
 * by whatever means, the kernel marks the mutex's futex word and wakes a
 * sleeper; sleepers wait on their own word and on that one at once
 * (futex_waitv, Linux 5.16), and the first woken wakes the others. Where
 * futex_waitv is missing, sleeps are cut into slices instead.
 */
#ifndef VMPOOL_LIFELINE_H
#define VMPOOL_LIFELINE_H

#include "shm/futex.h"
#include "shm/segment.h"

/* Supervisor: take the lifeline, in the thread that lives longest, before the
 * segment is shared. 0, or -errno. */
int lifeline_hold(struct seg *seg) must_check;

/* The orderly end: everybody finds the supervisor dead, and wakes. By the thread
 * that holds it; elsewhere, or when it is not held, nothing happens. seg_close
 * calls it, since a death after the unmapping would go unnoticed. A thread that holds
 * several drops the last one first. */
void lifeline_drop(struct seg *seg);

/* Worker: the end of the calling thread, by whatever means, replaces its id in
 * *word (slot.life) by FUTEX_OWNER_DIED, at once and without help, and wakes a sleeper
 * on it (lifeline_wait_worker). One word per
 * thread, which must hold no robust mutex and never take the pool lock. Works in
 * any PID namespace. 0 or -errno. */
int lifeline_tie(_Atomic uint32_t *word) must_check;

/* Has the thread tied to this word ended? */
static inline bool
lifeline_severed(const _Atomic uint32_t *word)
{
	/* Written by the kernel; a hint, which needs no ordering. */
	return (atomic_load_explicit(word, memory_order_relaxed) & FUTEX_OWNER_DIED) != 0;
}

/* The lifeline's futex word: the first int of the mutex, in glibc and in musl's
 * ABI for robust lists alike; lifeline_hold checks that it holds the thread id. */
static inline _Atomic uint32_t *
lifeline_word(const struct seg *seg)
{
	return (_Atomic uint32_t *)&seg->head->lifeline;
}

static inline bool
lifeline_word_alive(uint32_t v)
{
	return (v & FUTEX_TID_MASK) != 0 && (v & FUTEX_OWNER_DIED) == 0;
}

/* Is the supervisor of this segment alive? No system call. */
static inline bool
lifeline_alive(const struct seg *seg)
{
	/* Pairs with lifeline_hold; the kernel's store at death is a full barrier. */
	return lifeline_word_alive(atomic_load_explicit(lifeline_word(seg), memory_order_acquire));
}

/* Sleep while *word == expected, until deadline_ns (UINT64_MAX: no deadline).
 * 0: woken or the word differs (look again); -ETIMEDOUT; -EINTR; -ENOTCONN:
 * the supervisor is dead. */
int lifeline_wait(const struct seg *seg, const _Atomic uint32_t *word, uint32_t expected,
		  uint64_t deadline_ns) must_check;

/* The same; 0, too, when the worker tied to this word of the segment (slot.life) has
 * ended: look at it, before calling again. NULL: no such word. */
int lifeline_wait_worker(const struct seg *seg, const _Atomic uint32_t *word, uint32_t expected,
			 _Atomic uint32_t *worker, uint64_t deadline_ns) must_check;

/* Wake up to n sleepers on a word of the segment. */
void lifeline_wake(_Atomic uint32_t *word, int n);

#endif
