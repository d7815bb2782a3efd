/* SPDX-License-Identifier: MIT
 *
 * watchdog.c - see watchdog.h. Runs in vmpoold; owns its timer.
 */
#include "supervisor/watchdog.h"

#include <signal.h>
#include <string.h>

#include "shm/lock.h"
#include "supervisor/suplog.h"

/* A line of /proc/TID/status, after its name and the blanks; "" if there is none. */
static void
thread_status(int tid, const char *name, char *buf, size_t len)
{
	char path[64], line[256];
	size_t n = strlen(name);
	FILE *f;

	buf[0] = '\0';
	(void)snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	if (f == NULL)
		return;
	while (fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, name, n) != 0 || line[n] != ':')
			continue;
		line[strcspn(line, "\n")] = '\0';
		(void)snprintf(buf, len, "%s", line + n + 1 + strspn(line + n + 1, " \t"));
		break;
	}
	(void)fclose(f);
}

/* The lock has been this thread's for too long. */
static void
watchdog_bite(struct watchdog *dog, int tid)
{
	char tgid[16], name[32];
	pid_t pid;

	thread_status(tid, "Tgid", tgid, sizeof(tgid));
	thread_status(tid, "Name", name, sizeof(name));
	pid = atoi(tgid);
	if (pid > 0 && dog->is_client(dog->arg, pid)) {
		suplog(LOG_ERR,
		       "client %d (%s, thread %d) has held the pool lock for %llu s; ending it",
		       pid, name, tid, WATCHDOG_NS / 1000000000ull);
		(void)kill(pid, SIGKILL);
		return;
	}
	suplog(LOG_ERR, "the pool lock names thread %d, which is no client's; breaking it", tid);
	lock_break(dog->seg, tid);
}

void
watchdog_look(struct watchdog *dog)
{
	int r = lock_acquire(dog->seg, LOCK_TRY), tid;
	uint64_t now = now_ns();

	if (r == 0) {
		lock_release(dog->seg);
		dog->tid = 0;
		return;
	}
	tid = lock_holder(dog->seg);
	if (tid != dog->tid) {
		dog->tid = tid;
		dog->since_ns = now;
	} else if (tid != 0 && now - dog->since_ns >= WATCHDOG_NS) {
		watchdog_bite(dog, tid);
		dog->since_ns = now;
	}
	ev_timer_by(&dog->timer, now + WATCHDOG_STEP_NS);
}

static void
watchdog_fire(void *arg)
{
	watchdog_look(arg);
}

void
watchdog_init(struct watchdog *dog, struct evloop *loop, struct seg *seg,
	      bool (*is_client)(void *arg, pid_t pid), void *arg)
{
	*dog = (struct watchdog){.seg = seg, .is_client = is_client, .arg = arg};
	dog->timer.fire = watchdog_fire;
	dog->timer.arg = dog;
	evloop_timer(loop, &dog->timer);
}
