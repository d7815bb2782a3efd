/* SPDX-License-Identifier: MIT
 *
 * test_kvm_virtio.c - a virtqueue against drivers that keep the rules and, row
 * by row, against drivers that do not.
 */
#include "kvm/virtio.h"
#include "tests/lib/kvm_ring.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
	struct gmem m;
	struct virtq q;
	struct virtq_chain c;
};

static int
setup(void **state)
{
	static struct fixture f;

	f = (struct fixture){0};
	*state = &f;
	f.q = (struct virtq){
	    .desc = RING_DESC(0),
	    .avail = RING_AVAIL(0),
	    .used = RING_USED(0),
	    .num_max = RING_NUM,
	    .num = RING_NUM,
	    .ready = true,
	};
	return gmem_init(&f.m, RING_MEM, -1);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	gmem_fini(&f->m);
	return 0;
}

static ssize_t
take(struct fixture *f, void *buf, size_t len)
{
	return virtq_move(&f->q, &f->m, &f->c, VIRTQ_FROM_GUEST, buf, len);
}

/* Three descriptors, read in two goes that end inside a descriptor. */
static void
read_chain(void **state)
{
	struct fixture *f = *state;
	char buf[32] = "";
	uint32_t id, len;

	ring_desc(&f->m, 0, 5, RING_BUF(0, 0), 4, RING_NEXT, 2);
	ring_desc(&f->m, 0, 2, RING_BUF(0, 1), 3, RING_NEXT, 7);
	ring_desc(&f->m, 0, 7, RING_BUF(0, 2), 5, 0, 0);
	assert_int_equal(gmem_write(&f->m, RING_BUF(0, 0), "abcd", 4), 0);
	assert_int_equal(gmem_write(&f->m, RING_BUF(0, 1), "efg", 3), 0);
	assert_int_equal(gmem_write(&f->m, RING_BUF(0, 2), "hijkl", 5), 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 0);
	ring_offer(&f->m, 0, 5);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	assert_int_equal(take(f, buf, 6), 6);
	assert_true(f->c.more);
	assert_int_equal(take(f, buf + 6, 20), 6);
	assert_string_equal(buf, "abcdefghijkl");
	assert_false(f->c.more);
	assert_int_equal(take(f, buf, 20), 0);
	assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), 0);
	assert_int_equal(ring_used(&f->m, 0), 1);
	ring_used_elem(&f->m, 0, 0, &id, &len);
	assert_int_equal(id, 5);
	assert_int_equal(len, 0);
}

static void
write_chain(void **state)
{
	struct fixture *f = *state;
	char in[] = "0123456789", out[8] = "";
	uint32_t id, len;

	ring_desc(&f->m, 0, 0, RING_BUF(0, 0), 4, RING_NEXT | RING_WRITE, 1);
	ring_desc(&f->m, 0, 1, RING_BUF(0, 1), 4, RING_WRITE, 0);
	ring_offer(&f->m, 0, 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	assert_int_equal(virtq_move(&f->q, &f->m, &f->c, VIRTQ_TO_GUEST, in, 10), 8);
	assert_int_equal(virtq_push(&f->q, &f->m, &f->c, f->c.bytes), 0);
	assert_int_equal(gmem_read(&f->m, RING_BUF(0, 1), out, 4), 0);
	assert_memory_equal(out, "4567", 4);
	ring_used_elem(&f->m, 0, 0, &id, &len);
	assert_int_equal(len, 8);
}

/* Indices wrap at 65536, and rings at their length. */
static void
wraps(void **state)
{
	struct fixture *f = *state;
	char c;

	for (unsigned i = 0; i < 70000; i++) {
		char want = (char)i;

		ring_put(&f->m, 0, i % RING_NUM, &want, 1, 0);
		assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
		assert_int_equal(take(f, &c, 1), 1);
		assert_int_equal(c, want);
		assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), 0);
		assert_int_equal(ring_used(&f->m, 0), (uint16_t)(i + 1));
	}
}

