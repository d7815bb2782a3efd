/* SPDX-License-Identifier: MIT
 *
 * test_job_ports.c - several clients of one job: the lease's holder and those that
 * have joined it. They share a guest, and nothing else.
 */
#include "shm/client.h"
#include "shm/slot.h"
#include "tests/lib/jobtest.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

static const uint8_t zeros[PROTO_WINDOW];
static const struct proto_exit done;

static uint32_t
asleep(const struct peer *peer)
{
	return atomic_load(&peer->chan->worker_asleep);
}

/* The next answer is this one. */
static void
assert_heard(struct peer *peer, uint8_t type, uint32_t stream, const void *payload, size_t len)
{
	struct ring_rec rec;

	assert_true(client_hears(peer, &rec));
	assert_int_equal(rec.type, type);
	assert_int_equal(rec.stream, stream);
	assert_int_equal(rec.lease, GENERATION);
	assert_int_equal(rec.length, len);
	assert_memory_equal(peer->payload, payload, len);
}

static void
assert_silent(struct peer *peer)
{
	struct ring_rec rec;

	assert_false(client_hears(peer, &rec));
}

/* The next frame for the guest is this one; its payload's first word. */
static uint32_t
assert_told(uint8_t type, uint32_t stream)
{
	uint8_t payload[PROTO_PAYLOAD_MAX] = {0};
	struct proto_hdr hdr;
	uint32_t word;

	assert_true(guest_hears(&hdr, payload));
	assert_int_equal(hdr.type, type);
	assert_int_equal(hdr.stream, stream);
	memcpy(&word, payload, sizeof(word));
	return word;
}

static void
assert_told_nothing(void)
{
	uint8_t payload[PROTO_PAYLOAD_MAX];
	struct proto_hdr hdr;

	assert_false(guest_hears(&hdr, payload));
}

static void
guest_ends(struct fixture *f, uint32_t id)
{
	guest_says(PROTO_EXIT, id, &done, sizeof(done));
	pump_all(f);
	assert_string_equal(f->job->failure, "");
}

/* --- side by side ---------------------------------------------------------------------- */

static void
same_ids_do_not_collide(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f), *b = jobtest_join(f), *all[] = {&f->holder, a, b};
	uint32_t id[3];

	for (unsigned i = 0; i < 3; i++)
		id[i] = start_command(f, all[i], 5, 0);
	assert_true(id[0] != id[1] && id[1] != id[2] && id[0] != id[2]);
	for (unsigned i = 0; i < 3; i++)
		guest_says(PROTO_STDOUT, id[i], &"abc"[i], 1);
	for (unsigned i = 3; i-- > 0;)
		guest_ends(f, id[i]);
	for (unsigned i = 0; i < 3; i++) {
		assert_heard(all[i], PROTO_STDOUT, 5, &"abc"[i], 1);
		assert_heard(all[i], PROTO_EXIT, 5, &done, sizeof(done));
		assert_silent(all[i]);
	}
	jobtest_leave(f, a);
	jobtest_leave(f, b);
}

static void
one_cannot_reach_another(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint32_t id = start_command(f, &f->holder, 5, 0), more = 100, signal = SIGKILL;
	struct proto_hdr hdr;
	uint8_t payload[PROTO_PAYLOAD_MAX];

	assert_true(guest_hears(&hdr, payload));
	for (unsigned i = 0; i < 2; i++) {
		uint32_t stream = i == 0 ? 5 : id;

		assert_int_equal(client_says(a, PROTO_KILL, 0, stream, &signal, 4), 0);
		assert_int_equal(client_says(a, PROTO_CREDIT, 0, stream, &more, 4), 0);
		assert_int_equal(client_says(a, PROTO_STDIN, 0, stream, "x", 1), 0);
	}
	pump_all(f);
	assert_told_nothing();
	assert_string_equal(f->job->failure, "");
	assert_int_equal(client_says(&f->holder, PROTO_KILL, 0, 5, &signal, 4), 0);
	pump_all(f);
	assert_int_equal(assert_told(PROTO_KILL, id), SIGKILL);
	jobtest_leave(f, a);
}

