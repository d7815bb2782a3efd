/* SPDX-License-Identifier: MIT
 *
 * bench_snapshot.c - snapshot_spawn_1g_vs_64m: a machine from a verified snapshot
 * file, made and answering, of 1 GiB against a small one, by our VMM on real KVM.
 *
 * Usage: bench_snapshot VMLINUX IMAGE [ROUNDS]
 *
 * The small one has 64 MiB, or the next multiple of 16 that holds the kernel. In both,
 * half of what is free is filled, so that a file's data grows with its memory. The
 * file is verified once, which reads all of it (the time is told); what is compared is
 * all that comes after, for each machine: its making, its state, its renewal, and a
 * PING. Large and small take turns, so that a drifting machine slows both.
 */
#include "shm/vmpool.h"
#include "tests/bench/benchguest.h"
#include "worker/rehearse.h"
#include "worker/snapfile.h"

#include <fcntl.h>
#include <string.h>

#define SMALL_MIB 64u
#define STEP_MIB 16u
#define LARGE_MIB 1024u
#define SPAWNS 8 /* of each in a round */

/* Fills half of what is free with bytes that are not zero. */
#define FILL \
	"mount -o remount,size=100% /tmp; cd /tmp; yes | head -c 1048576 >one; " \
	"n=$(awk '/MemAvailable/ { print int($2 / 2 / 1024) }' /proc/meminfo); " \
	"while [ $n -gt 0 ]; do all=\"$all one\"; n=$((n - 1)); done; cat $all >fill"

struct snapshot {
	uint32_t mem_mib;
	struct vm_template tmpl; /* both in the file */
	struct samples shell_ms, whole_ms;
};

static char err[256];

static struct vm_config
boot_config(char **argv, uint32_t mem_mib)
{
	return (struct vm_config){
	    .kvm_fd = -1, .kernel = argv[1], .initrd = argv[2], .mem_mib = mem_mib, .vcpus = 1};
}

/* The smallest machine that this kernel and image fit in. */
static uint32_t
small_mib(char **argv)
{
	for (uint32_t mib = SMALL_MIB; mib < LARGE_MIB; mib += STEP_MIB) {
		const struct vm_config cfg = boot_config(argv, mib);

		if (vm_check(&cfg, err, sizeof(err)) == 0)
			return mib;
	}
	bench_die("%s", err);
}

/* Memory and state of a paused machine, as a template that has been tried out. */
static void
capture(struct vm *vm, struct snapshot *s, const struct snap_place *place)
{
	struct vm_template *t = &s->tmpl;

	*t = (struct vm_template){.mem_fd = t->mem_fd,
				  .state_fd = t->mem_fd,
				  .mem_off = place->mem_off,
				  .state_off = place->state_off};
	if (vm_save_memory(vm, t->mem_fd, t->mem_off, err, sizeof(err)) < 0 ||
	    vm_save(vm, t->state_fd, t->state_off, &t->state_len, err, sizeof(err)) < 0 ||
	    rehearse(vm, t, s->mem_mib, 1, err, sizeof(err)) < 0 ||
	    vm_save(vm, t->state_fd, t->state_off, &t->state_len, err, sizeof(err)) < 0)
		bench_die("capture: %s", err);
}

/* Boot, fill and write down: s->tmpl lies in a file without a name. */
static void
write_file(char **argv, struct snapshot *s)
{
	const struct snap_info info = {
	    .accel = "kvm", .version = VMPOOL_VERSION, .mem_mib = s->mem_mib, .vcpus = 1};
	const struct vm_config cfg = boot_config(argv, s->mem_mib);
	struct snap_source state;
	struct snap_place place;
	struct benchguest g;

	s->tmpl.mem_fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->tmpl.mem_fd < 0)
		bench_die("/tmp: %m");
	benchguest_new(&g, &cfg);
	benchguest_sh(&g, FILL);
	benchguest_ping(&g);
	vm_pause(g.vm);
	if (snap_begin(s->tmpl.mem_fd, &info, &place, err, sizeof(err)) < 0)
		bench_die("%s", err);
	capture(g.vm, s, &place);
	benchguest_end(&g);
	state = (struct snap_source){s->tmpl.state_fd, s->tmpl.state_off, s->tmpl.state_len};
	if (snap_finish(s->tmpl.mem_fd, &info, &state, err, sizeof(err)) < 0)
		bench_die("%s", err);
}

/* Only what this says of the file is used afterwards. */
static void
verify(struct snapshot *s)
{
	struct snap snap;
	char text[128];

	if (snap_open(s->tmpl.mem_fd, &snap, err, sizeof(err)) < 0)
		bench_die("%s", err);
	snap_describe_check(&snap, text, sizeof(text));
	(void)printf("  a machine of %u MiB, verified: %s\n", snap.info.mem_mib, text);
	s->tmpl.mem_off = snap.mem_off;
	s->tmpl.state_off = snap.state_off;
	s->tmpl.state_len = snap.state_len;
}

static void
spawn(struct snapshot *s)
{
	const struct vm_config cfg = {
	    .kvm_fd = -1, .mem_mib = s->mem_mib, .vcpus = 1, .tmpl = &s->tmpl};
	uint64_t dirty, start = now_ns();
	struct benchguest g;

	benchguest_new(&g, &cfg);
	samples_add(&s->shell_ms, ms_since(start));
	benchguest_load(&g, &dirty);
	benchguest_renew(&g);
	benchguest_ping(&g);
	samples_add(&s->whole_ms, ms_since(start));
	benchguest_end(&g);
}

static void
make(char **argv, struct snapshot *s, uint32_t mem_mib)
{
	s->mem_mib = mem_mib;
	write_file(argv, s);
	verify(s);
}

static void
end(struct snapshot *s)
{
	(void)close(s->tmpl.mem_fd);
	samples_fini(&s->shell_ms);
	samples_fini(&s->whole_ms);
}

int
main(int argc, char **argv)
{
	int rounds = argc == 4 ? atoi(argv[3]) : 5, r;
	struct snapshot small = {0}, large = {0};
	double unit, ratio;

	if (argc < 3 || rounds < 1)
		bench_die("usage: bench_snapshot VMLINUX IMAGE [ROUNDS]");
	make(argv, &small, small_mib(argv));
	make(argv, &large, LARGE_MIB);
	for (int i = 0; i < rounds * SPAWNS; i++) {
		spawn(&small);
		spawn(&large);
	}
	unit = samples_percentile(&small.whole_ms, 50);
	ratio = samples_percentile(&large.whole_ms, 50) / unit;
	(void)printf("  spawn from the file: %u MiB %.1f ms (%.1f ms of it before its state), "
		     "%u MiB %.1f ms (%.1f ms)\n",
		     small.mem_mib, unit, samples_percentile(&small.shell_ms, 50), large.mem_mib,
		     samples_percentile(&large.whole_ms, 50),
		     samples_percentile(&large.shell_ms, 50));
	r = report(&(struct figure){
	    .name = "snapshot_spawn_1g_vs_64m",
	    .accel = "kvm",
	    .unit = "x",
	    .value = ratio,
	    .goal = 1.5,
	    .lower_is_better = true,
	    .p50 = ratio,
	    .p99 = samples_percentile(&large.whole_ms, 99) / unit,
	    .n = large.whole_ms.n,
	});
	end(&small);
	end(&large);
	return r == 0 ? 0 : 1;
}