/* Set-ups that must not be enabled. */
static void
bad_setups(void **state)
{
	const struct virtq good = ((struct fixture *)*state)->q;
	static const struct {
		const char *what;
		int num;
		uint64_t desc, avail, used; /* 0: as in good */
	} rows[] = {
	    {"size 0", 0, 0, 0, 0},
	    {"size 3", 3, 0, 0, 0},
	    {"size 7", 7, 0, 0, 0},
	    {"more than offered", 16, 0, 0, 0},
	    {"descriptors not aligned", 8, RING_DESC(0) + 8, 0, 0},
	    {"available ring not aligned", 8, 0, RING_AVAIL(0) + 1, 0},
	    {"used ring not aligned", 8, 0, 0, RING_USED(0) + 2},
	    {"descriptors beyond the end", 8, RING_MEM - 112, 0, 0},
	    {"available ring beyond the end", 8, 0, RING_MEM - 20, 0},
	    {"used ring beyond the end", 8, 0, 0, RING_MEM - 64},
	    {"descriptors wrap", 8, UINT64_MAX - 15, 0, 0},
	    {"available ring wraps", 8, 0, UINT64_MAX - 1, 0},
	    {"used ring wraps", 8, 0, 0, UINT64_MAX - 3},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fixture *f = *state;
		struct virtq q = good;

		print_message("# %s\n", rows[i].what);
		q.num = (uint16_t)rows[i].num;
		q.desc = rows[i].desc ? rows[i].desc : q.desc;
		q.avail = rows[i].avail ? rows[i].avail : q.avail;
		q.used = rows[i].used ? rows[i].used : q.used;
		assert_int_equal(virtq_check(&q, &f->m), -EPROTO);
		/* and if it were enabled all the same, every use refuses it */
		assert_int_equal(virtq_pop(&q, &f->m, &f->c), -EPROTO);
		assert_int_equal(virtq_push(&q, &f->m, &f->c, 0), -EPROTO);
	}
}

static void
pop_fails(struct fixture *f)
{
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), -EPROTO);
}

static void
avail_index_jumps(void **state)
{
	struct fixture *f = *state;

	ring_store16(&f->m, RING_AVAIL(0) + 2, RING_NUM + 1);
	pop_fails(f);
	ring_store16(&f->m, RING_AVAIL(0) + 2, 0x8000);
	pop_fails(f);
	assert_int_equal(virtq_ask_notify(&f->q, &f->m), -EPROTO);
	ring_store16(&f->m, RING_AVAIL(0) + 2, 0);
	ring_put(&f->m, 0, 0, "x", 1, 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	ring_store16(&f->m, RING_AVAIL(0) + 2, 0); /* backwards */
	pop_fails(f);
}

static void
head_out_of_range(void **state)
{
	struct fixture *f = *state;

	ring_offer(&f->m, 0, RING_NUM);
	pop_fails(f);
	ring_store16(&f->m, RING_AVAIL(0) + 4, 0xffff);
	pop_fails(f);
}

static void
not_ready(void **state)
{
	struct fixture *f = *state;

	ring_put(&f->m, 0, 0, "x", 1, 0);
	f->q.ready = false;
	pop_fails(f);
	assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), -EPROTO);
}

/* One descriptor that breaks a rule each, in both directions. */
static void
bad_descriptors(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *what;
		uint64_t addr;
		uint32_t len;
		uint16_t flags;
		enum virtq_dir dir;
	} rows[] = {
	    {"empty", RING_BUF(0, 0), 0, 0, VIRTQ_FROM_GUEST},
	    {"empty, to guest", RING_BUF(0, 0), 0, RING_WRITE, VIRTQ_TO_GUEST},
	    {"behind the end", RING_MEM, 1, 0, VIRTQ_FROM_GUEST},
	    {"over the end", RING_MEM - 4, 5, 0, VIRTQ_FROM_GUEST},
	    {"over the end, to guest", RING_MEM - 4, 5, RING_WRITE, VIRTQ_TO_GUEST},
	    {"wraps", UINT64_MAX - 3, 8, 0, VIRTQ_FROM_GUEST},
	    {"wraps, to guest", UINT64_MAX - 3, 8, RING_WRITE, VIRTQ_TO_GUEST},
	    {"enormous", 0, UINT32_MAX, 0, VIRTQ_FROM_GUEST},
	    {"device memory", 0xd0000000, 4, 0, VIRTQ_FROM_GUEST},
	    {"wrong direction", RING_BUF(0, 0), 4, RING_WRITE, VIRTQ_FROM_GUEST},
	    {"wrong direction, to guest", RING_BUF(0, 0), 4, 0, VIRTQ_TO_GUEST},
	    {"indirect", RING_BUF(0, 0), 16, 4, VIRTQ_FROM_GUEST},
	    {"unknown flag", RING_BUF(0, 0), 16, 0x8000, VIRTQ_FROM_GUEST},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char buf[64] = "";

		print_message("# %s\n", rows[i].what);
		ring_desc(&f->m, 0, 3, rows[i].addr, rows[i].len, rows[i].flags, 0);
		ring_offer(&f->m, 0, 3);
		assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
		assert_int_equal(virtq_move(&f->q, &f->m, &f->c, rows[i].dir, buf, sizeof(buf)),
				 -EPROTO);
	}
}