static void
pongs_go_to_who_asked(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f), *b = jobtest_join(f), *c;
	struct peer *asks[] = {a, &f->holder, b, a};

	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(client_says(asks[i], PROTO_PING, 0, 0, &"0123"[i], 1), 0);
		pump_all(f);
		(void)assert_told(PROTO_PING, 0);
	}
	/* One is nobody's any more, though another client has the place now. */
	job_leave(f->job, &b->port);
	pump_all(f);
	c = jobtest_join(f);
	assert_int_equal(c->port.index, b->port.index);
	for (unsigned i = 0; i < 4; i++)
		guest_says(PROTO_PONG, 0, &"0123"[i], 1);
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	assert_heard(a, PROTO_PONG, 0, "0", 1);
	assert_heard(&f->holder, PROTO_PONG, 0, "1", 1);
	assert_heard(a, PROTO_PONG, 0, "3", 1);
	assert_silent(a);
	assert_silent(c);
	assert_silent(&f->holder);
	guest_says(PROTO_PONG, 0, "", 0);
	pump_all(f);
	assert_string_not_equal(f->job->failure, "");
	jobtest_leave(f, b);
	jobtest_leave(f, a);
	jobtest_leave(f, c);
}

/* A guest that owes very many PONGs gets no more PINGs until it has answered. */
static void
pings_are_bounded(void **state)
{
	struct fixture *f = *state;
	unsigned told = 0;
	struct proto_hdr hdr;
	uint8_t payload[PROTO_PAYLOAD_MAX];

	for (unsigned i = 0; i < JOB_PINGS + 10; i++)
		assert_int_equal(client_says(&f->holder, PROTO_PING, 0, 0, "x", 1), 0);
	pump_all(f);
	while (guest_hears(&hdr, payload))
		told++;
	assert_int_equal(told, JOB_PINGS);
	for (unsigned i = 0; i < 3; i++)
		guest_says(PROTO_PONG, 0, "x", 1);
	pump_all(f);
	while (guest_hears(&hdr, payload))
		told++;
	assert_int_equal(told, JOB_PINGS + 3);
	assert_string_equal(f->job->failure, "");
}

static void
each_is_woken_by_its_own_words(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint32_t before = atomic_load(&f->holder.chan->rsp_seq);

	assert_true(job_sleep(f->job));
	assert_int_equal(asleep(a), 1);
	assert_int_equal(asleep(&f->holder), 1);
	job_awake(f->job);
	assert_int_equal(asleep(a) + asleep(&f->holder), 0);
	assert_int_equal(client_says(a, RING_WORKER_PING, 0, 0, "x", 1), 0);
	atomic_store(&a->chan->req_stalled, 1);
	/* What came between the last look and the sleep is seen. */
	assert_false(job_sleep(f->job));
	assert_int_equal(asleep(a) + asleep(&f->holder), 0);
	assert_heard(a, RING_WORKER_PONG, 0, "x", 1);
	assert_int_equal(atomic_load(&a->chan->rsp_seq), 1);
	assert_int_equal(atomic_load(&a->chan->req_stalled), 0);
	assert_int_equal(atomic_load(&f->holder.chan->rsp_seq), before);
	jobtest_leave(f, a);
}

static void
another_lease_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	struct ring_rec rec = {.length = 1, .type = PROTO_PING, .lease = GENERATION - 1};

	assert_int_equal(ring_write(&a->req, &rec, "x"), 0);
	pump_all(f);
	assert_told_nothing();
	/* The lease ends: nothing is served, though the port is still there. */
	atomic_store(&f->seg->slot[1].word, slot_word(SLOT_RESETTING, 0, GENERATION));
	assert_int_equal(client_says(a, PROTO_PING, 0, 0, "x", 1), 0);
	pump_all(f);
	assert_told_nothing();
	jobtest_leave(f, a);
}

/* --- leaving ----------------------------------------------------------------------------- */

