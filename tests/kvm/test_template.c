/* SPDX-License-Identifier: MIT
 *
 * test_template.c - machines from a template, and back to it, with the product's
 * kernel and agent on a real KVM: whatever a guest has done to its memory, its
 * processors or its devices, a load leaves nothing of it; states that do not fit
 * are refused; states that make no sense harm nobody.
 */
#include "kvm/boot.h"
#include "kvm/vm_impl.h"
#include "tests/lib/kvm_guest.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MEM_MIB 128u
#define END_MS 30000
#define RESETS 1000
#define SAMPLE 100   /* every so many resets all of the machine is looked at */
#define MUTATIONS 25 /* test_kvm_state.c has thousands, without KVM */

static struct vm_template one = {.mem_fd = -1, .state_fd = -1}; /* of one vCPU */
static struct guest life;					/* from it, living on */

static const struct vm_template *template(void)
{
	guest_need_kvm();
	if (one.mem_fd < 0)
		guest_template(&one, guest_file("VMPOOL_TEST_VMLINUX"), MEM_MIB, 1);
	return &one;
}

static struct guest *
guest(void)
{
	const struct vm_template *t = template();

	if (life.vm == NULL)
		guest_shell(&life, t, MEM_MIB, 1);
	return &life;
}

static int
end_shared(void **state)
{
	(void)state;
	guest_end(&life);
	guest_template_close(&one);
	return 0;
}

static const uint8_t *
map_template(const struct vm_template *t, uint64_t size)
{
	const uint8_t *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, t->mem_fd, (off_t)t->mem_off);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

/* How many pages of the guest's memory are not the template's. */
static uint64_t
differing(const struct guest *g, const struct vm_template *t)
{
	uint64_t size = g->vm->mem.size, n = 0;
	const uint8_t *want = map_template(t, size);

	for (uint64_t at = 0; at < size; at += GMEM_PAGE)
		n += memcmp(g->vm->mem.base + at, want + at, GMEM_PAGE) != 0;
	(void)munmap((void *)(uintptr_t)want, size);
	return n;
}

/* The machine's state as it would be saved now: for comparing. */
static struct vm_state *
state_of(struct guest *g)
{
	struct vm_state *s = calloc(1, sizeof(*s));
	char err[256] = "";

	assert_non_null(s);
	vm_pause(g->vm);
	for (uint32_t i = 0; i < g->vm->vcpus; i++)
		if (vcpu_state_get(&s->vcpu[i], g->vm->vcpu[i].fd, &g->vm->msrs, 0, err,
				   sizeof(err)) < 0)
			fail_msg("%s", err);
	if (chip_state_get(&s->chip, g->vm->vm_fd, err, sizeof(err)) < 0)
		fail_msg("%s", err);
	dev_state_get(&s->dev, &g->vm->serial, &g->vm->console);
	return s;
}

static void
compare_msr(const struct kvm_msr_entry *have, const struct kvm_msr_entry *want)
{
	uint64_t kept = UINT64_MAX;

	/* The deadline timer is allowed to have fired: it is due by now. */
	if (want->index == 0x6e0)
		return;
	/* KVM keeps half of SYSENTER_ESP and _EIP for a guest on an AMD processor (svm_set_msr
	 * in arch/x86/kvm/svm/svm.c), where 64-bit code cannot execute SYSENTER anyway. */
	if ((want->index == 0x175 || want->index == 0x176) && have->data >> 32 == 0)
		kept = UINT32_MAX;
	if (have->index != want->index || (have->data & kept) != (want->data & kept))
		fail_msg("MSR %#x is %#llx, in the template MSR %#x is %#llx", have->index,
			 have->data, want->index, want->data);
}

