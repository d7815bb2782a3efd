/* SPDX-License-Identifier: MIT
 *
 * test_bare.c - real vCPUs, but no Linux: guests of a few instructions that do
 * one thing each - turn off, reset, hang, fault, confuse KVM, flood the console,
 * break the virtio rules - and what the machine says of it. Needs a KVM that
 * runs guests; milliseconds each.
 */
#include "tests/lib/kvm_guest.h"
#include "tests/lib/kvm_kernel.h"
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define END_MS 30000
#define STOP_NS 5000000000ull

/* Code at KERNEL_GPA, ring 0, 64 bit, the first 4 GiB identity-mapped. */
#define HANG "\xfa\xeb\xfe"			 /* cli; jmp . */
#define HALT "\xfa\xf4\xeb\xfd"			 /* cli; hlt; jmp hlt */
#define POWER_OFF "\x66\xba\x00\x06\xb0\x34\xee" /* mov $0x600,%dx; mov $0x34,%al; out */
#define RESET "\x66\xba\x02\x06\xb0\x01\xee"	 /* mov $0x602,%dx; mov $1,%al; out */
#define RESET_8042 "\xb0\xfe\xe6\x64"		 /* mov $0xfe,%al; out %al,$0x64 */
#define FAULT "\x0f\x0b"			 /* ud2, without an IDT */
#define VIRTIO "\xb8\x00\x00\x00\xd0"		 /* mov $0xd0000000,%eax */
/* fld from a device: no emulator in KVM does that */
#define FLD_DEVICE VIRTIO "\xd9\x00"
/* lea text(%rip),%rsi; mov $len,%ecx; mov $0x3f8,%dx; rep outsb (text follows 13 bytes on) */
#define PRINT(len, skip) "\x48\x8d\x35" skip "\0\0\0\xb9" len "\0\0\0\x66\xba\xf8\x03\xf3\x6e"

static void
start(struct guest *g, const char *code, size_t len, uint32_t vcpus)
{
	struct kernel_file k;

	guest_need_kvm();
	kernel_elf(&k, code, len);
	guest_start(g, k.path, NULL, NULL, 64, vcpus);
	kernel_close(&k);
}

static void
ends(void **state)
{
	static const struct {
		const char *what, *code;
		size_t len;
		enum vm_end end;
		const char *text;
	} rows[] = {
#define ROW(what, code, end, text) {what, code, sizeof(code) - 1, end, text}
	    ROW("power off", POWER_OFF HANG, VM_END_SHUTDOWN, "shut down"),
	    ROW("reset", RESET HANG, VM_END_REBOOT, "rebooted"),
	    ROW("reset by the keyboard controller", RESET_8042 HANG, VM_END_REBOOT, "rebooted"),
	    ROW("triple fault", FAULT HANG, VM_END_TRIPLE_FAULT, "vCPU 0"),
	    ROW("emulation failure", FLD_DEVICE HANG, VM_END_EMULATION, "rip 0x1000005"),
	    /* mov %ebx,0x30(%rax) with 0: queue 0; mov $1,0x44(%rax): ready, unset up */
	    ROW("broken virtio rules", VIRTIO "\xc7\x40\x30\0\0\0\0\xc7\x40\x44\x01\0\0\0" HANG,
		VM_END_DEVICE, "device"),
	    /* cmpl $"virt",(%rax); jne +7 */
	    ROW("the virtio page is there", VIRTIO "\x81\x38virt\x75\x07" POWER_OFF HANG,
		VM_END_SHUTDOWN, ""),
	    /* mov $0xe0000000,%eax; cmpl $-1,(%rax); jne +7: nothing is all ones */
	    ROW("nothing where nothing is", "\xb8\0\0\0\xe0\x83\x38\xff\x75\x07" POWER_OFF HANG,
		VM_END_SHUTDOWN, ""),
	    /* in $0x71,%eax; cmp $-1,%eax; jne +7: and so are missing ports */
	    ROW("missing ports", "\xe5\x71\x83\xf8\xff\x75\x07" POWER_OFF HANG, VM_END_SHUTDOWN,
		""),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct guest g;

		print_message("# %s\n", rows[i].what);
		start(&g, rows[i].code, rows[i].len, 1);
		assert_int_equal(guest_wait_end(&g, END_MS), rows[i].end);
		print_message("# %s\n", vm_end_text(g.vm));
		assert_non_null(strstr(vm_end_text(g.vm), rows[i].text));
		vm_stop(g.vm);
		assert_int_equal(vm_end(g.vm), rows[i].end); /* the first reason stays */
		guest_end(&g);
	}
}

