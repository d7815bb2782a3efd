/* SPDX-License-Identifier: MIT
 *
 * test_worker.c - a worker process as its supervisor sees it (worker/worker.c):
 * what it says and answers on its control socket. The machine is the null machine;
 * everything else is real.
 */
#include "shm/ring.h"
#include "shm/slot.h"
#include "worker/snapfile.h"
#include "worker/template.h"
#include "worker/worker.h"

#include "kvm/proto.h"

#include <fcntl.h>
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

#include "shm/ctl.h"
#include "tests/lib/testpool.h"

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