/* After a load and before it runs, all of the machine is the template's. */
static void
load_and_compare(struct guest *g, const struct vm_template *t)
{
	const struct vm_state *want = g->vm->tmpl;
	_cleanup_(freep) struct vm_state *s = NULL;
	uint64_t dirty;
	char err[256] = "";

	if (vm_load(g->vm, &dirty, err, sizeof(err)) < 0)
		fail_msg("vm_load: %s", err);
	g->have = 0;
	assert_int_equal(vm_end(g->vm), VM_END_NONE);
	assert_int_equal(differing(g, t), 0);
	s = state_of(g);
	for (uint32_t i = 0; i < g->vm->vcpus; i++) {
		assert_memory_equal(&s->vcpu[i].regs, &want->vcpu[i].regs,
				    sizeof(want->vcpu[i].regs));
		assert_memory_equal(&s->vcpu[i].sregs, &want->vcpu[i].sregs,
				    sizeof(want->vcpu[i].sregs));
		assert_memory_equal(&s->vcpu[i].xcrs, &want->vcpu[i].xcrs,
				    sizeof(want->vcpu[i].xcrs));
		assert_memory_equal(s->vcpu[i].xsave, want->vcpu[i].xsave,
				    sizeof(want->vcpu[i].xsave));
		assert_memory_equal(&s->vcpu[i].debug, &want->vcpu[i].debug,
				    sizeof(want->vcpu[i].debug));
		assert_int_equal(s->vcpu[i].msr_n, want->vcpu[i].msr_n);
		for (uint32_t j = 0; j < want->vcpu[i].msr_n; j++)
			compare_msr(&s->vcpu[i].msr[j], &want->vcpu[i].msr[j]);
	}
	assert_memory_equal(&s->chip.ioapic, &want->chip.ioapic, sizeof(want->chip.ioapic));
	assert_memory_equal(s->chip.pic, want->chip.pic, sizeof(want->chip.pic));
	assert_int_equal(s->dev.log_total, want->dev.log_total);
	assert_memory_equal(s->dev.log, want->dev.log, want->dev.log_len);
	assert_memory_equal(&s->dev.vcon, &want->dev.vcon, sizeof(want->dev.vcon));
	vm_resume(g->vm);
}

static void
three_from_one(void **state)
{
	const struct vm_template *t = template();
	struct guest g[3];
	char *out;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(g); i++) {
		guest_shell(&g[i], t, MEM_MIB, 1);
		load_and_compare(&g[i], t);
	}
	for (size_t i = 0; i < ARRAY_SIZE(g); i++) {
		guest_ping(&g[i]);
		out = guest_sh(&g[i], "cat /tmp/mark 2>/dev/null; echo here >/tmp/mark; nproc", 0);
		assert_string_equal(out, "1\n");
		free(out);
	}
	for (size_t i = 0; i < ARRAY_SIZE(g); i++)
		guest_end(&g[i]);
}

/* What a guest does before it is reset, and whether the machine ends by it. */
static void
comes_back(void **state)
{
	static const struct {
		const char *what, *script;
		enum vm_end end;
	} rows[] = {
	    {"nothing", "true", VM_END_NONE},
	    {"files", "echo secret >/tmp/f; echo secret >/root/.profile; echo x >/dev/console",
	     VM_END_NONE},
	    {"memory",
	     "mount -t tmpfs t /mnt; dd if=/dev/urandom of=/mnt/f bs=1M count=24 2>/dev/null",
	     VM_END_NONE},
	    {"a daemon", "setsid sh -c 'while :; do sleep 0.01; done' &", VM_END_NONE},
	    {"a clock of 1990", "date -s 1990-01-01", VM_END_NONE},
	    {"a dead agent", "kill -9 -1; kill -SEGV 1", VM_END_NONE},
	    {"power off", "poweroff -f", VM_END_SHUTDOWN},
	    {"reset", "reboot -f", VM_END_REBOOT},
	    {"panic", "echo c >/proc/sysrq-trigger", VM_END_PANIC},
	};
	struct guest *g = guest();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char *out;

		load_and_compare(g, template());
		guest_ping(g);
		out = guest_sh(
		    g, "cat /tmp/f /root/.profile; ls /mnt; ps | grep -c '[s]leep'; true", 0);
		assert_null(strstr(out, "secret"));
		free(out);
		print_message("# %s\n", rows[i].what);
		if (rows[i].end != VM_END_NONE) {
			guest_launch(g, rows[i].script);
			assert_int_equal(guest_wait_end(g, END_MS), rows[i].end);
		} else if (strstr(rows[i].script, "kill") != NULL) {
			guest_launch(g, rows[i].script);
			(void)guest_wait_end(g, 200);
		} else {
			free(guest_sh(g, rows[i].script, 0));
		}
	}
	load_and_compare(g, template());
	guest_ping(g);
}

