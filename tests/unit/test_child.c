/* SPDX-License-Identifier: MIT
 *
 * test_child.c - the supervisor's table of workers (supervisor/child.c), with
 * real processes as workers and this test as fork server and event loop.
 */
#include "supervisor/child.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "shm/ctl.h"

#define SLOTS 4
#define SEC 1000000000ull

static struct evloop *loop;
static struct children *table;
static struct ev_timer give_up;

/* What the table told last. */
static struct {
	unsigned spawned, ready, checked, failed, gone;
	int error;
	uint32_t slot;
	pid_t pid;
	uint64_t boot_ns;
	char text[256];
	struct child_end end;
} told;

static void
on_spawned(void *arg, uint32_t slot, pid_t pid)
{
	(void)arg;
	told.spawned++;
	told.slot = slot;
	told.pid = pid;
}

static void
on_ready(void *arg, uint32_t slot, uint64_t boot_ns)
{
	(void)arg;
	told.ready++;
	told.slot = slot;
	told.boot_ns = boot_ns;
	evloop_stop(loop);
}

static void
on_checked(void *arg, uint32_t slot, int error)
{
	(void)arg;
	told.checked++;
	told.slot = slot;
	told.error = error;
	evloop_stop(loop);
}

static void
on_failed(void *arg, uint32_t slot, const char *text)
{
	(void)arg;
	told.failed++;
	told.slot = slot;
	(void)snprintf(told.text, sizeof(told.text), "%s", text);
	evloop_stop(loop);
}

static void
on_gone(void *arg, uint32_t slot, const struct child_end *end)
{
	(void)arg;
	told.gone++;
	told.slot = slot;
	told.end = *end;
}

static void
on_give_up(void *arg)
{
	(void)arg;
	fail_msg("nothing happened in 10 s");
}

/* Turn the loop until a callback stops it. */
static void
turn(void)
{
	give_up.at_ns = now_ns() + 10 * SEC;
	assert_int_equal(evloop_run(loop), 0);
	give_up.at_ns = 0;
}

static void
on_ended(void *arg, uint32_t events)
{
	(void)arg;
	(void)events;
	evloop_stop(loop);
}

static void
turn_until_ended(pid_t pid)
{
	struct ev_source src = {.fd = pidfd_open(pid, 0), .ready = on_ended};

	assert_int_equal(evloop_add(loop, &src, EPOLLIN), 0);
	turn();
	evloop_del(loop, &src);
	assert_int_equal(close(src.fd), 0);
}

/* As the SIGCHLD handler does: see a child's end, tell the table, reap. */
static bool
reap(pid_t pid)
{
	siginfo_t si = {0};
	bool ours;

	assert_int_equal(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT), 0);
	ours = children_ended(table, &si);
	assert_int_equal(waitid(P_PID, (id_t)pid, &si, WEXITED), 0);
	return ours;
}

/* A worker in this slot that sends msgs, then exits with status or sleeps (-1). */
static pid_t
worker(uint32_t slot, uint64_t generation, const void *msg, size_t len, int status)
{
	int sock, pidfd;
	pid_t pid;

	assert_int_equal(child_begin(table, slot, generation, &sock), 0);
	assert_int_equal(child_state(table, slot), CHILD_SPAWNING);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (len > 0 && ctl_send(sock, msg, len, NULL, 0) < 0)
			_exit(99);
		if (status >= 0)
			_exit(status);
		for (;;)
			pause();
	}
	assert_int_equal(close(sock), 0);
	pidfd = pidfd_open(pid, 0);
	assert_true(pidfd >= 0);
	child_spawned(table, slot, generation, pid, pidfd, 0);
	return pid;
}

static const struct worker_msg ready_msg = {
    .magic = CTL_MAGIC,
    .kind = WORKER_READY,
    .took_ns = 1234,
};

static void
test_a_whole_life(void **state)
{
	pid_t pid = worker(2, 7, &ready_msg, sizeof(ready_msg), -1);

	(void)state;
	assert_int_equal(told.spawned, 1);
	assert_int_equal(told.pid, pid);
	assert_int_equal(child_state(table, 2), CHILD_STARTING);
	assert_int_equal(children_starting(table), 1);
	turn();
	assert_int_equal(told.ready, 1);
	assert_int_equal(told.boot_ns, 1234);
	assert_int_equal(child_state(table, 2), CHILD_READY);
	assert_int_equal(children_starting(table), 0);
	assert_int_equal(children_total(table), 1);

	child_kill(table, 2, "enough");
	assert_int_equal(child_state(table, 2), CHILD_ENDING);
	assert_int_equal(children_total(table), 1);
	assert_true(reap(pid));
	assert_int_equal(told.gone, 1);
	assert_int_equal(told.slot, 2);
	assert_true(told.end.was_ready && told.end.killed);
	assert_int_equal(told.end.error, 0);
	assert_string_equal(told.end.why, "enough");
	assert_int_equal(child_state(table, 2), CHILD_NONE);
	assert_int_equal(children_total(table), 0);
}

