/* SPDX-License-Identifier: MIT
 *
 * crash_scene.h - dying at every crash point of a piece of pool work.
 *
 * A scenario prepares a pool, lets a child do something to it, and the child
 * dies at one point of that. Then another process repairs (it may die as well),
 * and the pool must satisfy every invariant, serve whoever waits, and have all
 * its slots. scene_run_all does that for every passing of every point, which it
 * finds by letting the child live once and take notes.
 */
#ifndef VMPOOL_TESTS_CRASH_SCENE_H
#define VMPOOL_TESTS_CRASH_SCENE_H

#include "tests/lib/testwait.h"

#define SCENE_SLOTS 6u

struct scene {
	struct seg *seg;
	uint32_t victim;	    /* client id of the child, for clients' work */
	struct lease lease[4];	    /* of the victim, if prepare gave it some */
	uint32_t slot;		    /* the slot in question, if prepare chose one */
	struct testwait *bystander; /* a process that waits, if prepare queued it */
	struct crash_log *log;	    /* the child takes notes if not NULL */
	pid_t child;
	int child_fd; /* pidfd */
	int kick_fd;  /* the victim's */
};

struct scenario {
	const char *name;
	void (*prepare)(struct scene *s);
	int (*act)(struct scene *s);   /* in the child: 0 when all went as it should */
	void (*help)(struct scene *s); /* in the parent, meanwhile; may be NULL */
};

/* Wait until the child has rung the bell (true) or ended (false). */
bool scene_child_queued(struct scene *s);
/* Wait until the child has ended; it is reaped later. */
void scene_child_ended(struct scene *s);
/* Queue the bystander. */
void scene_bystander(struct scene *s);

/* All points of the scenario, with one death each, and with a second one during
 * the repair, every time at the next of its points (cross: at each of them).
 * NULL, or what was wrong and where. Adds the names of the points to names. */
const char *scene_run_all(const struct scenario *scenario, bool cross, struct crash_log *names);

#endif
