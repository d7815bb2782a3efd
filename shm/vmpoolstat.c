/* SPDX-License-Identifier: MIT
 *
 * vmpoolstat.c - the monitor: one line of figures now, then one per interval.
 * Attaches read-only and takes no lock, so it works while the lock is held and
 * after the supervisor has died, and says so; when a new supervisor has taken
 * the pool's place it goes on with that one.
 */
#include "shm/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HEADER_EVERY 20 /* lines, on a terminal */

struct sample {
	uint64_t ns; /* CLOCK_MONOTONIC */
	struct vmpool_info info;
	struct vmpool_stat *stats;
	size_t count;
};

/* --- the columns ------------------------------------------------------------------------ */

enum column_kind {
	LEVEL, /* the statistic's value */
	RATE,  /* its growth per second */
	P50,
	P99,
	PAGES_EACH, /* MiB: pages of the first, for each of the second, since the last line */
	BAR,	    /* | */
};
struct column {
	const char *title;
	enum column_kind kind;
	int width;
	const char *stat[4]; /* summed up */
};
static const struct column columns[] = {
    {"idle", LEVEL, 4, {"idle_count"}},
    {"use", LEVEL, 4, {"in_use_count"}},
    {"start", LEVEL, 5, {"starting_count"}},
    {"reset", LEVEL, 5, {"resetting_count"}},
    {"wait", LEVEL, 4, {"waiting_count"}},
    {"|", BAR, 1, {NULL}},
    {"hit/s", RATE, 7, {"hit_count"}},
    {"miss/s", RATE, 7, {"miss_count"}},
    {"evict/s", RATE, 7, {"evict_count"}},
    {"recyc/s", RATE, 7, {"recycle_count"}},
    {"fail/s", RATE, 7, {"spawn_fail_count", "health_fail_count", "vm_died_count"}},
    {"|", BAR, 1, {NULL}},
    {"acq_p50", P50, 7, {"acquire_ns"}},
    {"acq_p99", P99, 7, {"acquire_ns"}},
    {"exec_p50", P50, 8, {"exec_ns"}},
    {"exec_p99", P99, 8, {"exec_ns"}},
    {"|", BAR, 1, {NULL}},
    {"dirty_mb", PAGES_EACH, 8, {"reset_page_count", "reset_count"}},
};

static const struct vmpool_stat *
stat_find(const struct sample *s, const char *name)
{
	for (size_t i = 0; i < s->count; i++)
		if (strcmp(s->stats[i].name, name) == 0)
			return &s->stats[i];
	return NULL;
}

/* The sum of a column's statistics; false: this pool keeps none of them. */
static bool
column_sum(const struct sample *s, const struct column *c, uint64_t *sum)
{
	bool any = false;

	*sum = 0;
	for (size_t i = 0; i < CLI_COUNT(c->stat) && c->stat[i] != NULL; i++) {
		const struct vmpool_stat *stat = stat_find(s, c->stat[i]);

		any |= stat != NULL;
		*sum += stat != NULL ? stat->value : 0;
	}
	return any;
}

/* Growth per second between two samples; before may be empty (since the pool began). */
static bool
column_rate(const struct sample *before, const struct sample *s, const struct column *c,
	    double *rate)
{
	uint64_t a, b;

	(void)column_sum(before, c, &a);
	if (!column_sum(s, c, &b) || before->ns == 0 || s->ns <= before->ns)
		return false;
	*rate = b > a ? (double)(b - a) * 1e9 / (double)(s->ns - before->ns) : 0.0;
	return true;
}

/* --- taking samples ---------------------------------------------------------------------- */

static uint64_t
clock_ns(clockid_t clock)
{
	struct timespec ts;

	(void)clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* When the supervisor started (CLOCK_MONOTONIC), from /proc; 0 = unknown. */
static uint64_t
supervisor_start(int pid)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), up = clock_ns(CLOCK_BOOTTIME), age;
	unsigned long long ticks;
	char path[64], line[1024];
	const char *p;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (f == NULL)
		return 0;
	p = fgets(line, sizeof(line), f) != NULL ? strrchr(line, ')') : NULL;
	(void)fclose(f);
	/* Field 22 (proc(5)); the one after the name is number 3. */
	if (p == NULL || sscanf(p + 1,
				" %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
				" %*s %*s %*s %llu",
				&ticks) != 1)
		return 0;
	ticks = ticks * 1000000000u / (unsigned long long)sysconf(_SC_CLK_TCK);
	age = up > ticks ? up - ticks : 0;
	return age != 0 && age < now ? now - age : 0;
}

