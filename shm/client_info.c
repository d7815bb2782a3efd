/* SPDX-License-Identifier: MIT
 *
 * client_info.c - what a pool says about itself: statistics, policy, slots.
 * Runs in clients and monitors; reads the segment without a lock, and works on
 * a read-only map, while a lock is held, and after the supervisor's death.
 */
#include "shm/client.h"
#include "shm/lifeline.h"
#include "shm/lock.h"
#include "shm/slot.h"
#include "shm/stat.h"

#include <string.h>

#define LOAD(x) atomic_load_explicit(&(x), memory_order_relaxed)

int
vmpool_stats(struct vmpool *pool, struct vmpool_stat **out, size_t *count)
{
	int r = client_enter(pool, false);

	*out = NULL;
	*count = 0;
	if (r == 0) {
		r = stat_read(pool->seg, out, count);
		if (r < 0)
			(void)client_fail(pool, r, "statistics: %s", vmpool_strerror(r));
	}
	return r;
}

void
vmpool_stats_free(struct vmpool_stat *stats)
{
	free(stats);
}

static const char *
state_name(const struct seg *seg)
{
	if (!lifeline_alive(seg))
		return "dead";
	return LOAD(seg->head->state) == POOL_DRAINING ? "draining" : "running";
}

static uint64_t
age_of(uint64_t then)
{
	uint64_t now = now_ns();

	return now > then ? now - then : 0;
}

int
vmpool_info(struct vmpool *pool, struct vmpool_info *out)
{
	const struct shm_head *head;
	int r;

	*out = (struct vmpool_info){.state = "dead"};
	r = client_enter(pool, false);
	if (r < 0)
		return r;
	head = pool->seg->head;
	*out = (struct vmpool_info){
	    .state = state_name(pool->seg),
	    .supervisor_pid = (int)head->supervisor_pid,
	    .generation = pool->generation,
	    .heartbeat_age_ns = age_of(LOAD(head->heartbeat_ns)),
	    .lock_holder = lock_holder(pool->seg),
	    .min_idle = LOAD(head->policy.min_idle),
	    .max_idle = LOAD(head->policy.max_idle),
	    .max_total = LOAD(head->policy.max_total),
	    .max_idle_time = LOAD(head->policy.max_idle_time),
	    .health_interval = LOAD(head->policy.health_interval),
	    .memory_mib = head->memory_mib,
	    .vcpus = head->vcpus,
	    .slots = pool->seg->nslots,
	    .warm_target = LOAD(head->warm_target),
	    .waiting = LOAD(head->waiting),
	};
	client_printable(out->name, sizeof(out->name), head->name, sizeof(head->name));
	client_printable(out->accel, sizeof(out->accel), head->accel, sizeof(head->accel));
	client_printable(out->why, sizeof(out->why), head->why, sizeof(head->why));
	client_printable(out->last_failure, sizeof(out->last_failure), head->last_failure,
			 sizeof(head->last_failure));
	return 0;
}

static int
client_pid(const struct seg *seg, uint64_t word)
{
	uint32_t client = slot_client(word);
	enum slot_state state = slot_state(word);

	if ((state != SLOT_IN_USE && state != SLOT_DEAD) || client >= seg->nclients)
		return 0;
	return (int)LOAD(seg->client[client].pid);
}

int
vmpool_list(struct vmpool *pool, struct vmpool_slot_info **out, size_t *count)
{
	struct vmpool_slot_info *rows;
	const struct seg *seg;
	size_t n = 0;
	int r;

	*out = NULL;
	*count = 0;
	r = client_enter(pool, false);
	if (r < 0)
		return r;
	seg = pool->seg;
	rows = calloc(seg->nslots, sizeof(*rows));
	if (rows == NULL)
		return client_fail(pool, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < seg->nslots; i++) {
		uint64_t word = LOAD(seg->slot[i].word);

		if (slot_state(word) == SLOT_EMPTY)
			continue;
		rows[n++] = (struct vmpool_slot_info){
		    .slot = i,
		    .state = slot_state_name(slot_state(word)),
		    .worker_pid = (int)LOAD(seg->slot[i].worker_pid),
		    .client_pid = client_pid(seg, word),
		    .generation = slot_generation(word),
		    .state_age_ns = age_of(LOAD(seg->slot[i].since_ns)),
		    .exec_count = LOAD(seg->chan[i].counter[C_exec_count]),
		};
	}
	*out = rows;
	*count = n;
	return 0;
}

void
vmpool_list_free(struct vmpool_slot_info *list)
{
	free(list);
}
