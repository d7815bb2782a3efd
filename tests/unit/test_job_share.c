/* SPDX-License-Identifier: MIT
 *
 * test_job_share.c - the pages that a guest shares: bytes that go past the channel,
 * both ways, and guests and clients that lie about them.
 */
#include "tests/lib/jobtest.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define OUT 1u
#define IN (1u + PROTO_RING_PAGES)

static uint64_t page[PROTO_SHARE_PAGES];
static uint32_t out_pos, in_pos; /* the guest's */

/* Memory whose shared pages lie in no order, and not side by side. */
static void
make_memory(void)
{
	fake.memory.len = (size_t)2 * PROTO_SHARE_PAGES * PROTO_PAGE;
	fake.memory.bytes = calloc(1, fake.memory.len);
	assert_non_null(fake.memory.bytes);
	for (unsigned i = 0; i < PROTO_SHARE_PAGES; i++)
		page[i] = (uint64_t)PROTO_PAGE * ((i * 31u + 7u) % PROTO_SHARE_PAGES * 2u);
	out_pos = in_pos = 0;
}

static int
setup(void **state)
{
	int r = jobtest_setup(state);

	if (r == 0)
		make_memory();
	return r;
}

/* The host has offered, the guest has shared. */
static void
share_pages(struct fixture *f)
{
	assert_int_equal(jobtest_renew(f), PROTO_F_SHARE);
	guest_says(PROTO_SHARE, 0, page, sizeof(page));
	pump_all(f);
	assert_string_equal(f->job->failure, "");
}

static uint8_t *
byte_at(unsigned ring, uint32_t pos)
{
	pos %= PROTO_RING_BYTES;
	return fake.memory.bytes + page[ring + pos / PROTO_PAGE] + pos % PROTO_PAGE;
}

static struct proto_share *
words(void)
{
	return (struct proto_share *)(fake.memory.bytes + page[0]);
}

/* The byte that comes n-th. */
static uint8_t
nth(uint32_t n)
{
	return (uint8_t)(n * 7u + n / 4096u);
}

static void
guest_sends(uint32_t stream, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++, out_pos++)
		*byte_at(OUT, out_pos) = nth(out_pos);
	guest_says_so(PROTO_STDOUT, PROTO_F_SHARED, stream, &len, sizeof(len));
}

/* The client got these, from the n-th on. */
static void
assert_heard(struct peer *peer, uint32_t n, uint32_t len)
{
	struct ring_rec rec;

	assert_true(client_hears(peer, &rec));
	assert_int_equal(rec.type, PROTO_STDOUT);
	assert_int_equal(rec.flags, 0);
	assert_int_equal(rec.length, len);
	for (uint32_t i = 0; i < len; i++)
		assert_int_equal(peer->payload[i], nth(n + i));
}

static void
grant(struct fixture *f, uint32_t stream, uint32_t bytes)
{
	assert_int_equal(client_says(&f->holder, PROTO_CREDIT, 0, stream, &bytes, sizeof(bytes)),
			 0);
	pump_all(f);
}

static void
only_offered_where_memory_can_be_reached(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(jobtest_renew(f), PROTO_F_SHARE);
	free(fake.memory.bytes);
	fake.memory.bytes = NULL;
	assert_int_equal(jobtest_renew(f), 0);
	guest_says(PROTO_SHARE, 0, page, sizeof(page));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "SHARE"));
}

static void
output_comes_out_of_the_pages(void **state)
{
	static const uint32_t len[] = {16384, 1, 16383, 5000, 4096};
	struct fixture *f = *state;
	uint32_t stream, sent = 0;

	share_pages(f);
	stream = start_command(f, &f->holder, 7, 0);
	grant(f, 7, 1u << 22);
	/* Several times round the ring. */
	for (unsigned i = 0; sent < 3 * PROTO_RING_BYTES; sent += len[i % ARRAY_SIZE(len)], i++) {
		guest_sends(stream, len[i % ARRAY_SIZE(len)]);
		pump_all(f);
		assert_heard(&f->holder, sent, len[i % ARRAY_SIZE(len)]);
		assert_true(out_pos - words()->out_taken <= PROTO_RING_BYTES / 4);
	}
	/* Frames with their bytes in them come in their order between the others. */
	guest_says(PROTO_STDOUT, stream, "inline", 6);
	guest_sends(stream, 10);
	pump_all(f);
	assert_true(client_hears(&f->holder, &(struct ring_rec){0}));
	assert_memory_equal(f->holder.payload, "inline", 6);
	assert_heard(&f->holder, sent, 10);
	assert_string_equal(f->job->failure, "");
}

/* What the client says next on a stream of the guest's: is it in the pages? */
static bool
guest_gets(struct fixture *f, uint32_t client_stream, uint32_t len, uint8_t flags)
{
	static uint8_t bytes[PROTO_PAYLOAD_MAX], payload[PROTO_PAYLOAD_MAX];
	struct proto_hdr hdr = {0};
	uint32_t count;

	for (uint32_t i = 0; i < len; i++)
		bytes[i] = nth(in_pos + i);
	assert_int_equal(client_says(&f->holder, PROTO_STDIN, flags, client_stream, bytes, len), 0);
	pump_all(f);
	while (guest_hears(&hdr, payload) && hdr.type != PROTO_STDIN)
		continue;
	assert_int_equal(hdr.type, PROTO_STDIN);
	assert_int_equal(hdr.flags & PROTO_F_EOF, flags);
	if ((hdr.flags & PROTO_F_SHARED) == 0) {
		assert_int_equal(hdr.length, len);
		assert_memory_equal(payload, bytes, len);
		return false;
	}
	memcpy(&count, payload, sizeof(count));
	assert_int_equal(count, len);
	for (uint32_t i = 0; i < len; i++, in_pos++)
		assert_int_equal(*byte_at(IN, in_pos), nth(in_pos));
	return true;
}

