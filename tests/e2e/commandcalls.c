/* SPDX-License-Identifier: MIT
 *
 * commandcalls.c - a client that borrows one VM and runs commands in it through the
 * library: 64 at once; events in their order, as they are written; one that nobody
 * reads; ends that leave nothing running; figures of the VM that move with what is
 * done. Run by commands.sh; prints TAP.
 *
 * Usage: commandcalls POOL
 */
#include "tests/e2e/lib/e2eclient.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 64
#define LINES 200

static struct vmpool_proc *
start(const char *script, const char *arg, const struct vmpool_exec_opts *opts)
{
	const char *const argv[] = {"sh", "-c", script, "sh", arg, NULL};
	struct vmpool_proc *proc = NULL;

	if (vmpool_spawn(vm, argv, opts, &proc) < 0)
		printf("# not started: %s\n", vmpool_error(pool));
	return proc;
}

/* The next event, waited for as poll loops do. */
static int
next(struct vmpool_proc *proc, struct vmpool_event *event)
{
	struct pollfd pfd = {.fd = vmpool_proc_fd(proc), .events = POLLIN};
	int r;

	while ((r = vmpool_proc_next(proc, 0, event)) == -EAGAIN)
		if (poll(&pfd, 1, 30000) != 1)
			return -ETIME;
	return r;
}

/* Everything up to the end, which is in *event. */
static bool
drain(struct vmpool_proc *proc, struct vmpool_event *event)
{
	int r;

	do
		r = next(proc, event);
	while (r == 0 && event->type != VMPOOL_EXIT && event->type != VMPOOL_TIMEOUT);
	return r == 0;
}

static bool
is_text(const struct vmpool_event *event, enum vmpool_event_type type, const char *text)
{
	return event->type == type && event->len == strlen(text) &&
	       memcmp(event->data, text, event->len) == 0;
}

/* --- 64 at once ---------------------------------------------------------------------------- */

struct one {
	struct vmpool_proc *proc;
	char out[LINES * 16], err[64];
	size_t out_len, err_len;
	bool ended;
	int exit_code;
};

static void
take(struct one *o)
{
	struct vmpool_event event;

	while (!o->ended && vmpool_proc_next(o->proc, 0, &event) == 0) {
		char *to = event.type == VMPOOL_STDOUT ? o->out : o->err;
		size_t *len = event.type == VMPOOL_STDOUT ? &o->out_len : &o->err_len;
		size_t room = (to == o->out ? sizeof(o->out) : sizeof(o->err)) - *len;

		if (event.type == VMPOOL_EXIT) {
			o->ended = true;
			o->exit_code = event.exit_code;
		} else if (event.len <= room) {
			memcpy(to + *len, event.data, event.len);
			*len += event.len;
		}
	}
}

static bool
right(const struct one *o, int k)
{
	char want[LINES * 16], err[64];
	size_t len = 0;

	for (int i = 0; i < LINES; i++)
		len += (size_t)snprintf(want + len, sizeof(want) - len, "%d:%d\n", k, i);
	(void)snprintf(err, sizeof(err), "told %d\n", k * k);
	return o->ended && o->exit_code == k && o->out_len == len &&
	       memcmp(o->out, want, len) == 0 && o->err_len == strlen(err) &&
	       memcmp(o->err, err, o->err_len) == 0;
}

/* All wait for a line of stdin first: so they do run at once. */
static unsigned
spawn_all(struct one *all)
{
	static const char script[] =
	    "read -r x; i=0; while [ $i -lt 200 ]; do echo \"$1:$i\"; i=$((i + 1)); done;"
	    "echo \"told $x\" >&2; exit $1";
	const struct vmpool_exec_opts opts = {.want_stdin = true};
	struct vmpool_vm_stats stats;
	char arg[8];

	for (int k = 0; k < MANY; k++) {
		(void)snprintf(arg, sizeof(arg), "%d", k);
		all[k].proc = start(script, arg, &opts);
		if (all[k].proc == NULL)
			return 0;
	}
	return vmpool_vm_stats(vm, 30000, &stats) == 0 ? stats.guest_commands : 0;
}

static bool
feed(struct one *o, int k)
{
	char line[16];
	int len = snprintf(line, sizeof(line), "%d\n", k * k);

	return vmpool_proc_write(o->proc, line, (size_t)len, 10000) == len &&
	       vmpool_proc_close_stdin(o->proc) == 0;
}

