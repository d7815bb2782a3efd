/* SPDX-License-Identifier: MIT
 *
 * test_job.c - the worker's job between a real segment and a fake machine whose
 * guest end this test plays, with every frame it likes.
 */
#include "kvm/proto.h"
#include "shm/slot.h"
#include "shm/stat.h"
#include "worker/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define GENERATION 7u

/* The guest end: bytes towards the guest, bytes from it. */
static struct fake {
	uint8_t to_guest[1u << 20], from_guest[1u << 20];
	size_t to_len, from_len, from_off;
	size_t accept; /* bytes the guest still takes */
} fake;

static ssize_t
fake_recv(struct machine *m, void *buf, size_t len)
{
	size_t n = MIN(len, fake.from_len - fake.from_off);

	(void)m;
	memcpy(buf, fake.from_guest + fake.from_off, n);
	fake.from_off += n;
	return (ssize_t)n;
}

static ssize_t
fake_send(struct machine *m, const void *buf, size_t len)
{
	size_t n = MIN(len, fake.accept);

	(void)m;
	memcpy(fake.to_guest + fake.to_len, buf, n);
	fake.to_len += n;
	fake.accept -= n;
	return (ssize_t)n;
}

static const struct machine_ops fake_ops = {.name = "fake", .recv = fake_recv, .send = fake_send};

struct fixture {
	struct seg *seg;
	struct job *job;
	struct ring req, rsp;
	int response;
};

static void
guest_says(uint8_t type, uint32_t stream, const void *payload, uint32_t length)
{
	struct proto_hdr hdr = {.length = length, .type = type, .stream = stream};

	memcpy(fake.from_guest + fake.from_len, &hdr, sizeof(hdr));
	memcpy(fake.from_guest + fake.from_len + sizeof(hdr), payload, length);
	fake.from_len += sizeof(hdr) + length;
}

static int
client_says(struct fixture *f, uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
	    uint32_t length)
{
	struct ring_rec rec = {
	    .length = length, .type = type, .flags = flags, .stream = stream, .lease = GENERATION};

	return ring_write(&f->req, &rec, payload);
}

static void
pump_all(struct fixture *f)
{
	while (job_pump(f->job))
		continue;
}

static int
setup(void **state)
{
	const struct seg_params params = {.name = "job", .accel = "tcg", .why = "", .nslots = 2};
	const struct proto_ready ready = {.version = PROTO_VERSION};
	struct fixture *f = calloc(1, sizeof(*f));
	char err[256];

	memset(&fake, 0, sizeof(fake));
	fake.accept = sizeof(fake.to_guest);
	f->job = calloc(1, sizeof(*f->job));
	if (seg_create(&f->seg, &params, err, sizeof(err)) < 0)
		return -1;
	atomic_store(&f->seg->slot[1].word, slot_word(SLOT_IN_USE, 3, GENERATION));
	job_init(f->job, f->seg, 1, -1, &fake_ops, NULL);
	ring_init_producer(&f->req, &f->seg->chan[1].req, f->seg->chan[1].req_data);
	ring_init_consumer(&f->rsp, &f->seg->chan[1].rsp, f->seg->chan[1].rsp_data);
	guest_says(PROTO_READY, 0, &ready, sizeof(ready));
	pump_all(f);
	*state = f;
	return f->job->ready ? 0 : -1;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	seg_close(f->seg);
	free(f->job);
	free(f);
	return 0;
}

static void
start_command(struct fixture *f, uint32_t stream, uint32_t timeout_ms)
{
	struct {
		struct proto_exec exec;
		char strings[16];
	} req = {{.size = sizeof(req), .argc = 1, .timeout_ms = timeout_ms}, "true"};

	assert_int_equal(client_says(f, PROTO_EXEC, 0, stream, &req, sizeof(req)), 0);
	pump_all(f);
	assert_string_equal(f->job->failure, "");
}

/* --- tests -------------------------------------------------------------------- */