/* Code put under a running guest: registers, and no Linux any more. */
static void
run_code(struct guest *g, const char *code, size_t len)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	uint64_t dirty;
	char err[256];

	/* in the page tables of the boot, which map everything */
	assert_int_equal(vm_load(g->vm, &dirty, err, sizeof(err)), 0);
	assert_int_equal(ioctl(g->vm->vcpu[0].fd, KVM_GET_SREGS, &sregs), 0);
	assert_int_equal(boot_tables(&g->vm->mem), 0);
	boot_regs(0x2000000, &regs, &sregs);
	sregs.cr4 |= 0x200; /* OSFXSR */
	assert_int_equal(gmem_write(&g->vm->mem, 0x2000000, code, len), 0);
	assert_int_equal(ioctl(g->vm->vcpu[0].fd, KVM_SET_SREGS, &sregs), 0);
	assert_int_equal(ioctl(g->vm->vcpu[0].fd, KVM_SET_REGS, &regs), 0);
	vm_resume(g->vm);
}

static void
bare_code(void **state)
{
	static const struct {
		const char *what, *code;
		size_t len;
		enum vm_end end;
	} rows[] = {
#define ROW(what, code, end) {what, code, sizeof(code) - 1, end}
	    ROW("interrupts off, looping", "\xfa\xeb\xfe", VM_END_NONE),
	    ROW("interrupts off, halted", "\xfa\xf4\xeb\xfd", VM_END_NONE),
	    ROW("triple fault", "\x0f\x0b", VM_END_TRIPLE_FAULT),
	    /* mov $0xd0000000,%eax; fld (%rax) */
	    ROW("emulation failure", "\xb8\0\0\0\xd0\xd9\0", VM_END_EMULATION),
	    ROW("flooding the console", "\x66\xba\xf8\x03\xee\xeb\xfd", VM_END_NONE),
	    ROW("flooding a device", "\xb8\0\0\0\xd0\x8b\x18\xeb\xfc", VM_END_NONE),
	    /* mov $0xd0000000,%eax; movl $0,0x70(%rax): reset; movl $1,0x44(%rax): enable */
	    ROW("broken device", "\xb8\0\0\0\xd0\xc7\x40\x70\0\0\0\0\xc7\x40\x44\x01\0\0\0",
		VM_END_DEVICE),
	    /* fninit; fldpi; pcmpeqd %xmm7,%xmm7; mov %rsp,%dr0; ltr-less loop */
	    ROW("other registers", "\xdb\xe3\xd9\xeb\x66\x0f\x76\xff\x0f\x23\xc4\xeb\xfe",
		VM_END_NONE),
	    /* mov $0x277,%ecx; xor %eax,%eax; cltd; wrmsr (PAT); mov $0xfee00000,%ebx;
	     * movl $0,0xf0(%rbx): local APIC off; mov $0xfec00000,%ebx: IOAPIC entry 5 */
	    ROW("MSRs and interrupt controllers",
		"\xb9\x77\x02\0\0\x31\xc0\x99\x0f\x30\xbb\0\0\xe0\xfe\xc7\x83\xf0\0\0\0\0\0\0\0"
		"\xbb\0\0\xc0\xfe\xc7\x03\x1a\0\0\0\xc7\x43\x10\0\0\x01\0\xeb\xfe",
		VM_END_NONE),
	};
	struct guest *g = guest();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		print_message("# %s\n", rows[i].what);
		run_code(g, rows[i].code, rows[i].len);
		assert_int_equal(guest_wait_end(g, rows[i].end == VM_END_NONE ? 50 : END_MS),
				 rows[i].end);
		load_and_compare(g, template());
		guest_ping(g);
	}
}

/* In small pages: whether the kernel makes a huge one of a few is its own affair. */
static long
anonymous_kib(void)
{
	FILE *f = fopen("/proc/self/smaps_rollup", "re");
	char line[128];
	long kib = 0, n;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "Anonymous: %ld", &n) == 1)
			kib += n;
		else if (sscanf(line, "AnonHugePages: %ld", &n) == 1)
			kib -= n;
	(void)fclose(f);
	return kib;
}

/* A life that looks at what it has got, and leaves it changed. */
static char *
look_and_leave(struct guest *g)
{
	return guest_sh(
	    g,
	    "ls -lR /bin /etc /root /tmp /run /dev | md5sum; cat /proc/mounts; hostname; "
	    "ps -o args >/tmp/ps; grep -v '^\\[' /tmp/ps; cat /proc/sys/vm/swappiness "
	    "/proc/1/limits; "
	    "echo x >>/etc/passwd; rm /bin/vi; mkdir /root/d; hostname left; "
	    "echo 1 >/proc/sys/vm/swappiness; mount -t tmpfs t /mnt; sleep 1000 &",
	    0);
}