static void
leaving_ends_its_commands(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f), *b;
	uint32_t own = start_command(f, &f->holder, 5, 0), id = start_command(f, a, 5, 0);

	(void)assert_told(PROTO_EXEC, own);
	(void)assert_told(PROTO_EXEC, id);
	job_leave(f->job, &a->port);
	assert_int_equal(asleep(a), SHM_CHAN_CLOSED);
	pump_all(f);
	assert_int_equal(assert_told(PROTO_KILL, id), SIGKILL);
	assert_told_nothing();
	/* It has much to say before its end: dropped, and the window opened again. */
	for (unsigned i = 0; i < 5; i++) {
		guest_says(PROTO_STDOUT, id, zeros, PROTO_WINDOW);
		pump_all(f);
		assert_int_equal(assert_told(PROTO_CREDIT, id), PROTO_WINDOW);
	}
	assert_told_nothing();
	assert_int_equal(a->port.state, PORT_LEAVING);
	guest_ends(f, id);
	assert_int_equal(a->port.state, PORT_GONE);
	assert_int_equal(job_deadline(f->job), 0);
	assert_silent(a);
	/* The other's goes on, and the place is free. */
	guest_says(PROTO_STDOUT, own, "x", 1);
	guest_ends(f, own);
	assert_heard(&f->holder, PROTO_STDOUT, 5, "x", 1);
	b = jobtest_join(f);
	assert_int_equal(b->port.index, a->port.index);
	own = start_command(f, b, 5, 0);
	assert_int_not_equal(own, id);
	guest_ends(f, own);
	jobtest_leave(f, a);
	jobtest_leave(f, b);
}

static void
leaving_in_the_middle_of_a_request(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	struct proto_exec exec = {.size = 100000, .argc = 1};
	struct proto_hdr hdr;
	uint8_t payload[PROTO_PAYLOAD_MAX];

	assert_int_equal(client_says(a, PROTO_EXEC, PROTO_F_MORE, 5, &exec, sizeof(exec)), 0);
	pump_all(f);
	assert_true(guest_hears(&hdr, payload));
	/* There is no room to say so at once. */
	fake.accept = 0;
	job_leave(f->job, &a->port);
	pump_all(f);
	assert_told_nothing();
	fake.accept = sizeof(fake.to_guest) - fake.to_len;
	pump_all(f);
	(void)assert_told(PROTO_EXEC, hdr.stream);
	(void)assert_told(PROTO_KILL, hdr.stream);
	assert_told_nothing();
	guest_ends(f, hdr.stream);
	assert_int_equal(a->port.state, PORT_GONE);
	jobtest_leave(f, a);
}

/* The guest gives up the file of a client that leaves, which is gone then. */
static void
file_ends_leaving(struct fixture *f, struct peer *a, uint32_t id)
{
	const struct proto_file_done cancelled = {.err = ECANCELED};

	guest_says(PROTO_FILE_DONE, id, &cancelled, sizeof(cancelled));
	pump_all(f);
	assert_string_equal(f->job->failure, "");
	assert_int_equal(a->port.state, PORT_GONE);
	assert_int_equal(f->job->open, 0);
	assert_silent(a);
	jobtest_leave(f, a);
}

/* Its client leaves in the middle: the guest hears KILL, and never the end of the bytes,
 * for then half a file would appear. */
static void
leaving_cuts_what_it_writes(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint32_t id = start_file(f, a, 5, PROTO_FILE_WRITE), more = 100;

	(void)assert_told(PROTO_FILE, id);
	assert_int_equal(client_says(a, PROTO_STDIN, 0, 5, zeros, 1000), 0);
	pump_all(f);
	(void)assert_told(PROTO_STDIN, id);
	/* What is in the ring when it leaves does not count. */
	assert_int_equal(client_says(a, PROTO_STDIN, PROTO_F_EOF, 5, zeros, 0), 0);
	job_leave(f->job, &a->port);
	pump_all(f);
	assert_int_equal(assert_told(PROTO_KILL, id), SIGKILL);
	guest_says(PROTO_CREDIT, id, &more, sizeof(more));
	pump_all(f);
	assert_told_nothing();
	assert_int_equal(a->port.state, PORT_LEAVING);
	file_ends_leaving(f, a, id);
}

/* What the guest has sent meanwhile is dropped, within its window as ever. */
static void
leaving_cuts_what_it_reads(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint32_t id = start_file(f, a, 5, PROTO_FILE_READ), more = 3 * PROTO_WINDOW;

	(void)assert_told(PROTO_FILE, id);
	assert_int_equal(client_says(a, PROTO_CREDIT, 0, 5, &more, sizeof(more)), 0);
	pump_all(f);
	(void)assert_told(PROTO_CREDIT, id);
	guest_says(PROTO_STDOUT, id, zeros, 100);
	pump_all(f);
	assert_heard(a, PROTO_STDOUT, 5, zeros, 100);
	job_leave(f->job, &a->port);
	pump_all(f);
	assert_int_equal(assert_told(PROTO_KILL, id), SIGKILL);
	for (unsigned i = 0; i < 3; i++)
		guest_says(PROTO_STDOUT, id, zeros, PROTO_WINDOW);
	file_ends_leaving(f, a, id);
}

