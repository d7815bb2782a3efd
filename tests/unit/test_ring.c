/* SPDX-License-Identifier: MIT
 *
 * test_ring.c - byte rings: every offset, every length class, hostile peers,
 * and a producer and a consumer at full speed.
 */
#include "shm/ring.h"
#include "tests/lib/testproc.h"
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define HDR sizeof(struct ring_rec)

/* One direction of a channel, with guard bytes around its data. */
struct pipe {
	struct shm_ring pos;
	uint8_t before[64];
	uint8_t data[SHM_RING_SIZE];
	uint8_t after[64];
};

static uint8_t payload[RING_PAYLOAD_MAX], got[RING_PAYLOAD_MAX + 64];

static struct pipe *
pipe_new(uint64_t at)
{
	struct pipe *p =
	    mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	memset(p->before, 0xee, sizeof(p->before));
	memset(p->after, 0xee, sizeof(p->after));
	atomic_store(&p->pos.head, at);
	atomic_store(&p->pos.tail, at);
	return p;
}

static void
pipe_free(struct pipe *p)
{
	for (unsigned i = 0; i < 64; i++) {
		assert_int_equal(p->before[i], 0xee);
		assert_int_equal(p->after[i], 0xee);
	}
	(void)munmap(p, sizeof(*p));
}

static int
setup(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 7 + i / 251);
	return 0;
}

static struct ring_rec
record(uint32_t length)
{
	return (struct ring_rec){
	    .length = length, .type = 3, .flags = 1, .stream = length ^ 0x1234, .lease = 42};
}

static void
round_trip(struct ring *in, struct ring *out, uint32_t length)
{
	struct ring_rec rec = record(length), back;

	assert_int_equal(ring_write(in, &rec, payload), 0);
	memset(got, 0xcc, sizeof(got));
	assert_int_equal(ring_peek(out, &back), 1);
	assert_memory_equal(&back, &rec, sizeof(rec));
	memset(&back, 0, sizeof(back));
	assert_int_equal(ring_read(out, &back, got), 1);
	assert_memory_equal(&back, &rec, sizeof(rec));
	assert_memory_equal(got, payload, length);
	assert_int_equal(got[length], 0xcc);
	assert_int_equal(ring_read(out, &back, got), 0);
}

/* Records that start at every byte before the end and wrap around it, also with
 * positions about to exceed 64 bits. */
static void
wraps_everywhere(void **state)
{
	static const uint64_t base[] = {0, SHM_RING_SIZE * 3, 0 - (uint64_t)SHM_RING_SIZE};

	(void)state;
	for (unsigned b = 0; b < ARRAY_SIZE(base); b++)
		for (uint32_t back = 0; back <= 3 * HDR; back++) {
			struct pipe *p = pipe_new(base[b] + SHM_RING_SIZE - back);
			struct ring in, out;

			ring_init_producer(&in, &p->pos, p->data);
			ring_init_consumer(&out, &p->pos, p->data);
			round_trip(&in, &out, back % 5);
			round_trip(&in, &out, 2 * HDR);
			pipe_free(p);
		}
}

static void
every_length_class(void **state)
{
	static const uint32_t lengths[] = {
	    0, 1, 2, 15, 16, 17, 63, 255, 4095, 4096, 8191, RING_PAYLOAD_MAX - 1, RING_PAYLOAD_MAX};
	struct pipe *p = pipe_new(0);
	struct ring in, out;

	(void)state;
	ring_init_producer(&in, &p->pos, p->data);
	ring_init_consumer(&out, &p->pos, p->data);
	for (unsigned turn = 0; turn < 50; turn++)
		for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++)
			round_trip(&in, &out, lengths[i]);
	pipe_free(p);
}

