/* SPDX-License-Identifier: MIT
 *
 * test_client_file_hostile.c - answers to file operations that no honest guest
 * gives, and every errno that one may give (tests/lib/fakefile.c plays them).
 */
#include "tests/lib/clienttest.h"

#include <string.h>

/* Takes in all that comes while it consumes nothing. */
static int
linger(void *vm, const void *buf, size_t len)
{
	(void)buf;
	(void)len;
	return vmpool_ping_worker(vm, 30000, NULL);
}

static int
nothing(void *arg, const void *buf, size_t len)
{
	(void)arg;
	(void)buf;
	(void)len;
	return 0;
}

static int
call(struct vmpool_vm *vm, const char *path)
{
	const struct vmpool_file_opts soon = {.timeout_ms = 50}, opts = {.timeout_ms = FOREVER_MS};
	static const char more[2 * PROTO_WINDOW]; /* than can be sent unasked */
	struct vmpool_dirent *list;
	size_t count;
	int r;

	if (strncmp(path, "list/", 5) == 0) {
		r = vmpool_list_dir(vm, path, &opts, &list, &count);
		vmpool_list_dir_free(list, count);
		return r;
	}
	if (strcmp(path, "early") == 0)
		return vmpool_write_file(vm, path, &opts, more, sizeof(more));
	return vmpool_read_file_to(vm, path, strcmp(path, "silent") == 0 ? &soon : &opts,
				   strcmp(path, "overrun") == 0 ? linger : nothing, vm, NULL);
}

static const struct row {
	const char *path;
	int result;
	const char *error;
	bool broken; /* the VM is unusable from then on */
} rows[] = {
    {"stderr", VMPOOL_EPROTOCOL, "stream", true},
    {"exit", VMPOOL_EPROTOCOL, "stream", true},
    {"overrun", VMPOOL_EPROTOCOL, "stream", true},
    {"badtime", VMPOOL_EPROTOCOL, "stream", true},
    {"badmode", VMPOOL_EPROTOCOL, "stream", true},
    {"badsize", VMPOOL_EPROTOCOL, "stream", true},
    {"early", VMPOOL_EPROTOCOL, "stream", true},
    {"errno/4096", VMPOOL_EPROTOCOL, "stream", true},
    {"errno/4294967295", VMPOOL_EPROTOCOL, "stream", true},
    {"silent", VMPOOL_ETIMEDOUT, "does not answer", false},
    {"refused", VMPOOL_EGUEST, "refused the file operation", false},
    {"list/good", 0, NULL, false},
    {"list/slash", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/root", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/nul", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/dots", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/dot", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/empty", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/long", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/cut", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"list/huge", VMPOOL_EPROTOCOL, "no directory entries", false},
    {"errno/2", VMPOOL_EFILE_NOTFOUND, "(ENOENT)", false},
    {"errno/13", VMPOOL_EFILE_PERM, "(EACCES)", false},
    {"errno/1", VMPOOL_EFILE_PERM, "(EPERM)", false},
    {"errno/28", VMPOOL_EFILE_NOSPACE, "(ENOSPC)", false},
    {"errno/122", VMPOOL_EFILE_NOSPACE, "(EDQUOT)", false},
    {"errno/21", VMPOOL_EFILE_ISDIR, "(EISDIR)", false},
    {"errno/20", VMPOOL_EFILE_NOTDIR, "(ENOTDIR)", false},
    {"errno/40", VMPOOL_EFILE_LINKS, "(ELOOP)", false},
    {"errno/31", VMPOOL_EFILE_LINKS, "(EMLINK)", false},
    {"errno/17", VMPOOL_EFILE_EXISTS, "(EEXIST)", false},
    {"errno/39", VMPOOL_EFILE_NOTEMPTY, "(ENOTEMPTY)", false},
    {"errno/30", VMPOOL_EFILE_READONLY, "(EROFS)", false},
    {"errno/18", VMPOOL_EFILE_IO, "(EXDEV)", false},
    {"errno/5", VMPOOL_EFILE_IO, "(EIO)", false},
    {"errno/4095", VMPOOL_EFILE_IO, "unknown error (?)", false},
};

static void
answers(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];
		struct vmpool_result res;
		struct vmpool_vm *vm;
		int r;

		assert_int_equal(vmpool_acquire(f->pool, NULL, &vm), 0);
		r = call(vm, row->path);
		if (r != row->result)
			fail_msg("%s: %d (%s)", row->path, r, vmpool_error(f->pool));
		if (row->error != NULL && strstr(vmpool_error(f->pool), row->error) == NULL)
			fail_msg("%s: %s", row->path, vmpool_error(f->pool));
		r = vmpool_exec(vm, ARGV("echo", "again"), NULL, &res);
		assert_int_equal(r, row->broken ? row->result : 0);
		vmpool_result_fini(&res);
		(void)vmpool_release(vm);
		fakepool_add_vm(&f->fp);
	}
}

/* The other way round: a command that ends like a file. */
static void
command(void **state)
{
	struct fixture *f = *state;
	struct vmpool_result r;

	assert_int_equal(vmpool_exec(f->vm, ARGV("filedone"), NULL, &r), VMPOOL_EPROTOCOL);
	vmpool_result_fini(&r);
}

static void
general_texts(void **state)
{
	(void)state;
	for (int err = VMPOOL_EFILE_NOTFOUND; err >= VMPOOL_EFILE_IO; err--)
		assert_non_null(strstr(vmpool_strerror(err), "guest"));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(answers, setup_pool, teardown),
	    cmocka_unit_test_setup_teardown(command, setup_vm, teardown),
	    cmocka_unit_test(general_texts),
	};

	return cmocka_run_group_tests_name("client files, hostile", tests, NULL, NULL);
}