/* Reset again and again: the template byte for byte, the same guest each time, and
 * nothing grows. */
static void
a_thousand_times(void **state)
{
	struct guest *g = guest();
	char *first, *again;
	long before = 0;

	(void)state;
	load_and_compare(g, template());
	first = look_and_leave(g);
	assert_non_null(strstr(first, "Max open files"));
	for (unsigned i = 0; i < RESETS; i++) {
		if (i % SAMPLE == 0) {
			load_and_compare(g, template());
			again = look_and_leave(g);
			assert_string_equal(again, first);
			free(again);
		}
		(void)guest_load(g);
		guest_ping(g);
		if (i == RESETS / 2)
			before = anonymous_kib();
	}
	free(first);
	load_and_compare(g, template());
	guest_ping(g);
	print_message("# anonymous: %ld KiB half-way, %ld KiB after %u\n", before, anonymous_kib(),
		      RESETS);
	assert_in_range(anonymous_kib(), 1, before + 64);
	free(guest_sh(g, "true", 0));
}

/* The guest's monotonic clock continues from the template's, and goes on. */
static void
clock_goes_on(void **state)
{
	struct guest *g = guest();
	double first, second;
	char *out;

	(void)state;
	(void)guest_load(g);
	out = guest_sh(g, "cat /proc/uptime; sleep 0.3; cat /proc/uptime", 0);
	assert_int_equal(sscanf(out, "%lf %*f %lf", &first, &second), 2);
	free(out);
	assert_true(second - first >= 0.29 && second - first < 5);
	(void)guest_load(g);
	out = guest_sh(g, "cat /proc/uptime", 0);
	assert_int_equal(sscanf(out, "%lf", &second), 1);
	free(out);
	print_message("# uptime %.2f, after another load %.2f\n", first, second);
	assert_true(second < first + 1 && second > first - 1);
}

static void
two_processors(void **state)
{
	struct vm_template t;
	struct guest g;
	char *out;

	(void)state;
	guest_need_kvm();
	guest_template(&t, guest_file("VMPOOL_TEST_VMLINUX"), MEM_MIB, 2);
	guest_shell(&g, &t, MEM_MIB, 2);
	for (unsigned i = 0; i < 3; i++) {
		load_and_compare(&g, &t);
		guest_ping(&g);
		out = guest_sh(&g,
			       "nproc; (taskset 1 true && taskset 2 true) && echo both; "
			       "(while :; do :; done) >/dev/null 2>&1 & exit 0",
			       0);
		assert_string_equal(out, "2\nboth\n");
		free(out);
	}
	guest_end(&g);
	guest_template_close(&t);
}

/* A machine from a template is captured into files, at an offset; it goes on, and
 * a second one continues from there. */
static void
snapshot(void **state)
{
	struct vm_template snap = {.mem_fd = memfd_create("file", MFD_CLOEXEC), .mem_off = 8192};
	struct guest *g = guest(), copy;
	struct stat st;
	char err[256] = "", *out;

	(void)state;
	(void)guest_load(g);
	free(guest_sh(g, "echo kept >/tmp/kept; sleep 1000 &", 0));
	guest_ping(g);
	snap.state_fd = snap.mem_fd;
	snap.state_off = snap.mem_off + ((uint64_t)MEM_MIB << 20);
	vm_pause(g->vm);
	if (vm_save_memory(g->vm, snap.mem_fd, snap.mem_off, err, sizeof(err)) < 0 ||
	    vm_save(g->vm, snap.state_fd, snap.state_off, &snap.state_len, err, sizeof(err)) < 0)
		fail_msg("%s", err);
	assert_int_equal(fstat(snap.mem_fd, &st), 0);
	print_message("# %lld KiB of %u are not zero\n", (long long)st.st_blocks / 2,
		      MEM_MIB << 10);
	assert_true((uint64_t)st.st_blocks * 512 < (uint64_t)MEM_MIB << 20);
	assert_int_equal(differing(g, &snap), 0); /* reads the holes: they are filled now */
	vm_resume(g->vm);
	guest_shell(&copy, &snap, MEM_MIB, 1);
	load_and_compare(&copy, &snap);
	for (unsigned i = 0; i < 2; i++) {
		out = guest_sh(i == 0 ? &copy : g, "cat /tmp/kept; ps | grep -c '[s]leep 1000'", 0);
		assert_string_equal(out, "kept\n1\n");
		free(out);
	}
	guest_end(&copy);
	closep(&snap.mem_fd);
}

