/* SPDX-License-Identifier: MIT
 *
 * test_supervisor.c - vmpoold with the null worker: start, refill, deaths of
 * every process, bad clients, drain, configuration. Every test ends with a check
 * that no process and no file is left.
 */
#include "tests/lib/pool_peer.h"

#include "shm/base.h"
#include "shm/ctl.h"
#include "shm/lock.h"
#include "shm/vmpool.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>


static const struct vmpool_acquire_opts in_10_s = {.timeout_ms = 10000};

static bool
log_says(const char *words)
{
	return strstr(pool_peer_log(), words) != NULL;
}

static struct vmpool *
attached(void)
{
	struct vmpool *pool;
	int r = vmpool_attach(&pool, NULL);

	if (r != 0)
		fail_msg("attach: %s: %s", vmpool_strerror(r), vmpool_error(NULL));
	return pool;
}

static struct vmpool_vm *
acquired(struct vmpool *pool)
{
	struct vmpool_vm *vm;
	int r = vmpool_acquire(pool, &in_10_s, &vm);

	if (r != 0)
		fail_msg("acquire: %s: %s\n%s", vmpool_strerror(r), vmpool_error(pool),
			 pool_peer_log());
	return vm;
}

static pid_t
started(const char *min_idle)
{
	pid_t pid = pool_peer_run(NULL, "--min-idle", min_idle, NULL);

	pool_peer_ready(pid);
	return pid;
}

/* --- start and end ------------------------------------------------------------------ */