static void
fills_up(void **state)
{
	struct pipe *p = pipe_new(12345);
	struct ring in, out;
	struct ring_rec rec = record(RING_PAYLOAD_MAX), back;
	ssize_t space;

	(void)state;
	ring_init_producer(&in, &p->pos, p->data);
	ring_init_consumer(&out, &p->pos, p->data);
	assert_int_equal(ring_space(&in), RING_PAYLOAD_MAX);
	/* The layout promises room for three of the largest. */
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ring_write(&in, &rec, payload), 0);
	assert_int_equal(ring_write(&in, &rec, payload), -EAGAIN);
	space = ring_space(&in);
	assert_int_equal(space, SHM_RING_SIZE - 3 * (HDR + RING_PAYLOAD_MAX) - HDR);
	rec = record((uint32_t)space + 1);
	assert_int_equal(ring_write(&in, &rec, payload), -EAGAIN);
	rec = record((uint32_t)space);
	assert_int_equal(ring_write(&in, &rec, payload), 0);
	assert_int_equal(ring_space(&in), 0);
	rec = record(0);
	assert_int_equal(ring_write(&in, &rec, payload), -EAGAIN);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(ring_read(&out, &back, got), 1);
		assert_memory_equal(got, payload, back.length);
	}
	assert_int_equal(ring_read(&out, &back, got), 0);
	assert_int_equal(ring_space(&in), RING_PAYLOAD_MAX);
	rec = record(RING_PAYLOAD_MAX + 1);
	assert_int_equal(ring_write(&in, &rec, payload), -EMSGSIZE);
	pipe_free(p);
}

static void
taken_up_where_it_stands(void **state)
{
	struct pipe *p = pipe_new(777);
	struct ring in, out;
	struct ring_rec rec = record(100), back;

	(void)state;
	ring_init_producer(&in, &p->pos, p->data);
	assert_int_equal(ring_write(&in, &rec, payload), 0);
	assert_int_equal(ring_write(&in, &rec, payload), 0);
	ring_init_consumer(&out, &p->pos, p->data);
	assert_int_equal(ring_read(&out, &back, got), 1);
	ring_init_producer(&in, &p->pos, p->data);
	ring_init_consumer(&out, &p->pos, p->data);
	assert_int_equal(ring_write(&in, &rec, payload), 0);
	assert_int_equal(ring_read(&out, &back, got), 1);
	assert_int_equal(ring_read(&out, &back, got), 1);
	assert_int_equal(ring_read(&out, &back, got), 0);
	pipe_free(p);
}

/* Whatever the producer says about its position: never more than is there. */
static void
hostile_tail(void **state)
{
	static const uint64_t ahead[] = {
	    1,		HDR - 1,	SHM_RING_SIZE + 1,	     SHM_RING_SIZE * 2,
	    UINT64_MAX, UINT64_MAX / 2, 0 - (uint64_t)SHM_RING_SIZE, 1ull << 32};
	struct pipe *p = pipe_new(5000);
	struct ring out;
	struct ring_rec rec;

	(void)state;
	ring_init_consumer(&out, &p->pos, p->data);
	for (unsigned i = 0; i < ARRAY_SIZE(ahead); i++) {
		atomic_store(&p->pos.tail, 5000 + ahead[i]);
		assert_int_equal(ring_peek(&out, &rec), -EPROTO);
		assert_int_equal(ring_read(&out, &rec, got), -EPROTO);
	}
	/* The consumer's own position is its own, whatever the segment says. */
	atomic_store(&p->pos.tail, 5000);
	atomic_store(&p->pos.head, 1);
	assert_int_equal(ring_read(&out, &rec, got), 0);
	pipe_free(p);
}

static void
hostile_head(void **state)
{
	static const uint64_t ahead[] = {1, SHM_RING_SIZE, UINT64_MAX / 2, 1ull << 32};
	struct pipe *p = pipe_new(5000);
	struct ring in;
	struct ring_rec rec = record(10);

	(void)state;
	ring_init_producer(&in, &p->pos, p->data);
	for (unsigned i = 0; i < ARRAY_SIZE(ahead); i++) {
		atomic_store(&p->pos.head, 5000 + ahead[i]);
		assert_int_equal(ring_space(&in), -EPROTO);
		assert_int_equal(ring_write(&in, &rec, payload), -EPROTO);
	}
	/* Further behind than the ring is long. */
	atomic_store(&p->pos.head, 5000 - (uint64_t)SHM_RING_SIZE - 1);
	assert_int_equal(ring_write(&in, &rec, payload), -EPROTO);
	atomic_store(&p->pos.head, 5000 - (uint64_t)SHM_RING_SIZE);
	assert_int_equal(ring_write(&in, &rec, payload), -EAGAIN);
	pipe_free(p);
}

