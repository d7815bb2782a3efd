/* SPDX-License-Identifier: MIT
 *
 * bench_quiet.c - idle16_cpu_percent: the processor time that the host spends, in percent
 * of one processor, while 16 VMs sit idle.
 *
 * Usage: bench_quiet ACCEL [POOL]      the pool runs, with room for 16 idle VMs, which it
 *                                      does not renew meanwhile
 *
 * Counted is the run time of every thread of every process of the pool: of the supervisor
 * and of all that descend from it, virtual processors and QEMU included. Not counted is
 * what the kernel does in its own threads, and in interrupts that find the processor idle.
 * For whoever looks for the spender: who it was, by the names of threads, and how often
 * they woke up.
 */
#include "shm/vmpool.h"
#include "tests/bench/report.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <string.h>

#define VMS 16u
#define LOOK_S 10u
#define SETTLE_S 3u
#define SETTLE_TRIES 20u
#define WAIT_MS 300000
#define PROCESSES_MAX 4096u /* of the whole host */
#define THREADS_MAX 1024u   /* of the pool */

struct process {
	int pid, parent;
};

struct thread {
	int tid;
	char name[16];
	uint64_t ns, wakeups;
};

struct census {
	size_t n;
	struct thread v[THREADS_MAX];
};

static struct process processes[PROCESSES_MAX];
static size_t process_count;

/* --- what /proc says ---------------------------------------------------------------------- */

/* A file of a thread; empty if that has ended. */
static void
read_file(char *text, size_t len, int pid, int tid, const char *name)
{
	char path[80];
	size_t n = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, name);
	f = fopen(path, "re");
	if (f != NULL) {
		n = fread(text, 1, len - 1, f);
		(void)fclose(f);
	}
	text[n] = '\0';
}

/* Call fn with the numbers that a folder has among its names. */
static void
each_number(const char *path, void (*fn)(int number, void *arg), void *arg)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (isdigit((unsigned char)entry->d_name[0]))
			fn((int)strtol(entry->d_name, NULL, 10), arg);
	if (dir != NULL)
		(void)closedir(dir);
}

static void
add_process(int pid, void *arg)
{
	struct process p = {.pid = pid};
	char text[512];
	const char *rest;

	(void)arg;
	/* "pid (name) state ppid ...": the name may hold anything. */
	read_file(text, sizeof(text), pid, pid, "stat");
	rest = strrchr(text, ')');
	if (rest == NULL || sscanf(rest + 1, " %*c %d", &p.parent) != 1)
		return;
	if (process_count == PROCESSES_MAX)
		bench_die("more than %u processes on this host", PROCESSES_MAX);
	processes[process_count++] = p;
}

static bool
descends_from(int pid, int ancestor)
{
	size_t i;

	while (pid != ancestor) {
		for (i = 0; i < process_count && processes[i].pid != pid; i++)
			;
		if (i == process_count)
			return false;
		pid = processes[i].parent;
	}
	return true;
}

struct visit {
	struct census *census;
	int pid;
};

static void
add_thread(int tid, void *arg)
{
	const struct visit *visit = arg;
	struct thread t = {.tid = tid};
	const char *wakeups;
	char text[4096];

	read_file(text, sizeof(text), visit->pid, tid, "comm");
	if (sscanf(text, "%15[^\n]", t.name) != 1)
		return;
	read_file(text, sizeof(text), visit->pid, tid, "schedstat");
	if (sscanf(text, "%" SCNu64, &t.ns) != 1)
		return;
	read_file(text, sizeof(text), visit->pid, tid, "status");
	wakeups = strstr(text, "\nvoluntary_ctxt_switches:");
	if (wakeups != NULL)
		t.wakeups = strtoull(strchr(wakeups, ':') + 1, NULL, 10);
	if (visit->census->n == THREADS_MAX)
		bench_die("more than %u threads", THREADS_MAX);
	visit->census->v[visit->census->n++] = t;
}

