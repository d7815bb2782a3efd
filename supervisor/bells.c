/* SPDX-License-Identifier: MIT
 *
 * bells.c - makes and owns the eventfds of a pool. Runs in vmpoold.
 */
#include "supervisor/bells.h"

#include <sys/eventfd.h>

int
bells_init(struct bells *bells, uint32_t nslots)
{
	*bells = (struct bells){.nslots = nslots, .door = -1};
	bells->slot = calloc(nslots, sizeof(*bells->slot));
	if (bells->slot == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < nslots; i++)
		bells->slot[i] = (struct bell_pair){-1, -1};
	bells->door = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return bells->door < 0 ? -errno : 0;
}

void
bells_fini(struct bells *bells)
{
	closep(&bells->door);
	for (uint32_t i = 0; bells->slot != NULL && i < bells->nslots; i++) {
		closep(&bells->slot[i].request);
		closep(&bells->slot[i].response);
	}
	free(bells->slot);
	bells->slot = NULL;
}

int
bells_get(struct bells *bells, uint32_t slot, struct bell_pair *out)
{
	struct bell_pair *pair;

	AN(slot < bells->nslots);
	pair = &bells->slot[slot];
	if (pair->request < 0)
		pair->request = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (pair->response < 0)
		pair->response = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (pair->request < 0 || pair->response < 0)
		return -errno;
	*out = *pair;
	return 0;
}

void
bells_ring_client(const struct bells *bells, uint32_t slot)
{
	static const uint64_t one = 1;

	AN(slot < bells->nslots);
	/* It fails only when the counter is full: then it is readable already. */
	if (bells->slot[slot].response >= 0)
		(void)!write(bells->slot[slot].response, &one, sizeof(one));
}