static void
hostile_length(void **state)
{
	static const uint32_t length[] = {RING_PAYLOAD_MAX + 1, SHM_RING_SIZE, 0x7fffffff,
					  0xffffffff, 0xfffffff0};
	struct pipe *p = pipe_new(0);
	struct ring out;
	struct ring_rec rec;

	(void)state;
	ring_init_consumer(&out, &p->pos, p->data);
	for (unsigned i = 0; i < ARRAY_SIZE(length); i++) {
		struct ring_rec bad = record(length[i]);

		memcpy(p->data, &bad, sizeof(bad));
		atomic_store(&p->pos.tail, SHM_RING_SIZE);
		assert_int_equal(ring_read(&out, &rec, got), -EPROTO);
	}
	/* Within the limit, but more than was published. */
	for (uint32_t there = 0; there < 40; there++) {
		struct ring_rec bad = record(there + 1);

		memcpy(p->data, &bad, sizeof(bad));
		atomic_store(&p->pos.tail, HDR + there);
		assert_int_equal(ring_peek(&out, &rec), -EPROTO);
		assert_int_equal(ring_read(&out, &rec, got), -EPROTO);
	}
	pipe_free(p);
}

/* Random garbage in data and positions: an error or a record within bounds. */
static void
garbage(void **state)
{
	uint64_t x = 88172645463325252ull;
	struct pipe *p = pipe_new(0);

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct ring in, out;
		struct ring_rec rec = record(i % 100);
		int r;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(p->data + x % (SHM_RING_SIZE - 8), &x, 8);
		atomic_store(&p->pos.head, i % 3 ? x >> 40 : x);
		atomic_store(&p->pos.tail, i % 5 ? (x >> 40) + (x & 0x1ffff) : x);
		ring_init_consumer(&out, &p->pos, p->data);
		ring_init_producer(&in, &p->pos, p->data);
		r = ring_read(&out, &rec, got);
		assert_true(r == 0 || r == -EPROTO || (r == 1 && rec.length <= RING_PAYLOAD_MAX));
		rec = record(i % 100);
		r = ring_write(&in, &rec, payload);
		assert_true(r == 0 || r == -EPROTO || r == -EAGAIN);
	}
	pipe_free(p);
}

/* --- at full speed: the same body as threads and as processes ---------------- */

#define RECORDS 30000u

static uint32_t
nth_length(uint32_t i)
{
	return (i * 2654435761u) % (i % 50 == 0 ? RING_PAYLOAD_MAX + 1 : 300);
}

static int
produce(void *arg)
{
	struct pipe *p = arg;
	struct ring in;
	uint8_t buf[RING_PAYLOAD_MAX];

	ring_init_producer(&in, &p->pos, p->data);
	for (uint32_t i = 0; i < RECORDS; i++) {
		struct ring_rec rec = {
		    .length = nth_length(i), .type = (uint8_t)i, .stream = i, .lease = ~i};
		int r;

		memset(buf, (int)(i % 251), rec.length);
		while ((r = ring_write(&in, &rec, buf)) == -EAGAIN)
			(void)sched_yield();
		if (r != 0)
			return 1;
	}
	return 0;
}

static int
consume(struct pipe *p)
{
	struct ring out;

	ring_init_consumer(&out, &p->pos, p->data);
	for (uint32_t i = 0; i < RECORDS; i++) {
		struct ring_rec rec;
		int r;

		while ((r = ring_read(&out, &rec, got)) == 0)
			(void)sched_yield();
		if (r != 1 || rec.stream != i || rec.lease != ~i || rec.length != nth_length(i))
			return 1;
		for (uint32_t k = 0; k < rec.length; k++)
			if (got[k] != i % 251)
				return 2;
	}
	return 0;
}

static void *
produce_thread(void *arg)
{
	return (void *)(intptr_t)produce(arg);
}

static void
between_threads(void **state)
{
	struct pipe *p = pipe_new(0);
	pthread_t thread;
	void *r;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, produce_thread, p), 0);
	assert_int_equal(consume(p), 0);
	assert_int_equal(pthread_join(thread, &r), 0);
	assert_null(r);
	pipe_free(p);
}

static void
between_processes(void **state)
{
	struct pipe *p = pipe_new(0);
	pid_t pid;

	(void)state;
	pid = testproc_start(produce, p);
	assert_int_equal(consume(p), 0);
	assert_int_equal(testproc_wait(pid), 0);
	pipe_free(p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(wraps_everywhere), cmocka_unit_test(every_length_class),
	    cmocka_unit_test(fills_up),		cmocka_unit_test(taken_up_where_it_stands),
	    cmocka_unit_test(hostile_tail),	cmocka_unit_test(hostile_head),
	    cmocka_unit_test(hostile_length),	cmocka_unit_test(garbage),
	    cmocka_unit_test(between_threads),	cmocka_unit_test(between_processes),
	};

	return cmocka_run_group_tests_name("ring", tests, setup, NULL);
}
