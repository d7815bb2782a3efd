/* SPDX-License-Identifier: MIT
 *
 * test_survival.c - vmpoold with the null worker outlives the deaths of all
 * others, and clients that misbehave. Every test ends with a check that no
 * process and no file is left.
 */
#include "tests/lib/pool_client.h"
#include "tests/lib/pool_peer.h"

#include "shm/lock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

/* --- deaths ---------------------------------------------------------------------------------- */

static void
test_dead_worker_is_replaced(void **state)
{
	pid_t pid = pool_peer_start("1"), worker[2];
	struct vmpool *pool = pool_client_attach();
	struct vmpool_vm *vm;

	(void)state;
	assert_int_equal(pool_peer_workers(worker, 2), 1);
	assert_int_equal(kill(worker[0], SIGKILL), 0);
	pool_peer_until(
	    pool_peer_log_says("VM ended while idle: its worker was killed by signal 9"));
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_workers(worker + 1, 1), 1);
	assert_int_not_equal(worker[0], worker[1]);
	assert_int_equal(pool_peer_stat("vm_died_count"), 1);

	vm = pool_client_acquire(pool);
	assert_int_equal(kill(worker[1], SIGKILL), 0);
	pool_peer_until(pool_peer_stat("vm_died_count") == 2);
	assert_int_equal(vmpool_release(vm), VMPOOL_EVMDIED);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("in_use_count"), 0);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_dead_client_gives_back(void **state)
{
	pid_t pid = pool_peer_start("1"), client = fork();
	int status;

	(void)state;
	assert_true(client >= 0);
	if (client == 0) {
		struct vmpool_vm *vm;
		struct vmpool *pool;

		if (vmpool_attach(&pool, NULL) != 0 ||
		    vmpool_acquire(pool, &pool_client_10_s, &vm) != 0 ||
		    vmpool_ping(vm, 1, NULL) == 0)
			_exit(1);
		(void)raise(SIGKILL);
	}
	assert_int_equal(waitpid(client, &status, 0), client);
	assert_true(WIFSIGNALED(status));
	pool_peer_until(pool_peer_stat("reclaim_count") == 1);
	/* It was touched: not that VM, but a new one, becomes idle. */
	pool_peer_until(pool_peer_stat("discard_count") == 1);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("in_use_count"), 0);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_used_vm_is_never_handed_on(void **state)
{
	pid_t pid = pool_peer_start("1"), before, after;
	struct vmpool *pool = pool_client_attach();
	struct vmpool_vm *vm = pool_client_acquire(pool);

	(void)state;
	assert_int_equal(pool_peer_workers(&before, 1), 1);
	/* Untouched, it is idle again at once. */
	assert_int_equal(vmpool_release(vm), 0);
	vm = pool_client_acquire(pool);
	assert_true(pool_peer_alive(before));
	assert_int_equal(pool_peer_stat("spawn_count"), pool_peer_stat("idle_count") + 1);
	/* The null worker answers nothing, but it has been written to. */
	assert_int_not_equal(vmpool_ping(vm, 1, NULL), 0);
	assert_int_equal(vmpool_release(vm), 0);
	pool_peer_until(!pool_peer_alive(before));
	vm = pool_client_acquire(pool);
	assert_int_equal(pool_peer_workers(&after, 1), 1);
	assert_int_not_equal(before, after);
	assert_int_equal(vmpool_release(vm), 0);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

/* The fork server: the supervisor's only child that is no worker. */
static pid_t
fork_server_of(pid_t supervisor)
{
	pid_t worker[16], pid;
	unsigned n = pool_peer_workers(worker, 16), i;
	char path[64];
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)supervisor,
		       (int)supervisor);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fscanf(f, "%d", &pid) == 1) {
		for (i = 0; i < n && worker[i] != pid; i++)
			continue;
		if (i == n)
			break;
		pid = 0;
	}
	assert_int_equal(fclose(f), 0);
	return pid;
}

static void
test_dead_fork_server_is_replaced(void **state)
{
	pid_t pid = pool_peer_start("2"), worker[2], fsrv;
	struct vmpool *pool = pool_client_attach();

	(void)state;
	pool_peer_until(pool_peer_stat("idle_count") == 2);
	assert_int_equal(pool_peer_workers(worker, 2), 2);
	fsrv = fork_server_of(pid);
	assert_true(fsrv > 0);
	assert_int_equal(kill(fsrv, SIGKILL), 0);
	pool_peer_until(
	    pool_peer_log_says("the fork server ended (signal 9); it will be started again"));
	/* Running VMs do not notice, and new ones can be made. */
	assert_true(pool_peer_alive(worker[0]) && pool_peer_alive(worker[1]));
	assert_int_equal(kill(worker[0], SIGKILL), 0);
	pool_peer_until(pool_peer_stat("spawn_count") == 3);
	vmpool_detach(pool);
	/* The new fork server is the new undertaker. */
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(pool_peer_status(pid), 256 + SIGKILL);
	pool_peer_until(access(pool_peer_path("run/default.pid"), F_OK) < 0);
}

