/* SPDX-License-Identifier: MIT
 *
 * template.h - the pool's template as the supervisor sees it: who makes it, when it
 * is made again, and that every fork server gets it.
 *
 * The supervisor holds the template's two descriptors for the pool's life, and never
 * looks into them: a fork server that is started again is given them at once.
 */
#ifndef VMPOOL_TEMPLATE_H
#define VMPOOL_TEMPLATE_H

#include "supervisor/child.h"
#include "supervisor/forker.h"

struct template;

struct template_ops {
	/* The fork server has it: VMs can be started. text: one line on how it was made. */
	void (*ready)(void *arg, const char *text, uint64_t took_ns);
	/* It could not be made; template_want tries again. text: as child_ops.failed. */
	void (*failed)(void *arg, const struct child_end *end, const char *text);
	void *arg;
};

int template_new(struct template **out, struct evloop *loop, struct forker *forker,
		 const struct template_ops *ops) must_check;

/* Kill and reap the builder, if there is one, waiting at most timeout_ms. */
void template_free(struct template *t, int timeout_ms);

/* Is it there? If not, and nobody makes it, have it made. The answer comes from the
 * event loop; without a fork server nothing happens. */
bool template_want(struct template *t);

/* The fork server's answer: takes pidfd. */
void template_spawned(struct template *t, pid_t pid, int pidfd, int error);

/* The fork server has ended; or another one is there. */
void template_forker_down(struct template *t, const char *why);
void template_forker_up(struct template *t);

/* A child of ours has ended and is about to be reaped: was it the builder? */
bool template_ended(struct template *t, const siginfo_t *si);

/* Once a second: a builder that takes too long is killed. */
void template_tick(struct template *t, uint64_t now);

#endif