static void
guest_that_does_not_end_them(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint64_t before = now_ns(), due;

	(void)start_command(f, a, 5, 0);
	assert_int_equal(job_deadline(f->job), 0);
	job_leave(f->job, &a->port);
	pump_all(f);
	due = job_deadline(f->job);
	assert_true(due >= before + JOB_LEAVE_NS);
	job_expire(f->job, due - 1);
	assert_string_equal(f->job->failure, "");
	job_expire(f->job, due);
	assert_non_null(strstr(f->job->failure, "has left"));
	job_fini(f->job);
	jobtest_leave(f, a);
	job_init(f->job, f->seg, 1, -1, NULL, NULL);
}

/* The machine starts over: whoever had joined is told, and all is as if new. */
static void
a_reset_closes_every_port(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f), *b = jobtest_join(f);
	uint32_t seq = atomic_load(&b->chan->rsp_seq);

	(void)start_command(f, a, 5, 0);
	job_leave(f->job, &a->port);
	job_fini(f->job);
	assert_int_equal(a->port.state, PORT_GONE);
	assert_int_equal(b->port.state, PORT_GONE);
	assert_int_equal(asleep(b), SHM_CHAN_CLOSED);
	assert_int_equal(atomic_load(&b->chan->rsp_seq), seq + 1);
	jobtest_leave(f, a);
	jobtest_leave(f, b);
	job_init(f->job, f->seg, 1, -1, NULL, NULL);
	assert_int_equal(f->job->open + f->job->leaving, 0);
}

static void
there_is_a_limit(void **state)
{
	struct fixture *f = *state;
	struct peer *peer[PORTS_MAX - 1];
	struct port port;

	for (unsigned i = 0; i < ARRAY_SIZE(peer); i++)
		peer[i] = jobtest_join(f);
	assert_int_equal(job_join(f->job, &port, peer[0]->chan, -1), -EUSERS);
	jobtest_leave(f, peer[7]);
	peer[7] = jobtest_join(f);
	for (unsigned i = 0; i < ARRAY_SIZE(peer); i++) {
		jobtest_leave(f, peer[i]);
	}
	assert_int_equal(f->job->nports, 1);
}

/* --- those who break the rules -------------------------------------------------------------- */

static void
break_window(struct peer *peer)
{
	assert_int_equal(client_says(peer, PROTO_STDIN, 0, 5, zeros, PROTO_WINDOW), 0);
	assert_int_equal(client_says(peer, PROTO_STDIN, 0, 5, zeros, 1), 0);
}

static void
break_stream(struct peer *peer)
{
	const struct proto_exec exec = {.size = sizeof(exec), .argc = 1};

	assert_int_equal(client_says(peer, PROTO_EXEC, 0, 5, &exec, sizeof(exec)), 0);
}

static void
break_record(struct peer *peer)
{
	assert_int_equal(client_says(peer, PROTO_STDOUT, 0, 5, "x", 1), 0);
}

static void
break_header(struct peer *peer)
{
	assert_int_equal(client_says(peer, PROTO_EXEC, 0, 6, "x", 1), 0);
}

static void
break_requests(struct peer *peer)
{
	(void)atomic_fetch_add(&peer->chan->req.tail, 10u << 20);
}

static void
break_answers(struct peer *peer)
{
	(void)atomic_fetch_add(&peer->chan->rsp.head, 10u << 20);
	assert_int_equal(client_says(peer, RING_WORKER_PING, 0, 0, "x", 1), 0);
}

static void (*const breaks[])(struct peer *peer) = {
    break_window, break_stream, break_record, break_header, break_requests, break_answers,
};