/* Does the process wait for a file lock? */
static bool
waits_for_lock(pid_t pid)
{
	char line[256], words[32];
	bool found = false;
	FILE *f = fopen("/proc/locks", "re");

	assert_non_null(f);
	(void)snprintf(words, sizeof(words), " WRITE %d ", (int)pid);
	while (fgets(line, sizeof(line), f) != NULL)
		found = found || (strstr(line, "-> FLOCK") != NULL && strstr(line, words) != NULL);
	assert_int_equal(fclose(f), 0);
	return found;
}

static void
test_successor_waits_for_the_undertaker(void **state)
{
	pid_t first = pool_peer_start("1"), fsrv = fork_server_of(first), second;

	(void)state;
	assert_int_equal(kill(fsrv, SIGSTOP), 0);
	assert_int_equal(kill(first, SIGKILL), 0);
	assert_int_equal(pool_peer_status(first), 256 + SIGKILL);
	second = pool_peer_run(NULL, NULL);
	pool_peer_until(waits_for_lock(second));
	/* What it waits for is the lock on a file that is then removed. */
	assert_int_equal(kill(fsrv, SIGCONT), 0);
	pool_peer_ready(second);
	assert_int_equal(access(pool_peer_path("run/default.pid"), F_OK), 0);
	assert_int_equal(access(pool_peer_path("run/default.sock"), F_OK), 0);
	assert_int_equal(pool_peer_stat("idle_count"), 1);
	assert_int_equal(pool_peer_stop(second), 0);
}

/* --- bad clients ------------------------------------------------------------------------------ */

/* Send it and expect to be cut off. */
static void
assert_cut_off(int fd, const void *msg, size_t len)
{
	struct ctl_reply reply;
	int r = ctl_send(fd, msg, len, NULL, 0);

	assert_true(r == 0 || r == -EPIPE);
	assert_int_equal(ctl_recv(fd, &reply, sizeof(reply), NULL, 0), -EPIPE);
	assert_int_equal(close(fd), 0);
}

