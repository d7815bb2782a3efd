/* SPDX-License-Identifier: MIT
 *
 * bench_many.c - 16 commands at once in one VM:
 *   concurrent16_vs_serial  that all of them compute, against the same 16 one after
 *                           another: what it costs to share the VM
 *   concurrent16_sleep_s    that all of them are `sleep 1`: they wait side by side
 *
 * Usage: bench_many ACCEL [POOL]      the pool runs
 *
 * Both ways of computing start the same commands, of the same shell, in the same VM, and
 * take turns, so that a drifting machine slows both. A command's length is found first:
 * on the machine at hand it takes some 30 ms, whatever machine that is. Some run before
 * that: an emulated guest has its code translated then.
 */
#include "shm/vmpool.h"
#include "tests/bench/report.h"

#define COMMANDS 16u
#define ROUNDS 15u
#define TRIES 8u
#define COMMAND_NS 30000000u
#define WAIT_MS 300000

static struct vmpool *pool;
static struct vmpool_vm *vm;

static struct vmpool_proc *
start(const char *const *argv)
{
	struct vmpool_proc *proc;

	if (vmpool_spawn(vm, argv, NULL, &proc) != 0)
		bench_die("%s: %s", argv[0], vmpool_error(pool));
	return proc;
}

/* Wait for its end, and free it: the time that the agent measured. */
static uint64_t
finish(struct vmpool_proc *proc)
{
	struct vmpool_event event;

	if (vmpool_proc_next(proc, WAIT_MS, &event) != 0)
		bench_die("a command: %s", vmpool_error(pool));
	if (event.type != VMPOOL_EXIT || event.exit_code != 0 || event.signal != 0)
		bench_die("a command ended with event %d, status %d", (int)event.type,
			  event.exit_code);
	vmpool_proc_free(proc);
	return event.guest_ns;
}

static double
serial_ms(const char *const *argv)
{
	uint64_t begin = now_ns();

	for (unsigned i = 0; i < COMMANDS; i++)
		(void)finish(start(argv));
	return ms_since(begin);
}

static double
at_once_ms(const char *const *argv)
{
	struct vmpool_proc *procs[COMMANDS];
	uint64_t begin = now_ns();

	for (unsigned i = 0; i < COMMANDS; i++)
		procs[i] = start(argv);
	for (unsigned i = 0; i < COMMANDS; i++)
		(void)finish(procs[i]);
	return ms_since(begin);
}

static void
set_script(char *script, size_t len, unsigned long turns)
{
	(void)snprintf(script, len, "i=0; while [ $i -lt %lu ]; do i=$((i+1)); done", turns);
}

/* What one command takes, with as many turns: the least of some, which others disturbed least. */
static uint64_t
least_ns(const char *const *argv, char *script, size_t len, unsigned long turns)
{
	uint64_t least = UINT64_MAX;

	set_script(script, len, turns);
	for (unsigned i = 0; i < TRIES; i++)
		least = MIN(least, finish(start(argv)));
	return least;
}

/* Make the script one that takes COMMAND_NS, by the proportion of one that takes at
 * least half as long. */
static void
calibrate(const char *const *argv, char *script, size_t len)
{
	unsigned long turns = 128;
	uint64_t ns;

	do {
		turns *= 2;
		ns = least_ns(argv, script, len, turns);
	} while (ns < COMMAND_NS / 2);
	turns = (unsigned long)((double)turns * COMMAND_NS / (double)ns);
	ns = least_ns(argv, script, len, turns);
	(void)printf("  one command: %lu turns of a shell's loop, %.1f ms\n", turns,
		     (double)ns / 1e6);
}

static int
bench_compute(const char *accel)
{
	char script[128];
	const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	struct samples serial = {0}, at_once = {0};
	double base;
	int r;

	calibrate(argv, script, sizeof(script));
	for (unsigned i = 0; i < ROUNDS; i++) {
		samples_add(&serial, serial_ms(argv));
		samples_add(&at_once, at_once_ms(argv));
	}
	base = samples_percentile(&serial, 50);
	(void)printf("  %u commands one after another: %.0f ms; at once: %.0f ms\n", COMMANDS, base,
		     samples_percentile(&at_once, 50));
	r = report(&(struct figure){
	    .name = "concurrent16_vs_serial",
	    .accel = accel,
	    .unit = "x",
	    .value = samples_percentile(&at_once, 50) / base,
	    .goal = 1.1,
	    .lower_is_better = true,
	    .p50 = samples_percentile(&at_once, 50) / base,
	    .p99 = samples_percentile(&at_once, 99) / base,
	    .n = at_once.n,
	});
	samples_fini(&serial);
	samples_fini(&at_once);
	return r;
}

static int
bench_sleep(const char *accel)
{
	static const char *const argv[] = {"/bin/sleep", "1", NULL};
	struct samples s = {0};
	int r;

	for (unsigned i = 0; i < ROUNDS; i++)
		samples_add(&s, at_once_ms(argv) / 1e3);
	r = report(&(struct figure){
	    .name = "concurrent16_sleep_s",
	    .accel = accel,
	    .unit = "s",
	    .value = samples_percentile(&s, 50),
	    .goal = 2,
	    .lower_is_better = true,
	    .p50 = samples_percentile(&s, 50),
	    .p99 = samples_percentile(&s, 99),
	    .n = s.n,
	});
	samples_fini(&s);
	return r;
}

int
main(int argc, char **argv)
{
	const struct vmpool_acquire_opts patience = {.timeout_ms = WAIT_MS};
	int r;

	if (argc < 2)
		bench_die("usage: bench_many ACCEL [POOL]");
	if (vmpool_attach(&pool, argc > 2 ? argv[2] : NULL) != 0)
		bench_die("attach: %s", vmpool_error(NULL));
	if (vmpool_acquire(pool, &patience, &vm) != 0)
		bench_die("acquire: %s", vmpool_error(pool));
	r = bench_compute(argv[1]);
	if (r == 0)
		r = bench_sleep(argv[1]);
	(void)vmpool_release(vm);
	vmpool_detach(pool);
	return r == 0 ? 0 : 1;
}
