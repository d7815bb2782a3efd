/* SPDX-License-Identifier: MIT
 *
 * test_kvm_gmem.c - guest memory: nothing outside it can be reached.
 */
#include "kvm/gmem.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define SIZE (4ull << 20)

static int
setup(void **state)
{
	static struct gmem m;

	*state = &m;
	return gmem_init(&m, SIZE, -1);
}

static int
teardown(void **state)
{
	gmem_fini(*state);
	return 0;
}

static void
bounds(void **state)
{
	static const struct {
		uint64_t gpa, len;
		bool ok;
	} rows[] = {
	    {0, 0, true},
	    {0, SIZE, true},
	    {SIZE, 0, true},
	    {SIZE - 1, 1, true},
	    {SIZE - 1, 2, false},
	    {SIZE, 1, false},
	    {SIZE + 1, 0, false},
	    {0, SIZE + 1, false},
	    {1, SIZE, false},
	    {UINT64_MAX, 0, false},
	    {UINT64_MAX, 1, false},
	    {1, UINT64_MAX, false},
	    {UINT64_MAX - 7, 16, false},
	    {SIZE - 8, UINT64_MAX - SIZE + 9, false},
	    {1ull << 63, 1ull << 63, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		print_message("# row %zu\n", i);
		assert_int_equal(gmem_holds(*state, rows[i].gpa, rows[i].len), rows[i].ok);
	}
}

static void
copies(void **state)
{
	struct gmem *m = *state;
	char in[] = "guest", out[sizeof(in)] = "";

	assert_int_equal(gmem_write(m, SIZE - sizeof(in), in, sizeof(in)), 0);
	assert_int_equal(gmem_read(m, SIZE - sizeof(in), out, sizeof(out)), 0);
	assert_string_equal(in, out);
	memset(out, 'x', sizeof(out));
	assert_int_equal(gmem_read(m, SIZE - sizeof(in) + 1, out, sizeof(out)), -EFAULT);
	assert_int_equal(out[0], 'x'); /* nothing copied */
	assert_int_equal(gmem_write(m, UINT64_MAX - 2, in, sizeof(in)), -EFAULT);
}

static void
words(void **state)
{
	struct gmem *m = *state;
	uint16_t v = 0;

	assert_int_equal(gmem_store16(m, SIZE - 2, 0xbeef), 0);
	assert_int_equal(gmem_load16(m, SIZE - 2, &v), 0);
	assert_int_equal(v, 0xbeef);
	assert_int_equal(gmem_load16(m, SIZE - 1, &v), -EFAULT);
	assert_int_equal(gmem_load16(m, 1, &v), -EFAULT); /* not aligned */
	assert_int_equal(gmem_store16(m, SIZE, 1), -EFAULT);
	assert_int_equal(gmem_store16(m, 3, 1), -EFAULT);
}

static void
from_file(void **state)
{
	struct gmem *m = *state;
	_cleanup_(closep) int fd = memfd_create("test", MFD_CLOEXEC);
	char out[4] = "";

	assert_int_equal(pwrite(fd, "abcdef", 6, 0), 6);
	assert_int_equal(gmem_load_file(m, 100, fd, 2, 4), 0);
	assert_int_equal(gmem_read(m, 100, out, 4), 0);
	assert_memory_equal(out, "cdef", 4);
	assert_int_equal(gmem_load_file(m, 100, fd, 2, 5), -ENODATA);
	assert_int_equal(gmem_load_file(m, SIZE - 3, fd, 0, 4), -EFAULT);
	assert_int_equal(gmem_load_file(m, 0, -1, 0, 4), -EBADF);
}

/* A template's memory: shared until written, and never written through. */
static void
copy_on_write(void **state)
{
	_cleanup_(closep) int fd = memfd_create("template", MFD_CLOEXEC);
	struct gmem a, b;
	char byte = 0;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)SIZE), 0);
	assert_int_equal(pwrite(fd, "T", 1, 4096), 1);
	assert_int_equal(gmem_init(&a, SIZE, fd), 0);
	assert_int_equal(gmem_init(&b, SIZE, fd), 0);
	assert_int_equal(gmem_write(&a, 4096, "A", 1), 0);
	assert_int_equal(gmem_read(&b, 4096, &byte, 1), 0);
	assert_int_equal(byte, 'T');
	assert_int_equal(pread(fd, &byte, 1, 4096), 1);
	assert_int_equal(byte, 'T');
	gmem_fini(&a);
	gmem_fini(&b);
	gmem_fini(&b); /* twice is fine */
}

static void
slot(void **state)
{
	struct gmem *m = *state;
	struct kvm_userspace_memory_region r;

	gmem_slot(m, &r);
	assert_int_equal(r.memory_size, SIZE);
	assert_int_equal(r.guest_phys_addr, 0);
	assert_int_equal(r.userspace_addr % (2u << 20), 0); /* huge pages are possible */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(bounds, setup, teardown),
	    cmocka_unit_test_setup_teardown(copies, setup, teardown),
	    cmocka_unit_test_setup_teardown(words, setup, teardown),
	    cmocka_unit_test_setup_teardown(from_file, setup, teardown),
	    cmocka_unit_test(copy_on_write),
	    cmocka_unit_test_setup_teardown(slot, setup, teardown),
	};

	return cmocka_run_group_tests_name("kvm gmem", tests, NULL, NULL);
}