/* The template's state, changed. */
struct forged {
	struct vm_template t;
	uint8_t *bytes;
};

static void
forge(struct forged *f, size_t at, const void *bytes, size_t len, uint64_t state_len)
{
	f->t = *template();
	f->bytes = malloc(f->t.state_len);
	assert_non_null(f->bytes);
	assert_int_equal(pread(f->t.state_fd, f->bytes, f->t.state_len, 0), f->t.state_len);
	memcpy(f->bytes + at, bytes, len);
	f->t.state_fd = memfd_create("forged", MFD_CLOEXEC);
	assert_int_equal(write(f->t.state_fd, f->bytes, state_len), state_len);
	f->t.state_len = state_len;
}

static void
unforge(struct forged *f)
{
	closep(&f->t.state_fd);
	freep(&f->bytes);
}

static int
try_shell(struct vm **vm, const struct vm_template *t, uint32_t mem_mib, uint32_t vcpus, char *err,
	  size_t errlen)
{
	const struct vm_config cfg = {.kvm_fd = -1, .mem_mib = mem_mib, .vcpus = vcpus, .tmpl = t};

	return vm_new(vm, &cfg, err, errlen);
}

static void
refusals(void **state)
{
	static const struct {
		size_t at;
		const char *bytes;
		size_t len;
		uint32_t mem_mib, vcpus;
		const char *words;
	} rows[] = {
	    {0, "X", 1, MEM_MIB, 1, "not the state"},	 {8, "\x63", 1, MEM_MIB, 1, "version 99"},
	    {0, "V", 1, 2 * MEM_MIB, 1, "of memory"},	 {0, "V", 1, MEM_MIB, 2, "vCPUs"},
	    {48, "12345678", 8, MEM_MIB, 1, "features"}, {40, "12345678", 8, MEM_MIB, 1, "layout"},
	    {36, "\1\0\0\0", 4, MEM_MIB, 1, "kHz"},
	};
	char err[256];
	struct vm *vm;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct forged f;
		int r;

		forge(&f, rows[i].at, rows[i].bytes, rows[i].len, template()->state_len);
		r = try_shell(&vm, &f.t, rows[i].mem_mib, rows[i].vcpus, err, sizeof(err));
		print_message("# %s\n", err);
		assert_true(r < 0);
		assert_non_null(strstr(err, rows[i].words));
		unforge(&f);
	}
}

/* Bytes of the state changed at random: refused, or loaded and never run; the
 * VMM is none the worse for it. */
static void
mutations(void **state)
{
	uint64_t x = 88172645463325252u, dirty;
	unsigned refused = 0, not_taken = 0, taken = 0;
	char err[256];

	(void)state;
	for (unsigned i = 0; i < MUTATIONS; i++) {
		struct forged f;
		struct vm *vm;
		uint8_t b[4];

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		memcpy(b, &x, sizeof(b));
		forge(&f, 56 + x % (template()->state_len - 60), b, 1 + x % sizeof(b),
		      template()->state_len);
		if (try_shell(&vm, &f.t, MEM_MIB, 1, err, sizeof(err)) < 0) {
			refused++;
		} else {
			if (vm_load(vm, &dirty, err, sizeof(err)) < 0)
				not_taken++;
			else
				taken++;
			vm_free(vm);
		}
		unforge(&f);
	}
	print_message("# refused: %u, by KVM: %u, taken: %u\n", refused, not_taken, taken);
	assert_int_equal(refused + not_taken + taken, MUTATIONS);
	(void)guest_load(guest());
	guest_ping(guest());
}

static void
never_loaded(void **state)
{
	struct guest g;

	(void)state;
	guest_shell(&g, template(), MEM_MIB, 1);
	guest_end(&g);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(three_from_one), cmocka_unit_test(comes_back),
	    cmocka_unit_test(bare_code),      cmocka_unit_test(clock_goes_on),
	    cmocka_unit_test(snapshot),	      cmocka_unit_test(refusals),
	    cmocka_unit_test(mutations),      cmocka_unit_test(never_loaded),
	    cmocka_unit_test(two_processors), cmocka_unit_test(a_thousand_times),
	};

	return cmocka_run_group_tests_name("kvm template", tests, NULL, end_shared);
}
