/* SPDX-License-Identifier: MIT
 *
 * test_cli_tar.c - which entries of an archive from a VM vmpool get -r takes.
 */
#include "shm/cli/cli_tree.h"

#include <archive_entry.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const struct row {
	const char *path;
	mode_t type;
	const char *link; /* of AE_IFLNK; of AE_IFREG: a hard link */
	bool taken;
} rows[] = {
    {".", AE_IFDIR, NULL, true},
    {"./", AE_IFDIR, NULL, true},
    {"./a/b", AE_IFREG, NULL, true},
    {"a..b/..c/d..", AE_IFREG, NULL, true},
    {"...", AE_IFREG, NULL, true},
    {"/etc/passwd", AE_IFREG, NULL, false},
    {"//x", AE_IFREG, NULL, false},
    {"..", AE_IFDIR, NULL, false},
    {"../x", AE_IFREG, NULL, false},
    {"a/../../x", AE_IFREG, NULL, false},
    {"a/..", AE_IFREG, NULL, false},
    {"./..", AE_IFREG, NULL, false},
    {"", AE_IFREG, NULL, false},
    {"dev", AE_IFCHR, NULL, false},
    {"dev", AE_IFBLK, NULL, false},
    {"fifo", AE_IFIFO, NULL, false},
    {"sock", AE_IFSOCK, NULL, false},
    {"none", 0, NULL, false},
    /* Hard links name other entries. */
    {"h", AE_IFREG, "a/b", true},
    {"h", AE_IFREG, "./a", true},
    {"h", AE_IFREG, "/etc/passwd", false},
    {"h", AE_IFREG, "../a", false},
    {"h", AE_IFREG, "a/../../b", false},
    /* Symbolic links are read from where they are. */
    {"l", AE_IFLNK, "a", true},
    {"./l", AE_IFLNK, "a/b/c", true},
    {"d/l", AE_IFLNK, "..", true},
    {"d/l", AE_IFLNK, "../", true},
    {"./d/./e/l", AE_IFLNK, "../../x", true},
    {"d//e/l", AE_IFLNK, "..//../x", true},
    {"l", AE_IFLNK, "..x", true},
    {"l", AE_IFLNK, "/etc", false},
    {"l", AE_IFLNK, "..", false},
    {"l", AE_IFLNK, "../x", false},
    {"./l", AE_IFLNK, "../x", false},
    {"d/l", AE_IFLNK, "../../x", false},
    {"d//l", AE_IFLNK, "../../x", false},
    {"././l", AE_IFLNK, "..", false},
    {"l", AE_IFLNK, "", false},
    /* Through another link, this would climb further than it seems. */
    {"l", AE_IFLNK, "m/..", false},
    {"d/e/l", AE_IFLNK, "m/../..", false},
    {"d/e/l", AE_IFLNK, "./..", false},
};

static void
entries(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		struct archive_entry *e = archive_entry_new();

		assert_non_null(e);
		archive_entry_set_pathname(e, row->path);
		archive_entry_set_filetype(e, row->type);
		if (row->link != NULL && row->type == AE_IFLNK)
			archive_entry_set_symlink(e, row->link);
		else if (row->link != NULL)
			archive_entry_set_hardlink(e, row->link);
		if ((tar_refuse(e) == NULL) != row->taken)
			fail_msg("row %zu: \"%s\" to \"%s\"", i, row->path,
				 row->link != NULL ? row->link : "");
		archive_entry_free(e);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {cmocka_unit_test(entries)};

	return cmocka_run_group_tests_name("archives from a VM", tests, NULL, NULL);
}
