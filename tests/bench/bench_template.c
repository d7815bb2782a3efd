/* SPDX-License-Identifier: MIT
 *
 * bench_template.c - what templates are for: spawn_vs_boot, spawn_p99_vs_p50,
 * reset_vs_spawn, reset_per_page_vs_memcpy, by our VMM on real KVM.
 *
 * Usage: bench_template VMLINUX IMAGE [ROUNDS]
 *
 * Every time ends when the guest's agent has answered a PING (a booting guest's:
 * has said READY). Boot, spawn and reset take turns, so that a drifting machine
 * slows all. A shell is a machine that waits for its state.
 */
#include "tests/bench/benchguest.h"
#include "worker/rehearse.h"

#include <string.h>
#include <sys/mman.h>

#define MEM_MIB 128
#define SPAWNS 20 /* for each boot */
#define RESETS 4  /* of each of them */
#define SLOPES 9
#define FEW_KIB 1024u
#define MANY_KIB 24576u

static struct vm_template tmpl = {.mem_fd = -1, .state_fd = -1};
static char err[256];

static double
boot(const char *kernel, const char *image)
{
	const struct vm_config cfg = {
	    .kvm_fd = -1, .kernel = kernel, .initrd = image, .mem_mib = MEM_MIB, .vcpus = 1};
	uint64_t start = now_ns();
	struct benchguest g;
	double ms;

	benchguest_new(&g, &cfg);
	ms = ms_since(start);
	benchguest_end(&g);
	return ms;
}

static void
make_template(const char *kernel, const char *image)
{
	struct vm_config cfg = {.kvm_fd = -1,
				.kernel = kernel,
				.initrd = image,
				.mem_mib = MEM_MIB,
				.vcpus = 1,
				.shared = true};
	struct benchguest g;
	uint64_t start;

	tmpl.mem_fd = cfg.mem_fd = memfd_create("memory", MFD_CLOEXEC);
	tmpl.state_fd = memfd_create("state", MFD_CLOEXEC);
	if (tmpl.mem_fd < 0 || tmpl.state_fd < 0 || ftruncate(tmpl.mem_fd, MEM_MIB << 20) < 0)
		bench_die("memfd: %m");
	benchguest_new(&g, &cfg);
	benchguest_ping(&g);
	vm_pause(g.vm);
	start = now_ns();
	if (vm_save(g.vm, tmpl.state_fd, 0, &tmpl.state_len, err, sizeof(err)) < 0)
		bench_die("%s", err);
	(void)printf("  capture %.1f ms", ms_since(start));
	start = now_ns();
	if (rehearse(g.vm, &tmpl, MEM_MIB, 1, err, sizeof(err)) < 0 ||
	    vm_save(g.vm, tmpl.state_fd, 0, &tmpl.state_len, err, sizeof(err)) < 0)
		bench_die("%s", err);
	(void)printf(", rehearsal %.1f ms, state %llu bytes\n", ms_since(start),
		     (unsigned long long)tmpl.state_len);
	benchguest_end(&g);
}

static void
shell(struct benchguest *g)
{
	const struct vm_config cfg = {.kvm_fd = -1, .mem_mib = MEM_MIB, .vcpus = 1, .tmpl = &tmpl};

	benchguest_new(g, &cfg);
}

/* Load and run to an answered ping. */
static double
load(struct benchguest *g, uint64_t *dirty)
{
	uint64_t start = now_ns();

	benchguest_load(g, dirty);
	benchguest_ping(g);
	return ms_since(start);
}

/* Let the guest write this many KiB into its memory. */
static void
scribble(struct benchguest *g, unsigned kib)
{
	char script[128];

	(void)snprintf(script, sizeof(script),
		       "dd if=/dev/zero of=/tmp/scribble bs=64k count=%u 2>/dev/null", kib / 64);
	benchguest_sh(g, script);
}

/* One boot; SPAWNS machines, each with RESETS resets. */
static void
take_turns(const char *kernel, const char *image, struct samples *boots, struct samples *made,
	   struct samples *spawns, struct samples *resets)
{
	uint64_t dirty, start;
	struct benchguest g;
	double shell_ms;

	samples_add(boots, boot(kernel, image));
	for (int i = 0; i < SPAWNS; i++) {
		start = now_ns();
		shell(&g);
		shell_ms = ms_since(start);
		samples_add(spawns, load(&g, &dirty));
		samples_add(made, shell_ms + spawns->v[spawns->n - 1]);
		for (int j = 0; j < RESETS; j++)
			samples_add(resets, load(&g, &dirty));
		benchguest_end(&g);
	}
}

