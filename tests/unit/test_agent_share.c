/* SPDX-License-Identifier: MIT
 *
 * test_agent_share.c - bytes that the agent moves through pages it shares with its
 * host, instead of through the channel. Needs root: nobody else may know where a
 * page is.
 */
#include "tests/lib/agent_peer.h"

#include "shm/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MUCH (3u << 20) /* several times round a ring */

static int
setup(void **state)
{
	if (geteuid() != 0) {
		print_message("# skipped: only root may know where a page of memory is\n");
		skip();
	}
	return peer_setup_renew(state);
}

/* The host offers, or does not. */
static void
offer(struct peer *p, bool yes)
{
	const struct proto_renew renew = {.wall_ns = 1u << 30};

	peer_renew_so(p, &renew, yes ? PROTO_F_SHARE : 0);
}

/* What `seq 1 400000` prints. */
static char *
numbers(size_t *len)
{
	char *text = malloc(MUCH), *at = text;

	assert_non_null(text);
	for (int i = 1; i <= 400000; i++)
		at += sprintf(at, "%d\n", i);
	*len = (size_t)(at - text);
	return text;
}

static void
assert_numbers(const struct peer_run *r)
{
	size_t len;
	char *text = numbers(&len);

	assert_int_equal(r->exit.code, 0);
	assert_int_equal(r->out_len, len);
	assert_memory_equal(r->out, text, len);
	free(text);
}

/* A command that prints much, to its end. */
static void
print_numbers(struct peer *p, uint32_t stream)
{
	peer_sh(p, stream, "seq 1 400000", 0);
	assert_numbers(peer_wait(p, stream));
}

static void
no_offer_no_pages(void **state)
{
	struct peer *p = *state;

	print_numbers(p, 1);
	offer(p, false);
	print_numbers(p, 2);
	assert_int_equal(p->shares, 0);
}

static void
little_needs_no_pages(void **state)
{
	struct peer *p = *state;

	offer(p, true);
	peer_sh(p, 1, "seq 1 2000", 0);
	assert_int_equal(peer_wait(p, 1)->exit.code, 0);
	assert_int_equal(p->shares, 0);
}

static void
output_goes_past_the_channel(void **state)
{
	struct peer *p = *state;

	offer(p, true);
	print_numbers(p, 1);
	assert_int_equal(p->shares, 1);
	assert_true(p->shared > MUCH / 4);
	/* The same pages again, and both kinds of frames beside each other. */
	peer_sh(p, 2, "seq 1 400000", 0);
	peer_sh(p, 3, "seq 1 400000 >&2; seq 1 400000", 0);
	assert_numbers(peer_wait(p, 3));
	assert_numbers(peer_wait(p, 2));
	assert_int_equal(p->shares, 1);
}

/* A host that never says it has taken anything: the channel does. */
static void
full_pages_stop_nothing(void **state)
{
	struct peer *p = *state;

	offer(p, true);
	p->tells_nothing = true;
	print_numbers(p, 1);
	assert_int_equal(p->shares, 1);
	assert_true(p->shared > 0 && p->shared <= PROTO_RING_BYTES);
}

/* After a renewal the host knows of no pages. */
static void
told_again_after_a_renewal(void **state)
{
	struct peer *p = *state;

	offer(p, true);
	print_numbers(p, 1);
	offer(p, true);
	print_numbers(p, 2);
	assert_int_equal(p->shares, 2);
	offer(p, false);
	p->shared = 0;
	print_numbers(p, 3);
	assert_int_equal(p->shared, 0);
}

static void
send_shared(struct peer *p, uint32_t stream, const char *bytes, uint32_t len, bool eof)
{
	agent_pages_put(&p->pages, bytes, len);
	peer_send(p, PROTO_STDIN, PROTO_F_SHARED | (eof ? PROTO_F_EOF : 0), stream, &len,
		  sizeof(len));
}

static void
input_comes_through_the_pages(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	offer(p, true);
	print_numbers(p, 1);
	/* Often enough to go over the ring's end. */
	for (uint32_t i = 0; i < 60; i++) {
		static char bytes[PROTO_WINDOW - 100];

		memset(bytes, 'a' + (int)i % 26, sizeof(bytes));
		peer_sh(p, 10 + i, "cat; echo end", PROTO_EXEC_STDIN);
		send_shared(p, 10 + i, bytes, sizeof(bytes), false);
		peer_send(p, PROTO_STDIN, 0, 10 + i, "between", 7);
		send_shared(p, 10 + i, "last", 4, true);
		r = peer_wait(p, 10 + i);
		assert_int_equal(r->out_len, sizeof(bytes) + 7 + 4 + 4);
		assert_memory_equal(r->out, bytes, sizeof(bytes));
		assert_string_equal(r->out + sizeof(bytes), "betweenlastend\n");
		assert_int_equal(agent_pages_left(&p->pages), 0);
	}
}

/* Nobody can tell any more what comes next: the machine ends. */
static void
input_in_no_pages_ends_the_machine(void **state)
{
	struct peer *p = peer_new(false);

	(void)state;
	peer_sh(p, 1, "cat", PROTO_EXEC_STDIN);
	peer_send(p, PROTO_STDIN, PROTO_F_SHARED, 1, &(uint32_t){10}, 4);
	peer_wait_gone(p, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(no_offer_no_pages),
	    TEST(little_needs_no_pages),
	    TEST(output_goes_past_the_channel),
	    TEST(full_pages_stop_nothing),
	    TEST(told_again_after_a_renewal),
	    TEST(input_comes_through_the_pages),
	    cmocka_unit_test(input_in_no_pages_ends_the_machine),
	};

	return cmocka_run_group_tests_name("the agent's shared pages", tests, NULL, NULL);
}
