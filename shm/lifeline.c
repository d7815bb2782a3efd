/* SPDX-License-Identifier: MIT
 *
 * lifeline.c - the supervisor's life as a futex word, waits that end with it, and
 * the mark that a dead worker leaves.
 *
 * The supervisor holds head.lifeline, a robust pthread mutex; everybody else
 * only looks at its futex word. Locked while the segment is still private and
 * not unlocked before the orderly end, where the mutex, whose list pointers lie
 * in the segment, is first put back from a private copy. When the supervisor dies, the
 * kernel follows them, and checks what it reads.
 *
 * The kernel wakes one sleeper on the word when its owner dies, and only if
 * FUTEX_WAITERS is set there: it always is, from the start. That one wakes the
 * rest. Should it be killed at that very moment, the others look again after a
 * slice at the latest.
 */
#include "shm/lifeline.h"
#include <limits.h>
#include <pthread.h>
#include <string.h>
/* A sleeper looks again after this long though nothing woke it; not in the test
 * build, where a lost wake-up must show. */
#ifdef VMPOOL_TEST
#define SLICE_NS 3600000000000u
#else
#define SLICE_NS 2000000000u
#endif
/* The same where the kernel cannot wait on two words: the supervisor's death is
 * noticed by looking only. */
#define SLICE_BLIND_NS 50000000u

int
lifeline_hold(struct seg *seg)
{
	pthread_mutexattr_t attr;
	int r;

	CHECK_OBJ(seg, SEG_MAGIC);
	r = pthread_mutexattr_init(&attr);
	if (r != 0)
		return -r;
	r = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	if (r == 0)
		r = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (r == 0)
		r = pthread_mutex_init(&seg->head->lifeline, &attr);
	(void)pthread_mutexattr_destroy(&attr);
	if (r == 0)
		r = pthread_mutex_trylock(&seg->head->lifeline);
	if (r != 0)
		return -r;
	seg->lifeline_tid = (uint32_t)gettid();
	/* Pairs with the acquire load in lifeline_alive. */
	if ((atomic_fetch_or_explicit(lifeline_word(seg), FUTEX_WAITERS, memory_order_release) &
	     FUTEX_TID_MASK) != seg->lifeline_tid)
		return -ENOTSUP;
	/* With FUTEX_WAITERS: only then does the unlock in lifeline_drop wake anybody. */
	memcpy(&seg->lifeline, &seg->head->lifeline, sizeof(seg->lifeline));
	return 0;
}

void
lifeline_drop(struct seg *seg)
{
	CHECK_OBJ(seg, SEG_MAGIC);
	/* A forked child has a copy of seg, but is another thread. */
	if (seg->lifeline_tid == 0 || seg->lifeline_tid != (uint32_t)gettid())
		return;
	memcpy(&seg->head->lifeline, &seg->lifeline, sizeof(seg->lifeline));
	seg->lifeline_tid = 0;
	/* Leaves the word 0, which is not alive either, and wakes one sleeper. */
	(void)pthread_mutex_unlock(&seg->head->lifeline);
}

int
lifeline_tie(_Atomic uint32_t *word)
{
	/* Not glibc's: after a bare clone the kernel knows of none, and the segment
	 * need not lie at a fixed distance from anything. */
	static __thread struct robust_list_head head;

	head.list.next = &head.list;
	head.futex_offset = 0;
	head.list_op_pending = (struct robust_list *)(uintptr_t)word;
	/* Pairs with the relaxed load in lifeline_severed: the value is all there is. */
	atomic_store_explicit(word, (uint32_t)gettid() | FUTEX_WAITERS, memory_order_relaxed);
	return syscall(SYS_set_robust_list, &head, sizeof(head)) < 0 ? -errno : 0;
}

void
lifeline_wake(_Atomic uint32_t *word, int n)
{
	(void)futex_wake(word, n);
}

int
lifeline_wait(const struct seg *seg, const _Atomic uint32_t *word, uint32_t expected,
	      uint64_t deadline_ns)
{
	return lifeline_wait_worker(seg, word, expected, NULL, deadline_ns);
}

int
lifeline_wait_worker(const struct seg *seg, const _Atomic uint32_t *word, uint32_t expected,
		     _Atomic uint32_t *worker, uint64_t deadline_ns)
{
	static _Atomic bool blind; /* hint, private: no futex_waitv here; pairs with nothing */
	_Atomic uint32_t *life = lifeline_word(seg);
	uint32_t life_value = atomic_load_explicit(life, memory_order_acquire);
	struct futex_waitv words[3] = {futex_word(word, expected), futex_word(life, life_value)};
	uint64_t now = now_ns(), until;
	unsigned n = 2;
	int r;

	if (!lifeline_word_alive(life_value))
		return -ENOTCONN;
	if (worker != NULL) {
		/* Pairs with nothing: the kernel compares again. */
		uint32_t value = atomic_load_explicit(worker, memory_order_relaxed);

		if ((value & FUTEX_OWNER_DIED) != 0)
			return 0;
		words[n++] = futex_word(worker, value);
	}
	if (now >= deadline_ns)
		return -ETIMEDOUT;
	if (!atomic_load_explicit(&blind, memory_order_relaxed)) {
		until = MIN(deadline_ns, now + SLICE_NS);
		r = futex_wait_all(words, n, until);
		if (r == -ENOSYS || r == -EPERM)
			atomic_store_explicit(&blind, true, memory_order_relaxed);
	} else {
		until = MIN(deadline_ns, now + SLICE_BLIND_NS);
		r = futex_wait(word, expected, until);
	}
	if (!lifeline_alive(seg)) {
		lifeline_wake(life, INT_MAX);
		return -ENOTCONN;
	}
	/* As with the lifeline, the kernel has woken one of its sleepers. */
	if (worker != NULL && lifeline_severed(worker))
		lifeline_wake(worker, INT_MAX);
	if (r == -EINTR || (r == -ETIMEDOUT && until == deadline_ns))
		return r;
	return 0;
}
