/* SPDX-License-Identifier: MIT
 *
 * test_job.c - the worker's job between a real segment and a fake machine whose
 * guest end this test plays, with every frame it likes.
 */
#include "kvm/proto.h"
#include "shm/slot.h"
#include "shm/stat.h"
#include "tests/lib/jobtest.h"

#include <string.h>

static void
test_command_there_and_back(void **state)
{
	struct fixture *f = *state;
	struct proto_exit done = {.code = 3};
	uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	uint32_t id = start_command(f, &f->holder, 5, 0);

	assert_int_not_equal(id, 0);
	guest_says(PROTO_STDOUT, id, "hello", 5);
	guest_says(PROTO_EXIT, id, &done, sizeof(done));
	pump_all(f);
	assert_int_equal(ring_read(&f->holder.rsp, &rec, payload), 1);
	assert_int_equal(rec.type, PROTO_STDOUT);
	assert_int_equal(rec.stream, 5);
	assert_int_equal(rec.lease, GENERATION);
	assert_memory_equal(payload, "hello", 5);
	assert_int_equal(ring_read(&f->holder.rsp, &rec, payload), 1);
	assert_int_equal(rec.type, PROTO_EXIT);
	assert_int_equal(f->job->open, 0);
	assert_int_equal(atomic_load(&f->seg->chan[1].counter[C_exec_count]), 1);
}

static void
test_file_there_and_back(void **state)
{
	struct fixture *f = *state;
	struct proto_file_done done = {.err = 2};
	uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	uint32_t id = start_file(f, &f->holder, 5, PROTO_FILE_READ);

	assert_int_equal(job_deadline(f->job), 0);
	guest_says(PROTO_STDOUT, id, "hello", 5);
	guest_says(PROTO_FILE_DONE, id, &done, sizeof(done));
	pump_all(f);
	assert_int_equal(ring_read(&f->holder.rsp, &rec, payload), 1);
	assert_int_equal(rec.type, PROTO_STDOUT);
	assert_int_equal(ring_read(&f->holder.rsp, &rec, payload), 1);
	assert_int_equal(rec.stream, 5);
	assert_int_equal(rec.type, PROTO_FILE_DONE);
	assert_int_equal(rec.length, sizeof(done));
	assert_int_equal(f->job->open, 0);
	/* It is no command. */
	assert_int_equal(atomic_load(&f->seg->chan[1].counter[C_exec_count]), 0);
}

static void
test_stale_lease_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct ring_rec rec = {.length = 4, .type = PROTO_PING, .lease = GENERATION - 1};

	assert_int_equal(ring_write(&f->holder.req, &rec, "ping"), 0);
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

	assert_int_equal(client_says(&f->holder, RING_WORKER_PING, 0, 0, "abc", 3), 0);
	pump_all(f);
	assert_int_equal(ring_read(&f->holder.rsp, &rec, payload), 1);
	assert_int_equal(rec.type, RING_WORKER_PONG);
	assert_memory_equal(payload, "abc", 3);
	assert_int_equal(fake.to_len, 0);
}

/* What a guest may not say, each with one stream open and one byte of window used. The
 * stream that differs from the open one by these bits, or the machine's. */
#define MACHINE UINT32_MAX
#define A_USE (1u << STREAM_USE_SHIFT)
#define A_PORT (1u << STREAM_ENTRY_BITS)
static const struct {
	const char *name;
	uint8_t type;
	uint32_t bits, length;
} forged[] = {
    {"output of a stream that is not open", PROTO_STDOUT, 1, 1},
    {"output of a stream that has ended", PROTO_STDOUT, 2 * A_USE, 1},
    {"output for a client that is not there", PROTO_STDOUT, A_PORT, 1},
    {"a second READY", PROTO_READY, MACHINE, sizeof(struct proto_ready)},
    {"PONG without PING", PROTO_PONG, MACHINE, 4},
    {"a host's frame", PROTO_EXEC, 0, 1},
    {"more output than the window", PROTO_STDOUT, 0, PROTO_WINDOW},
    {"exit of the machine's stream", PROTO_EXIT, MACHINE, sizeof(struct proto_exit)},
    {"exit of the wrong size", PROTO_EXIT, 0, 3},
    {"statistics of a command", PROTO_VMSTATS, 0, sizeof(struct proto_vmstats)},
    {"an unknown type", 99, 0, 1},
    {"an oversized frame", PROTO_STDOUT, 0, PROTO_PAYLOAD_MAX + 1},
};

