/* SPDX-License-Identifier: MIT
 *
 * stress.c - a real vmpoold, clients that borrow and give back as fast as they
 * can, and somebody who kills and stops all of them. Built with the test build;
 * started by scripts/stress. Prints one line per second on a terminal, and a
 * report; exit status 0 iff all was as it must be.
 */
#include "tests/stress/stress.h"

#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* clang-format off */
static const struct row {
	const char *name, *arg, *help;
	bool number;
	size_t offset;
} rows[] = {
	{"seconds", "N", "how long (60)", true, offsetof(struct options, seconds)},
	{"cycles", "N", "end after so many leases, all clients together", true, offsetof(struct options, cycles)},
	{"clients", "N", "client processes (8)", true, offsetof(struct options, clients)},
	{"touch", "N", "so many of 1000 leases use their VM (300)", true, offsetof(struct options, touch)},
	{"acts", "LIST", "who is killed or stopped: all, none, or names: kill-client, stop-client, kill-worker, stop-worker, kill-fork-server, stop-supervisor, reload, kill-supervisor, end-supervisor", false, offsetof(struct options, acts)},
	{"every", "MS", "that often on average (50)", true, offsetof(struct options, act_ms)},
	{"patience", "MS", "how long a client waits for a VM (5000)", true, offsetof(struct options, patience_ms)},
	{"command", "MS", "a command's time-out, which it never needs (20000)", true, offsetof(struct options, command_ms)},
	{"seed", "N", "repeat the choices of another run", true, offsetof(struct options, seed)},
	{"accel", "WHICH", "null, tcg or kvm (null)", false, offsetof(struct options, accel)},
	{"min-idle", "N", "of the pool (3)", true, offsetof(struct options, min_idle)},
	{"max-idle", "N", "of the pool (6)", true, offsetof(struct options, max_idle)},
	{"max-total", "N", "of the pool (8)", true, offsetof(struct options, max_total)},
	{"vmpoold", "FILE", "the supervisor; its worker program lies beside it", false, offsetof(struct options, vmpoold)},
	{"log", "FILE", "what the supervisors say", false, offsetof(struct options, log)},
};
/* clang-format on */

static _Atomic int interrupted;

void
fault(struct stress *s, const char *fmt, ...)
{
	va_list ap;

	s->faults++;
	printf("\nFAULT after %.1f s: ", (double)(now_ns() - s->began_ns) / 1e9);
	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	(void)fflush(stdout);
}

/* --- options -------------------------------------------------------------------------- */