static void
who_has_joined_is_cut_off_alone(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
		struct peer *a = jobtest_join(f);
		uint32_t id = start_command(f, a, 5, 0);
		uint32_t own = start_command(f, &f->holder, 5, 0);

		breaks[i](a);
		pump_all(f);
		assert_string_equal(f->job->failure, "");
		if (asleep(a) != SHM_CHAN_CLOSED)
			fail_msg("break %zu is not noticed", i);
		guest_says(PROTO_STDOUT, own, "x", 1);
		guest_ends(f, own);
		assert_heard(&f->holder, PROTO_STDOUT, 5, "x", 1);
		assert_heard(&f->holder, PROTO_EXIT, 5, &done, sizeof(done));
		guest_ends(f, id);
		assert_int_equal(a->port.state, PORT_GONE);
		jobtest_leave(f, a);
	}
}

static void
the_holder_loses_the_vm(void **state)
{
	void *inner = *state;

	for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
		struct fixture *f = inner;

		(void)start_command(f, &f->holder, 5, 0);
		breaks[i](&f->holder);
		pump_all(f);
		if (f->job->failure[0] == '\0')
			fail_msg("break %zu is not noticed", i);
		assert_int_equal(jobtest_teardown(&inner), 0);
		assert_int_equal(jobtest_setup(&inner), 0);
	}
	*state = inner;
}

/* --- those who do not read -------------------------------------------------------------------- */

/* As many bytes, one by one, as the window allows: far more than a ring holds. */
static uint8_t
nth_byte(uint32_t i)
{
	return (uint8_t)(i % 251);
}

/* Output byte by byte, n bytes from the first on. */
static void
guest_dribbles(struct fixture *f, uint32_t id, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		const uint8_t byte = nth_byte(i);

		guest_says(PROTO_STDOUT, id, &byte, 1);
	}
	pump_all(f);
}

/* As much as one command can owe: all of a wide window (client.h), in the smallest pieces. */
static void
answers_are_kept_for_who_has_joined(void **state)
{
	const uint32_t all = CLIENT_WINDOW, more = CLIENT_WINDOW - PROTO_WINDOW;
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint32_t id = start_command(f, a, 5, 0), own = start_command(f, &f->holder, 7, 0);
	struct ring_rec rec;

	assert_int_equal(client_says(a, PROTO_CREDIT, 0, 5, &more, sizeof(more)), 0);
	pump_all(f);
	for (uint32_t i = 0; i < all; i += PROTO_WINDOW)
		guest_dribbles(f, id, i, PROTO_WINDOW);
	guest_ends(f, id);
	guest_ends(f, own);
	assert_heard(&f->holder, PROTO_EXIT, 7, &done, sizeof(done));
	assert_int_equal(asleep(a), 0);
	assert_int_equal(atomic_load(&a->chan->rsp_stalled), 1);
	for (uint32_t got = 0; got < all; got += rec.length) {
		pump_all(f);
		assert_true(client_hears(a, &rec));
		assert_int_equal(rec.type, PROTO_STDOUT);
		for (uint32_t i = 0; i < rec.length; i++)
			assert_int_equal(a->payload[i], nth_byte(got + i));
	}
	pump_all(f);
	assert_heard(a, PROTO_EXIT, 5, &done, sizeof(done));
	assert_null(a->port.late);
	jobtest_leave(f, a);
}

static void
who_reads_nothing_is_cut_off(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint32_t id[PROTO_STREAMS_MAX];
	unsigned n = 0;

	while (n < ARRAY_SIZE(id) && asleep(a) != SHM_CHAN_CLOSED) {
		id[n] = start_command(f, a, n + 1, 0);
		guest_says(PROTO_STDOUT, id[n++], zeros, PROTO_WINDOW);
		pump_all(f);
		assert_string_equal(f->job->failure, "");
		assert_true(a->port.late_len <= PORT_LATE_MAX && a->port.late_cap <= PORT_LATE_MAX);
	}
	assert_in_range(n, PORT_LATE_MAX / PROTO_WINDOW, ARRAY_SIZE(id) - 1);
	while (n-- > 0)
		guest_ends(f, id[n]);
	assert_int_equal(a->port.state, PORT_GONE);
	jobtest_leave(f, a);
}

/* A holder's ring that is full of what it has not read is in nobody's way. */
static void
idle_holder_stops_nobody(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	uint32_t id;

	for (uint32_t i = 1; i <= 4; i++) {
		id = start_command(f, &f->holder, i, 0);
		guest_says(PROTO_STDOUT, id, zeros, PROTO_WINDOW / 2 + 3000 * (i < 4));
		guest_ends(f, id);
	}
	while (ring_space(&f->job->holder.rsp) >= 100)
		assert_int_equal(ring_write(&f->job->holder.rsp,
					    &(struct ring_rec){.length = 64, .type = PROTO_PONG},
					    zeros),
				 0);
	id = start_command(f, a, 5, 0);
	guest_ends(f, id);
	assert_heard(a, PROTO_EXIT, 5, &done, sizeof(done));
	jobtest_leave(f, a);
}