static void
input_goes_into_the_pages(void **state)
{
	const uint32_t much = 8u << 20;
	struct fixture *f = *state;
	uint32_t stream, n = 0;

	share_pages(f);
	stream = start_file(f, &f->holder, 3, PROTO_FILE_WRITE);
	guest_says(PROTO_CREDIT, stream, &much, sizeof(much));
	pump_all(f);
	assert_false(guest_gets(f, 3, 100, 0));
	/* The guest takes nothing: the pages fill up, and the channel goes on. */
	while (guest_gets(f, 3, 16000, 0))
		n++;
	assert_int_equal(n, PROTO_RING_BYTES / 16000);
	words()->in_taken = in_pos - 8192;
	for (unsigned i = 0; i < 100; i++) {
		assert_true(guest_gets(f, 3, 16384, 0));
		words()->in_taken = in_pos;
	}
	/* More than was ever put there: a lie, which only costs the guest the pages. */
	while (guest_gets(f, 3, 16384, 0))
		continue;
	words()->in_taken = in_pos + 1;
	assert_false(guest_gets(f, 3, 16384, 0));
	words()->in_taken = in_pos - 3 * PROTO_RING_BYTES;
	assert_false(guest_gets(f, 3, 16384, 0));
	words()->in_taken = in_pos;
	assert_true(guest_gets(f, 3, 16384, PROTO_F_EOF));
	assert_string_equal(f->job->failure, "");
}

static void
a_renewal_forgets_the_pages(void **state)
{
	struct fixture *f = *state;
	uint32_t len = 10, stream;

	share_pages(f);
	share_pages(f); /* and may share them again */
	assert_int_equal(jobtest_renew(f), PROTO_F_SHARE);
	stream = start_command(f, &f->holder, 7, 0);
	guest_says_so(PROTO_STDOUT, PROTO_F_SHARED, stream, &len, sizeof(len));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "broke the protocol"));
}

static void
the_window_counts_them(void **state)
{
	struct fixture *f = *state;
	uint32_t stream;

	share_pages(f);
	stream = start_command(f, &f->holder, 7, 0);
	guest_sends(stream, PROTO_WINDOW);
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	guest_sends(stream, 1);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "broke the protocol"));
}

static void
lengths_that_cannot_be(void **state)
{
	struct fixture *f = *state;
	uint32_t stream, len = 0;

	share_pages(f);
	stream = start_command(f, &f->holder, 7, 0);
	grant(f, 7, 1u << 20);
	guest_says_so(PROTO_STDOUT, PROTO_F_SHARED, stream, &len, sizeof(len));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "broke the protocol"));
	f->job->failure[0] = '\0';
	len = PROTO_PAYLOAD_MAX + 1;
	guest_says_so(PROTO_STDERR, PROTO_F_SHARED, stream, &len, sizeof(len));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "broke the protocol"));
}

static void
pages_that_cannot_be(void **state)
{
	struct fixture *f = *state;
	uint64_t good = page[0];

	assert_int_equal(jobtest_renew(f), PROTO_F_SHARE);
	page[0] = UINT64_MAX - PROTO_PAGE + 1;
	guest_says(PROTO_SHARE, 0, page, sizeof(page));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "SHARE"));
	f->job->failure[0] = '\0';
	page[0] = good;
	page[PROTO_SHARE_PAGES - 1]++;
	guest_says(PROTO_SHARE, 0, page, sizeof(page));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "SHARE"));
	f->job->failure[0] = '\0';
	/* Outside of memory: found when it is used. */
	page[PROTO_SHARE_PAGES - 1] = fake.memory.len;
	page[OUT] = UINT64_MAX - PROTO_PAGE + 1;
	guest_says(PROTO_SHARE, 0, page, sizeof(page));
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	guest_says_so(PROTO_STDOUT, PROTO_F_SHARED, start_command(f, &f->holder, 7, 0),
		      &(uint32_t){10}, 4);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "broke the protocol"));
}

static void
shared_twice(void **state)
{
	struct fixture *f = *state;

	share_pages(f);
	guest_says(PROTO_SHARE, 0, page, sizeof(page));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "SHARE"));
}

/* A client has no pages, and cannot speak of the guest's. */
static void
a_client_shares_nothing(void **state)
{
	struct fixture *f = *state;

	share_pages(f);
	(void)start_file(f, &f->holder, 3, PROTO_FILE_WRITE);
	assert_int_equal(
	    client_says(&f->holder, PROTO_STDIN, PROTO_F_SHARED, 3, &(uint32_t){10}, 4), 0);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "malformed"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, jobtest_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(only_offered_where_memory_can_be_reached),
	    TEST(output_comes_out_of_the_pages),
	    TEST(input_goes_into_the_pages),
	    TEST(a_renewal_forgets_the_pages),
	    TEST(the_window_counts_them),
	    TEST(lengths_that_cannot_be),
	    TEST(pages_that_cannot_be),
	    TEST(shared_twice),
	    TEST(a_client_shares_nothing),
	};

	return cmocka_run_group_tests_name("shared pages", tests, NULL, NULL);
}
