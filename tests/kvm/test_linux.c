/* SPDX-License-Identifier: MIT
 *
 * test_linux.c - the product's kernel, initramfs and agent on our VMM and a
 * real KVM: boots, commands, streams, and every way in which Linux can end.
 *
 * VMPOOL_TEST_VMLINUX, VMPOOL_TEST_BZIMAGE, VMPOOL_TEST_INITRD name the files.
 */
#include "tests/lib/kvm_guest.h"
#include "tests/lib/kvm_kernel.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include <cmocka.h>

#define END_MS 60000
#define MEM_MIB 256

/* The guest of the tests that leave it alive. */
static struct guest shared;

static struct guest *
guest(void)
{
	guest_need_kvm();
	if (shared.vm == NULL)
		guest_boot(&shared, guest_file("VMPOOL_TEST_VMLINUX"), MEM_MIB, 2);
	return &shared;
}

static int
end_shared(void **state)
{
	(void)state;
	guest_end(&shared);
	return 0;
}

static void
boots_elf(void **state)
{
	struct guest *g = guest();

	(void)state;
	assert_int_equal(g->ready.vcpus, 2);
	assert_in_range(g->ready.mem_kib, MEM_MIB * 1024 / 2, MEM_MIB * 1024);
	free(guest_sh(g, "true", 0));
}

static void
boots_bzimage(void **state)
{
	struct guest g;

	(void)state;
	guest_need_kvm();
	guest_boot(&g, guest_file("VMPOOL_TEST_BZIMAGE"), MEM_MIB, 1);
	free(guest_sh(&g, "true", 0));
	guest_end(&g);
}

static void
exec(void **state)
{
	const char *const argv[] = {
	    "sh", "-c", "echo \"$1\"; echo err >&2; exit 7", "sh", "two\nlines \xff", NULL};
	struct guest_result r;

	(void)state;
	guest_exec(guest(), argv, NULL, 0, &r);
	assert_false(r.failed);
	assert_int_equal(r.exit.code, 7);
	assert_string_equal(r.out, "two\nlines \xff\n");
	assert_string_equal(r.err, "err\n");
	guest_result_free(&r);
}

static void
exec_not_found(void **state)
{
	const char *const argv[] = {"/no/such/program", NULL};
	struct guest_result r;

	(void)state;
	guest_exec(guest(), argv, NULL, 0, &r);
	assert_true(r.failed);
	assert_int_equal(r.error.err, ENOENT);
	guest_result_free(&r);
}

static void
streams(void **state)
{
	const char *const argv[] = {"sh", "-c", "echo a; sleep 2; echo b", NULL};
	struct guest_result r;

	(void)state;
	guest_exec(guest(), argv, NULL, 0, &r);
	assert_string_equal(r.out, "a\nb\n");
	/* the guest's two seconds, by the host's clock, give or take */
	assert_in_range(r.last_ns - r.first_ns, 1500000000u, 30000000000u);
	guest_result_free(&r);
}

static void
standard_input(void **state)
{
	const char *const argv[] = {"sort", NULL};
	struct guest_result r;

	(void)state;
	guest_exec(guest(), argv, "b\nc\na\n", 0, &r);
	assert_string_equal(r.out, "a\nb\nc\n");
	guest_result_free(&r);
}

static void
times_out(void **state)
{
	const char *const argv[] = {"sleep", "1000", NULL};
	struct guest_result r;

	(void)state;
	guest_exec(guest(), argv, NULL, 300, &r);
	assert_false(r.failed);
	assert_int_equal(r.exit.timed_out, 1);
	guest_result_free(&r);
	free(guest_sh(guest(), "true", 0)); /* and the machine goes on */
}

/* Many buffers' worth, both queues wrapping again and again. */
static void
bulk(void **state)
{
	const char *const argv[] = {"sh", "-c",
				    "i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero "
				    "| tr '\\0' x; i=$((i + 1)); done",
				    NULL};
	struct guest_result r;

	(void)state;
	guest_exec(guest(), argv, NULL, 0, &r);
	assert_int_equal(r.exit.code, 0);
	assert_int_equal(r.out_len, 4000000);
	assert_int_equal(strspn(r.out, "x"), 4000000);
	guest_result_free(&r);
}