static int
help(void)
{
	printf("usage: stress --vmpoold FILE [OPTION]...\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		printf("  --%s %s: %s\n", rows[i].name, rows[i].arg, rows[i].help);
	return 0;
}

static bool
set(struct options *o, const struct row *row, const char *value)
{
	char *field = (char *)o + row->offset, *end;
	unsigned long n;

	if (!row->number) {
		memcpy(field, &value, sizeof(value));
		return true;
	}
	n = strtoul(value, &end, 10);
	if (*value < '0' || *value > '9' || *end != '\0' || n > UINT32_MAX) {
		(void)fprintf(stderr, "stress: --%s: \"%s\" is not a number\n", row->name, value);
		return false;
	}
	memcpy(field, &(uint32_t){(uint32_t)n}, sizeof(uint32_t));
	return true;
}

/* 0, or the exit status + 1. */
static int
parse(struct options *o, int argc, char **argv)
{
	struct option longs[ARRAY_SIZE(rows) + 2] = {{0}};
	int i;

	for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
		longs[k] = (struct option){rows[k].name, required_argument, NULL, 1};
	longs[ARRAY_SIZE(rows)] = (struct option){"help", no_argument, NULL, 2};
	for (int c; (c = getopt_long(argc, argv, "", longs, &i)) != -1;) {
		if (c == 2)
			return help() + 1;
		if (c != 1 || !set(o, &rows[i], optarg))
			return 3;
	}
	if (o->vmpoold != NULL && optind == argc && o->clients >= 1 && o->clients <= CLIENTS_MAX)
		return 0;
	(void)fprintf(stderr, "stress: --vmpoold is needed, 1 to %u clients\n", CLIENTS_MAX);
	return 3;
}

/* --- before and after ------------------------------------------------------------------- */

static void
on_signal(int sig)
{
	interrupted = sig;
}

static bool
open_dir(struct stress *s)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	static char log[128];
	char run[96];

	(void)strcpy(s->dir, "/tmp/vmpool-stress.XXXXXX");
	if (mkdtemp(s->dir) == NULL)
		return false;
	(void)snprintf(run, sizeof(run), "%s/run", s->dir);
	(void)snprintf(log, sizeof(log), "%s/log", s->dir);
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", s->dir);
	if (s->opt.log == NULL)
		s->opt.log = log;
	s->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return mkdir(run, 0700) == 0 && setenv("VMPOOL_RUNDIR", run, 1) == 0 &&
	       setenv("NOTIFY_SOCKET", addr.sun_path, 1) == 0 &&
	       bind(s->notify, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

/* The folder goes, but for a log that somebody will want to read. */
static void
close_dir(struct stress *s)
{
	static const char *const names[] = {"notify", "run/default.sock", "run/default.pid", "run"};
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/run", s->dir);
	if (rmdir(path) < 0 && errno == ENOTEMPTY)
		fault(s, "the supervisor has left files in %s", path);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", s->dir, names[i]);
		(void)remove(path);
	}
	if (s->faults == 0) {
		(void)snprintf(path, sizeof(path), "%s/log", s->dir);
		(void)unlink(path);
	}
	(void)rmdir(s->dir);
	closep(&s->notify);
}

static bool
prepare(struct stress *s)
{
	const struct sigaction sa = {.sa_handler = on_signal};

	s->shared = mmap(NULL, sizeof(*s->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s->shared == MAP_FAILED || !open_dir(s))
		return false;
	s->shared->plan = (struct stress_plan){
	    .ops = STRESS_ALL,
	    .touch = s->opt.touch,
	    .patience_ms = s->opt.patience_ms,
	    .command_ms = s->opt.command_ms,
	    .slack_ms = 20000,
	    .left = s->opt.cycles != 0 ? s->opt.cycles : UINT64_MAX,
	};
	/* Whoever loses its supervisor is ours to reap, and to count. */
	return prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && sigaction(SIGINT, &sa, NULL) == 0 &&
	       sigaction(SIGTERM, &sa, NULL) == 0;
}

/* --- the run --------------------------------------------------------------------------------- */

static void
progress(const struct stress *s)
{
	if (s->opt.quiet)
		return;
	printf("\r%5.0f s  %llu leases, %llu used, %llu refused, %llu VMs died; %u clients killed, "
	       "%u restarts, %u faults \033[K",
	       (double)(now_ns() - s->began_ns) / 1e9, (unsigned long long)CLIENTS_SUM(s, cycles),
	       (unsigned long long)CLIENTS_SUM(s, used),
	       (unsigned long long)CLIENTS_SUM(s, refused),
	       (unsigned long long)CLIENTS_SUM(s, died), s->killed_clients, s->restarts, s->faults);
	(void)fflush(stdout);
}

static bool
go_on(const struct stress *s)
{
	return now_ns() < s->began_ns + s->opt.seconds * 1000000000ull && interrupted == 0 &&
	       atomic_load(&s->shared->plan.left) > 0 && s->supervisor != 0;
}

static void
run(struct stress *s)
{
	uint64_t act = now_ns(), tick = act;

	while (go_on(s)) {
		uint64_t now = now_ns();

		host_reap(s);
		clients_look(s);
		clients_start(s);
		chaos_continue(s, now);
		if (now >= act) {
			if (!chaos_act(s))
				break;
			act =
			    now_ns() + stress_dice(&s->dice) % (2 * s->opt.act_ms + 1) * 1000000ull;
		}
		if (now >= tick) {
			progress(s);
			tick = now + 1000000000ull;
		}
		(void)poll(NULL, 0, 3);
	}
	chaos_continue(s, UINT64_MAX);
	progress(s);
	if (!s->opt.quiet)
		printf("\n");
}

static void
finish(struct stress *s)
{
	int status;

	(void)clients_finish(s);
	if (s->supervisor == 0)
		return;
	verdict(s);
	vmpool_detach(s->monitor);
	s->monitor = NULL;
	(void)kill(s->supervisor, SIGTERM);
	status = host_end(s);
	if (status != 0)
		fault(s, "the supervisor ended with wait status 0x%x", (unsigned)status);
	if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD)
		fault(s, "a process is left");
}

static void
report(const struct stress *s)
{
	double took = (double)(now_ns() - s->began_ns) / 1e9;

	printf("  clients     %llu leases in %.1f s, %llu used their VM, %llu refused, %llu VMs "
	       "died, %llu times the pool had gone; %u killed\n",
	       (unsigned long long)CLIENTS_SUM(s, cycles), took,
	       (unsigned long long)CLIENTS_SUM(s, used),
	       (unsigned long long)CLIENTS_SUM(s, refused),
	       (unsigned long long)CLIENTS_SUM(s, died),
	       (unsigned long long)CLIENTS_SUM(s, restarted), s->killed_clients);
	chaos_report(s);
	printf("stress: %s, seed %u, accel %s%s%s\n", s->faults == 0 ? "passed" : "FAILED",
	       s->opt.seed, s->opt.accel, s->faults == 0 ? "" : ", log ",
	       s->faults == 0 ? "" : s->opt.log);
}

int
main(int argc, char **argv)
{
	struct stress s = {
	    .opt = {.seconds = 60,
		    .clients = 8,
		    .touch = 300,
		    .act_ms = 50,
		    .patience_ms = 5000,
		    .command_ms = 20000,
		    .seed = (uint32_t)now_ns(),
		    .min_idle = 3,
		    .max_idle = 6,
		    .max_total = 8,
		    .acts = "all",
		    .accel = "null"},
	    .notify = -1,
	};
	int r = parse(&s.opt, argc, argv);

	if (r != 0)
		return r - 1;
	s.opt.quiet = !isatty(STDOUT_FILENO);
	s.dice = s.opt.seed | 1;
	s.began_ns = now_ns();
	if (!chaos_init(&s) || !prepare(&s)) {
		(void)fprintf(stderr, "stress: unknown acts, or no directory in /tmp\n");
		return 2;
	}
	printf("stress: %u clients for %u s, accel %s, seed %u\n", s.opt.clients, s.opt.seconds,
	       s.opt.accel, s.opt.seed);
	(void)fflush(stdout);
	if (host_start(&s)) {
		run(&s);
		finish(&s);
	}
	close_dir(&s);
	report(&s);
	return s.faults == 0 ? 0 : 1;
}
