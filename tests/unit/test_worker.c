/* SPDX-License-Identifier: MIT
 *
 * test_worker.c - a worker process as its supervisor sees it (worker/worker.c):
 * what it says and answers on its control socket. The machine is the null machine;
 * everything else is real.
 */
#include "worker/worker.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "shm/ctl.h"
#include "tests/lib/testpool.h"

#define DEADLINE_S 20

static const struct testpool_policy policy = {.nslots = 2, .max_idle = 2, .max_total = 2};

static struct {
	struct seg *seg;
	int sock;
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
	    .request = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
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
	testpool_free(t.seg);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(it_is_ready_and_stops_when_told),	 TEST(it_checks_its_guest_again_and_again),
	    TEST(it_resets_its_machine_again_and_again), TEST(it_ends_with_its_supervisor),
	    TEST(it_ends_at_what_it_does_not_know),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
