/* SPDX-License-Identifier: MIT
 *
 * crash_scene.c - dying at every crash point of a piece of pool work.
 *
 * Runs in test programs; the parent plays the supervisor.
 */
#include "tests/lib/crash_scene.h"
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

/* One place to die: the nth passing of a point. n = 0: nowhere. */
struct death {
	char name[CRASH_NAME_LEN];
	uint32_t nth;
};

static char why[512];

static const char *
wrong(const struct scenario *scenario, const struct death *first, const struct death *second,
      const char *what)
{
	(void)snprintf(why, sizeof(why), "%s, death at %s:%u, then at %s:%u: %s", scenario->name,
		       first->name, first->nth, second->name, second->nth, what);
	return why;
}

static void
scene_open(struct scene *s, const struct scenario *scenario, struct crash_log *log)
{
	static const struct testpool_policy policy = {.nslots = SCENE_SLOTS,
						      .min_idle = 1,
						      .max_idle = 3,
						      .max_total = SCENE_SLOTS,
						      .max_idle_time = 3600};

	*s = (struct scene){.log = log, .child_fd = -1};
	s->seg = testpool_new(&policy);
	s->victim = testpool_client(s->seg);
	s->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert(s->kick_fd >= 0);
	scenario->prepare(s);
}

static void
scene_close(struct scene *s)
{
	if (s->bystander != NULL)
		testwait_free(s->bystander, 1);
	closep(&s->kick_fd);
	closep(&s->child_fd);
	testpool_free(s->seg);
}

bool
scene_child_queued(struct scene *s)
{
	struct pollfd pfd[2] = {{.fd = s->kick_fd, .events = POLLIN},
				{.fd = s->child_fd, .events = POLLIN}};

	while (poll(pfd, 2, -1) < 0)
		assert(errno == EINTR);
	return (pfd[0].revents & POLLIN) != 0;
}

void
scene_child_ended(struct scene *s)
{
	struct pollfd pfd = {.fd = s->child_fd, .events = POLLIN};

	while (poll(&pfd, 1, -1) < 0)
		assert(errno == EINTR);
}

void
scene_bystander(struct scene *s)
{
	s->bystander = testwait_new(s->seg, 1);
	testwait_queue(s->bystander);
}

/* --- children ------------------------------------------------------------------ */

struct act {
	struct scene *scene;
	const struct scenario *scenario;
	const struct death *death;
};

static int
act(void *arg)
{
	struct act *a = arg;

	if (a->death->nth > 0)
		crash_arm(a->death->name, a->death->nth, SIGKILL);
	crash_record(a->scene->log);
	return a->scenario->act(a->scene);
}

/* Run the child to its end; its status as testproc_wait says. */
static int
run_child(struct scene *s, const struct scenario *scenario, const struct death *death)
{
	struct act a = {.scene = s, .scenario = scenario, .death = death};

	s->child = testproc_start(act, &a);
	s->child_fd = (int)syscall(SYS_pidfd_open, s->child, 0);
	assert(s->child_fd >= 0);
	if (scenario->help != NULL)
		scenario->help(s);
	return testproc_wait(s->child);
}

static int
repair(void *arg)
{
	struct act *a = arg;

	if (a->death->nth > 0)
		crash_arm(a->death->name, a->death->nth, SIGKILL);
	crash_record(a->scene->log);
	if (lock_acquire(a->scene->seg, now_ns() + PATIENCE_NS) != 0)
		return 1;
	lock_release(a->scene->seg);
	return 0;
}

/* Another process comes to the lock first, perhaps to die in the repair. */
static int
run_repair(struct scene *s, const struct death *death, struct crash_log *log)
{
	struct act a = {.scene = s, .death = death};
	int status;

	s->log = log;
	status = testproc_wait(testproc_start(repair, &a));
	s->log = NULL;
	return status;
}

/* --- afterwards ------------------------------------------------------------------ */

/* The bystander gets its VM, whatever happened. */
static const char *
serve_bystander(struct scene *s)
{
	struct seg *seg = s->seg;
	int r;

	if (s->bystander == NULL)
		return NULL;
	if (atomic_load(&seg->head->waiting) > 0)
		(void)testpool_ready(seg);
	r = testwait_end(s->bystander);
	if (r == -ESHUTDOWN && atomic_load(&seg->head->state) == POOL_DRAINING)
		return NULL;
	if (r != 0)
		return "the waiter was not served";
	if (lease_release(seg, &s->bystander->lease, -1) != 0)
		return "the waiter's lease did not hold";
	return NULL;
}