static void
loop(void **state)
{
	struct fixture *f = *state;
	char buf[64];

	ring_desc(&f->m, 0, 0, RING_BUF(0, 0), 1, RING_NEXT, 1);
	ring_desc(&f->m, 0, 1, RING_BUF(0, 0), 1, RING_NEXT, 0);
	ring_offer(&f->m, 0, 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	assert_int_equal(take(f, buf, sizeof(buf)), -EPROTO);
	/* a loop does not come to life again by being asked in small steps */
	ring_offer(&f->m, 0, 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	for (unsigned i = 0; i < RING_NUM; i++)
		assert_int_equal(take(f, buf, 1), 1);
	assert_int_equal(take(f, buf, 1), -EPROTO);
}

static void
next_out_of_range(void **state)
{
	struct fixture *f = *state;
	char buf[64];

	ring_desc(&f->m, 0, 0, RING_BUF(0, 0), 1, RING_NEXT, RING_NUM);
	ring_desc(&f->m, 0, RING_NUM, RING_BUF(0, 0), 1, 0, 0); /* good, but not in the table */
	ring_offer(&f->m, 0, 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	assert_int_equal(take(f, buf, sizeof(buf)), -EPROTO);
}

/* The driver rewrites descriptors under a chain that is partly used. */
static void
changed_while_used(void **state)
{
	struct fixture *f = *state;
	char buf[64];

	ring_put(&f->m, 0, 0, "abcdefgh", 8, 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	assert_int_equal(take(f, buf, 4), 4);
	ring_desc(&f->m, 0, 0, RING_BUF(0, 0), 2, 0, 0); /* shrinks */
	assert_int_equal(take(f, buf, 4), -EPROTO);
	ring_desc(&f->m, 0, 0, RING_MEM - 6, 8, 0, 0); /* moves out */
	assert_int_equal(take(f, buf, 4), -EPROTO);
	ring_desc(&f->m, 0, 0, RING_BUF(0, 0), 8, RING_WRITE, 0); /* turns round */
	assert_int_equal(take(f, buf, 4), -EPROTO);
	f->q.num = 0; /* and what no register allows: a queue reconfigured under it */
	assert_int_equal(take(f, buf, 4), -EPROTO);
}

/* A chain's bytes never exceed what the used ring's 32 bits can say. */
static void
chain_too_long(void **state)
{
	struct fixture *f = *state;
	char buf[8];

	ring_put(&f->m, 0, 0, "abcdefgh", 8, 0);
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	f->c.bytes = UINT32_MAX - 7;
	assert_int_equal(take(f, buf, 8), -EPROTO);
	f->c.bytes = UINT32_MAX - 8;
	assert_int_equal(take(f, buf, 8), 8);
}

static void
signals_by_flag(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(virtq_want_signal(&f->q, &f->m), 0); /* nothing pushed */
	assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), 0);
	assert_int_equal(virtq_want_signal(&f->q, &f->m), 1);
	assert_int_equal(virtq_want_signal(&f->q, &f->m), 0);
	ring_store16(&f->m, RING_AVAIL(0), 1); /* no interrupts, please */
	assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), 0);
	assert_int_equal(virtq_want_signal(&f->q, &f->m), 0);
}

static void
signals_by_event(void **state)
{
	struct fixture *f = *state;
	uint64_t used_event = RING_AVAIL(0) + 4 + 2 * RING_NUM;

	f->q.event_idx = true;
	ring_store16(&f->m, used_event, 2); /* after the third */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), 0);
		assert_int_equal(virtq_want_signal(&f->q, &f->m), i == 2);
	}
	ring_store16(&f->m, used_event, 5);
	assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), 0);
	assert_int_equal(virtq_push(&f->q, &f->m, &f->c, 0), 0);
	assert_int_equal(virtq_want_signal(&f->q, &f->m), 1); /* passed on the way */
}

static void
asks_for_notification(void **state)
{
	struct fixture *f = *state;
	uint64_t avail_event = RING_USED(0) + 4 + 8 * RING_NUM;

	f->q.event_idx = true;
	ring_put(&f->m, 0, 0, "x", 1, 0);
	assert_int_equal(virtq_ask_notify(&f->q, &f->m), 1); /* look first */
	assert_int_equal(virtq_pop(&f->q, &f->m, &f->c), 1);
	assert_int_equal(virtq_ask_notify(&f->q, &f->m), 0);
	assert_int_equal(ring_load16(&f->m, avail_event), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(read_chain),	  T(write_chain),	 T(wraps),
	    T(bad_setups),	  T(avail_index_jumps),	 T(head_out_of_range),
	    T(not_ready),	  T(bad_descriptors),	 T(loop),
	    T(next_out_of_range), T(changed_while_used), T(chain_too_long),
	    T(signals_by_flag),	  T(signals_by_event),	 T(asks_for_notification),
	};

	return cmocka_run_group_tests_name("kvm virtqueue", tests, NULL, NULL);
}