static void
test_command_there_and_back(void **state)
{
	struct fixture *f = *state;
	struct proto_exit done = {.code = 3};
	uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	struct proto_hdr hdr;

	start_command(f, 5, 0);
	memcpy(&hdr, fake.to_guest, sizeof(hdr));
	assert_int_equal(hdr.type, PROTO_EXEC);
	assert_int_equal(hdr.stream, 5);
	guest_says(PROTO_STDOUT, 5, "hello", 5);
	guest_says(PROTO_EXIT, 5, &done, sizeof(done));
	pump_all(f);
	assert_int_equal(ring_read(&f->rsp, &rec, payload), 1);
	assert_int_equal(rec.type, PROTO_STDOUT);
	assert_int_equal(rec.lease, GENERATION);
	assert_memory_equal(payload, "hello", 5);
	assert_int_equal(ring_read(&f->rsp, &rec, payload), 1);
	assert_int_equal(rec.type, PROTO_EXIT);
	assert_int_equal(f->job->open, 0);
	assert_int_equal(atomic_load(&f->seg->chan[1].counter[C_exec_count]), 1);
}

static void
test_stale_lease_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct ring_rec rec = {.length = 4, .type = PROTO_PING, .lease = GENERATION - 1};

	assert_int_equal(ring_write(&f->req, &rec, "ping"), 0);
	pump_all(f);
	assert_int_equal(fake.to_len, 0);
	assert_string_equal(f->job->failure, "");
}

static void
test_worker_ping_needs_no_guest(void **state)
{
	struct fixture *f = *state;
	uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;

	assert_int_equal(client_says(f, RING_WORKER_PING, 0, 0, "abc", 3), 0);
	pump_all(f);
	assert_int_equal(ring_read(&f->rsp, &rec, payload), 1);
	assert_int_equal(rec.type, RING_WORKER_PONG);
	assert_memory_equal(payload, "abc", 3);
	assert_int_equal(fake.to_len, 0);
}

/* What a guest may not say, each with a stream 5 open and one byte of window used. */
static const struct {
	const char *name;
	uint8_t type;
	uint32_t stream, length;
} forged[] = {
    {"output of a stream that is not open", PROTO_STDOUT, 6, 1},
    {"a second READY", PROTO_READY, 0, sizeof(struct proto_ready)},
    {"PONG without PING", PROTO_PONG, 0, 4},
    {"a host's frame", PROTO_EXEC, 5, 1},
    {"more output than the window", PROTO_STDOUT, 5, PROTO_WINDOW},
    {"exit of the machine's stream", PROTO_EXIT, 0, sizeof(struct proto_exit)},
    {"exit of the wrong size", PROTO_EXIT, 5, 3},
    {"an unknown type", 99, 5, 1},
    {"an oversized frame", PROTO_STDOUT, 5, PROTO_PAYLOAD_MAX + 1},
};

static void
test_forged_frames_end_the_vm(void **state)
{
	static const uint8_t zeros[PROTO_PAYLOAD_MAX + 1];
	void *inner = *state;

	for (size_t i = 0; i < ARRAY_SIZE(forged); i++) {
		struct fixture *f = inner;

		start_command(f, 5, 0);
		guest_says(PROTO_STDOUT, 5, zeros, 1);
		guest_says(forged[i].type, forged[i].stream, zeros, forged[i].length);
		pump_all(f);
		if (f->job->failure[0] == '\0')
			fail_msg("not refused: %s", forged[i].name);
		(void)teardown(&inner);
		assert_int_equal(setup(&inner), 0);
	}
	*state = inner;
}

static void
test_credit_opens_the_window(void **state)
{
	static const uint8_t zeros[PROTO_WINDOW];
	struct fixture *f = *state;
	uint32_t credit = 100;

	start_command(f, 5, 0);
	guest_says(PROTO_STDOUT, 5, zeros, PROTO_WINDOW);
	assert_int_equal(client_says(f, PROTO_CREDIT, 0, 5, &credit, sizeof(credit)), 0);
	pump_all(f);
	guest_says(PROTO_STDERR, 5, zeros, 100);
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	guest_says(PROTO_STDERR, 5, zeros, 1);
	pump_all(f);
	assert_string_not_equal(f->job->failure, "");
}

