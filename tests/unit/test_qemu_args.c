/* SPDX-License-Identifier: MIT
 *
 * test_qemu_args.c - QEMU's command line: a machine's state fits only the same
 * machine, so all roles must get the same hardware.
 */
#include "worker/qemu_args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct machine_config cfg = {
    .kernel = "/k", .image = "/i", .mem_mib = 128, .vcpus = 2, .mem_fd = -1};

static void
make(struct qemu_args *a, enum qemu_role role)
{
	char err[256];

	*a = (struct qemu_args){.role = role,
				.cfg = &cfg,
				.chan = 10,
				.console = 11,
				.qmp = 12,
				.mem = 13,
				.incoming = role == QEMU_BOOT ? -1 : 14};
	assert_int_equal(qemu_args_make(a, err, sizeof(err)), 0);
}

/* All values of an option, one after the other; "" if it is not there. */
static const char *
values(const struct qemu_args *a, const char *option, char *out, size_t len)
{
	size_t n = 0;

	out[0] = '\0';
	for (unsigned i = 0; i + 1 < a->argc; i++)
		if (strcmp(a->argv[i], option) == 0)
			n += (size_t)snprintf(out + n, len - n, "%s ", a->argv[i + 1]);
	assert_true(n < len);
	return out;
}

static void
every_role_is_the_same_machine(void **state)
{
	static const char *const options[] = {"-cpu", "-accel", "-m", "-smp", "-M", "-device"};
	static const enum qemu_role others[] = {QEMU_TEMPLATE, QEMU_COPY};
	struct qemu_args boot, other;
	char want[512], have[512];

	(void)state;
	make(&boot, QEMU_BOOT);
	for (size_t r = 0; r < ARRAY_SIZE(others); r++) {
		make(&other, others[r]);
		for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
			(void)values(&boot, options[i], want, sizeof(want));
			assert_true(want[0] != '\0');
			assert_string_equal(values(&other, options[i], have, sizeof(have)), want);
		}
	}
}

/* Only a boot has a kernel; only a template's memory is private. */
static void
roles_differ_where_they_must(void **state)
{
	struct qemu_args a;
	char text[512];

	(void)state;
	make(&a, QEMU_BOOT);
	assert_string_equal(values(&a, "-kernel", text, sizeof(text)), "/k ");
	assert_string_equal(values(&a, "-incoming", text, sizeof(text)), "");
	assert_non_null(strstr(values(&a, "-object", text, sizeof(text)), "share=on"));
	make(&a, QEMU_TEMPLATE);
	assert_string_equal(values(&a, "-kernel", text, sizeof(text)), "");
	assert_string_equal(values(&a, "-incoming", text, sizeof(text)), "defer ");
	assert_non_null(strstr(values(&a, "-object", text, sizeof(text)), "share=off"));
	make(&a, QEMU_COPY);
	assert_non_null(strstr(values(&a, "-object", text, sizeof(text)), "share=on"));
}

static void
refuses_paths_that_are_too_long(void **state)
{
	static char path[QEMU_ARGS_TEXT];
	struct machine_config longer = cfg;
	struct qemu_args a = {.role = QEMU_BOOT, .cfg = &longer, .mem = -1, .incoming = -1};
	char err[256] = "";

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	longer.kernel = path;
	assert_int_equal(qemu_args_make(&a, err, sizeof(err)), -E2BIG);
	assert_non_null(strstr(err, "too long"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_role_is_the_same_machine),
	    cmocka_unit_test(roles_differ_where_they_must),
	    cmocka_unit_test(refuses_paths_that_are_too_long),
	};

	return cmocka_run_group_tests_name("qemu args", tests, NULL, NULL);
}