static void
test_bad_clients_are_cut_off_alone(void **state)
{
	pid_t pid = pool_peer_start("1");
	struct vmpool *pool = pool_client_attach();
	struct vmpool_vm *vm = pool_client_acquire(pool);
	struct ctl_request req = pool_client_request(0);
	struct ctl_reply reply;
	uint8_t big[4096];
	int fd;

	(void)state;
	memset(big, 0xa5, sizeof(big));
	for (size_t len = 1; len <= sizeof(big); len = len * 3 + 1)
		assert_cut_off(pool_client_connect(), big, len);
	assert_cut_off(pool_client_connect(), &req, sizeof(req));
	req = pool_client_request(CTL_ATTACHED);
	assert_cut_off(pool_client_connect(), &req, sizeof(req));
	req = pool_client_request(CTL_DOORBELLS); /* before it has attached */
	assert_cut_off(pool_client_connect(), &req, sizeof(req));

	req = pool_client_request(CTL_ATTACH);
	req.format ^= 1;
	fd = pool_client_ask(&req, &reply);
	assert_int_equal(reply.kind, CTL_REFUSED);
	assert_int_equal(reply.error, -EMEDIUMTYPE);
	assert_non_null(strstr(reply.text, "another segment layout"));
	assert_int_equal(close(fd), 0);

	req.format = SHM_FORMAT;
	fd = pool_client_ask(&req, &reply);
	assert_int_equal(reply.kind, CTL_ATTACHED);
	assert_cut_off(fd, &req, sizeof(req)); /* twice */
	fd = pool_client_ask(&req, &reply);
	req = pool_client_request(CTL_DOORBELLS);
	req.slot = UINT32_MAX;
	assert_int_equal(ctl_send(fd, &req, sizeof(req), NULL, 0), 0);
	assert_int_equal(ctl_recv(fd, &reply, sizeof(reply), NULL, 0), 0);
	assert_int_equal(reply.kind, CTL_REFUSED);
	assert_int_equal(reply.error, -EINVAL);
	assert_int_equal(close(fd), 0);

	/* All the while others are served. */
	assert_int_equal(vmpool_release(vm), 0);
	vm = pool_client_acquire(pool);
	assert_int_equal(vmpool_release(vm), 0);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_client_that_fetches_nothing_is_cut_off(void **state)
{
	pid_t pid = pool_peer_start("1");
	struct ctl_request req = pool_client_request(CTL_ATTACH);
	struct ctl_reply reply;
	int fd = pool_client_ask(&req, &reply), r = 0;

	(void)state;
	req = pool_client_request(CTL_DOORBELLS);
	for (unsigned i = 0; i < 100000 && r == 0; i++)
		r = ctl_send(fd, &req, sizeof(req), NULL, 0);
	assert_int_equal(r, -EPIPE);
	assert_int_equal(close(fd), 0);
	assert_int_equal(pool_peer_stat("idle_count"), 1);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_stopped_lock_holder_does_not_stop_the_supervisor(void **state)
{
	pid_t pid = pool_peer_start("1"), holder = fork(), worker;
	struct ctl_request req = pool_client_request(CTL_ATTACH);
	struct ctl_reply reply;
	struct vmpool *pool;
	siginfo_t si;
	char err[256];
	int status;

	(void)state;
	assert_true(holder >= 0);
	if (holder == 0) {
		struct seg *seg;
		int fd;

		(void)pool_client_ask_fd(&req, &reply, &fd);
		if (seg_attach(&seg, fd, false, err, sizeof(err)) < 0 ||
		    lock_acquire(seg, LOCK_FOREVER) < 0)
			_exit(1);
		(void)raise(SIGSTOP);
		_exit(0);
	}
	assert_int_equal(waitid(P_PID, (id_t)holder, &si, WSTOPPED | WEXITED), 0);
	assert_int_equal(si.si_code, CLD_STOPPED);
	/* A death that needs the lock; a monitor that does not. */
	assert_int_equal(pool_peer_workers(&worker, 1), 1);
	assert_int_equal(kill(worker, SIGKILL), 0);
	pool_peer_until(pool_peer_log_says("VM ended while idle"));
	assert_int_equal(pool_peer_stat("vm_died_count"), 0);
	(void)snprintf(err, sizeof(err),
		       "the pool lock has been held by thread %d for over a second", (int)holder);
	pool_peer_until(pool_peer_log_says(err));
	/* The watchdog ends the stopped client, and says so. */
	assert_int_equal(waitpid(holder, &status, 0), holder);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	(void)snprintf(err, sizeof(err), "client %d (", (int)holder);
	pool_peer_until(pool_peer_log_says(err));
	pool_peer_until(pool_peer_stat("vm_died_count") == 1);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("lock_recovery_count"), 1);
	pool = pool_client_attach();
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

/* A lock word that names a process which has nothing to do with the pool. */
static void
test_scribbled_lock_word_is_broken_and_nobody_is_killed(void **state)
{
	pid_t pid = pool_peer_start("1"), bystander = fork();
	struct ctl_request req = pool_client_request(CTL_ATTACH);
	struct ctl_reply reply;
	struct vmpool *pool;
	struct vmpool_vm *vm;
	struct seg *seg;
	char err[256];
	int fd, sock;

	(void)state;
	if (bystander == 0) {
		(void)pause();
		_exit(0);
	}
	sock = pool_client_ask_fd(&req, &reply, &fd);
	assert_int_equal(seg_attach(&seg, fd, false, err, sizeof(err)), 0);
	atomic_store(&seg->head->lock.word, (uint32_t)bystander);
	pool_peer_until(pool_peer_log_says("which is no client's; breaking it"));
	pool = pool_client_attach();
	vm = pool_client_acquire(pool);
	assert_int_equal(vmpool_release(vm), 0);
	assert_int_equal(pool_peer_stat("lock_recovery_count"), 1);
	assert_int_equal(waitpid(bystander, NULL, WNOHANG), 0);
	assert_int_equal(kill(bystander, SIGKILL), 0);
	assert_int_equal(waitpid(bystander, NULL, 0), bystander);
	vmpool_detach(pool);
	seg_close(seg);
	assert_int_equal(close(sock), 0);
	assert_int_equal(pool_peer_stop(pid), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, pool_peer_setup, pool_peer_teardown)

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_dead_worker_is_replaced),
	    TEST(test_dead_client_gives_back),
	    TEST(test_used_vm_is_never_handed_on),
	    TEST(test_dead_fork_server_is_replaced),
	    TEST(test_successor_waits_for_the_undertaker),
	    TEST(test_bad_clients_are_cut_off_alone),
	    TEST(test_client_that_fetches_nothing_is_cut_off),
	    TEST(test_stopped_lock_holder_does_not_stop_the_supervisor),
	    TEST(test_scribbled_lock_word_is_broken_and_nobody_is_killed),
	};

	pool_peer_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
