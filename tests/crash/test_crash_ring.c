/* SPDX-License-Identifier: MIT
 *
 * test_crash_ring.c - a producer or a consumer of a ring dies at each step of a
 * transfer, and another one takes its place.
 */
#include "shm/ring.h"
#include "tests/lib/crash_point.h"
#include "tests/lib/testproc.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define RECORDS 4u

struct pipe {
	struct shm_ring pos;
	uint8_t data[SHM_RING_SIZE];
	_Atomic uint32_t done; /* records that the child has finished with */
	const char *point;
	uint32_t nth;
	struct crash_log *log;
};

static uint32_t
length_of(uint32_t i)
{
	return i * 1000;
}

static int
write_record(struct ring *ring, uint32_t i)
{
	struct ring_rec rec = {.length = length_of(i), .type = 1, .stream = i};
	uint8_t payload[RECORDS * 1000];

	memset(payload, (int)(i + 1), sizeof(payload));
	return ring_write(ring, &rec, payload);
}

/* 1: record i, whole. 0: nothing there. Else something is wrong. */
static int
read_record(struct ring *ring, uint32_t i)
{
	static uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	int r = ring_read(ring, &rec, payload);

	if (r != 1)
		return r;
	if (rec.stream != i || rec.length != length_of(i))
		return -1;
	for (uint32_t k = 0; k < rec.length; k++)
		if (payload[k] != i + 1)
			return -2;
	return 1;
}

static void
arm(const struct pipe *p)
{
	if (p->nth > 0)
		crash_arm(p->point, p->nth, SIGKILL);
	crash_record(p->log);
}

static int
produce(void *arg)
{
	struct pipe *p = arg;
	struct ring ring;

	arm(p);
	ring_init_producer(&ring, &p->pos, p->data);
	for (uint32_t i = 0; i < RECORDS; i++) {
		if (write_record(&ring, i) != 0)
			return 1;
		atomic_store(&p->done, i + 1);
	}
	return 0;
}

static int
consume(void *arg)
{
	struct pipe *p = arg;
	struct ring ring;

	arm(p);
	ring_init_consumer(&ring, &p->pos, p->data);
	for (uint32_t i = 0; i < RECORDS; i++) {
		if (read_record(&ring, i) != 1)
			return 1;
		atomic_store(&p->done, i + 1);
	}
	return 0;
}

/* A pipe whose records will cross the end of the ring. */
static struct pipe *
pipe_new(uint32_t before_end)
{
	struct pipe *p =
	    mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	atomic_store(&p->pos.head, SHM_RING_SIZE - before_end);
	atomic_store(&p->pos.tail, SHM_RING_SIZE - before_end);
	return p;
}

/* What a dead producer left: its finished records, perhaps one more, all whole.
 * A new one goes on behind them. */
static void
after_producer(struct pipe *p)
{
	uint32_t done = atomic_load(&p->done), n = 0;
	struct ring in, out;

	ring_init_consumer(&out, &p->pos, p->data);
	while (n < RECORDS && read_record(&out, n) == 1)
		n++;
	assert_true(n == done || n == done + 1);
	ring_init_producer(&in, &p->pos, p->data);
	for (uint32_t i = 0; i < RECORDS; i++)
		assert_int_equal(write_record(&in, i), 0);
	for (uint32_t i = 0; i < RECORDS; i++)
		assert_int_equal(read_record(&out, i), 1);
	assert_int_equal(read_record(&out, 0), 0);
}

/* What a dead consumer left: none of the records it had not finished is lost. */
static void
after_consumer(struct pipe *p)
{
	uint32_t done = atomic_load(&p->done), i = done;
	struct ring in, out, probe;
	struct ring_rec rec;

	ring_init_consumer(&probe, &p->pos, p->data);
	/* It may have freed the record it had just copied. */
	if (ring_peek(&probe, &rec) == 1 ? rec.stream == done + 1 : done + 1 == RECORDS)
		i = done + 1;
	ring_init_consumer(&out, &p->pos, p->data);
	for (; i < RECORDS; i++)
		assert_int_equal(read_record(&out, i), 1);
	assert_int_equal(read_record(&out, 0), 0);
	ring_init_producer(&in, &p->pos, p->data);
	assert_int_equal(ring_space(&in), RING_PAYLOAD_MAX);
}

static void
fill(struct pipe *p)
{
	struct ring in;

	ring_init_producer(&in, &p->pos, p->data);
	for (uint32_t i = 0; i < RECORDS; i++)
		assert_int_equal(write_record(&in, i), 0);
}

static unsigned
die_everywhere(int (*body)(void *), uint32_t before_end)
{
	bool producer = body == produce;
	struct crash_log *log = crash_log_new();
	struct pipe *p = pipe_new(before_end);
	unsigned deaths = 0;

	p->log = log;
	if (!producer)
		fill(p);
	assert_int_equal(testproc_wait(testproc_start(body, p)), 0);
	(void)munmap(p, sizeof(*p));
	for (uint32_t k = 0; k < log->n; k++)
		for (uint32_t nth = 1; nth <= log->point[k].hits; nth++) {
			p = pipe_new(before_end);
			if (!producer)
				fill(p);
			p->point = log->point[k].name;
			p->nth = nth;
			assert_int_equal(testproc_wait(testproc_start(body, p)), 1000 + SIGKILL);
			if (producer)
				after_producer(p);
			else
				after_consumer(p);
			(void)munmap(p, sizeof(*p));
			deaths++;
		}
	return deaths;
}

static const uint32_t places[] = {SHM_RING_SIZE, 8, 16, 24, 1500, 5000};

static void
producer_dies(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
		assert_true(die_everywhere(produce, places[i]) >= 5 * RECORDS);
}

static void
consumer_dies(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
		assert_true(die_everywhere(consume, places[i]) >= 3 * RECORDS);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(producer_dies),
	    cmocka_unit_test(consumer_dies),
	};

	return cmocka_run_group_tests_name("crash_ring", tests, NULL, NULL);
}
