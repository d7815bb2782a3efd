/* SPDX-License-Identifier: MIT
 *
 * test_cli_tree.c - which symbolic links of a VM vmpool get -r takes, and how it knows
 * files that have several names.
 */
#include "shm/cli/cli_tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Links are read from where they are. The last three would climb, through another link,
 * further than it seems. */
static const struct row {
	const char *path, *target;
	bool taken;
} rows[] = {
    {"l", "a", true},		{"./l", "a/b/c", true},		{"d/l", "..", true},
    {"d/l", "../", true},	{"./d/./e/l", "../../x", true}, {"d//e/l", "..//../x", true},
    {"l", "..x", true},		{"l", "/etc", false},		{"l", "..", false},
    {"l", "../x", false},	{"./l", "../x", false},		{"d/l", "../../x", false},
    {"d//l", "../../x", false}, {"././l", "..", false},		{"l", "", false},
    {"l", "m/..", false},	{"d/e/l", "m/../..", false},	{"d/e/l", "./..", false},
};

static void
links(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (tree_stays_inside(rows[i].path, rows[i].target) != rows[i].taken)
			fail_msg("row %zu: \"%s\" to \"%s\"", i, rows[i].path, rows[i].target);
}

static void
names(void **state)
{
	const struct tree_id a = {1, 2, 3}, b = {1, 2, 4}, c = {2, 2, 3};
	struct tree_names seen = {NULL};

	(void)state;
	assert_null(tree_names_first(&seen, &a, "a"));
	assert_null(tree_names_first(&seen, &b, "b"));
	assert_null(tree_names_first(&seen, &c, "c"));
	assert_string_equal(tree_names_first(&seen, &a, "x"), "a");
	assert_string_equal(tree_names_first(&seen, &b, "x"), "b");
	assert_string_equal(tree_names_first(&seen, &c, "a"), "c");
	tree_names_fini(&seen);
	assert_null(tree_names_first(&seen, &a, "again"));
	tree_names_fini(&seen);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(links), cmocka_unit_test(names)};

	return cmocka_run_group_tests_name("trees from a VM", tests, NULL, NULL);
}