/* All threads of the pool as they are now. */
static void
count_threads(struct census *census, int supervisor)
{
	char path[64];

	process_count = 0;
	census->n = 0;
	each_number("/proc", add_process, NULL);
	for (size_t i = 0; i < process_count; i++) {
		struct visit visit = {census, processes[i].pid};

		if (!descends_from(visit.pid, supervisor))
			continue;
		(void)snprintf(path, sizeof(path), "/proc/%d/task", visit.pid);
		each_number(path, add_thread, &visit);
	}
	if (census->n == 0)
		bench_die("the pool's processes are not to be seen, or have no schedstat");
}

static struct thread *
find_thread(struct census *census, int tid)
{
	for (size_t i = 0; i < census->n; i++)
		if (census->v[i].tid == tid)
			return &census->v[i];
	return NULL;
}

/* --- the figure ----------------------------------------------------------------------------- */

static void
wait_s(unsigned s)
{
	const struct timespec t = {.tv_sec = s};

	if (nanosleep(&t, NULL) < 0)
		bench_die("nanosleep: %m");
}

/* Until no thread comes or goes: also those that are made ahead of demand are there. */
static void
settle(struct census *before, struct census *after, int supervisor)
{
	size_t same = 0;

	count_threads(after, supervisor);
	for (unsigned i = 0; i < SETTLE_TRIES; i++) {
		*before = *after;
		wait_s(SETTLE_S);
		count_threads(after, supervisor);
		same = 0;
		for (size_t t = 0; t < after->n; t++)
			same += find_thread(before, after->v[t].tid) != NULL;
		if (same == before->n && same == after->n)
			return;
	}
	bench_die("the pool does not come to rest");
}

/* Make of each thread's numbers what they have grown; the sum of the times. What a thread
 * has used that ended meanwhile is not known. */
static uint64_t
subtract(struct census *after, struct census *before)
{
	uint64_t ns = 0;

	for (size_t i = 0; i < after->n; i++) {
		struct thread *now = &after->v[i], *then = find_thread(before, now->tid);

		if (then != NULL)
			now->ns -= then->ns, now->wakeups -= then->wakeups;
		ns += now->ns;
	}
	return ns;
}

/* One line for each name that threads have. Forgets the census. */
static void
print_spenders(struct census *census)
{
	while (census->n > 0) {
		struct thread sum = census->v[0];
		size_t left = 0, n = 1;

		for (size_t i = 1; i < census->n; i++) {
			if (strcmp(census->v[i].name, sum.name) != 0) {
				census->v[left++] = census->v[i];
				continue;
			}
			sum.ns += census->v[i].ns, sum.wakeups += census->v[i].wakeups, n++;
		}
		census->n = left;
		(void)printf("  %3zu %-16s %8.2f ms, %5" PRIu64 " wake-ups\n", n, sum.name,
			     (double)sum.ns / 1e6, sum.wakeups);
	}
}

/* CPU time per wall-clock time, of all threads. */
static double
look(int supervisor)
{
	static struct census before, after;
	uint64_t start, ns;
	double percent;

	settle(&before, &after, supervisor);
	start = now_ns();
	count_threads(&before, supervisor);
	wait_s(LOOK_S);
	ns = now_ns() - start;
	count_threads(&after, supervisor);
	percent = 100.0 * (double)subtract(&after, &before) / (double)ns;
	print_spenders(&after);
	return percent;
}

int
main(int argc, char **argv)
{
	struct vmpool_info info;
	struct vmpool *pool;
	double percent;
	int r;

	if (argc < 2)
		bench_die("usage: bench_quiet ACCEL [POOL]");
	if (vmpool_attach(&pool, argc > 2 ? argv[2] : NULL) != 0)
		bench_die("attach: %s", vmpool_error(NULL));
	if (vmpool_warm(pool, VMS, WAIT_MS) < 0 || vmpool_info(pool, &info) != 0)
		bench_die("warm: %s", vmpool_error(pool));
	percent = look(info.supervisor_pid);
	r = report(&(struct figure){
	    .name = "idle16_cpu_percent",
	    .accel = argv[1],
	    .unit = "%",
	    .value = percent,
	    .goal = 0.5,
	    .lower_is_better = true,
	    .p50 = percent,
	    .p99 = percent,
	    .n = 1,
	});
	vmpool_detach(pool);
	return r == 0 ? 0 : 1;
}