static void
test_full_response_ring_stops_the_guest(void **state)
{
	static const uint8_t zeros[PROTO_WINDOW];
	struct fixture *f = *state;
	uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	unsigned got = 0;

	for (uint32_t id = 1; id <= 10; id++) {
		start_command(f, id, 0);
		guest_says(PROTO_STDOUT, id, zeros, PROTO_WINDOW);
	}
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	assert_true(fake.from_off < fake.from_len);
	assert_int_equal(atomic_load(&f->seg->chan[1].rsp_stalled), 1);
	while (got < 10) {
		while (ring_read(&f->rsp, &rec, payload) == 1)
			got++;
		pump_all(f);
		assert_string_equal(f->job->failure, "");
	}
	assert_int_equal(fake.from_off, fake.from_len);
}

static void
test_guest_that_does_not_read_loses_nothing(void **state)
{
	struct fixture *f = *state;
	uint8_t piece[1000];

	memset(piece, 'x', sizeof(piece));
	start_command(f, 5, 0);
	fake.accept = 10;
	for (int i = 0; i < 16; i++)
		assert_int_equal(client_says(f, PROTO_STDIN, 0, 5, piece, sizeof(piece)), 0);
	fake.to_len = 0;
	pump_all(f);
	assert_int_equal(fake.to_len, 10);
	fake.accept = sizeof(fake.to_guest);
	fake.to_len = 10;
	pump_all(f);
	assert_int_equal(fake.to_len, 16 * (sizeof(piece) + sizeof(struct proto_hdr)));
	assert_string_equal(f->job->failure, "");
}

static void
test_client_violations_end_the_vm(void **state)
{
	static const uint8_t zeros[RING_PAYLOAD_MAX];
	struct fixture *f = *state;

	start_command(f, 5, 0);
	assert_int_equal(client_says(f, PROTO_STDIN, 0, 5, zeros, PROTO_WINDOW), 0);
	assert_int_equal(client_says(f, PROTO_STDIN, 0, 5, zeros, 1), 0);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "input window"));
}

static void
test_too_many_streams(void **state)
{
	struct fixture *f = *state;
	struct proto_exec exec = {.size = sizeof(exec), .argc = 1};

	for (uint32_t id = 1; id <= PROTO_STREAMS_MAX; id++)
		start_command(f, id, 0);
	assert_int_equal(client_says(f, PROTO_EXEC, 0, 5000, &exec, sizeof(exec)), 0);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "streams"));
}

static void
test_backstop_comes_after_the_guests_own_deadline(void **state)
{
	struct fixture *f = *state;
	uint64_t before = now_ns(), due;

	assert_int_equal(job_deadline(f->job), 0);
	start_command(f, 5, 1000);
	due = job_deadline(f->job);
	assert_true(due >= before + 1000000000u + JOB_GRACE_NS);
	job_expire(f->job, due - 1);
	assert_string_equal(f->job->failure, "");
	job_expire(f->job, due);
	assert_non_null(strstr(f->job->failure, "time-out"));
}

static void
test_frames_for_ended_streams_are_dropped(void **state)
{
	struct fixture *f = *state;
	struct proto_exit done = {0};
	size_t sent;

	start_command(f, 5, 0);
	guest_says(PROTO_EXIT, 5, &done, sizeof(done));
	pump_all(f);
	sent = fake.to_len;
	assert_int_equal(client_says(f, PROTO_STDIN, PROTO_F_EOF, 5, "x", 1), 0);
	pump_all(f);
	assert_int_equal(fake.to_len, sent);
	assert_string_equal(f->job->failure, "");
}

static void
test_health_check(void **state)
{
	struct fixture *f = *state;
	struct proto_exec exec = {.size = sizeof(exec), .argc = 1};
	struct proto_exit done = {0};
	struct proto_hdr hdr;

	assert_int_equal(job_check(f->job), 0);
	assert_int_equal(job_check(f->job), -EBUSY);
	pump_all(f);
	memcpy(&hdr, fake.to_guest, sizeof(hdr));
	memcpy(&exec, fake.to_guest + sizeof(hdr), sizeof(exec));
	assert_int_equal(hdr.type, PROTO_EXEC);
	assert_int_equal(exec.size, hdr.length);
	assert_int_equal(fake.to_len, sizeof(hdr) + hdr.length);
	assert_memory_equal(fake.to_guest + sizeof(hdr) + sizeof(exec), "/bin/true\0\0", 12);
	assert_int_equal(f->job->check, CHECK_RUNNING);
	guest_says(PROTO_EXIT, JOB_CHECK_STREAM, &done, sizeof(done));
	pump_all(f);
	assert_int_equal(f->job->check, CHECK_PASSED);
	assert_int_equal(atomic_load(&f->seg->chan[1].rsp.tail), 0);
	assert_int_equal(atomic_load(&f->seg->chan[1].counter[C_exec_count]), 0);
	done.code = 1;
	assert_int_equal(job_check(f->job), 0);
	guest_says(PROTO_EXIT, JOB_CHECK_STREAM, &done, sizeof(done));
	pump_all(f);
	assert_int_equal(f->job->check, CHECK_FAILED);
	assert_int_equal(client_says(f, PROTO_EXEC, 0, JOB_CHECK_STREAM, &exec, sizeof(exec)), 0);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "reserved"));
}