static void
test_forged_frames_end_the_vm(void **state)
{
	static const uint8_t zeros[PROTO_PAYLOAD_MAX + 1];
	void *inner = *state;

	for (size_t i = 0; i < ARRAY_SIZE(forged); i++) {
		struct fixture *f = inner;

		uint32_t id = start_command(f, &f->holder, 5, 0);

		guest_says(PROTO_STDOUT, id, zeros, 1);
		guest_says(forged[i].type, forged[i].bits == MACHINE ? 0 : id ^ forged[i].bits,
			   zeros, forged[i].length);
		pump_all(f);
		if (f->job->failure[0] == '\0')
			fail_msg("not refused: %s", forged[i].name);
		(void)jobtest_teardown(&inner);
		assert_int_equal(jobtest_setup(&inner), 0);
	}
	*state = inner;
}

/* A question about the machine has one answer, or an ERROR, and no output. */
static void
test_statistics_there_and_back(void **state)
{
	static const struct proto_vmstats stats = {.processes = 7};
	static const struct proto_exit done = {.code = 0};
	struct fixture *f = *state;
	uint8_t payload[RING_PAYLOAD_MAX];
	struct ring_rec rec;
	struct proto_hdr hdr;

	assert_int_equal(client_says(&f->holder, PROTO_VMSTAT, 0, 5, NULL, 0), 0);
	pump_all(f);
	memcpy(&hdr, fake.to_guest, sizeof(hdr));
	assert_int_equal(hdr.type, PROTO_VMSTAT);
	assert_int_equal(f->job->open, 1);
	guest_says(PROTO_VMSTATS, hdr.stream, &stats, sizeof(stats));
	pump_all(f);
	assert_int_equal(f->job->open, 0);
	assert_int_equal(ring_read(&f->holder.rsp, &rec, payload), 1);
	assert_int_equal(rec.type, PROTO_VMSTATS);
	assert_int_equal(rec.stream, 5);
	assert_memory_equal(payload, &stats, sizeof(stats));
	fake.to_len = 0;
	assert_int_equal(client_says(&f->holder, PROTO_VMSTAT, 0, 6, NULL, 0), 0);
	pump_all(f);
	memcpy(&hdr, fake.to_guest, sizeof(hdr));
	guest_says(PROTO_EXIT, hdr.stream, &done, sizeof(done));
	pump_all(f);
	assert_string_not_equal(f->job->failure, "");
}

static void
test_credit_opens_the_window(void **state)
{
	static const uint8_t zeros[PROTO_WINDOW];
	struct fixture *f = *state;
	uint32_t credit = 100, id = start_command(f, &f->holder, 5, 0);

	guest_says(PROTO_STDOUT, id, zeros, PROTO_WINDOW);
	assert_int_equal(client_says(&f->holder, PROTO_CREDIT, 0, 5, &credit, sizeof(credit)), 0);
	pump_all(f);
	guest_says(PROTO_STDERR, id, zeros, 100);
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	guest_says(PROTO_STDERR, id, zeros, 1);
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
		guest_says(PROTO_STDOUT, start_command(f, &f->holder, id, 0), zeros, PROTO_WINDOW);
	}
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	assert_true(fake.from_off < fake.from_len);
	assert_int_equal(atomic_load(&f->seg->chan[1].rsp_stalled), 1);
	while (got < 10) {
		while (ring_read(&f->holder.rsp, &rec, payload) == 1)
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
	start_command(f, &f->holder, 5, 0);
	fake.accept = 10;
	for (int i = 0; i < 16; i++)
		assert_int_equal(client_says(&f->holder, PROTO_STDIN, 0, 5, piece, sizeof(piece)),
				 0);
	fake.to_len = 0;
	pump_all(f);
	assert_int_equal(fake.to_len, 10);
	fake.accept = sizeof(fake.to_guest);
	fake.to_len = 10;
	pump_all(f);
	assert_int_equal(fake.to_len, 16 * (sizeof(piece) + sizeof(struct proto_hdr)));
	assert_string_equal(f->job->failure, "");
}

/* What a client may not say, with a command on stream 5 and a file on stream 7. */
static const struct {
	const char *says;
	uint8_t type;
	uint32_t stream, length;
} misused[] = {
    {"input window", PROTO_STDIN, 5, PROTO_WINDOW},
    {"input window", PROTO_STDIN, 7, PROTO_WINDOW},
    {"reused the open stream 5", PROTO_FILE, 5, 60},
    {"reused the open stream 7", PROTO_FILE, 7, 60},
    {"reused the open stream 7", PROTO_EXEC, 7, sizeof(struct proto_exec) + 4},
    {"malformed", PROTO_FILE, 9, sizeof(struct proto_file)},
    {"malformed", PROTO_FILE, 0, 60},
    {"malformed", PROTO_FILE_DONE, 7, sizeof(struct proto_file_done)},
};

