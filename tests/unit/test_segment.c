/* SPDX-License-Identifier: MIT
 *
 * test_segment.c - creating, attaching and refusing segments.
 */
#include "shm/segment.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

static const struct seg_params params = {
    .name = "unit", .accel = "tcg", .why = "because", .nslots = 5, .memory_mib = 128, .vcpus = 2};

static struct seg *
create(uint32_t nslots)
{
	struct seg_params p = params;
	struct seg *seg;
	char err[256];

	p.nslots = nslots;
	assert_int_equal(seg_create(&seg, &p, err, sizeof(err)), 0);
	return seg;
}

static int
dup_of(const struct seg *seg)
{
	int fd = fcntl(seg->fd, F_DUPFD_CLOEXEC, 3);

	assert_true(fd >= 0);
	return fd;
}

static void
create_and_attach(void **state)
{
	struct seg *a = create(5), *b;
	char err[256];

	(void)state;
	assert_int_equal(seg_attach(&b, dup_of(a), false, err, sizeof(err)), 0);
	assert_ptr_not_equal(a->head, b->head);
	assert_int_equal(b->nslots, 5);
	assert_int_equal(b->size, seg_size(5));
	assert_string_equal(b->head->name, "unit");
	assert_string_equal(b->head->accel, "tcg");
	assert_string_equal(b->head->why, "because");
	assert_int_equal(b->head->memory_mib, 128);
	assert_int_equal(b->head->vcpus, 2);
	assert_int_equal(b->head->supervisor_pid, getpid());
	assert_int_equal(atomic_load(&b->head->count[SLOT_EMPTY]), 5);
	assert_int_equal(atomic_load(&b->head->state), POOL_RUNNING);
	/* The same bytes, at another address; the last one included. */
	atomic_store(&a->slot[4].worker_pid, 77);
	assert_int_equal(atomic_load(&b->slot[4].worker_pid), 77);
	a->chan[4].rsp_data[SHM_RING_SIZE - 1] = 99;
	assert_int_equal(b->chan[4].rsp_data[SHM_RING_SIZE - 1], 99);
	assert_int_equal((size_t)((char *)&b->chan[5] - (char *)b->head), b->size);
	seg_close(a);
	seg_close(b);
	seg_close(NULL);
}

static void
generations_differ(void **state)
{
	struct seg *a = create(1), *b = create(1);

	(void)state;
	assert_true(a->head->generation != b->head->generation);
	seg_close(a);
	seg_close(b);
}

static void
parts_do_not_overlap(void **state)
{
	static const uint32_t sizes[] = {1, 2, 15, 16, 17, 1000, SHM_SLOTS_MAX};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct seg *s = create(sizes[i]);
		uint32_t n = sizes[i];

		assert_true((char *)s->idle >= (char *)(s->head + 1));
		assert_true((char *)s->waiter >= (char *)(s->idle + n));
		assert_true((char *)s->client >= (char *)(s->waiter + s->nwaiters));
		assert_true((char *)s->slot >= (char *)(s->client + s->nclients));
		assert_true((char *)s->chan >= (char *)(s->slot + n));
		assert_true((char *)(s->chan + n) <= (char *)s->head + s->size);
		assert_int_equal((uintptr_t)s->chan % SHM_PAGE, 0);
		assert_int_equal((uintptr_t)s->slot % SHM_CACHELINE, 0);
		seg_close(s);
	}
}

static void
bad_sizes_are_refused(void **state)
{
	static const uint32_t sizes[] = {0, SHM_SLOTS_MAX + 1, UINT32_MAX};
	struct seg *seg;
	char err[256];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct seg_params p = params;

		p.nslots = sizes[i];
		err[0] = '\0';
		assert_int_equal(seg_create(&seg, &p, err, sizeof(err)), -EINVAL);
		assert_null(seg);
		assert_non_null(strstr(err, "slots"));
	}
}

/* Memory comes with use, not with size. */
static void
large_segment_is_sparse(void **state)
{
	struct seg *seg = create(SHM_SLOTS_MAX);
	struct stat st;

	(void)state;
	assert_int_equal(fstat(seg->fd, &st), 0);
	assert_true((size_t)st.st_size == seg->size);
	assert_true(st.st_blocks * 512 < 64 * 1024);
	assert_true(seg->size / SHM_SLOTS_MAX <= 160 * 1024);
	seg_close(seg);
}