/* The frame at this place of what the guest was sent, a RENEW. */
static struct proto_renew
renew_at(size_t off)
{
	struct proto_renew renew;
	struct proto_hdr hdr;

	assert_true(fake.to_len >= off + sizeof(hdr) + sizeof(renew));
	memcpy(&hdr, fake.to_guest + off, sizeof(hdr));
	assert_int_equal(hdr.type, PROTO_RENEW);
	assert_true(proto_check(&hdr, false));
	memcpy(&renew, fake.to_guest + off + sizeof(hdr), sizeof(renew));
	return renew;
}

static void
test_a_loaded_machine_is_renewed_before_it_is_ready(void **state)
{
	struct fixture *f = *state;
	const struct proto_renewed done = {.failed = 0};
	struct proto_renew renew[2];

	for (int i = 0; i < 2; i++) {
		job_renew(f->job);
		assert_false(f->job->ready);
		pump_all(f);
		renew[i] = renew_at(i * (sizeof(struct proto_hdr) + sizeof(renew[0])));
		guest_says(PROTO_RENEWED, 0, &done, sizeof(done));
		pump_all(f);
		assert_true(f->job->ready);
		assert_string_equal(f->job->failure, "");
	}
	assert_true(renew[0].wall_ns > 1700000000000000000ull);
	assert_true(renew[1].wall_ns >= renew[0].wall_ns);
	assert_memory_not_equal(renew[0].entropy, renew[1].entropy, sizeof(renew[0].entropy));
	assert_memory_not_equal(renew[0].boot_id, renew[1].boot_id, 16);
	assert_memory_not_equal(renew[0].machine_id, renew[1].machine_id, 16);
	/* Nobody asked. */
	guest_says(PROTO_RENEWED, 0, &done, sizeof(done));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "RENEWED without RENEW"));
}

static void
test_a_machine_that_cannot_renew_itself_is_of_no_use(void **state)
{
	struct fixture *f = *state;
	const struct proto_renewed failed = {.failed = PROTO_RENEW_CLOCK, .err = EPERM};

	job_renew(f->job);
	guest_says(PROTO_RENEWED, 0, &failed, sizeof(failed));
	pump_all(f);
	assert_false(f->job->ready);
	assert_non_null(strstr(f->job->failure, "step 3: Operation not permitted"));
}

static void
test_ready_is_no_answer_to_renew(void **state)
{
	struct fixture *f = *state;
	const struct proto_ready ready = {.version = PROTO_VERSION};

	job_renew(f->job);
	guest_says(PROTO_READY, 0, &ready, sizeof(ready));
	pump_all(f);
	assert_false(f->job->ready);
	assert_non_null(strstr(f->job->failure, "READY a second time"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_command_there_and_back),
	    TEST(test_stale_lease_is_dropped),
	    TEST(test_worker_ping_needs_no_guest),
	    TEST(test_forged_frames_end_the_vm),
	    TEST(test_credit_opens_the_window),
	    TEST(test_full_response_ring_stops_the_guest),
	    TEST(test_guest_that_does_not_read_loses_nothing),
	    TEST(test_client_violations_end_the_vm),
	    TEST(test_too_many_streams),
	    TEST(test_backstop_comes_after_the_guests_own_deadline),
	    TEST(test_frames_for_ended_streams_are_dropped),
	    TEST(test_health_check),
	    TEST(test_a_loaded_machine_is_renewed_before_it_is_ready),
	    TEST(test_a_machine_that_cannot_renew_itself_is_of_no_use),
	    TEST(test_ready_is_no_answer_to_renew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