/* --- more commands than a VM has streams for ------------------------------------------------- */

static void
the_vm_has_so_many_streams(void **state)
{
	struct fixture *f = *state;
	struct peer *a = jobtest_join(f);
	const struct proto_exec exec = {.size = 3 * sizeof(exec), .argc = 1};
	uint32_t id = 0;
	struct ring_rec rec;
	struct proto_hdr hdr;
	uint8_t payload[PROTO_PAYLOAD_MAX];

	for (uint32_t i = 1; i <= PROTO_STREAMS_MAX - 2; i++)
		id = start_command(f, &f->holder, i, 0);
	(void)start_command(f, a, 1, 0);
	(void)start_command(f, a, 2, 0);
	fake.to_off = fake.to_len;
	/* Of the refused request the guest sees nothing, and its client hears when it is whole. */
	assert_int_equal(client_says(a, PROTO_EXEC, PROTO_F_MORE, 3, &exec, sizeof(exec)), 0);
	assert_int_equal(client_says(&f->holder, PROTO_EXEC, 0, 700, &exec, sizeof(exec)), 0);
	pump_all(f);
	assert_silent(a);
	assert_true(client_hears(&f->holder, &rec));
	assert_int_equal(rec.type, PROTO_ERROR);
	assert_int_equal(rec.stream, 700);
	assert_int_equal(client_says(a, PROTO_EXEC, PROTO_F_MORE, 3, &exec, sizeof(exec)), 0);
	assert_int_equal(client_says(a, PROTO_STDIN, 0, 3, "x", 1), 0);
	/* Room does not change its mind. */
	guest_ends(f, id);
	assert_int_equal(client_says(a, PROTO_EXEC, 0, 3, &exec, sizeof(exec)), 0);
	pump_all(f);
	assert_told_nothing();
	assert_true(client_hears(a, &rec));
	assert_int_equal(rec.type, PROTO_ERROR);
	assert_int_equal(rec.stream, 3);
	assert_memory_equal(a->payload + sizeof(struct proto_error), "too many", 8);
	assert_int_not_equal(start_command(f, a, 3, 0), 0);
	assert_int_equal(f->job->open, PROTO_STREAMS_MAX);
	/* Who leaves takes along what was refused; the guest has three to end. */
	assert_int_equal(client_says(a, PROTO_EXEC, PROTO_F_MORE, 9, &exec, sizeof(exec)), 0);
	pump_all(f);
	fake.to_off = fake.to_len;
	job_leave(f->job, &a->port);
	pump_all(f);
	while (guest_hears(&hdr, payload)) {
		assert_int_equal(hdr.type, PROTO_KILL);
		guest_says(PROTO_EXIT, hdr.stream, &done, sizeof(done));
	}
	pump_all(f);
	assert_int_equal(a->port.state, PORT_GONE);
	assert_int_equal(f->job->open, PROTO_STREAMS_MAX - 3);
	jobtest_leave(f, a);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, jobtest_setup, jobtest_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(same_ids_do_not_collide),
	    TEST(one_cannot_reach_another),
	    TEST(pongs_go_to_who_asked),
	    TEST(pings_are_bounded),
	    TEST(each_is_woken_by_its_own_words),
	    TEST(another_lease_is_dropped),
	    TEST(leaving_ends_its_commands),
	    TEST(leaving_in_the_middle_of_a_request),
	    TEST(leaving_cuts_what_it_writes),
	    TEST(leaving_cuts_what_it_reads),
	    TEST(guest_that_does_not_end_them),
	    TEST(a_reset_closes_every_port),
	    TEST(there_is_a_limit),
	    TEST(who_has_joined_is_cut_off_alone),
	    TEST(the_holder_loses_the_vm),
	    TEST(answers_are_kept_for_who_has_joined),
	    TEST(who_reads_nothing_is_cut_off),
	    TEST(idle_holder_stops_nobody),
	    TEST(the_vm_has_so_many_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