static void
test_client_violations_end_the_vm(void **state)
{
	static const uint8_t zeros[RING_PAYLOAD_MAX];
	void *inner = *state;

	for (size_t i = 0; i < ARRAY_SIZE(misused); i++) {
		struct fixture *f = inner;

		start_command(f, &f->holder, 5, 0);
		start_file(f, &f->holder, 7, PROTO_FILE_READ);
		assert_int_equal(client_says(&f->holder, PROTO_STDIN, 0, 5, zeros, 1), 0);
		assert_int_equal(client_says(&f->holder, PROTO_STDIN, 0, 7, zeros, 1), 0);
		pump_all(f);
		assert_string_equal(f->job->failure, "");
		assert_int_equal(client_says(&f->holder, misused[i].type, 0, misused[i].stream,
					     zeros, misused[i].length),
				 0);
		pump_all(f);
		if (strstr(f->job->failure, misused[i].says) == NULL)
			fail_msg("row %zu: %s", i, f->job->failure);
		(void)jobtest_teardown(&inner);
		assert_int_equal(jobtest_setup(&inner), 0);
	}
	*state = inner;
}

/* What a guest may not say of a file, and of a command. */
static const struct {
	const char *name;
	uint8_t type;
	bool file;
	uint32_t length;
} forged_files[] = {
    {"a file's end for a command", PROTO_FILE_DONE, false, sizeof(struct proto_file_done)},
    {"a command's end for a file", PROTO_EXIT, true, sizeof(struct proto_exit)},
    {"stderr of a file", PROTO_STDERR, true, 1},
    {"statistics of a file", PROTO_VMSTATS, true, sizeof(struct proto_vmstats)},
    {"more of a file than the window", PROTO_STDOUT, true, PROTO_WINDOW},
    {"a file's end of the wrong size", PROTO_FILE_DONE, true, sizeof(struct proto_file_done) - 1},
    {"a request of the host", PROTO_FILE, true, sizeof(struct proto_file) + 3},
};

static void
test_forged_file_frames_end_the_vm(void **state)
{
	static const uint8_t zeros[PROTO_PAYLOAD_MAX];
	void *inner = *state;

	for (size_t i = 0; i < ARRAY_SIZE(forged_files); i++) {
		struct fixture *f = inner;
		uint32_t command = start_command(f, &f->holder, 5, 0);
		uint32_t file = start_file(f, &f->holder, 7, PROTO_FILE_READ);

		guest_says(PROTO_STDOUT, file, zeros, 1);
		guest_says(forged_files[i].type, forged_files[i].file ? file : command, zeros,
			   forged_files[i].length);
		pump_all(f);
		if (f->job->failure[0] == '\0')
			fail_msg("not refused: %s", forged_files[i].name);
		(void)jobtest_teardown(&inner);
		assert_int_equal(jobtest_setup(&inner), 0);
	}
	*state = inner;
}

static void
test_too_many_streams(void **state)
{
	struct fixture *f = *state;
	struct proto_exec exec = {.size = sizeof(exec), .argc = 1};

	for (uint32_t id = 1; id <= PROTO_STREAMS_MAX; id++)
		start_command(f, &f->holder, id, 0);
	assert_int_equal(client_says(&f->holder, PROTO_EXEC, 0, 5000, &exec, sizeof(exec)), 0);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "streams"));
}

static void
test_backstop_comes_after_the_guests_own_deadline(void **state)
{
	struct fixture *f = *state;
	uint64_t before = now_ns(), due;

	assert_int_equal(job_deadline(f->job), 0);
	start_command(f, &f->holder, 5, 1000);
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

	guest_says(PROTO_EXIT, start_command(f, &f->holder, 5, 0), &done, sizeof(done));
	pump_all(f);
	sent = fake.to_len;
	assert_int_equal(client_says(&f->holder, PROTO_STDIN, PROTO_F_EOF, 5, "x", 1), 0);
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
	guest_says(PROTO_EXIT, hdr.stream, &done, sizeof(done));
	pump_all(f);
	assert_int_equal(f->job->check, CHECK_PASSED);
	assert_int_equal(atomic_load(&f->seg->chan[1].rsp.tail), 0);
	assert_int_equal(atomic_load(&f->seg->chan[1].counter[C_exec_count]), 0);
	done.code = 1;
	fake.to_len = 0;
	assert_int_equal(job_check(f->job), 0);
	pump_all(f);
	memcpy(&hdr, fake.to_guest, sizeof(hdr));
	guest_says(PROTO_EXIT, hdr.stream, &done, sizeof(done));
	pump_all(f);
	assert_int_equal(f->job->check, CHECK_FAILED);
	assert_string_equal(f->job->failure, "");
}