/* Nanoseconds that a page costs a reset, beyond what the first few cost. */
static double
page_ns(struct benchguest *g)
{
	struct samples few = {0}, many = {0};
	uint64_t dirty, few_pages = 0, many_pages = 0;
	double ns;

	for (int i = 0; i < SLOPES; i++) {
		scribble(g, FEW_KIB);
		samples_add(&few, load(g, &few_pages));
		scribble(g, MANY_KIB);
		samples_add(&many, load(g, &many_pages));
		(void)load(g, &dirty);
	}
	if (many_pages < few_pages + (MANY_KIB - FEW_KIB) / 8)
		bench_die("%u KiB were to be written, and %llu pages were", MANY_KIB,
			  (unsigned long long)many_pages);
	ns = (samples_percentile(&many, 50) - samples_percentile(&few, 50)) * 1e6 /
	     (double)(many_pages - few_pages);
	(void)printf("  %llu pages: %.2f ms, %llu pages: %.2f ms, %.0f ns a page\n",
		     (unsigned long long)few_pages, samples_percentile(&few, 50),
		     (unsigned long long)many_pages, samples_percentile(&many, 50), ns);
	samples_fini(&few);
	samples_fini(&many);
	return ns;
}

/* Nanoseconds that it takes to copy a page, of as many. */
static double
copy_ns(void)
{
	size_t len = (size_t)MANY_KIB << 10;
	struct samples t = {0};
	uint8_t *from = malloc(len), *to = malloc(len);
	double ns;

	if (from == NULL || to == NULL)
		bench_die("out of memory");
	memset(from, 1, len);
	memset(to, 2, len);
	for (int i = 0; i < SLOPES; i++) {
		uint64_t start = now_ns();

		for (size_t at = 0; at < len; at += 4096)
			memcpy(to + at, from + at, 4096);
		samples_add(&t, ms_since(start));
		if (to[(size_t)i * 4096] != 1)
			bench_die("memcpy");
	}
	ns = samples_percentile(&t, 50) * 1e6 / (double)(len / 4096);
	samples_fini(&t);
	free(from);
	free(to);
	return ns;
}

static void
figure(const char *name, double value, double p99, double goal, bool lower, size_t n)
{
	const struct figure f = {.name = name,
				 .accel = "kvm",
				 .unit = "x",
				 .value = value,
				 .goal = goal,
				 .lower_is_better = lower,
				 .p50 = value,
				 .p99 = p99,
				 .n = n};

	if (report(&f) < 0)
		bench_die("cannot write the report");
}

int
main(int argc, char **argv)
{
	struct samples boots = {0}, made = {0}, spawns = {0}, resets = {0};
	int rounds = argc == 4 ? atoi(argv[3]) : 5;
	double boot_ms, spawn_ms, made_ms, reset_ms, ratio;
	struct benchguest g;

	if (argc < 3 || rounds < 1)
		bench_die("usage: bench_template VMLINUX IMAGE [ROUNDS]");
	make_template(argv[1], argv[2]);
	for (int i = 0; i < rounds; i++)
		take_turns(argv[1], argv[2], &boots, &made, &spawns, &resets);
	boot_ms = samples_percentile(&boots, 50);
	spawn_ms = samples_percentile(&spawns, 50);
	made_ms = samples_percentile(&made, 50);
	reset_ms = samples_percentile(&resets, 50);
	(void)printf("  boot %.0f ms; spawn with its shell %.1f ms, from a ready shell %.2f ms; "
		     "reset %.2f ms\n",
		     boot_ms, made_ms, spawn_ms, reset_ms);
	figure("spawn_vs_boot", boot_ms / spawn_ms, boot_ms / samples_percentile(&spawns, 99), 40,
	       false, spawns.n);
	ratio = samples_percentile(&spawns, 99) / spawn_ms;
	figure("spawn_p99_vs_p50", ratio, ratio, 3, true, spawns.n);
	figure("reset_vs_spawn", made_ms / reset_ms, made_ms / samples_percentile(&resets, 99), 5,
	       false, resets.n);
	shell(&g);
	(void)load(&g, &(uint64_t){0});
	ratio = page_ns(&g) / copy_ns();
	figure("reset_per_page_vs_memcpy", ratio, ratio, 3, true, SLOPES);
	benchguest_end(&g);
	samples_fini(&boots);
	samples_fini(&made);
	samples_fini(&spawns);
	samples_fini(&resets);
	return 0;
}