static void
test_last_words_count(void **state)
{
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_FAILED, .error = -ENOEXEC};
	pid_t pid;

	(void)state;
	(void)snprintf(msg.text, sizeof(msg.text), "kernel: not a kernel\033[31m\nBooting\n");
	pid = worker(0, 1, &msg, sizeof(msg), 1);
	/* Its end is seen before the loop has read the message. */
	assert_true(reap(pid));
	assert_int_equal(told.failed, 1);
	assert_non_null(strstr(told.text, "\nBooting"));
	assert_int_equal(told.gone, 1);
	assert_false(told.end.was_ready);
	assert_int_equal(told.end.error, -ENOEXEC);
	assert_string_equal(told.end.why, "kernel: not a kernel?[31m");
}

static void
test_a_silent_end_is_explained_by_its_status(void **state)
{
	(void)state;
	assert_true(reap(worker(0, 1, NULL, 0, 42)));
	assert_string_equal(told.end.why, "its worker exited with status 42");
	assert_false(told.end.killed);
}

static void
test_rubbish_ends_the_worker(void **state)
{
	struct worker_msg msgs[] = {ready_msg, ready_msg, ready_msg, ready_msg};
	size_t len[] = {sizeof(msgs[0]), sizeof(msgs[0]), sizeof(msgs[0]), 5};
	pid_t pid;

	(void)state;
	msgs[0].magic = 1;
	msgs[1].kind = WORKER_STOP;
	msgs[2].kind = WORKER_FAILED; /* without an error */
	for (unsigned i = 0; i < ARRAY_SIZE(msgs); i++) {
		pid = worker(1, i, &msgs[i], len[i], -1);
		turn_until_ended(pid);
		assert_true(reap(pid));
		assert_true(told.end.killed);
		assert_string_equal(told.end.why, "its worker sent something unknown");
	}
	assert_int_equal(told.ready, 0);
}

static void
test_killed_while_the_fork_server_works(void **state)
{
	int sock, pidfd;
	pid_t pid;

	(void)state;
	assert_int_equal(child_begin(table, 3, 5, &sock), 0);
	child_kill(table, 3, "too late");
	assert_int_equal(children_total(table), 1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		for (;;)
			pause();
	assert_int_equal(close(sock), 0);
	pidfd = pidfd_open(pid, 0);
	child_spawned(table, 3, 5, pid, pidfd, 0);
	assert_true(reap(pid)); /* blocks until it has been killed */
	assert_int_equal(told.spawned, 0);
	assert_string_equal(told.end.why, "too late");
}

static void
test_answers_nobody_waits_for(void **state)
{
	siginfo_t si;
	int sock;

	(void)state;
	assert_int_equal(child_begin(table, 1, 5, &sock), 0);
	assert_int_equal(close(sock), 0);
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			for (;;)
				pause();
		/* Another generation; a slot that asked for nothing; no slot at all. */
		child_spawned(table, (const uint32_t[]){1, 0, UINT32_MAX}[i], 4, pid,
			      pidfd_open(pid, 0), 0);
		assert_int_equal(waitid(P_PID, (id_t)pid, &si, WEXITED), 0);
		assert_int_equal(si.si_status, SIGKILL);
	}
	assert_int_equal(child_state(table, 1), CHILD_SPAWNING);
	child_spawned(table, 1, 5, 0, -1, -EAGAIN);
	assert_int_equal(told.gone, 1);
	assert_int_equal(told.end.error, -EAGAIN);
	assert_int_equal(told.end.pid, 0);
	assert_int_equal(child_state(table, 1), CHILD_NONE);
}

static void
test_no_answer_comes(void **state)
{
	pid_t pid = worker(0, 1, NULL, 0, -1);
	int sock;

	(void)state;
	assert_int_equal(child_begin(table, 1, 5, &sock), 0);
	assert_int_equal(close(sock), 0);
	assert_false(children_tick(table, now_ns() + 9 * SEC));
	assert_true(children_tick(table, now_ns() + 11 * SEC));
	children_unanswered(table, "the fork server ended");
	assert_int_equal(told.gone, 1);
	assert_int_equal(told.slot, 1);
	assert_string_equal(told.end.why, "the fork server ended");
	assert_int_equal(child_state(table, 0), CHILD_STARTING);
	child_kill(table, 0, "");
	assert_true(reap(pid));
}

