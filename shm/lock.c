/* SPDX-License-Identifier: MIT
 *
 * lock.c - the pool lock: a robust futex, and the only way to take it.
 *
 * Runs in the supervisor and in clients, in any thread. Owns head.lock.
 *
 * The word is 0 when free, else the holder's thread id, with FUTEX_WAITERS when
 * somebody may sleep on it. When a thread ends, the kernel looks at its robust
 * list's pending operation (linux/futex.h): if the word there has the thread's
 * id, it is replaced by FUTEX_OWNER_DIED and a sleeper is woken; if it has no
 * owner, a sleeper is woken too, since the dead one may have been woken for it.
 * So the pending operation is set before the first attempt and cleared after
 * the release: there is no moment between in which a death goes unnoticed.
 *
 * Taking a free lock and giving it up are inline in lock.h; here is what happens
 * when it is not free. Ordering: lock_swap pairs with lock_release, in all processes.
 */
#include "shm/lock.h"
#include "shm/lifeline.h"
#include <pthread.h>

/* Before sleeping or giving up, look again a few times, after 16, 32 and 64
 * pauses: a few microseconds, what a sleep and a wake-up cost. A critical section
 * is a fraction of one; looking seldom leaves its cache lines where they are, and
 * lets the others do several meanwhile. */
#define LOCK_LOOKS 3
#define LOCK_PAUSES 16
/* Lost races for a free lock before LOCK_TRY gives up. */
#define LOCK_RACES 16
/* A sleeper looks again after this long, whatever happened to its wake-up: one
 * that was woken, and killed before it could act, may have taken another's. Long
 * in the test build, where a lost wake-up must show. */
#ifdef VMPOOL_TEST
#define LOCK_SLICE_NS 2000000000u
#else
#define LOCK_SLICE_NS 100000000u
#endif

__thread struct lock_self lock_self
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* In the child of fork: the copy of the forking thread has another id. */
static void
lock_forked(void)
{
	lock_self.tid = 0;
}

static void
lock_watch_forks(void)
{
	(void)pthread_atfork(NULL, NULL, lock_forked);
}

int
lock_self_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct robust_list_head *list = NULL;
	size_t len = 0;

	if (lock_self.tid != 0)
		return 0;
	(void)pthread_once(&once, lock_watch_forks);
	if (syscall(SYS_get_robust_list, 0, &list, &len) < 0 || list == NULL ||
	    len != sizeof(*list))
		return -ENOTSUP;
	lock_self.list = list;
	lock_self.tid = (uint32_t)gettid();
	return 0;
}

/* Sleep until the word changes from old, at most a slice and until the deadline. */
static int
lock_sleep(struct seg *seg, uint32_t old, uint64_t deadline_ns)
{
	uint64_t now = now_ns();
	int r;

	if (now >= deadline_ns)
		return -ETIMEDOUT;
	r = futex_wait(&seg->head->lock.word, old, MIN(deadline_ns, now + LOCK_SLICE_NS));
	if (r == -ETIMEDOUT && !lifeline_alive(seg))
		return -ENOTCONN;
	return 0;
}

/* The lock is taken, or its holder is dead. */
static int
lock_contend(struct seg *seg, uint64_t deadline_ns)
{
	_Atomic uint32_t *word = &seg->head->lock.word;
	uint32_t tid = lock_self.tid, waiters = 0, looks = 0, races = 0;
	int r;

	for (;;) {
		uint32_t old = atomic_load_explicit(word, memory_order_relaxed);

		if ((old & FUTEX_TID_MASK) == 0) {
			if (!lock_swap(word, old, tid | (old & FUTEX_WAITERS) | waiters)) {
				if (deadline_ns == LOCK_TRY && ++races > LOCK_RACES)
					return -EBUSY;
				continue;
			}
			if (old & FUTEX_OWNER_DIED)
				repair_run(seg);
			return 0;
		}
		if ((old & FUTEX_TID_MASK) == tid)
			return -EDEADLK;
		if (looks < LOCK_LOOKS) {
			for (unsigned i = LOCK_PAUSES << looks++; i > 0; i--)
				__builtin_ia32_pause();
			continue;
		}
		if (deadline_ns == LOCK_TRY)
			return -EBUSY;
		if (!(old & FUTEX_WAITERS) && !lock_swap(word, old, old | FUTEX_WAITERS))
			continue;
		CRASH_POINT("lock_before_sleep");
		r = lock_sleep(seg, old | FUTEX_WAITERS, deadline_ns);
		CRASH_POINT("lock_after_sleep");
		if (r < 0)
			return r;
		/* Others may sleep too, and the one that woke us has cleared the bit. */
		waiters = FUTEX_WAITERS;
		looks = 0;
	}
}

int
lock_acquire_slowly(struct seg *seg, uint64_t deadline_ns)
{
	int r = lock_self_init();

	if (r < 0)
		return r;
	lock_pending(&seg->head->lock.word);
	CRASH_POINT("lock_pending_again");
	r = lock_contend(seg, deadline_ns);
	if (r < 0 && r != -EDEADLK)
		lock_pending(NULL);
	return r;
}

int
lock_holder(const struct seg *seg)
{
	return (int)(atomic_load_explicit(&seg->head->lock.word, memory_order_relaxed) &
		     FUTEX_TID_MASK);
}

void
lock_break(struct seg *seg, int tid)
{
	_Atomic uint32_t *word = &seg->head->lock.word;
	uint32_t old = atomic_load_explicit(word, memory_order_relaxed);

	if ((int)(old & FUTEX_TID_MASK) == tid &&
	    lock_swap(word, old, FUTEX_OWNER_DIED | (old & FUTEX_WAITERS)))
		(void)futex_wake(word, 1);
}