static void
bzimage(void **state)
{
	static const char code[] = POWER_OFF HANG;
	struct kernel_file k;
	struct guest g;

	(void)state;
	guest_need_kvm();
	kernel_bz(&k, code, sizeof(code) - 1);
	guest_start(&g, k.path, NULL, NULL, 64, 1);
	kernel_close(&k);
	assert_int_equal(guest_wait_end(&g, END_MS), VM_END_SHUTDOWN);
	guest_end(&g);
}

/* A reset after the words of a panic is a panic; any vCPU's words count. */
static void
panic(void **state)
{
	static const char code[] = PRINT("\x30", "\x17") RESET HANG
	    "\0\0Kernel panic - not syncing: for a test, really\r\n";
	struct guest g;

	(void)state;
	start(&g, code, sizeof(code) - 1, 1);
	assert_int_equal(guest_wait_end(&g, END_MS), VM_END_PANIC);
	guest_console_has(&g, "Kernel panic - not syncing: for a test");
	guest_end(&g);
}

/* Whatever a guest does, the owner gets its threads back at once. */
static void
stops(void **state)
{
	static const struct {
		const char *what, *code;
		size_t len;
		uint32_t vcpus;
	} rows[] = {
	    {"interrupts off, looping", HANG, sizeof(HANG) - 1, 1},
	    {"halted for ever", HALT, sizeof(HALT) - 1, 1},
	    {"seven vCPUs never started", HANG, sizeof(HANG) - 1, 8},
	    /* mov $0x3f8,%dx; out %al,(%dx); jmp out */
	    {"flooding the console", "\x66\xba\xf8\x03\xee\xeb\xfd", 7, 2},
	    /* mov (%rax),%ebx; jmp mov */
	    {"flooding a device", VIRTIO "\x8b\x18\xeb\xfc", 9, 2},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct guest g;
		uint64_t t;

		print_message("# %s\n", rows[i].what);
		start(&g, rows[i].code, rows[i].len, rows[i].vcpus);
		assert_int_equal(guest_wait_end(&g, 100), VM_END_NONE);
		t = now_ns();
		vm_stop(g.vm);
		assert_true(now_ns() - t < STOP_NS);
		assert_int_equal(vm_end(g.vm), VM_END_STOPPED);
		vm_stop(g.vm); /* again is fine */
		guest_end(&g);
	}
}

/* Stopped at every moment of a start: no kick is lost. */
static void
stops_early(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 30; i++) {
		struct guest g;

		start(&g, HANG, sizeof(HANG) - 1, 1 + i % 3);
		vm_stop(g.vm);
		assert_int_equal(vm_end(g.vm), VM_END_STOPPED);
		guest_end(&g);
	}
}

static void
console_is_bounded(void **state)
{
	static char tail[2 * VM_CONSOLE_MAX];
	struct guest g;
	size_t n;

	(void)state;
	/* mov $'x',%al; mov $0x3f8,%dx; mov $20000,%ecx; out; loop out; power off */
	start(&g, "\xb0x\x66\xba\xf8\x03\xb9\x20\x4e\0\0\xee\xe2\xfd" POWER_OFF HANG,
	      14 + sizeof(POWER_OFF) + sizeof(HANG) - 2, 1);
	assert_int_equal(guest_wait_end(&g, END_MS), VM_END_SHUTDOWN);
	n = vm_console_tail(g.vm, tail, sizeof(tail));
	assert_int_equal(n, VM_CONSOLE_MAX);
	assert_int_equal(strspn(tail, "x"), VM_CONSOLE_MAX);
	guest_end(&g);
}

