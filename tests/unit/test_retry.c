/* SPDX-License-Identifier: MIT
 *
 * test_retry.c - changes that find the pool lock held are made later, in order
 * (supervisor/retry.c over evloop.c).
 */
#include "supervisor/retry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct evloop *loop;
static struct retry retry;
static struct seg *seg;
static char order[32];
static unsigned held, tries, stop_after;

struct op {
	struct retry_op op;
	char name;
	struct op *starts; /* when done, start this one */
};

/* The lock is held for the first `held` tries of all. */
static int
attempt(void *arg)
{
	struct op *op = arg;

	tries++;
	if (held > 0) {
		held--;
		return -EBUSY;
	}
	order[strlen(order)] = op->name;
	if (op->starts != NULL)
		retry_start(&retry, &op->starts->op);
	if (strlen(order) >= stop_after)
		evloop_stop(loop);
	return 0;
}

static void
op_init(struct op *op, char name)
{
	*op = (struct op){.name = name};
	op->op.attempt = attempt;
	op->op.arg = op;
}

static void
run_until(unsigned done)
{
	stop_after = done;
	assert_int_equal(evloop_run(loop), 0);
}

static void
test_done_at_once_when_free(void **state)
{
	struct op a;

	(void)state;
	op_init(&a, 'a');
	retry_start(&retry, &a.op);
	assert_string_equal(order, "a");
	assert_false(a.op.queued);
	assert_int_equal(retry.timer.at_ns, 0);
}

static void
test_order_is_kept(void **state)
{
	struct op a, b, c;

	(void)state;
	op_init(&a, 'a');
	op_init(&b, 'b');
	op_init(&c, 'c');
	held = 5;
	retry_start(&retry, &a.op);
	retry_start(&retry, &b.op);
	retry_start(&retry, &a.op); /* already queued: no second try */
	retry_start(&retry, &c.op);
	assert_int_equal(tries, 3);
	assert_string_equal(order, "");
	run_until(3);
	assert_string_equal(order, "abc");
	assert_int_equal(tries, 8);
	assert_false(a.op.queued || b.op.queued || c.op.queued);
}

static void
test_cancelled_ones_are_not_done(void **state)
{
	struct op a, b, c;

	(void)state;
	op_init(&a, 'a');
	op_init(&b, 'b');
	op_init(&c, 'c');
	held = 3;
	retry_start(&retry, &a.op);
	retry_start(&retry, &b.op);
	retry_start(&retry, &c.op);
	retry_cancel(&retry, &c.op);
	retry_cancel(&retry, &a.op);
	retry_cancel(&retry, &a.op);
	held = 1;
	retry_start(&retry, &c.op); /* the end of the queue is sound */
	run_until(2);
	assert_string_equal(order, "bc");
}

static void
test_one_may_start_another(void **state)
{
	struct op a, b;

	(void)state;
	op_init(&a, 'a');
	op_init(&b, 'b');
	a.starts = &b;
	held = 1;
	retry_start(&retry, &a.op);
	run_until(2);
	assert_string_equal(order, "ab");
}

static void
test_pauses_grow_to_their_limit(void **state)
{
	struct op a;
	uint64_t began = now_ns(), took;

	(void)state;
	op_init(&a, 'a');
	held = 8; /* 1 + 2 + 4 + 8 + 16 + 20 + 20 + 20 ms */
	retry_start(&retry, &a.op);
	run_until(1);
	took = now_ns() - began;
	assert_true(took >= 91000000ull);
	assert_true(took < 10000000000ull);
}

static int
setup(void **state)
{
	const struct seg_params params = {
	    .name = "test",
	    .accel = "tcg",
	    .why = "test",
	    .nslots = 1,
	};
	char err[256];

	(void)state;
	memset(order, 0, sizeof(order));
	held = tries = 0;
	if (evloop_new(&loop) < 0 || seg_create(&seg, &params, err, sizeof(err)) < 0)
		return -1;
	retry_init(&retry, loop, seg);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	evloop_free(loop);
	seg_close(seg);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_done_at_once_when_free),	    TEST(test_order_is_kept),
	    TEST(test_cancelled_ones_are_not_done), TEST(test_one_may_start_another),
	    TEST(test_pauses_grow_to_their_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