/* Nothing of the processor or the devices makes the kernel complain. */
static void
kernel_is_content(void **state)
{
	char *log = guest_sh(
	    guest(),
	    "dmesg | grep -iE 'warning|bug:|inconsistent|XSAVE consistency|unable|call trace|"
	    "timed out|spurious|nobody cared' | grep -v 'Spectre' | cat",
	    0);

	(void)state;
	assert_string_equal(log, "");
	free(log);
}

static void
clock_is_right(void **state)
{
	char *now = guest_sh(guest(), "date +%s", 0);
	long long diff = atoll(now) - (long long)time(NULL);

	(void)state;
	print_message("# guest - host: %lld s\n", diff);
	/* a kernel that boots on a busy host loses ticks before it takes kvm-clock */
	assert_in_range(diff + 60, 0, 62);
	free(now);
}

/* Userland's way to the console, by interrupts. */
static void
console_output(void **state)
{
	(void)state;
	free(guest_sh(guest(), "echo the-words-of-userland >/dev/console", 0));
	free(guest_sh(guest(), "sleep 1", 0)); /* the driver drains its buffer meanwhile */
	guest_console_has(guest(), "the-words-of-userland");
}

static uint64_t
cpu_ns(void)
{
	struct rusage u;

	AZ(getrusage(RUSAGE_SELF, &u));
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000u +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000u;
}

/* An idle guest sleeps in the kernel: its processors cost the host next to
 * nothing. `sleep` is the guest's own clock at work, too. */
static void
idles(void **state)
{
	uint64_t cpu, t;

	(void)state;
	free(guest_sh(guest(), "true", 0));
	t = now_ns();
	cpu = cpu_ns();
	free(guest_sh(guest(), "sleep 3", 0));
	cpu = cpu_ns() - cpu;
	t = now_ns() - t;
	print_message("# %llu ms of CPU in %llu ms\n", (unsigned long long)cpu / 1000000,
		      (unsigned long long)t / 1000000);
	assert_true(cpu < t / 3);
}

static void
processors(void **state)
{
	static const uint32_t counts[] = {1, 8};

	(void)state;
	guest_need_kvm();
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct guest g;
		char want[8], *n;

		guest_boot(&g, guest_file("VMPOOL_TEST_VMLINUX"), MEM_MIB, counts[i]);
		assert_int_equal(g.ready.vcpus, counts[i]);
		(void)snprintf(want, sizeof(want), "%u\n", counts[i]);
		n = guest_sh(&g, "nproc", 0);
		assert_string_equal(n, want);
		free(n);
		n = guest_sh(&g, "grep -c ^processor /proc/cpuinfo", 0);
		assert_string_equal(n, want);
		free(n);
		vm_stop(g.vm); /* with all of them idle */
		guest_end(&g);
	}
}

/* How a guest ends, by what it is told to do, and what its console says then. */
static void
ends(void **state)
{
	static const struct {
		const char *script;
		enum vm_end end;
		const char *console;
	} rows[] = {
	    {"poweroff -f", VM_END_SHUTDOWN, "Power down"},
	    {"reboot -f", VM_END_REBOOT, "Restarting system"},
	    {"echo c >/proc/sysrq-trigger", VM_END_PANIC, "Kernel panic - not syncing"},
	};

	(void)state;
	guest_need_kvm();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct guest g;

		print_message("# %s\n", rows[i].script);
		guest_boot(&g, guest_file("VMPOOL_TEST_VMLINUX"), MEM_MIB, 1);
		guest_launch(&g, rows[i].script);
		assert_int_equal(guest_wait_end(&g, END_MS), rows[i].end);
		guest_console_has(&g, rows[i].console);
		guest_end(&g);
	}
}

/* A panic before there is an agent: no init in the image. */
static void
panics_at_boot(void **state)
{
	struct guest g;

	(void)state;
	guest_need_kvm();
	guest_start(&g, guest_file("VMPOOL_TEST_VMLINUX"), NULL, NULL, MEM_MIB, 1);
	assert_int_equal(guest_wait_end(&g, GUEST_BOOT_MS), VM_END_PANIC);
	guest_console_has(&g, "Kernel panic - not syncing");
	guest_end(&g);
}