/* A client cannot reach the check's stream, whatever it calls it. */
static void
test_health_check_is_out_of_reach(void **state)
{
	struct fixture *f = *state;
	const uint32_t signal = 9;
	struct proto_hdr hdr;
	size_t sent;

	assert_int_equal(job_check(f->job), 0);
	pump_all(f);
	memcpy(&hdr, fake.to_guest, sizeof(hdr));
	sent = fake.to_len;
	assert_int_equal(
	    client_says(&f->holder, PROTO_KILL, 0, hdr.stream, &signal, sizeof(signal)), 0);
	pump_all(f);
	assert_int_equal(fake.to_len, sent);
	assert_int_not_equal(start_command(f, &f->holder, hdr.stream, 0), hdr.stream);
	assert_int_equal(f->job->check, CHECK_RUNNING);
	/* Stream 0 is the machine's. */
	assert_int_equal(client_says(&f->holder, PROTO_KILL, 0, 0, &signal, sizeof(signal)), 0);
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "malformed"));
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
	struct proto_renewed done = {.failed = 0};
	struct proto_renew renew[2];

	for (int i = 0; i < 2; i++) {
		job_renew(f->job);
		assert_false(f->job->ready);
		pump_all(f);
		renew[i] = renew_at(i * (sizeof(struct proto_hdr) + sizeof(renew[0])));
		done.wall_ns = chan_wall_ns();
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

/* The guest was given the time, and the processor only later. */
static void
test_a_machine_whose_clock_is_late_is_renewed_again(void **state)
{
	struct fixture *f = *state;
	struct proto_renewed done = {.failed = 0};

	job_renew(f->job);
	for (unsigned i = 0; i < JOB_RENEWALS; i++) {
		pump_all(f);
		(void)renew_at(i * (sizeof(struct proto_hdr) + sizeof(struct proto_renew)));
		assert_false(f->job->ready);
		done.wall_ns = chan_wall_ns() - 2 * JOB_LATE_NS;
		guest_says(PROTO_RENEWED, 0, &done, sizeof(done));
	}
	pump_all(f);
	assert_true(f->job->ready);
	assert_string_equal(f->job->failure, "");
	assert_int_equal(fake.to_len,
			 JOB_RENEWALS * (sizeof(struct proto_hdr) + sizeof(struct proto_renew)));
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

/* Not even when there is no room for another RENEW, and the clock is late. */
static void
test_renewed_unasked_ends_the_vm(void **state)
{
	static const uint8_t piece[PROTO_PAYLOAD_MAX];
	struct fixture *f = *state;
	struct proto_renewed done = {.wall_ns = chan_wall_ns() - 2 * JOB_LATE_NS};
	struct proto_exec exec = {.size = PROTO_EXEC_MAX, .argc = 1};

	fake.accept = 0;
	assert_int_equal(client_says(&f->holder, PROTO_EXEC, PROTO_F_MORE, 3, &exec, sizeof(exec)),
			 0);
	while (chan_room(&f->job->chan)) {
		assert_int_equal(
		    client_says(&f->holder, PROTO_EXEC, PROTO_F_MORE, 3, piece, sizeof(piece)), 0);
		pump_all(f);
		assert_string_equal(f->job->failure, "");
	}
	guest_says(PROTO_RENEWED, 0, &done, sizeof(done));
	pump_all(f);
	assert_non_null(strstr(f->job->failure, "RENEWED without RENEW"));
	assert_int_equal(f->job->renewals, 0);
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

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, jobtest_setup, jobtest_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_command_there_and_back),
	    TEST(test_file_there_and_back),
	    TEST(test_stale_lease_is_dropped),
	    TEST(test_worker_ping_needs_no_guest),
	    TEST(test_forged_frames_end_the_vm),
	    TEST(test_statistics_there_and_back),
	    TEST(test_credit_opens_the_window),
	    TEST(test_full_response_ring_stops_the_guest),
	    TEST(test_guest_that_does_not_read_loses_nothing),
	    TEST(test_client_violations_end_the_vm),
	    TEST(test_forged_file_frames_end_the_vm),
	    TEST(test_too_many_streams),
	    TEST(test_backstop_comes_after_the_guests_own_deadline),
	    TEST(test_frames_for_ended_streams_are_dropped),
	    TEST(test_health_check),
	    TEST(test_health_check_is_out_of_reach),
	    TEST(test_a_loaded_machine_is_renewed_before_it_is_ready),
	    TEST(test_a_machine_whose_clock_is_late_is_renewed_again),
	    TEST(test_a_machine_that_cannot_renew_itself_is_of_no_use),
	    TEST(test_renewed_unasked_ends_the_vm),
	    TEST(test_ready_is_no_answer_to_renew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
