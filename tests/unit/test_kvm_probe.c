/* SPDX-License-Identifier: MIT
 *
 * test_kvm_probe.c - what can be said of /dev/kvm without running Linux: the
 * probe's verdicts, and vm_new's refusals that need no working KVM.
 */
#include "kvm/vm.h"
#include "shm/base.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static char why[256];

/* Whatever this machine has: a verdict, a name and one sentence, at once. */
static void
this_machine(void **state)
{
	uint64_t t = now_ns();
	enum vm_probe p = vm_probe(-1, why, sizeof(why));

	(void)state;
	t = now_ns() - t;
	print_message("# %s: %s (%llu us)\n", vm_probe_name(p), why, (unsigned long long)t / 1000);
	assert_in_range(p, VM_PROBE_OK, VM_PROBE_FAILED);
	assert_in_range(strlen(why), 5, sizeof(why) - 1);
	assert_null(strchr(why, '\n'));
	assert_true(t < 10000000000u);
	if (access("/dev/kvm", F_OK) != 0)
		assert_int_equal(p, VM_PROBE_ABSENT);
}

static void
same_answer_twice(void **state)
{
	_cleanup_(closep) int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	enum vm_probe p = vm_probe(-1, why, sizeof(why));

	(void)state;
	if (fd < 0) {
		print_message("# skipped: /dev/kvm: %s\n", strerror(errno));
		skip();
	}
	assert_int_equal(vm_probe(fd, why, sizeof(why)), p);
	assert_true(fcntl(fd, F_GETFD) >= 0); /* stays the caller's */
}

/* A descriptor that is no KVM. */
static void
not_kvm(void **state)
{
	_cleanup_(closep) int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(vm_probe(fd, why, sizeof(why)), VM_PROBE_API);
	assert_non_null(strstr(why, "API version"));
}

static void
names(void **state)
{
	(void)state;
	for (int i = VM_PROBE_OK; i <= VM_PROBE_FAILED; i++)
		for (int j = VM_PROBE_OK; j < i; j++)
			assert_string_not_equal(vm_probe_name((enum vm_probe)i),
						vm_probe_name((enum vm_probe)j));
	for (int i = VM_END_NONE; i <= VM_END_DEVICE; i++)
		for (int j = VM_END_NONE; j < i; j++)
			assert_string_not_equal(vm_end_name((enum vm_end)i),
						vm_end_name((enum vm_end)j));
}

static void
bad_configs(void **state)
{
	static const struct {
		struct vm_config cfg;
		const char *words;
	} rows[] = {
	    {{.kernel = NULL, .mem_mib = 64, .vcpus = 1}, "no kernel"},
	    {{.kernel = "", .mem_mib = 64, .vcpus = 1}, "no kernel"},
	    {{.kernel = "/x", .mem_mib = 64, .vcpus = 0}, "0 vCPUs"},
	    {{.kernel = "/x", .mem_mib = 64, .vcpus = VM_VCPUS_MAX + 1}, "9 vCPUs"},
	    {{.kernel = "/x", .mem_mib = VM_MEM_MIB_MIN - 1, .vcpus = 1}, "31 MiB"},
	    {{.kernel = "/x", .mem_mib = VM_MEM_MIB_MAX + 1, .vcpus = 1}, "3073 MiB"},
	    {{.kernel = "/x", .mem_mib = UINT32_MAX, .vcpus = 1}, "MiB of memory"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vm *vm = (struct vm *)(uintptr_t)1;

		assert_int_equal(vm_new(&vm, &rows[i].cfg, why, sizeof(why)), -EINVAL);
		print_message("# %s\n", why);
		assert_null(vm);
		assert_non_null(strstr(why, rows[i].words));
	}
	vm_free(NULL);
}

static void
kvm_that_is_none(void **state)
{
	_cleanup_(closep) int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	const struct vm_config cfg = {.kvm_fd = fd, .kernel = "/x", .mem_mib = 64, .vcpus = 1};
	struct vm *vm;

	(void)state;
	assert_int_equal(vm_new(&vm, &cfg, why, sizeof(why)), -ENOTTY);
	assert_non_null(strstr(why, "KVM_CREATE_VM"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(this_machine), cmocka_unit_test(same_answer_twice),
	    cmocka_unit_test(not_kvm),	    cmocka_unit_test(names),
	    cmocka_unit_test(bad_configs),  cmocka_unit_test(kvm_that_is_none),
	};

	return cmocka_run_group_tests_name("kvm probe", tests, NULL, NULL);
}