static void
many(void)
{
	static struct one all[MANY];
	struct pollfd pfd[MANY];
	unsigned running = spawn_all(all), good = 0, left = MANY;
	const double end = seconds() + 60;

	result(running == MANY, "%u of %d commands run in one VM at once", running, MANY);
	if (running != MANY)
		exit(1);
	for (int k = 0; k < MANY; k++)
		if (!feed(&all[k], k))
			left = 0;
	while (left > 0 && seconds() < end) {
		left = 0;
		for (int k = 0; k < MANY; k++) {
			take(&all[k]);
			if (!all[k].ended)
				pfd[left++] = (struct pollfd){.fd = vmpool_proc_fd(all[k].proc),
							      .events = POLLIN};
		}
		(void)poll(pfd, left, left > 0 ? 1000 : 0);
	}
	for (int k = 0; k < MANY; k++) {
		good += right(&all[k], k);
		vmpool_proc_free(all[k].proc);
	}
	result(good == MANY, "%u of them had all their output, on both streams, and their status",
	       good);
}

/* --- events -------------------------------------------------------------------------------- */

static void
live(void)
{
	const struct vmpool_exec_opts opts = {.want_stdin = true};
	struct vmpool_proc *proc =
	    start("echo a; read -r x; echo b >&2; read -r x; echo \"$x\"; exit 3", "", &opts);
	struct vmpool_event event;
	bool ok = proc != NULL && next(proc, &event) == 0 && is_text(&event, VMPOOL_STDOUT, "a\n");

	/* Each comes before what follows it could have been written. */
	ok = ok && vmpool_proc_write(proc, "1\n", 2, 10000) == 2 && next(proc, &event) == 0 &&
	     is_text(&event, VMPOOL_STDERR, "b\n");
	ok = ok && vmpool_proc_write(proc, "2\n", 2, 10000) == 2 && next(proc, &event) == 0 &&
	     is_text(&event, VMPOOL_STDOUT, "2\n");
	ok = ok && next(proc, &event) == 0 && event.type == VMPOOL_EXIT && event.exit_code == 3;
	vmpool_proc_free(proc);
	result(ok, "events come in order, each while the command waits");
}

static bool
stands_still(void *arg)
{
	long long *last = arg, now = e2e_say("sleep 0.2; cat /tmp/written");
	bool same = now > 0 && now == *last;

	*last = now;
	return same;
}

/* (It is empty for a moment whenever it is written.) */
static bool
has_written(void *arg)
{
	return e2e_say("cat /tmp/written") > *(const long long *)arg;
}

/* What nobody reads stops its writer, and nobody else. */
static void
unread(void)
{
	struct vmpool_proc *proc =
	    start("b=$(printf %01000d 7); i=0; while :; do echo $b; i=$((i + 1));"
		  "echo $i >/tmp/written; done",
		  "", NULL);
	struct vmpool_event event = {.len = 0};
	struct vmpool_vm_stats before = {0}, after = {0};
	long long written = 0, total = 0, most = 1500;
	bool ok;

	if (proc == NULL)
		exit(1);
	ok = e2e_until(stands_still, &written);
	/* The pipe's 256 KiB and the window's 16. */
	result(ok && written < 300, "a writer whose reader stops is stopped after %lld KB",
	       written);
	ok = vmpool_vm_stats(vm, 10000, &before) == 0 &&
	     sh("head -c 3000000 /dev/zero | tr '\\0' x | md5sum",
		"8e32e22642bddc89698e25a4e9bf528b  -\n") &&
	     vmpool_vm_stats(vm, 10000, &after) == 0;
	result(ok && stands_still(&written), "other commands go on, and it stays so");
	while (total < 2000000 && next(proc, &event) == 0 && event.type == VMPOOL_STDOUT)
		total += (long long)event.len;
	result(total >= 2000000 && e2e_until(has_written, &most), "it goes on once it is read");
	ok = vmpool_proc_kill(proc, SIGKILL) == 0 && drain(proc, &event);
	result(ok && event.signal == SIGKILL, "and is killed");
	vmpool_proc_free(proc);
}