/* A boot that never gets to READY: the owner's deadline, a prompt stop, and the
 * console to show for it. */
static void
hangs_at_boot(void **state)
{
	uint8_t byte;
	struct guest g;
	uint64_t t;

	(void)state;
	guest_need_kvm();
	/* the kernel tells what it does, and then runs a shell without input */
	guest_start(&g, guest_file("VMPOOL_TEST_VMLINUX"), guest_file("VMPOOL_TEST_INITRD"),
		    "loglevel=7 rdinit=/bin/busybox -- sleep 100000", MEM_MIB, 1);
	assert_int_equal(guest_wait_end(&g, 5000), VM_END_NONE);
	assert_int_equal(vm_chan_recv(g.vm, &byte, 1), 0);
	t = now_ns();
	vm_stop(g.vm);
	assert_true(now_ns() - t < 5000000000u);
	assert_int_equal(vm_end(g.vm), VM_END_STOPPED);
	guest_console_has(&g, "Linux version");
	guest_end(&g);
}

/* Both kernel files cut in half. */
static void
truncated_kernels(void **state)
{
	static const char *const envs[] = {"VMPOOL_TEST_VMLINUX", "VMPOOL_TEST_BZIMAGE"};
	struct kernel_file cut;
	struct stat st;
	char err[256];
	struct vm *vm;

	(void)state;
	guest_need_kvm();
	for (size_t i = 0; i < ARRAY_SIZE(envs); i++) {
		_cleanup_(closep) int fd = open(guest_file(envs[i]), O_RDONLY | O_CLOEXEC);

		assert_int_equal(fstat(fd, &st), 0);
		kernel_raw(&cut, "", 0);
		for (off_t at = 0; at < st.st_size / 2;)
			assert_true(sendfile(cut.fd, fd, &at, (size_t)(st.st_size / 2 - at)) > 0);
		const struct vm_config cfg = {
		    .kvm_fd = -1, .kernel = cut.path, .mem_mib = MEM_MIB, .vcpus = 1};
		assert_int_equal(vm_new(&vm, &cfg, err, sizeof(err)), -ENOEXEC);
		print_message("# %s\n", err);
		assert_non_null(strstr(err, "truncated"));
		kernel_close(&cut);
	}
}

/* What cannot fit is refused, not tried. */
static void
too_little_memory(void **state)
{
	struct kernel_file initrd;
	char err[256];
	struct vm *vm;

	(void)state;
	guest_need_kvm();
	kernel_raw(&initrd, "070701", 6);
	kernel_truncate(&initrd, (size_t)(VM_MEM_MIB_MIN - 1) << 20);
	const struct vm_config cfg = {.kvm_fd = -1,
				      .kernel = guest_file("VMPOOL_TEST_BZIMAGE"),
				      .initrd = initrd.path,
				      .mem_mib = VM_MEM_MIB_MIN,
				      .vcpus = 1};
	assert_int_equal(vm_new(&vm, &cfg, err, sizeof(err)), -EFBIG);
	print_message("# %s\n", err);
	assert_non_null(strstr(err, "32 MiB"));
	kernel_close(&initrd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(boots_elf),
	    cmocka_unit_test(exec),
	    cmocka_unit_test(exec_not_found),
	    cmocka_unit_test(streams),
	    cmocka_unit_test(standard_input),
	    cmocka_unit_test(times_out),
	    cmocka_unit_test(bulk),
	    cmocka_unit_test(kernel_is_content),
	    cmocka_unit_test(clock_is_right),
	    cmocka_unit_test(console_output),
	    cmocka_unit_test(idles),
	    cmocka_unit_test(boots_bzimage),
	    cmocka_unit_test(processors),
	    cmocka_unit_test(ends),
	    cmocka_unit_test(panics_at_boot),
	    cmocka_unit_test(hangs_at_boot),
	    cmocka_unit_test(truncated_kernels),
	    cmocka_unit_test(too_little_memory),
	};

	return cmocka_run_group_tests_name("kvm linux", tests, NULL, end_shared);
}
