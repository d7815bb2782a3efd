/* SPDX-License-Identifier: MIT
 *
 * test_worker.c - a worker process as its supervisor sees it (worker/worker.c):
 * what it says and answers on its control socket. The machine is the null machine;
 * everything else is real.
 */
#include "worker/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "kvm/proto.h"
#include "shm/ctl.h"
#include "shm/joined.h"
#include "shm/ring.h"
#include "shm/slot.h"
#include "tests/lib/testpool.h"
#include "worker/port.h"
#include "worker/snapfile.h"
#include "worker/template.h"

#define DEADLINE_S 20
#define LEASE 7u

static const struct testpool_policy policy = {.nslots = 2, .max_idle = 2, .max_total = 2};

static struct {
	struct seg *seg;
	int sock, request;
	pid_t pid;
} t;

static void __attribute__((noreturn)) be_the_worker(int control)
{
	static const struct machine_template tmpl = {.mem_fd = -1, .state_fd = -1};
	const struct worker_config cfg = {
	    .seg = t.seg,
	    .ops = machine_named("null"),
	    .machine = {.kernel = "none",
			.image = "none",
			.mem_mib = 64,
			.vcpus = 1,
			.mem_fd = -1,
			.tmpl = &tmpl},
	};
	const struct worker_place place = {
	    .slot = 0,
	    .control = control,
	    .request = t.request,
	    .response = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};

	(void)close(t.sock);
	(void)alarm(DEADLINE_S);
	_exit(worker_run(&cfg, &place));
}

/* The next message, within the deadline. */
static struct worker_msg
heard(void)
{
	struct worker_msg msg = {0};

	assert_int_equal(ctl_recv(t.sock, &msg, sizeof(msg), NULL, 0), 0);
	assert_int_equal(msg.magic, CTL_MAGIC);
	return msg;
}

static void
tell(uint32_t kind)
{
	const struct worker_msg msg = {.magic = CTL_MAGIC, .kind = kind};

	assert_int_equal(ctl_send(t.sock, &msg, sizeof(msg), NULL, 0), 0);
}