static bool
sample_take(struct vmpool *pool, struct sample *s)
{
	int r = vmpool_info(pool, &s->info);

	s->ns = clock_ns(CLOCK_MONOTONIC);
	if (r == 0)
		r = vmpool_stats(pool, &s->stats, &s->count);
	if (r < 0)
		cli_say_error(pool, r);
	return r == 0;
}

static void
sample_fini(struct sample *s)
{
	vmpool_stats_free(s->stats);
	*s = (struct sample){.ns = 0};
}

/* --- printing ------------------------------------------------------------------------------ */

static void
print_header(void)
{
	for (size_t i = 0; i < CLI_COUNT(columns); i++)
		printf("%s%*s", i > 0 ? " " : "", columns[i].width, columns[i].title);
	(void)putchar('\n');
}

/* The growth of a counter between two samples; before may be empty. */
static uint64_t
stat_growth(const struct sample *before, const struct sample *s, const char *name)
{
	const struct vmpool_stat *a = stat_find(before, name), *b = stat_find(s, name);
	uint64_t from = a != NULL ? a->value : 0, to = b != NULL ? b->value : 0;

	return to > from ? to - from : 0;
}

static bool
column_mib_each(const struct sample *before, const struct sample *s, const struct column *c,
		double *mib)
{
	uint64_t pages = stat_growth(before, s, c->stat[0]);
	uint64_t n = stat_growth(before, s, c->stat[1]);

	*mib = n == 0 ? 0.0 : (double)pages / (double)n / 256.0;
	return n > 0;
}

static const char *
cell(char *buf, size_t len, const struct sample *before, const struct sample *s,
     const struct column *c)
{
	const struct vmpool_stat *stat = c->kind == BAR ? NULL : stat_find(s, c->stat[0]);
	uint64_t sum;
	double rate;

	(void)snprintf(buf, len, "%s", c->kind == BAR ? "|" : "-");
	if (c->kind == LEVEL && column_sum(s, c, &sum))
		(void)snprintf(buf, len, "%llu", (unsigned long long)sum);
	else if (c->kind == PAGES_EACH && column_mib_each(before, s, c, &rate))
		(void)snprintf(buf, len, "%.2f", rate);
	else if (c->kind == RATE && column_rate(before, s, c, &rate))
		(void)snprintf(buf, len, "%.*f", rate == 0 || rate >= 99.5 ? 0 : 2, rate);
	else if ((c->kind == P50 || c->kind == P99) && stat != NULL && stat->hist.count > 0)
		(void)cli_duration(buf, len,
				   c->kind == P50 ? stat->hist.p50_ns : stat->hist.p99_ns);
	return buf;
}

static int
print_line(const struct sample *before, const struct sample *s)
{
	char buf[32];

	for (size_t i = 0; i < CLI_COUNT(columns); i++)
		printf("%s%*s", i > 0 ? " " : "", columns[i].width,
		       cell(buf, sizeof(buf), before, s, &columns[i]));
	(void)putchar('\n');
	return cli_finish(0);
}

/* What a reader of the figures must know; beside them, not among them. */
static void
print_notes(const struct sample *before, const struct sample *s)
{
	if (before->count == 0 || strcmp(before->info.state, s->info.state) != 0) {
		if (strcmp(s->info.state, "dead") == 0)
			cli_say("supervisor dead (pid %d was pool \"%s\"): these are its last "
				"figures",
				s->info.supervisor_pid, s->info.name);
		else if (strcmp(s->info.state, "draining") == 0)
			cli_say("pool \"%s\" is shutting down", s->info.name);
	}
	if (s->info.lock_holder != 0)
		cli_say("lock held by %d", s->info.lock_holder);
}

static json_t *
rates_json(const struct sample *before, const struct sample *s)
{
	json_t *rates = json_object();
	double rate;

	for (size_t i = 0; i < CLI_COUNT(columns); i++)
		if (columns[i].kind == RATE && column_rate(before, s, &columns[i], &rate))
			(void)json_object_set_new(rates, columns[i].title, json_real(rate));
	return rates;
}

static int
print_json(const struct sample *before, const struct sample *s)
{
	json_t *all = cli_json_stats(s->stats, s->count);

	if (all != NULL &&
	    (json_object_set_new(all, "time", json_real((double)clock_ns(CLOCK_REALTIME) / 1e9)) <
		 0 ||
	     json_object_set_new(all, "pool", cli_json_info(&s->info)) < 0 ||
	     json_object_set_new(all, "rates", rates_json(before, s)) < 0)) {
		json_decref(all);
		all = NULL;
	}
	return cli_json_print(all, true);
}

/* --- running ------------------------------------------------------------------------------- */

struct monitor {
	const char *name;
	struct vmpool *pool;
	bool json;
	bool terminal;
	unsigned lines;
	struct sample before;
};