/* Every slot can be emptied, and then all of them be started: none is lost. */
static const char *
use_every_slot(struct seg *seg)
{
	uint64_t generation;
	uint32_t slot;

	for (uint32_t i = 0; i < seg->nslots; i++)
		if (testpool_state(seg, i) != SLOT_EMPTY && sup_worker_gone(seg, i, NULL) != 0)
			return "a slot cannot be emptied";
	for (uint32_t i = 0; i < seg->nslots; i++)
		if (sup_start(seg, &slot, &generation) != 0 || slot != i)
			return "a slot cannot be started";
	return checkpool(seg);
}

static const char *
aftermath(struct scene *s)
{
	const char *bad = checkpool(s->seg);

	if (bad == NULL && testpool_sup(sup_client_gone(s->seg, s->victim)) != 0)
		bad = "sup_client_gone failed";
	if (bad == NULL)
		bad = checkpool(s->seg);
	if (bad == NULL)
		bad = serve_bystander(s);
	if (bad == NULL)
		bad = checkpool(s->seg);
	if (bad == NULL &&
	    (testpool_count(s->seg, SLOT_IN_USE) != 0 || testpool_count(s->seg, SLOT_DEAD) != 0))
		bad = "a lease outlived its client";
	return bad != NULL ? bad : use_every_slot(s->seg);
}

/* --- one run, all runs -------------------------------------------------------------- */

/* With log: write down the points of the repair after the first death. */
static const char *
run_once(const struct scenario *scenario, const struct death *first, const struct death *second,
	 struct crash_log *log)
{
	struct scene s;
	uint64_t recovered;
	const char *bad = NULL;
	uint32_t deaths = 0;
	int status;

	scene_open(&s, scenario, NULL);
	status = run_child(&s, scenario, first);
	if (status == 1000 + SIGKILL)
		deaths++;
	else if (status != 0)
		bad = "the child failed";
	if (second->nth > 0 || log != NULL) {
		status = run_repair(&s, second, log);
		if (status == 1000 + SIGKILL)
			deaths++;
		else if (status != 0 && bad == NULL)
			bad = "the second child failed";
	}
	if (bad == NULL)
		bad = aftermath(&s);
	recovered = testpool_stat(s.seg, C_lock_recovery_count);
	if (bad == NULL && recovered > deaths)
		bad = "a death was counted twice";
	scene_close(&s);
	return bad == NULL ? NULL : wrong(scenario, first, second, bad);
}

/* The kth passing in a log, counted over all its points; false: past the end. */
static bool
pick(const struct crash_log *log, uint32_t k, struct death *death)
{
	for (uint32_t i = 0; i < log->n; i++) {
		if (k < log->point[i].hits) {
			(void)snprintf(death->name, sizeof(death->name), "%s", log->point[i].name);
			death->nth = k + 1;
			return true;
		}
		k -= log->point[i].hits;
	}
	return false;
}

static uint32_t
passings(const struct crash_log *log)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < log->n; i++)
		n += log->point[i].hits;
	return n;
}

static void
add_names(struct crash_log *names, const struct crash_log *log)
{
	for (uint32_t i = 0; i < log->n; i++) {
		uint32_t k = 0;

		while (k < names->n && strcmp(names->point[k].name, log->point[i].name) != 0)
			k++;
		if (k == names->n) {
			assert(k < CRASH_NAMES);
			names->point[names->n++] = log->point[i];
		}
	}
}

/* A death here; then the same again with another death in the repair. */
static const char *
run_deaths(const struct scenario *scenario, const struct death *first, bool cross,
	   struct crash_log *log, struct crash_log *names)
{
	static uint32_t turn;
	const struct death none = {.name = "nowhere"};
	struct death second = none;
	const char *bad;
	uint32_t n;

	memset(log, 0, sizeof(*log));
	bad = run_once(scenario, first, &none, log);
	add_names(names, log);
	n = passings(log);
	for (uint32_t k = 0; bad == NULL && n > 0 && k < (cross ? n : 1); k++)
		if (pick(log, cross ? k : turn++ % n, &second))
			bad = run_once(scenario, first, &second, NULL);
	return bad;
}

const char *
scene_run_all(const struct scenario *scenario, bool cross, struct crash_log *names)
{
	struct crash_log *act_log = crash_log_new(), *log = crash_log_new();
	const struct death none = {.name = "nowhere"};
	struct death first;
	const char *bad = NULL;
	struct scene s;

	scene_open(&s, scenario, act_log);
	if (run_child(&s, scenario, &none) != 0)
		bad = "the child failed without any death";
	if (bad == NULL)
		bad = aftermath(&s);
	scene_close(&s);
	if (bad == NULL && act_log->n == 0)
		bad = "no crash point was passed";
	if (bad != NULL)
		return wrong(scenario, &none, &none, bad);
	add_names(names, act_log);
	for (uint32_t k = 0; bad == NULL && pick(act_log, k, &first); k++)
		bad = run_deaths(scenario, &first, cross, log, names);
	return bad;
}
