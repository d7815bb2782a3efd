/* SPDX-License-Identifier: MIT
 *
 * clienttest.c - fixtures of the tests of libvmpool.
 */
#include "tests/lib/clienttest.h"

#include <string.h>

int
setup_pool(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	AN(f);
	fakepool_open(&f->fp, "default", 3);
	AZ(vmpool_attach(&f->pool, NULL));
	*state = f;
	return 0;
}

int
setup_vm(void **state)
{
	struct fixture *f;

	AZ(setup_pool(state));
	f = *state;
	AZ(vmpool_acquire(f->pool, NULL, &f->vm));
	return 0;
}

int
setup_agent(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	AN(f);
	fakepool_open_agents(&f->fp, "default", 1);
	AZ(vmpool_attach(&f->pool, NULL));
	AZ(vmpool_acquire(f->pool, NULL, &f->vm));
	*state = f;
	return 0;
}

int
teardown(void **state)
{
	struct fixture *f = *state;

	if (f->vm != NULL)
		(void)vmpool_release(f->vm);
	vmpool_detach(f->pool);
	fakepool_close(&f->fp);
	free(f);
	return 0;
}

uint64_t
stat_value(struct vmpool *pool, const char *name)
{
	struct vmpool_stat *stats;
	uint64_t value = 0;
	bool found = false;
	size_t n;

	AZ(vmpool_stats(pool, &stats, &n));
	for (size_t i = 0; i < n; i++) {
		if (strcmp(stats[i].name, name) == 0) {
			value = stats[i].value;
			found = true;
		}
	}
	vmpool_stats_free(stats);
	AN(found);
	return value;
}