static int
worker_status(void)
{
	int status;

	assert_int_equal(waitpid(t.pid, &status, 0), t.pid);
	t.pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static void
it_is_ready_and_stops_when_told(void **state)
{
	struct worker_msg msg = heard();

	(void)state;
	assert_int_equal(msg.kind, WORKER_READY);
	assert_true(msg.took_ns > 0);
	tell(WORKER_STOP);
	assert_int_equal(worker_status(), 0);
}

static void
it_checks_its_guest_again_and_again(void **state)
{
	struct worker_msg msg = heard();

	(void)state;
	for (int i = 0; i < 3; i++) {
		tell(WORKER_CHECK);
		msg = heard();
		assert_int_equal(msg.kind, WORKER_CHECKED);
		assert_int_equal(msg.error, 0);
	}
	/* Two at once: the second is refused, both are answered. */
	tell(WORKER_CHECK);
	tell(WORKER_CHECK);
	assert_int_equal(heard().kind, WORKER_CHECKED);
	assert_int_equal(heard().kind, WORKER_CHECKED);
	tell(WORKER_STOP);
	assert_int_equal(worker_status(), 0);
}

static void
it_resets_its_machine_again_and_again(void **state)
{
	struct worker_msg msg = heard();

	(void)state;
	for (int i = 1; i <= 3; i++) {
		tell(WORKER_RESET);
		msg = heard();
		assert_int_equal(msg.kind, WORKER_READY);
		assert_int_equal(msg.pages, 1);
	}
	tell(WORKER_CHECK);
	assert_int_equal(heard().kind, WORKER_CHECKED);
	tell(WORKER_STOP);
	assert_int_equal(worker_status(), 0);
}

/* --- copies ------------------------------------------------------------------------ */

/* Somebody borrows the VM: as the segment would say. */
static void
lend(void)
{
	assert_int_equal(heard().kind, WORKER_READY);
	atomic_store(&t.seg->slot[0].word, slot_word(SLOT_IN_USE, 0, LEASE));
}

/* Have it copied; the answer, and its files. */
static struct worker_msg
capture(uint64_t lease, int file, int fds[2])
{
	const struct worker_msg ask = {.magic = CTL_MAGIC, .kind = WORKER_CAPTURE, .lease = lease};
	struct worker_msg msg;

	assert_int_equal(ctl_send(t.sock, &ask, sizeof(ask), &file, file >= 0), 0);
	assert_int_equal(ctl_recv(t.sock, &msg, sizeof(msg), fds, 2), 0);
	assert_int_equal(msg.kind, WORKER_CAPTURED);
	return msg;
}

/* A command that the null machine knows. */
static void
client_runs(const char *command)
{
	struct shm_chan *chan = &t.seg->chan[0];
	struct {
		struct proto_exec exec;
		char strings[64];
	} p = {.exec = {.argc = 1}};
	struct ring_rec rec = {.type = PROTO_EXEC, .stream = 1, .lease = LEASE};
	struct ring ring;

	(void)snprintf(p.strings, sizeof(p.strings), "%s", command);
	rec.length = p.exec.size = (uint32_t)(sizeof(p.exec) + strlen(command) + 3);
	ring_init_producer(&ring, &chan->req, chan->req_data);
	assert_int_equal(ring_write(&ring, &rec, &p), 0);
	assert_int_equal(eventfd_write(t.request, 1), 0);
}

static void
its_vm_can_be_forked(void **state)
{
	struct worker_msg msg;
	int fds[2];

	(void)state;
	lend();
	for (int i = 0; i < 2; i++) {
		msg = capture(LEASE, -1, fds);
		assert_int_equal(msg.error, 0);
		assert_int_equal(msg.tmpl.state_len, 5);
		assert_int_equal(lseek(fds[0], 0, SEEK_END), 64 << 20);
		/* Nobody changes them any more. */
		assert_int_equal(ftruncate(fds[0], 0), -1);
		assert_int_equal(write(fds[1], "x", 1), -1);
		template_close(fds);
	}
	/* It goes on: another lease may end, and the VM be reset. */
	tell(WORKER_RESET);
	assert_int_equal(heard().kind, WORKER_READY);
}

static void
its_vm_becomes_a_snapshot(void **state)
{
	_cleanup_(closep) int file = memfd_create("snapshot", MFD_CLOEXEC);
	struct worker_msg msg;
	struct snap snap;
	char err[256];
	int fds[2];

	(void)state;
	lend();
	msg = capture(LEASE, file, fds);
	assert_int_equal(msg.error, 0);
	assert_int_equal(fds[0], -1);
	assert_int_equal(snap_open(file, &snap, err, sizeof(err)), 0);
	assert_string_equal(snap.info.accel, "null");
	assert_int_equal(snap.info.mem_mib, 64);
	assert_int_equal(snap.state_len, 5);
}

static void
no_copy_without_the_lease(void **state)
{
	int fds[2];

	(void)state;
	lend();
	assert_int_equal(capture(LEASE - 1, -1, fds).error, -ESTALE);
	atomic_store(&t.seg->slot[0].word, slot_word(SLOT_IDLE, SHM_NO_CLIENT, LEASE));
	assert_int_equal(capture(LEASE, -1, fds).error, -ESTALE);
}

static void
no_copy_while_commands_run(void **state)
{
	_cleanup_(closep) int full = open("/dev/full", O_RDWR | O_CLOEXEC);
	struct worker_msg msg;
	int fds[2];

	(void)state;
	lend();
	/* A file that cannot be one costs nothing but the answer. */
	msg = capture(LEASE, full, fds);
	assert_int_equal(msg.error, -SNAP_EFORMAT);
	assert_int_equal(capture(LEASE, -1, fds).error, 0);
	template_close(fds);
	client_runs("hang");
	while (atomic_load(&t.seg->chan[0].counter[C_exec_count]) == 0)
		(void)sched_yield();
	msg = capture(LEASE, -1, fds);
	assert_int_equal(msg.error, -EBUSY);
	assert_non_null(strstr(msg.text, "commands run"));
}

static void
it_ends_with_its_supervisor(void **state)
{
	(void)state;
	(void)heard();
	assert_int_equal(close(t.sock), 0);
	t.sock = -1;
	assert_int_equal(worker_status(), 0);
}

static void
it_ends_at_what_it_does_not_know(void **state)
{
	(void)state;
	(void)heard();
	tell(4711);
	assert_int_equal(worker_status(), 0);
}

/* --- clients that join ------------------------------------------------------------- */

#define LEASE 7u

struct client {
	int fds[CTL_JOIN_FDS]; /* ours; its end of the socket closed: it has left */
	struct shm_chan *chan;
	struct ring req, rsp;
	uint8_t payload[RING_PAYLOAD_MAX];
};

static void
lease(enum slot_state state, uint64_t generation)
{
	atomic_store(&t.seg->slot[0].word, slot_word(state, 3, generation));
}

/* What the worker says to who joins that lease. */
static int
join(struct client *c, uint64_t generation)
{
	const struct worker_msg msg = {
	    .magic = CTL_MAGIC, .kind = WORKER_JOIN, .lease = generation};
	struct ctl_joined hello = {0};
	int pair[2], fds[CTL_JOIN_FDS];

	c->fds[CTL_JOIN_CHAN] = joined_create();
	c->fds[CTL_JOIN_REQUEST] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->fds[CTL_JOIN_RESPONSE] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	c->fds[CTL_JOIN_LIFE] = pair[0];
	memcpy(fds, c->fds, sizeof(fds));
	fds[CTL_JOIN_LIFE] = pair[1];
	assert_int_equal(ctl_send(t.sock, &msg, sizeof(msg), fds, CTL_JOIN_FDS), 0);
	assert_int_equal(close(pair[1]), 0);
	assert_int_equal(joined_map(&c->chan, c->fds[CTL_JOIN_CHAN]), 0);
	ring_init_producer(&c->req, &c->chan->req, c->chan->req_data);
	ring_init_consumer(&c->rsp, &c->chan->rsp, c->chan->rsp_data);
	assert_int_equal(ctl_recv(c->fds[CTL_JOIN_LIFE], &hello, sizeof(hello), NULL, 0), 0);
	assert_int_equal(hello.magic, CTL_MAGIC);
	return hello.error;
}

static void
leave(struct client *c)
{
	for (unsigned i = 0; i < CTL_JOIN_FDS; i++)
		closep(&c->fds[i]);
	joined_unmap(c->chan);
}

/* Its end of the socket hangs up, and nothing was said on it. */
static void
assert_cut_off(const struct client *c)
{
	struct pollfd p = {.fd = c->fds[CTL_JOIN_LIFE], .events = POLLIN};
	char byte;

	assert_int_equal(poll(&p, 1, DEADLINE_S * 1000), 1);
	assert_int_equal(recv(p.fd, &byte, 1, 0), 0);
	assert_int_equal(atomic_load(&c->chan->worker_asleep), SHM_CHAN_CLOSED);
}

static void
ask(struct client *c, uint8_t type, uint32_t stream, const void *payload, uint32_t length)
{
	const struct ring_rec rec = {
	    .length = length, .type = type, .stream = stream, .lease = LEASE};

	assert_int_equal(ring_write(&c->req, &rec, payload), 0);
	assert_int_equal(eventfd_write(c->fds[CTL_JOIN_REQUEST], 1), 0);
}

static void
start(struct client *c, const char *program)
{
	struct {
		struct proto_exec exec;
		char strings[32];
	} req = {{.argc = 1}, ""};

	(void)snprintf(req.strings, sizeof(req.strings), "%s", program);
	req.exec.size = (uint32_t)(sizeof(req.exec) + strlen(program) + 3);
	ask(c, PROTO_EXEC, 5, &req, req.exec.size);
}

static void
assert_answer(struct client *c, uint8_t type)
{
	uint64_t end = now_ns() + DEADLINE_S * SECOND_NS;
	struct ring_rec rec;

	/* By its eventfd, as if it were polling. */
	atomic_store(&c->chan->rsp_pollers, 1);
	while (ring_read(&c->rsp, &rec, c->payload) == 0 && now_ns() < end) {
		struct pollfd p = {.fd = c->fds[CTL_JOIN_RESPONSE], .events = POLLIN};
		eventfd_t value;

		(void)poll(&p, 1, 10);
		(void)eventfd_read(p.fd, &value);
	}
	assert_int_equal(rec.type, type);
}

static void
clients_join_and_leave(void **state)
{
	struct client a, b;

	(void)state;
	(void)heard();
	lease(SLOT_IN_USE, LEASE);
	assert_int_equal(join(&a, LEASE), 0);
	assert_int_equal(join(&b, LEASE), 0);
	start(&a, "true");
	assert_answer(&a, PROTO_EXIT);
	/* One that goes while its command prints without end; the other stays. */
	start(&a, "yes");
	assert_answer(&a, PROTO_STDOUT);
	leave(&a);
	start(&b, "true");
	assert_answer(&b, PROTO_EXIT);
	/* A rule is broken. */
	ask(&b, PROTO_STDOUT, 5, "x", 1);
	assert_cut_off(&b);
	leave(&b);
	assert_int_equal(join(&a, LEASE), 0);
	ask(&a, PROTO_PING, 0, "x", 1);
	assert_answer(&a, PROTO_PONG);
	leave(&a);
	tell(WORKER_STOP);
	assert_int_equal(worker_status(), 0);
}

static void
joining_has_its_limits(void **state)
{
	static struct client c[PORTS_MAX];

	(void)state;
	(void)heard();
	lease(SLOT_IN_USE, LEASE);
	assert_int_equal(join(&c[0], LEASE + 1), -ESTALE);
	leave(&c[0]);
	/* The same, but for bits that are not in a record. */
	assert_int_equal(join(&c[0], LEASE | 1ull << 32), -ESTALE);
	leave(&c[0]);
	for (unsigned i = 0; i < PORTS_MAX - 1; i++)
		assert_int_equal(join(&c[i], LEASE), 0);
	assert_int_equal(join(&c[PORTS_MAX - 1], LEASE), -EUSERS);
	leave(&c[PORTS_MAX - 1]);
	/* The lease ends; whoever asks too late is refused, and the others are cut off. */
	lease(SLOT_RESETTING, LEASE);
	assert_int_equal(join(&c[PORTS_MAX - 1], LEASE), -ESTALE);
	leave(&c[PORTS_MAX - 1]);
	tell(WORKER_RESET);
	assert_int_equal(heard().kind, WORKER_READY);
	for (unsigned i = 0; i < PORTS_MAX - 1; i++) {
		assert_cut_off(&c[i]);
		leave(&c[i]);
	}
	lease(SLOT_IN_USE, LEASE + 1);
	assert_int_equal(join(&c[0], LEASE), -ESTALE);
	leave(&c[0]);
	assert_int_equal(join(&c[0], LEASE + 1), 0);
	leave(&c[0]);
	tell(WORKER_STOP);
	assert_int_equal(worker_status(), 0);
}

/* Again and again, so that what is kept for them would be noticed. */
static void
many_come_and_go(void **state)
{
	char path[64];
	struct client c;
	int r;

	(void)state;
	(void)heard();
	lease(SLOT_IN_USE, LEASE);
	for (unsigned i = 0; i < 2000; i++) {
		/* Those who have left may not all be through yet. */
		while ((r = join(&c, LEASE)) == -EUSERS)
			leave(&c);
		assert_int_equal(r, 0);
		start(&c, i % 2 == 0 ? "sleep" : "yes");
		if (i % 3 == 0)
			ask(&c, PROTO_PING, 0, "x", 1);
		leave(&c);
	}
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/64", (int)t.pid);
	tell(WORKER_RESET);
	assert_int_equal(heard().kind, WORKER_READY);
	assert_int_not_equal(access(path, F_OK), 0);
	tell(WORKER_STOP);
	assert_int_equal(worker_status(), 0);
}

/* A message without its descriptors is none. */
static void
it_ends_at_a_join_of_nobody(void **state)
{
	(void)state;
	(void)heard();
	tell(WORKER_JOIN);
	assert_int_equal(worker_status(), 0);
}

static int
setup(void **state)
{
	const struct timeval limit = {.tv_sec = DEADLINE_S};
	int pair[2];

	(void)state;
	t.seg = testpool_new(&policy);
	t.request = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ||
	    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
		return -1;
	t.sock = pair[0];
	t.pid = fork();
	if (t.pid == 0)
		be_the_worker(pair[1]);
	(void)close(pair[1]);
	return t.pid < 0 ? -1 : 0;
}

static int
teardown(void **state)
{
	(void)state;
	if (t.pid > 0) {
		(void)kill(t.pid, SIGKILL);
		(void)waitpid(t.pid, NULL, 0);
	}
	closep(&t.sock);
	closep(&t.request);
	testpool_free(t.seg);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(it_is_ready_and_stops_when_told),
	    TEST(it_checks_its_guest_again_and_again),
	    TEST(it_resets_its_machine_again_and_again),
	    TEST(it_ends_with_its_supervisor),
	    TEST(it_ends_at_what_it_does_not_know),
	    TEST(its_vm_can_be_forked),
	    TEST(its_vm_becomes_a_snapshot),
	    TEST(no_copy_without_the_lease),
	    TEST(no_copy_while_commands_run),
	    TEST(clients_join_and_leave),
	    TEST(joining_has_its_limits),
	    TEST(many_come_and_go),
	    TEST(it_ends_at_a_join_of_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
