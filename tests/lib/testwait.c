/* SPDX-License-Identifier: MIT
 *
 * testwait.c - processes that queue for a VM.
 *
 * Runs in test programs; each struct testwait is written by its process, and
 * read by the parent after the process has ended.
 */
#include "tests/lib/testwait.h"
#include <sys/eventfd.h>
#include <sys/mman.h>

struct testwait *
testwait_new(struct seg *seg, unsigned n)
{
	struct testwait *w;

	w = mmap(NULL, n * sizeof(*w) + sizeof(uint32_t), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert(w != MAP_FAILED);
	for (unsigned i = 0; i < n; i++) {
		w[i].seg = seg;
		w[i].client = testpool_client(seg);
		w[i].deadline_ns = now_ns() + PATIENCE_NS;
		w[i].turn = (_Atomic uint32_t *)(w + n);
		w[i].kick_fd = eventfd(0, EFD_CLOEXEC);
		assert(w[i].kick_fd >= 0);
	}
	return w;
}

void
testwait_free(struct testwait *waits, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		closep(&waits[i].kick_fd);
	(void)munmap(waits, n * sizeof(*waits) + sizeof(uint32_t));
}

static int
acquire_once(void *arg)
{
	struct testwait *w = arg;

	if (w->point != NULL)
		crash_arm(w->point, 1, w->sig);
	w->r = lease_acquire(w->seg, w->client, w->kick_fd, now_ns(), w->deadline_ns, &w->lease);
	if (w->r != 0)
		return 0;
	w->order = atomic_fetch_add(w->turn, 1) + 1;
	if (w->give_back && lease_release(w->seg, &w->lease, -1) != 0)
		w->r = 1;
	return 0;
}

void
testwait_start(struct testwait *wait)
{
	wait->pid = testproc_start(acquire_once, wait);
}

void
testwait_queue(struct testwait *wait)
{
	uint64_t n;

	testwait_start(wait);
	/* Rung after it has joined the queue. */
	assert(read(wait->kick_fd, &n, sizeof(n)) == (ssize_t)sizeof(n));
	assert(testproc_asleep(wait->pid));
}

int
testwait_end(struct testwait *wait)
{
	int status = testproc_wait(wait->pid);

	return status != 0 ? status : wait->r;
}