static void
test_start_and_stop(void **state)
{
	pid_t pid = started("2");
	struct stat st;

	(void)state;
	pool_peer_until(pool_peer_stat("idle_count") == 2);
	assert_int_equal(stat(pool_peer_path("run/default.sock"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_second_supervisor_is_refused(void **state)
{
	pid_t first = started("1"), second = pool_peer_run(NULL, NULL);
	char words[64];

	(void)state;
	(void)snprintf(words, sizeof(words), "pool 'default' is already running (pid %d)",
		       (int)first);
	assert_int_equal(pool_peer_status(second), 1);
	assert_true(log_says(words));
	assert_int_equal(pool_peer_stat("idle_count"), 1);
	/* Another name is another pool. */
	second = pool_peer_run(NULL, "--name", "other", NULL);
	pool_peer_ready(second);
	assert_int_equal(pool_peer_stop(second), 0);
	assert_int_equal(pool_peer_stop(first), 0);
}

static void
test_killed_supervisor_leaves_nothing(void **state)
{
	pid_t pid = started("3"), worker[3];

	(void)state;
	pool_peer_until(pool_peer_stat("idle_count") == 3);
	assert_int_equal(pool_peer_workers(worker, 3), 3);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(pool_peer_status(pid), 256 + SIGKILL);
	/* A new one can start at once, even while the old one is being cleared up. */
	pid = started("1");
	for (int i = 0; i < 3; i++)
		pool_peer_until(!pool_peer_alive(worker[i]));
	assert_int_equal(pool_peer_stat("idle_count"), 1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(pool_peer_status(pid), 256 + SIGKILL);
	pool_peer_until(access(pool_peer_path("run/default.sock"), F_OK) < 0);
	pool_peer_until(access(pool_peer_path("run/default.pid"), F_OK) < 0);
}

static void
test_daemonize(void **state)
{
	pid_t pid = pool_peer_run(NULL, "--daemonize", NULL);
	char text[16] = "";
	FILE *f;

	(void)state;
	/* When the caller has its prompt back the pool is ready. */
	assert_int_equal(pool_peer_status(pid), 0);
	assert_int_equal(pool_peer_stat("idle_count"), 1);
	f = fopen(pool_peer_path("run/default.pid"), "re");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	assert_int_equal(fclose(f), 0);
	assert_int_not_equal(atoi(text), pid);
	/* The test adopts orphans, so it can wait for the daemon. */
	assert_int_equal(pool_peer_stop(atoi(text)), 0);
}

/* --- bad starts ------------------------------------------------------------------------- */

static void
assert_start_fails(pid_t pid, int status, const char *words)
{
	assert_int_equal(pool_peer_status(pid), status);
	if (!log_says(words))
		fail_msg("no '%s' in:\n%s", words, pool_peer_log());
}

static void
test_bad_starts_say_why(void **state)
{
	static char long_dir[200];

	(void)state;
	assert_start_fails(pool_peer_run(NULL, "--min-idle", "x", NULL), 2, "'x' is not a whole");
	assert_start_fails(pool_peer_run(NULL, "--config", "/nonexistent", NULL), 2,
			   "/nonexistent: No such file");
	assert_start_fails(pool_peer_run("noaccel", NULL), 1, "vmpoold: no accelerator today\n");
	assert_start_fails(pool_peer_run(NULL, "--kernel", "/nonexistent/k", NULL), 1,
			   "kernel /nonexistent/k: No such file");
	assert_start_fails(pool_peer_run(NULL, "--image", "/dev/null", NULL), 1,
			   "image /dev/null: not a regular file");
	assert_int_equal(remove(pool_peer_path("bzImage")), 0);
	assert_start_fails(pool_peer_run(NULL, NULL), 1, "bzImage: No such file or directory (run");
	pool_peer_write("bzImage", "");
	assert_start_fails(pool_peer_run("fail:8:kernel: not a kernel", NULL), 1,
			   "no VM can start: kernel: not a kernel");
	assert_start_fails(pool_peer_run("fail:22:no cpio", "--daemonize", NULL), 1,
			   "no VM can start: no cpio");
	assert_start_fails(pool_peer_run("fail:5:flaky", "--daemonize", NULL), 1,
			   "no VM can start: flaky");
	assert_start_fails(pool_peer_run("crash", NULL), 1, "the fork server ended (status 4)");

	assert_int_equal(setenv("VMPOOL_WORKER", "/nonexistent/w", 1), 0);
	assert_start_fails(pool_peer_run(NULL, NULL), 1, "worker program /nonexistent/w: No such");
	assert_int_equal(setenv("VMPOOL_WORKER", pool_peer_path("log"), 1), 0);
	assert_start_fails(pool_peer_run(NULL, NULL), 1, "/log: Permission denied");
	assert_int_equal(setenv("VMPOOL_WORKER", "/proc/self/exe", 1), 0);

	memset(long_dir, 'd', sizeof(long_dir) - 1);
	long_dir[0] = '/';
	assert_int_equal(setenv("VMPOOL_RUNDIR", long_dir, 1), 0);
	assert_start_fails(pool_peer_run(NULL, NULL), 1, "longer than a socket's path may be");
	assert_int_equal(setenv("VMPOOL_RUNDIR", "/proc/vmpool", 1), 0);
	assert_start_fails(pool_peer_run(NULL, NULL), 1, "runtime directory /proc/vmpool: ");
}

static void
test_failing_starts_back_off_and_recover(void **state)
{
	pid_t pid = pool_peer_run("exit", NULL);

	(void)state;
	pool_peer_until(log_says("failure 3 in a row, next try in 0.4 s"));
	assert_true(log_says("its worker exited with status 3"));
	assert_true(pool_peer_stat("spawn_fail_count") >= 3);
	assert_int_equal(pool_peer_stop(pid), 0);
	for (unsigned i = 0; i < 2; i++) {
		pid = pool_peer_run(i == 0 ? "garbage" : "nofork", NULL);
		pool_peer_until(log_says(i == 0 ? "worker sent something unknown (failure 2"
						: "cannot make a worker"));
		assert_int_equal(pool_peer_stop(pid), 0);
	}
}

/* --- deaths ---------------------------------------------------------------------------------- */

static void
test_dead_worker_is_replaced(void **state)
{
	pid_t pid = started("1"), worker[2];
	struct vmpool *pool = attached();
	struct vmpool_vm *vm;

	(void)state;
	assert_int_equal(pool_peer_workers(worker, 2), 1);
	assert_int_equal(kill(worker[0], SIGKILL), 0);
	pool_peer_until(log_says("VM ended while idle: its worker was killed by signal 9"));
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_workers(worker + 1, 1), 1);
	assert_int_not_equal(worker[0], worker[1]);
	assert_int_equal(pool_peer_stat("vm_died_count"), 1);

	vm = acquired(pool);
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
	pid_t pid = started("1"), client = fork();
	int status;

	(void)state;
	assert_true(client >= 0);
	if (client == 0) {
		struct vmpool_vm *vm;
		struct vmpool *pool;

		if (vmpool_attach(&pool, NULL) != 0 || vmpool_acquire(pool, &in_10_s, &vm) != 0 ||
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
	pid_t pid = started("1"), before, after;
	struct vmpool *pool = attached();
	struct vmpool_vm *vm = acquired(pool);

	(void)state;
	assert_int_equal(pool_peer_workers(&before, 1), 1);
	/* Untouched, it is idle again at once. */
	assert_int_equal(vmpool_release(vm), 0);
	vm = acquired(pool);
	assert_true(pool_peer_alive(before));
	assert_int_equal(pool_peer_stat("spawn_count"), pool_peer_stat("idle_count") + 1);
	/* The null worker answers nothing, but it has been written to. */
	assert_int_not_equal(vmpool_ping(vm, 1, NULL), 0);
	assert_int_equal(vmpool_release(vm), 0);
	pool_peer_until(!pool_peer_alive(before));
	vm = acquired(pool);
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
	pid_t pid = started("2"), worker[2], fsrv;
	struct vmpool *pool = attached();

	(void)state;
	pool_peer_until(pool_peer_stat("idle_count") == 2);
	assert_int_equal(pool_peer_workers(worker, 2), 2);
	fsrv = fork_server_of(pid);
	assert_true(fsrv > 0);
	assert_int_equal(kill(fsrv, SIGKILL), 0);
	pool_peer_until(log_says("the fork server ended (signal 9); it will be started again"));
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

/* --- bad clients ------------------------------------------------------------------------------ */

static int
connected(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s",
		       pool_peer_path("run/default.sock"));
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static struct ctl_request
request(uint32_t kind)
{
	return (struct ctl_request){.magic = CTL_MAGIC, .kind = kind, .format = SHM_FORMAT};
}

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

static int
attach_with_segment(const struct ctl_request *req, struct ctl_reply *reply, int *segment_fd)
{
	int fds[2], fd = connected();

	assert_int_equal(ctl_send(fd, req, sizeof(*req), NULL, 0), 0);
	assert_int_equal(ctl_recv(fd, reply, sizeof(*reply), fds, 2), 0);
	*segment_fd = fds[0];
	closep(&fds[1]);
	return fd;
}

static int
attach_by_hand(const struct ctl_request *req, struct ctl_reply *reply)
{
	int segment_fd, fd = attach_with_segment(req, reply, &segment_fd);

	closep(&segment_fd);
	return fd;
}

static void
test_bad_clients_are_cut_off_alone(void **state)
{
	pid_t pid = started("1");
	struct vmpool *pool = attached();
	struct vmpool_vm *vm = acquired(pool);
	struct ctl_request req = request(0);
	struct ctl_reply reply;
	uint8_t big[4096];
	int fd;

	(void)state;
	memset(big, 0xa5, sizeof(big));
	for (size_t len = 1; len <= sizeof(big); len = len * 3 + 1)
		assert_cut_off(connected(), big, len);
	assert_cut_off(connected(), &req, sizeof(req));
	req = request(CTL_ATTACHED);
	assert_cut_off(connected(), &req, sizeof(req));
	req = request(CTL_DOORBELLS); /* before it has attached */
	assert_cut_off(connected(), &req, sizeof(req));

	req = request(CTL_ATTACH);
	req.format ^= 1;
	fd = attach_by_hand(&req, &reply);
	assert_int_equal(reply.kind, CTL_REFUSED);
	assert_int_equal(reply.error, -EMEDIUMTYPE);
	assert_non_null(strstr(reply.text, "another segment layout"));
	assert_int_equal(close(fd), 0);

	req.format = SHM_FORMAT;
	fd = attach_by_hand(&req, &reply);
	assert_int_equal(reply.kind, CTL_ATTACHED);
	assert_cut_off(fd, &req, sizeof(req)); /* twice */
	fd = attach_by_hand(&req, &reply);
	req = request(CTL_DOORBELLS);
	req.slot = UINT32_MAX;
	assert_int_equal(ctl_send(fd, &req, sizeof(req), NULL, 0), 0);
	assert_int_equal(ctl_recv(fd, &reply, sizeof(reply), NULL, 0), 0);
	assert_int_equal(reply.kind, CTL_REFUSED);
	assert_int_equal(reply.error, -EINVAL);
	assert_int_equal(close(fd), 0);

	/* All the while others are served. */
	assert_int_equal(vmpool_release(vm), 0);
	vm = acquired(pool);
	assert_int_equal(vmpool_release(vm), 0);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_client_that_fetches_nothing_is_cut_off(void **state)
{
	pid_t pid = started("1");
	struct ctl_request req = request(CTL_ATTACH);
	struct ctl_reply reply;
	int fd = attach_by_hand(&req, &reply), r = 0;

	(void)state;
	req = request(CTL_DOORBELLS);
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
	pid_t pid = started("1"), holder = fork(), worker;
	struct ctl_request req = request(CTL_ATTACH);
	struct ctl_reply reply;
	struct vmpool *pool;
	siginfo_t si;
	char err[256];

	(void)state;
	assert_true(holder >= 0);
	if (holder == 0) {
		struct seg *seg;
		int fd;

		(void)attach_with_segment(&req, &reply, &fd);
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
	pool_peer_until(log_says("VM ended while idle"));
	assert_int_equal(pool_peer_stat("vm_died_count"), 0);
	(void)snprintf(err, sizeof(err),
		       "the pool lock has been held by thread %d for over a second", (int)holder);
	pool_peer_until(log_says(err));
	assert_int_equal(kill(holder, SIGKILL), 0);
	assert_int_equal(waitpid(holder, NULL, 0), holder);
	pool_peer_until(pool_peer_stat("vm_died_count") == 1);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("lock_recovery_count"), 1);
	pool = attached();
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

/* --- drain, reload ------------------------------------------------------------------------------
 */

static void
test_drain_waits_for_leases(void **state)
{
	pid_t pid = started("2");
	struct vmpool *pool = attached();
	struct vmpool_vm *vm = acquired(pool), *other;

	(void)state;
	assert_int_equal(kill(pid, SIGTERM), 0);
	pool_peer_until(pool_peer_stat("idle_count") == 0);
	assert_int_equal(vmpool_acquire(pool, &in_10_s, &other), VMPOOL_EDRAINING);
	assert_int_equal(pool_peer_stat("in_use_count"), 1);
	assert_int_equal(vmpool_release(vm), 0);
	assert_int_equal(pool_peer_status(pid), 0);
	assert_int_not_equal(vmpool_acquire(pool, &in_10_s, &other), 0);
	vmpool_detach(pool);
}

static void
test_second_signal_ends_at_once(void **state)
{
	pid_t pid = started("1");
	struct vmpool *pool = attached();
	struct vmpool_vm *vm = acquired(pool);
	uint64_t began = now_ns();

	(void)state;
	assert_int_equal(kill(pid, SIGINT), 0);
	pool_peer_until(log_says("draining by signal 2"));
	assert_int_equal(pool_peer_stop(pid), 0);
	assert_true(now_ns() - began < 5000000000ull);
	assert_int_equal(vmpool_release(vm), VMPOOL_ERESTARTED);
	vmpool_detach(pool);
}

static void
test_stop_by_message(void **state)
{
	pid_t pid = started("1");
	struct vmpool *pool = attached();
	struct vmpool_vm *vm = acquired(pool);
	struct ctl_request req = request(CTL_STOP);
	struct ctl_reply reply;
	int fd;

	(void)state;
	req.drain_ms = 100;
	fd = attach_by_hand(&req, &reply);
	assert_int_equal(reply.kind, CTL_OK);
	/* The lease is held: the deadline ends it. */
	assert_int_equal(ctl_recv(fd, &reply, sizeof(reply), NULL, 0), -EPIPE);
	assert_int_equal(pool_peer_status(pid), 0);
	assert_true(log_says("leases are still held; ending them"));
	assert_int_equal(close(fd), 0);
	assert_int_not_equal(vmpool_release(vm), 0);
	vmpool_detach(pool);
}

static void
test_reload_changes_policy(void **state)
{
	struct vmpool *pool;
	struct vmpool_vm *vm;
	pid_t pid;

	(void)state;
	pool_peer_write("conf", "[pool]\nmin-idle = 1\nmax-idle = 4\nmemory = 128\n");
	pid = pool_peer_run(NULL, "--config", pool_peer_path("conf"), NULL);
	pool_peer_ready(pid);
	pool = attached();
	vm = acquired(pool);
	pool_peer_write("conf", "[pool]\nmin-idle = 3\nmax-idle = 3\nmemory = 256\n");
	assert_int_equal(kill(pid, SIGHUP), 0);
	pool_peer_until(pool_peer_stat("idle_count") == 3);
	assert_true(log_says("configuration: min-idle: 3, was 1"));
	assert_true(log_says("configuration: memory: stays 128 until a restart"));
	pool_peer_write("conf", "[pool]\nmin-idle = 9\nmax-idle = 3\n");
	assert_int_equal(kill(pid, SIGHUP), 0);
	pool_peer_until(log_says("configuration stays as it was: min-idle 9 is greater"));
	/* Fewer wanted: the surplus goes, the lease stays. */
	pool_peer_write("conf", "[pool]\nmin-idle = 0\nmax-idle = 1\n");
	assert_int_equal(kill(pid, SIGHUP), 0);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("in_use_count"), 1);
	assert_int_equal(vmpool_release(vm), 0);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_idle_vms_expire_down_to_the_minimum(void **state)
{
	pid_t pid = pool_peer_run(NULL, "--max-idle-time", "1", NULL);
	struct vmpool *pool;

	(void)state;
	pool_peer_ready(pid);
	pool = attached();
	assert_int_equal(vmpool_warm(pool, 4, 10000), 3);
	assert_int_equal(pool_peer_stat("idle_count"), 4);
	assert_int_equal(vmpool_warm(pool, 0, 0), 0);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("evict_count"), 3);
	assert_int_equal(pool_peer_stat("vm_died_count"), 0);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_waiters_take_turns_at_the_total(void **state)
{
	pid_t pid = pool_peer_run(NULL, "--max-total", "2", NULL), client[8];
	int status;

	(void)state;
	pool_peer_ready(pid);
	for (unsigned i = 0; i < 8; i++) {
		client[i] = fork();
		assert_true(client[i] >= 0);
		if (client[i] == 0) {
			struct vmpool_vm *vm;
			struct vmpool *pool;

			if (vmpool_attach(&pool, NULL) != 0)
				_exit(1);
			for (unsigned k = 0; k < 5; k++) {
				if (vmpool_acquire(pool, &in_10_s, &vm) != 0)
					_exit(2);
				if (vmpool_ping(vm, 1, NULL) == 0 || vmpool_release(vm) != 0)
					_exit(3);
			}
			_exit(0);
		}
	}
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(waitpid(client[i], &status, 0), client[i]);
		assert_int_equal(status, 0);
	}
	pool_peer_until(pool_peer_stat("discard_count") == 40);
	assert_int_equal(pool_peer_stat("hit_count") + pool_peer_stat("miss_count"), 40);
	assert_int_equal(pool_peer_stat("spawn_fail_count"), 0);
	assert_int_equal(pool_peer_stop(pid), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, pool_peer_setup, pool_peer_teardown)

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_start_and_stop),
	    TEST(test_second_supervisor_is_refused),
	    TEST(test_killed_supervisor_leaves_nothing),
	    TEST(test_daemonize),
	    TEST(test_bad_starts_say_why),
	    TEST(test_failing_starts_back_off_and_recover),
	    TEST(test_dead_worker_is_replaced),
	    TEST(test_dead_client_gives_back),
	    TEST(test_used_vm_is_never_handed_on),
	    TEST(test_dead_fork_server_is_replaced),
	    TEST(test_bad_clients_are_cut_off_alone),
	    TEST(test_client_that_fetches_nothing_is_cut_off),
	    TEST(test_stopped_lock_holder_does_not_stop_the_supervisor),
	    TEST(test_drain_waits_for_leases),
	    TEST(test_second_signal_ends_at_once),
	    TEST(test_stop_by_message),
	    TEST(test_reload_changes_policy),
	    TEST(test_idle_vms_expire_down_to_the_minimum),
	    TEST(test_waiters_take_turns_at_the_total),
	};

	pool_peer_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