/* A child that reads nothing takes a bounded part, and nobody waits. */
static void
deaf(void)
{
	const struct vmpool_exec_opts opts = {.want_stdin = true};
	static char bytes[65536];
	struct vmpool_proc *proc = start("exec sleep 1000", "", &opts);
	struct vmpool_event event = {.len = 0};
	size_t taken = 0;
	ssize_t n = 0;

	if (proc == NULL)
		exit(1);
	while (taken < 1000000 && (n = vmpool_proc_write(proc, bytes, sizeof(bytes), 300)) > 0)
		taken += (size_t)n;
	result(n == -EAGAIN && taken < 200000 && sh("echo on", "on\n"),
	       "a command that never reads takes %zu KiB of stdin, and stops nothing", taken >> 10);
	result(vmpool_proc_kill(proc, SIGTERM) == 0 && drain(proc, &event) &&
		   event.signal == SIGTERM && vmpool_proc_write(proc, "x", 1, 1000) == -EPIPE,
	       "its end, by a signal, is told");
	vmpool_proc_free(proc);
}

/* --- ends ---------------------------------------------------------------------------------- */

/* Forked twice, in sessions of their own, deaf to signals. */
#define STUBBORN \
	"trap '' TERM INT HUP; for i in 1 2 3; do (setsid sh -c 'trap \"\" TERM HUP;" \
	"sleep 4711 & (sleep 4711 &) ; exec sleep 4711' &); done;" \
	"while :; do sleep 4711; done"

static bool
so_many(void *arg)
{
	return e2e_say("ps | grep -c '[s]leep 4711$'") == *(const long long *)arg;
}

static void
ends(void)
{
	const struct vmpool_exec_opts quick = {.timeout_ms = 800};
	struct vmpool_event event = {.len = 0};
	struct vmpool_proc *proc = start(STUBBORN, "", NULL);
	const double began = seconds();
	long long all = 10, none = 0;
	bool ok = proc != NULL && e2e_until(so_many, &all);

	ok = ok && vmpool_proc_kill(proc, SIGTERM) == 0 && so_many(&all) &&
	     vmpool_proc_next(proc, 300, &event) == -EAGAIN;
	result(ok, "%lld processes of a command do not hear SIGTERM", all);
	ok = vmpool_proc_kill(proc, SIGKILL) == 0 && drain(proc, &event);
	result(ok && event.signal == SIGKILL && e2e_until(so_many, &none),
	       "SIGKILL ends all that it has started");
	vmpool_proc_free(proc);
	proc = start(STUBBORN, "", &quick);
	ok = proc != NULL && drain(proc, &event) && event.type == VMPOOL_TIMEOUT;
	result(ok && event.guest_ns >= 800000000 && event.guest_ns < 8000000000 &&
		   e2e_until(so_many, &none),
	       "so does a time-out, of milliseconds (%.0f ms in the VM)",
	       (double)event.guest_ns / 1e6);
	vmpool_proc_free(proc);
	result(sh("echo usable", "usable\n") && seconds() - began < 30, "the VM stays usable");
}

static void
signals(void)
{
	const struct {
		const char *name;
		int number;
	} rows[] = {{"TERM", SIGTERM}, {"sigusr1", SIGUSR1}, {"10", 10},
		    {"HUP", SIGHUP},   {"RTMIN+2", 36},	     {"SIGPIPE", SIGPIPE}};
	const unsigned n = sizeof(rows) / sizeof(rows[0]);
	struct vmpool_event event;
	unsigned good = 0;

	for (unsigned i = 0; i < n; i++) {
		struct vmpool_proc *proc = start("echo up; exec sleep 1000", "", NULL);

		good += proc != NULL && next(proc, &event) == 0 &&
			vmpool_proc_kill(proc, vmpool_signal(rows[i].name)) == 0 &&
			drain(proc, &event) && event.type == VMPOOL_EXIT &&
			event.signal == rows[i].number;
		vmpool_proc_free(proc);
	}
	result(good == n, "signals by number and name end commands");
}

static void
refused(void)
{
	const char *const none[] = {NULL}, *const empty[] = {"", NULL};
	struct vmpool_result r;
	int first = vmpool_exec(vm, none, NULL, &r), second;

	vmpool_result_fini(&r);
	second = vmpool_exec(vm, empty, NULL, &r);
	vmpool_result_fini(&r);
	result(first == VMPOOL_ECONFIG && second == VMPOOL_ENOTFOUND,
	       "no argument at all is refused; an empty one is no command");
}