/* A new supervisor may have taken the dead one's place. */
static void
follow(struct monitor *m, const struct sample *s)
{
	struct vmpool *pool;

	if (strcmp(s->info.state, "dead") != 0 || vmpool_monitor(&pool, m->name) < 0)
		return;
	vmpool_detach(m->pool);
	m->pool = pool;
	sample_fini(&m->before);
	cli_say("pool \"%s\" was restarted", m->name);
}

static int
monitor_line(struct monitor *m)
{
	struct sample s = {.ns = 0};
	int status;

	if (!sample_take(m->pool, &s))
		return CLI_FAILED;
	if (m->before.count == 0)
		m->before.ns = supervisor_start(s.info.supervisor_pid);
	if (m->json) {
		status = print_json(&m->before, &s);
	} else {
		print_notes(&m->before, &s);
		if (m->lines++ % HEADER_EVERY == 0 && (m->terminal || m->lines == 1))
			print_header();
		status = print_line(&m->before, &s);
	}
	sample_fini(&m->before);
	m->before = s;
	follow(m, &s);
	return status;
}

/* Until `due`; the signal that came meanwhile, or 0. */
static int
sleep_until(uint64_t due, const sigset_t *signals)
{
	for (;;) {
		uint64_t now = clock_ns(CLOCK_MONOTONIC), left = due > now ? due - now : 0;
		struct timespec ts = {.tv_sec = (time_t)(left / 1000000000u),
				      .tv_nsec = (long)(left % 1000000000u)};
		int signal = sigtimedwait(signals, NULL, &ts);

		if (signal > 0)
			return signal;
		if (errno != EINTR)
			return 0;
	}
}

static int
monitor_run(struct monitor *m, uint64_t interval_ns, unsigned count)
{
	uint64_t due = clock_ns(CLOCK_MONOTONIC);
	sigset_t signals;
	int status = 0;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	for (unsigned i = 0; status == 0; i++) {
		status = monitor_line(m);
		due += interval_ns;
		if (i + 1 == count || sleep_until(due, &signals) != 0)
			break;
	}
	return status;
}

static int
stat_main(const struct cli_command *cmd, int argc, char **argv)
{
	struct monitor m = {.name = "default", .terminal = isatty(STDOUT_FILENO) == 1};
	bool version = false;
	const struct cli_option options[] = {
	    {'p', "pool", "POOL", "name of the pool (default: default)", CLI_STRING, &m.name},
	    {'j', "json", NULL, "one JSON object per line", CLI_FLAG, &m.json},
	    {'V', "version", NULL, "show the version", CLI_FLAG, &version},
	};
	int64_t interval_ms = 0;
	unsigned count = 1;
	int status, first, r;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (version) {
		printf("vmpoolstat %s\n", VMPOOL_VERSION);
		return cli_finish(0);
	}
	if (argc - first > 2)
		return cli_bad_usage(cmd, "unexpected argument \"%s\"", argv[first + 2]);
	if (argc > first && (!cli_seconds(argv[first], &interval_ms) || interval_ms == 0))
		return cli_bad_usage(cmd, "\"%s\" is not an interval in seconds", argv[first]);
	if (argc > first)
		count = 0; /* for ever */
	if (argc > first + 1 && (!cli_number(argv[first + 1], UINT_MAX, &count) || count == 0))
		return cli_bad_usage(cmd, "\"%s\" is not a count", argv[first + 1]);
	r = vmpool_monitor(&m.pool, m.name);
	if (r < 0) {
		cli_say_error(NULL, r);
		return CLI_FAILED;
	}
	status = monitor_run(&m, (uint64_t)interval_ms * 1000000, count);
	sample_fini(&m.before);
	vmpool_detach(m.pool);
	return status;
}

int
main(int argc, char **argv)
{
	static const struct cli_command self = {
	    .name = "",
	    .args = "[-p POOL] [-j] [INTERVAL [COUNT]]",
	    .summary = "Show what a pool is doing: one line now, then one per INTERVAL seconds.",
	    .notes =
		"idle use start reset   VMs in these states; wait: callers waiting for one\n"
		"hit/s miss/s ...       per second since the last line; in the first line since\n"
		"                       the supervisor started. fail/s: VMs that failed to start,\n"
		"                       failed a health check, or died\n"
		"acq_* exec_*           times to acquire and to run a command, over the pool's\n"
		"                       life: median and 99th percentile\n"
		"dirty_mb               memory, in MiB, that one reset had to put back; - if there "
		"was none\n",
	    .example = "  vmpoolstat 1\n  vmpoolstat -j 0.5 10\n",
	    .usage_status = CLI_USAGE,
	};

	cli_init();
	return stat_main(&self, argc, argv);
}