static void
size_is_sealed(void **state)
{
	struct seg *seg = create(1);

	(void)state;
	assert_int_equal(ftruncate(seg->fd, 4096), -1);
	assert_int_equal(ftruncate(seg->fd, (off_t)seg->size * 2), -1);
	assert_int_equal(fcntl(seg->fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	seg_close(seg);
}

static void
read_only_stays_read_only(void **state)
{
	struct seg *seg = create(3), *ro;
	struct stat st;
	char err[256];
	int fd;

	(void)state;
	fd = seg_read_only_fd(seg);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	/* Nobody but its owner can reopen it for writing by way of /proc. */
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 077, 0);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_int_equal(seg_attach(&ro, dup_of(seg), true, err, sizeof(err)), 0);
	seg_close(ro);
	assert_int_equal(seg_attach(&ro, fd, true, err, sizeof(err)), 0);
	atomic_store(&seg->slot[2].worker_pid, 5);
	assert_int_equal(atomic_load(&ro->slot[2].worker_pid), 5);
	seg_close(ro);
	seg_close(seg);
}

/* A writable attach through a read-only descriptor fails, and closes it. */
static void
failed_attach_closes_fd(void **state)
{
	struct seg *seg = create(1), *other;
	char err[256];
	int fd = seg_read_only_fd(seg);

	(void)state;
	assert_int_equal(seg_attach(&other, fd, false, err, sizeof(err)), -EACCES);
	assert_null(other);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	seg_close(seg);
}

/* A copy of a good segment's head in a file of our own making. */
static int
forge(const struct shm_head *head, size_t size, unsigned seals)
{
	int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(pwrite(fd, head, MIN(size, sizeof(*head)), 0), MIN(size, sizeof(*head)));
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static void
refused(const struct shm_head *head, size_t size, unsigned seals, int error)
{
	struct seg *seg;
	char err[256] = "";

	assert_int_equal(seg_attach(&seg, forge(head, size, seals), true, err, sizeof(err)), error);
	assert_null(seg);
	assert_true(strlen(err) > 10);
}

static void
forged_segments_are_refused(void **state)
{
	struct seg *seg = create(5);
	struct shm_head good;
	size_t size = seg->size;

	(void)state;
	memcpy(&good, (void *)seg->head, sizeof(good));
	seg_close(seg);
	refused(&good, size, 0, -EPROTO);
	refused(&good, size, F_SEAL_SHRINK, -EPROTO);
	refused(&good, size, F_SEAL_GROW, -EPROTO);
	refused(&good, size - 1, SEALS, -EPROTO);
	refused(&good, size + 4096, SEALS, -EPROTO);
	refused(&good, sizeof(good) - 1, SEALS, -EPROTO);
	refused(&good, 0, SEALS, -EPROTO);
#define ALTERED(field, error) \
	do { \
		struct shm_head h; \
		memcpy(&h, &good, sizeof(h)); \
		h.field ^= 1; \
		refused(&h, size, SEALS, error); \
	} while (0)
	ALTERED(magic, -EPROTO);
	ALTERED(format, -EMEDIUMTYPE);
	ALTERED(size, -EPROTO);
	ALTERED(nslots, -EPROTO);
	ALTERED(nclients, -EPROTO);
	ALTERED(nwaiters, -EPROTO);
	ALTERED(idle_off, -EPROTO);
	ALTERED(wait_off, -EPROTO);
	ALTERED(client_off, -EPROTO);
	ALTERED(slot_off, -EPROTO);
	ALTERED(chan_off, -EPROTO);
	good.nslots = 0;
	refused(&good, size, SEALS, -EPROTO);
	good.nslots = UINT32_MAX;
	refused(&good, size, SEALS, -EPROTO);
}

static void
other_files_are_refused(void **state)
{
	struct seg *seg;
	char err[256];
	int p[2];

	(void)state;
	assert_int_equal(seg_attach(&seg, open("/proc/self/exe", O_RDONLY), true, err, sizeof(err)),
			 -EPROTO);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(seg_attach(&seg, p[0], true, err, sizeof(err)), -EPROTO);
	closep(&p[1]);
	assert_int_equal(seg_attach(&seg, -1, true, err, sizeof(err)), -EPROTO);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(create_and_attach),
	    cmocka_unit_test(generations_differ),
	    cmocka_unit_test(parts_do_not_overlap),
	    cmocka_unit_test(bad_sizes_are_refused),
	    cmocka_unit_test(large_segment_is_sparse),
	    cmocka_unit_test(size_is_sealed),
	    cmocka_unit_test(read_only_stays_read_only),
	    cmocka_unit_test(failed_attach_closes_fd),
	    cmocka_unit_test(forged_segments_are_refused),
	    cmocka_unit_test(other_files_are_refused),
	};

	return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