static bool
grows(void *arg)
{
	long long *last = arg;

	return e2e_say("wc -c </tmp/background") > *last;
}

static void
background(void)
{
	long long size;

	(void)sh("while :; do echo x; sleep 0.1; done >/tmp/background & exit 0", "");
	size = e2e_say("wc -c </tmp/background");
	result(size >= 0 && e2e_until(grows, &size), "what a command leaves running runs on");
}

/* --- how the VM does ------------------------------------------------------------------------ */

static struct vmpool_vm_stats before, now;

/* Do it, with the figures before and after. */
static bool
between(const char *script, const char *want)
{
	return vmpool_vm_stats(vm, 10000, &before) == 0 && sh(script, want) &&
	       vmpool_vm_stats(vm, 10000, &now) == 0;
}

static bool
is_about(uint64_t from, uint64_t to, uint64_t want, uint64_t more)
{
	return to >= from + want && to <= from + want + more;
}

static void
bytes(void)
{
	static char input[300000];
	const char *const argv[] = {"sh", "-c", "cat >/dev/null; head -c 500000 /dev/zero", NULL};
	const struct vmpool_exec_opts opts = {.input = input, .input_len = sizeof(input)};
	struct vmpool_result r;
	bool ok = vmpool_vm_stats(vm, 10000, &before) == 0 &&
		  vmpool_exec(vm, argv, &opts, &r) == 0 && vmpool_vm_stats(vm, 10000, &now) == 0;

	vmpool_result_fini(&r);
	result(ok && is_about(before.guest_bytes_in, now.guest_bytes_in, 300000, 50000) &&
		   is_about(before.guest_bytes_out, now.guest_bytes_out, 500000, 50000),
	       "bytes in and out are those of the channel");
}

static void
figures(void)
{
	const uint64_t mib = 1 << 20;
	double took = seconds();
	bool ok = between("i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done", "");

	took = (seconds() - took) * 1e9;
	result(ok && now.guest_cpu_ns - before.guest_cpu_ns > (uint64_t)(took * 0.4) &&
		   now.guest_cpu_ns - before.guest_cpu_ns < (uint64_t)(took * 1.5) &&
		   now.guest_uptime_ns - before.guest_uptime_ns > (uint64_t)(took * 0.5) &&
		   now.guest_uptime_ns - before.guest_uptime_ns < (uint64_t)(took * 1.5),
	       "CPU time and uptime go with the time that a busy command takes");
	result(now.host_known && now.host_cpu_ns - before.host_cpu_ns > (uint64_t)(took * 0.3) &&
		   now.host_cpu_ns - before.host_cpu_ns < (uint64_t)(took * 4),
	       "so does that of the host's process");
	ok = between("head -c 40000000 /dev/zero >/tmp/held", "");
	result(ok && is_about(before.guest_memory_used, now.guest_memory_used, 36 * mib, 8 * mib) &&
		   now.guest_memory > now.guest_memory_used && now.guest_memory < 260 * mib,
	       "memory in use grows by what is held");
	result(now.host_memory >= before.host_memory + 24 * mib &&
		   now.host_page_faults > before.host_page_faults,
	       "and on the host");
	ok = between("rm /tmp/held", "");
	result(ok && now.guest_memory_used + 36 * mib < before.guest_memory_used,
	       "it shrinks when that is let go");
	ok = between("dd if=/dev/zero of=/dev/null bs=16M count=1 2>/dev/null", "");
	result(ok && is_about(before.guest_page_faults, now.guest_page_faults, 4096, 2000),
	       "page faults are counted");
	ok = between("for i in 1 2 3 4 5; do sleep 1000 & done; exit 0", "");
	result(ok && now.guest_processes == before.guest_processes + 5 && now.guest_commands == 0,
	       "so are processes");
	bytes();
}

int
main(int argc, char **argv)
{
	if (argc != 2 || !e2e_begin(argv[1]))
		return 1;
	many();
	live();
	unread();
	deaf();
	ends();
	signals();
	refused();
	figures();
	background();
	return e2e_end();
}