static void
test_deadlines(void **state)
{
	pid_t pid = worker(0, 1, NULL, 0, -1);

	(void)state;
	assert_false(children_tick(table, now_ns() + 80 * SEC));
	assert_int_equal(child_state(table, 0), CHILD_STARTING);
	assert_false(children_tick(table, now_ns() + 100 * SEC));
	assert_true(reap(pid));
	assert_string_equal(told.end.why, "no sign of life in 90 s");

	/* One that is ready has no deadline, unless it was asked something. */
	pid = worker(0, 2, &ready_msg, sizeof(ready_msg), -1);
	turn();
	(void)children_tick(table, now_ns() + 10000 * SEC);
	assert_int_equal(child_state(table, 0), CHILD_READY);
	child_check(table, 0);
	assert_int_equal(child_state(table, 0), CHILD_CHECKING);
	assert_int_equal(children_in(table, CHILD_CHECKING), 1);
	assert_false(children_tick(table, now_ns() + 14 * SEC));
	assert_int_equal(child_state(table, 0), CHILD_CHECKING);
	assert_false(children_tick(table, now_ns() + 16 * SEC));
	assert_int_equal(children_in(table, CHILD_CHECKING), 0);
	assert_true(reap(pid));
	assert_string_equal(told.end.why, "no answer to a health check in 15 s");
	assert_true(told.end.checking);
	assert_int_equal(told.checked, 0);
}

static void
test_joining_needs_a_worker_that_serves(void **state)
{
	const int fds[CTL_JOIN_FDS] = {0, 0, 0, 0};
	pid_t pid = worker(0, 1, &ready_msg, sizeof(ready_msg), -1);
	int r = 0;

	(void)state;
	assert_int_equal(child_join(table, 0, 1, fds), -EAGAIN);
	assert_int_equal(child_join(table, 1, 1, fds), -EAGAIN);
	assert_int_equal(child_join(table, UINT32_MAX, 1, fds), -EAGAIN);
	turn();
	assert_int_equal(child_join(table, 0, 1, fds), 0);
	assert_int_equal(child_state(table, 0), CHILD_READY);
	/* One that takes no notice: that is the client's trouble alone. */
	for (unsigned i = 0; i < 100000 && r == 0; i++)
		r = child_join(table, 0, 1, fds);
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(child_state(table, 0), CHILD_READY);
	child_kill(table, 0, "");
	assert_int_equal(child_join(table, 0, 1, fds), -EAGAIN);
	assert_true(reap(pid));
}

static void
test_reaped_before_it_was_known(void **state)
{
	int sock, pidfd;
	pid_t pid;

	(void)state;
	assert_int_equal(child_begin(table, 0, 9, &sock), 0);
	assert_int_equal(close(sock), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(0);
	pidfd = pidfd_open(pid, 0);
	assert_false(reap(pid));
	child_spawned(table, 0, 9, pid, pidfd, 0);
	assert_int_equal(told.gone, 1);
	assert_int_equal(child_state(table, 0), CHILD_NONE);
}

static void
test_the_end_kills_and_reaps_all(void **state)
{
	pid_t pid[SLOTS];

	(void)state;
	for (uint32_t i = 0; i < SLOTS; i++)
		pid[i] = worker(i, i, NULL, 0, -1);
	assert_int_equal(children_free(table, 10000), 0);
	table = NULL;
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_int_equal(kill(pid[i], 0), -1);
	assert_int_equal(told.gone, 0);
}

static int
setup(void **state)
{
	const struct child_ops ops = {
	    .spawned = on_spawned,
	    .ready = on_ready,
	    .checked = on_checked,
	    .failed = on_failed,
	    .gone = on_gone,
	};

	(void)state;
	memset(&told, 0, sizeof(told));
	give_up = (struct ev_timer){.fire = on_give_up};
	if (evloop_new(&loop) < 0 || children_new(&table, loop, SLOTS, &ops) < 0)
		return -1;
	evloop_timer(loop, &give_up);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	if (children_free(table, 10000) != 0)
		return -1;
	evloop_free(loop);
	return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : -1;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_a_whole_life),
	    TEST(test_last_words_count),
	    TEST(test_a_silent_end_is_explained_by_its_status),
	    TEST(test_rubbish_ends_the_worker),
	    TEST(test_killed_while_the_fork_server_works),
	    TEST(test_answers_nobody_waits_for),
	    TEST(test_no_answer_comes),
	    TEST(test_deadlines),
	    TEST(test_joining_needs_a_worker_that_serves),
	    TEST(test_reaped_before_it_was_known),
	    TEST(test_the_end_kills_and_reaps_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