static unsigned
entries(const char *dir)
{
	unsigned n = 0;
	DIR *d = opendir(dir);

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n;
}

static void
nothing_leaks(void **state)
{
	unsigned fds, threads;
	char err[256];

	(void)state;
	guest_need_kvm();
	fds = entries("/proc/self/fd");
	threads = entries("/proc/self/task");
	for (unsigned i = 0; i < 10; i++) {
		const struct vm_config bad = {
		    .kvm_fd = -1, .kernel = "/nonexistent", .mem_mib = 64, .vcpus = 8};
		struct guest g;
		struct vm *vm;

		start(&g, HANG, sizeof(HANG) - 1, 4);
		guest_end(&g); /* without a stop */
		start(&g, POWER_OFF, sizeof(POWER_OFF) - 1, 1);
		(void)guest_wait_end(&g, END_MS);
		guest_end(&g);
		assert_int_equal(vm_new(&vm, &bad, err, sizeof(err)), -ENOENT);
	}
	assert_int_equal(entries("/proc/self/fd"), fds);
	assert_int_equal(entries("/proc/self/task"), threads);
}

/* A machine that was made but never started can be thrown away. */
static void
never_started(void **state)
{
	struct kernel_file k;
	struct vm *vm;
	char err[256], buf[8];

	(void)state;
	guest_need_kvm();
	kernel_elf(&k, HANG, sizeof(HANG) - 1);
	const struct vm_config cfg = {.kvm_fd = -1, .kernel = k.path, .mem_mib = 64, .vcpus = 2};
	assert_int_equal(vm_new(&vm, &cfg, err, sizeof(err)), 0);
	assert_int_equal(vm_end(vm), VM_END_NONE);
	assert_int_equal(vm_console_tail(vm, buf, sizeof(buf)), 0);
	assert_int_equal(vm_chan_recv(vm, buf, sizeof(buf)), 0);
	assert_int_equal(vm_chan_send(vm, buf, sizeof(buf)), 0);
	vm_free(vm);
	kernel_close(&k);
}

static void
refusals(void **state)
{
	struct kernel_file text, k, cut;
	char err[256];
	struct vm *vm;

	(void)state;
	guest_need_kvm();
	kernel_raw(&text, "not a kernel\n", 13);
	kernel_elf(&k, HANG, sizeof(HANG) - 1);
	kernel_elf(&cut, HANG, sizeof(HANG) - 1);
	kernel_truncate(&cut, 4097);
	const struct {
		struct vm_config cfg;
		int code;
		const char *words;
	} rows[] = {
	    {{.kvm_fd = -1, .kernel = text.path, .initrd = NULL, .mem_mib = 64, .vcpus = 1},
	     ENOEXEC,
	     "text file"},
	    {{.kvm_fd = -1, .kernel = cut.path, .initrd = NULL, .mem_mib = 64, .vcpus = 1},
	     ENOEXEC,
	     "truncated"},
	    {{.kvm_fd = -1, .kernel = k.path, .initrd = text.path, .mem_mib = 64, .vcpus = 1},
	     EINVAL,
	     "cpio"},
	    {{.kvm_fd = -1, .kernel = k.path, .initrd = "/nonexistent", .mem_mib = 64, .vcpus = 1},
	     ENOENT,
	     "/nonexistent"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(vm_new(&vm, &rows[i].cfg, err, sizeof(err)), -rows[i].code);
		print_message("# %s\n", err);
		assert_non_null(strstr(err, rows[i].words));
		assert_null(strchr(err, '\n'));
	}
	kernel_close(&text);
	kernel_close(&k);
	kernel_close(&cut);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ends),	     cmocka_unit_test(bzimage),
	    cmocka_unit_test(panic),	     cmocka_unit_test(stops),
	    cmocka_unit_test(stops_early),   cmocka_unit_test(console_is_bounded),
	    cmocka_unit_test(nothing_leaks), cmocka_unit_test(never_started),
	    cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests_name("kvm bare", tests, NULL, NULL);
}
