/* SPDX-License-Identifier: MIT
 *
 * bench_idle.c - what a VM costs while nobody uses it:
 *   idle_vm_private_mib  memory of an idle VM's process, the template not counted,
 *                        after all these leases
 *   idle_vm_growth_kib   how much of that the last 1000 leases of the pool have added
 *
 * Usage: bench_idle [POOL]      the pool runs on kvm, with room for 32 VMs, which it
 *                               resets and does not renew meanwhile
 *
 * Counted by the proportional set size of each worker: a page that n processes map
 * is an n-th of a page (programs, libraries, the segment). The template's own pages,
 * which exist once whatever the number of VMs, are told apart; so is what the guest
 * has written (guest) from all the rest (VMM). What the kernel keeps for a VM (page
 * tables of both kinds, stacks, KVM's own) is in no process: it is told as the
 * difference that 31 more VMs make to the kernel's own counters.
 *
 * A VM that has been used keeps the pages that every life writes (at most
 * DIRTY_HOT_MAX of kvm/dirty.h, and which they are is settled after some 17 lives):
 * more than one that was just made. Growth is what comes on top of that.
 */
#include "shm/vmpool.h"
#include "tests/bench/report.h"

#include <string.h>

#define VMS 32u
#define LEASES 1000u
#define SETTLED 18u /* rounds, each a life of every VM */
#define WAIT_MS 300000

/* KiB: of one VM, or sums over all. */
struct cost {
	double guest, vmm, tmpl;
};

static const struct vmpool_acquire_opts patience = {.timeout_ms = WAIT_MS};

/* --- what /proc says --------------------------------------------------------------------- */

static struct cost
cost_of(int pid)
{
	bool in_template = false;
	struct cost c = {0};
	char path[64], line[512];
	double pss = 0, kib;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	f = fopen(path, "re");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		if (strchr(line, '-') < strchr(line, ' ') && strchr(line, '-') != NULL)
			in_template = strstr(line, "/memfd:vmpool-template") != NULL;
		else if (sscanf(line, "Pss: %lf", &kib) == 1)
			pss = kib;
		else if (sscanf(line, "Anonymous: %lf", &kib) != 1)
			continue;
		else if (in_template)
			c.guest += kib, c.tmpl += pss - kib;
		else
			c.vmm += pss;
	}
	if (f == NULL || fclose(f) != 0 || c.guest <= 0)
		bench_die("%s: %m", path);
	return c;
}

/* The kernel's memory for VMs and processes, KiB. */
static double
kernel_kib(void)
{
	static const char *const parts[] = {"SUnreclaim:",    "KernelStack:", "PageTables:",
					    "SecPageTables:", "VmallocUsed:", "Percpu:"};
	double sum = 0, kib;
	char line[128], name[64];
	FILE *f = fopen("/proc/meminfo", "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
			if (sscanf(line, "%63s %lf", name, &kib) == 2 &&
			    strcmp(name, parts[i]) == 0)
				sum += kib;
	if (f == NULL || fclose(f) != 0)
		bench_die("/proc/meminfo: %m");
	return sum;
}

/* --- the pool ------------------------------------------------------------------------------ */

static void
warm(struct vmpool *pool, unsigned count)
{
	if (vmpool_warm(pool, count, WAIT_MS) < 0)
		bench_die("warm: %s", vmpool_error(pool));
}

/* Every VM once; echo: it is used, and reset in the background. */
static void
lease_all(struct vmpool *pool, bool echo)
{
	static const char *const argv[] = {"/bin/echo", "hello", NULL};
	struct vmpool_result result;
	struct vmpool_vm *vm[VMS];

	for (unsigned i = 0; i < VMS; i++) {
		if (vmpool_acquire(pool, &patience, &vm[i]) != 0)
			bench_die("acquire: %s", vmpool_error(pool));
		if (!echo)
			continue;
		if (vmpool_exec(vm[i], argv, NULL, &result) != 0 || result.exit_code != 0)
			bench_die("exec: %s", vmpool_error(pool));
		vmpool_result_fini(&result);
	}
	for (unsigned i = 0; i < VMS; i++)
		(void)vmpool_release(vm[i]);
}

/* What a VM has for itself while all are idle, KiB: the mean; own_kib becomes each one's. */
static double
look(struct vmpool *pool, struct samples *own_kib, const char *when)
{
	struct vmpool_slot_info *list;
	struct cost sum = {0};
	size_t n;

	samples_fini(own_kib);
	lease_all(pool, false); /* waits for the last reset */
	if (vmpool_list(pool, &list, &n) != 0 || n != VMS)
		bench_die("the pool does not have its %u VMs", VMS);
	for (size_t i = 0; i < n; i++) {
		struct cost c = cost_of(list[i].worker_pid);

		samples_add(own_kib, c.guest + c.vmm);
		sum.guest += c.guest, sum.vmm += c.vmm, sum.tmpl += c.tmpl;
	}
	vmpool_list_free(list);
	(void)printf("  %u idle VMs %s: %.0f KiB each, of it guest %.0f, VMM %.0f; template, once: "
		     "%.1f MiB\n",
		     VMS, when, (sum.guest + sum.vmm) / VMS, sum.guest / VMS, sum.vmm / VMS,
		     sum.tmpl / 1024);
	return (sum.guest + sum.vmm) / VMS;
}

static int
figure(const char *name, const char *unit, double value, double p99, double goal, size_t n)
{
	return report(&(struct figure){.name = name,
				       .accel = "kvm",
				       .unit = unit,
				       .value = value,
				       .goal = goal,
				       .lower_is_better = true,
				       .p50 = value,
				       .p99 = p99,
				       .n = n});
}

static void
rounds(struct vmpool *pool, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		lease_all(pool, true);
}

int
main(int argc, char **argv)
{
	const unsigned more = (LEASES + VMS - 1) / VMS;
	struct samples own = {0};
	double kernel, soon, late;
	struct vmpool *pool;
	int r;

	if (vmpool_attach(&pool, argc > 1 ? argv[1] : NULL) != 0)
		bench_die("attach: %s", vmpool_error(NULL));
	warm(pool, 1);
	kernel = kernel_kib();
	warm(pool, VMS);
	(void)printf("  memory of the kernel for each VM: %.0f KiB\n",
		     (kernel_kib() - kernel) / (VMS - 1));
	(void)look(pool, &own, "as made");
	rounds(pool, SETTLED);
	soon = look(pool, &own, "each used 18 times");
	rounds(pool, more);
	late = look(pool, &own, "1000 leases later");
	r = figure("idle_vm_private_mib", "MiB", late / 1024, samples_percentile(&own, 99) / 1024,
		   1, own.n);
	if (r == 0)
		r = figure("idle_vm_growth_kib", "KiB", late - soon, late - soon, 16,
			   (size_t)more * VMS);
	vmpool_detach(pool);
	samples_fini(&own);
	return r == 0 ? 0 : 1;
}
