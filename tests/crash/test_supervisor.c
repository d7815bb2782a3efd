/* SPDX-License-Identifier: MIT
 *
 * test_supervisor.c - vmpoold with the null worker: start, refill, expiry, drain,
 * configuration. Every test ends with a check that no process and no file is
 * left. Deaths and bad clients: test_survival.c.
 */
#include "tests/lib/pool_client.h"
#include "tests/lib/pool_peer.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

/* --- start and end ------------------------------------------------------------------ */

static void
test_start_and_stop(void **state)
{
	pid_t pid = pool_peer_start("2");
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
	pid_t first = pool_peer_start("1"), second = pool_peer_run(NULL, NULL);
	char words[64];

	(void)state;
	(void)snprintf(words, sizeof(words), "pool 'default' is already running (pid %d)",
		       (int)first);
	assert_int_equal(pool_peer_status(second), 1);
	assert_true(pool_peer_log_says(words));
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
	pid_t pid = pool_peer_start("3"), worker[3];

	(void)state;
	pool_peer_until(pool_peer_stat("idle_count") == 3);
	assert_int_equal(pool_peer_workers(worker, 3), 3);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(pool_peer_status(pid), 256 + SIGKILL);
	/* A new one can start at once, even while the old one is being cleared up. */
	pid = pool_peer_start("1");
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
	if (!pool_peer_log_says(words))
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
	assert_start_fails(pool_peer_run("fail:5:flaky", NULL), 1, "no VM can start: flaky");
	assert_start_fails(pool_peer_run("exit", NULL), 1,
			   "no VM can start: its worker exited with status 3");
	assert_start_fails(
	    pool_peer_run("nobuild:22:warm-up command exited with status 3: no", NULL), 1,
	    "no VM can start: warm-up command exited with status 3: no");
	assert_start_fails(
	    pool_peer_run("crash", NULL), 1,
	    "no VM can start: the fork server ended (status 4): null_worker: crash as");

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
	static const char *const modes[] = {"exit", "garbage", "nofork"};
	static const char *const words[] = {"its worker exited with status 3",
					    "its worker sent something unknown",
					    "the fork server cannot make a worker: Resource"};
	char null[128];
	pid_t pid;

	(void)state;
	pool_peer_write("mode", "ready\n");
	(void)snprintf(null, sizeof(null), "file:%s", pool_peer_path("mode"));
	pid = pool_peer_run(null, NULL);
	pool_peer_ready(pid);
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		struct vmpool *pool = pool_client_attach();
		struct vmpool_vm *vm, *other;

		vm = pool_client_acquire(pool);
		pool_peer_write("mode", modes[i]);
		assert_int_not_equal(vmpool_ping(vm, 1, NULL), 0);
		assert_int_equal(vmpool_release(vm), 0);
		/* Who waits is told once three in a row have failed. */
		assert_int_equal(vmpool_acquire(pool, &pool_client_10_s, &other), VMPOOL_ESTART);
		assert_non_null(strstr(vmpool_error(pool), words[i]));
		pool_peer_until(pool_peer_log_says("failure 3 in a row, next try in 0.4 s"));
		assert_true(pool_peer_log_says(words[i]));
		pool_peer_write("mode", "ready\n");
		pool_peer_until(pool_peer_stat("idle_count") == 1);
		vmpool_detach(pool);
	}
	assert_true(pool_peer_log_says("VMs start again"));
	assert_int_equal(pool_peer_stop(pid), 0);
}

/* --- drain, reload ------------------------------------------------------------------------------
 */

static void
test_drain_waits_for_leases(void **state)
{
	pid_t pid = pool_peer_start("2");
	struct vmpool *pool = pool_client_attach();
	struct vmpool_vm *vm = pool_client_acquire(pool), *other;

	(void)state;
	assert_int_equal(kill(pid, SIGTERM), 0);
	pool_peer_until(pool_peer_stat("idle_count") == 0);
	assert_int_equal(vmpool_acquire(pool, &pool_client_10_s, &other), VMPOOL_EDRAINING);
	assert_int_equal(pool_peer_stat("in_use_count"), 1);
	assert_int_equal(vmpool_release(vm), 0);
	assert_int_equal(pool_peer_status(pid), 0);
	assert_int_not_equal(vmpool_acquire(pool, &pool_client_10_s, &other), 0);
	vmpool_detach(pool);
}

static void
test_second_signal_ends_at_once(void **state)
{
	pid_t pid = pool_peer_start("1");
	struct vmpool *pool = pool_client_attach();
	struct vmpool_vm *vm = pool_client_acquire(pool);
	uint64_t began = now_ns();

	(void)state;
	assert_int_equal(kill(pid, SIGINT), 0);
	pool_peer_until(pool_peer_log_says("draining by signal 2"));
	assert_int_equal(pool_peer_stop(pid), 0);
	assert_true(now_ns() - began < 5000000000ull);
	assert_int_equal(vmpool_release(vm), VMPOOL_ERESTARTED);
	vmpool_detach(pool);
}

static void
test_stop_by_message(void **state)
{
	pid_t pid = pool_peer_start("1");
	struct vmpool *pool = pool_client_attach();
	struct vmpool_vm *vm = pool_client_acquire(pool);
	struct ctl_request req = pool_client_request(CTL_STOP);
	struct ctl_reply reply;
	int fd;

	(void)state;
	req.drain_ms = 100;
	fd = pool_client_ask(&req, &reply);
	assert_int_equal(reply.kind, CTL_OK);
	/* The lease is held: the deadline ends it. */
	assert_int_equal(ctl_recv(fd, &reply, sizeof(reply), NULL, 0), -EPIPE);
	assert_int_equal(pool_peer_status(pid), 0);
	assert_true(pool_peer_log_says("leases are still held; ending them"));
	assert_int_equal(close(fd), 0);
	assert_int_not_equal(vmpool_release(vm), 0);
	vmpool_detach(pool);
}

static void
test_reload_changes_policy(void **state)
{
	struct vmpool_info info;
	struct vmpool *pool;
	struct vmpool_vm *vm;
	pid_t pid;

	(void)state;
	pool_peer_write("conf", "[pool]\nmin-idle = 1\nmax-idle = 4\nmemory = 128\n");
	pid = pool_peer_run(NULL, "--config", pool_peer_path("conf"), NULL);
	pool_peer_ready(pid);
	pool = pool_client_attach();
	vm = pool_client_acquire(pool);
	pool_peer_write("conf", "[pool]\nmin-idle = 3\nmax-idle = 3\nmemory = 256\n");
	assert_int_equal(kill(pid, SIGHUP), 0);
	pool_peer_until(pool_peer_stat("idle_count") == 3);
	assert_int_equal(vmpool_info(pool, &info), 0);
	assert_int_equal(info.min_idle, 3);
	assert_int_equal(info.max_idle, 3);
	assert_int_equal(info.memory_mib, 128);
	assert_true(pool_peer_log_says("configuration: min-idle: 3, was 1"));
	assert_true(pool_peer_log_says("configuration: memory: stays 128 until a restart"));
	pool_peer_write("conf", "[pool]\nmin-idle = 9\nmax-idle = 3\n");
	assert_int_equal(kill(pid, SIGHUP), 0);
	pool_peer_until(pool_peer_log_says("configuration stays as it was: min-idle 9 is greater"));
	/* Fewer wanted: the surplus goes, the lease stays. */
	pool_peer_write("conf", "[pool]\nmin-idle = 0\nmax-idle = 1\n");
	assert_int_equal(kill(pid, SIGHUP), 0);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("in_use_count"), 1);
	assert_int_equal(vmpool_release(vm), 0);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

/* The VM that the minimum keeps is renewed as well, its replacement first. */
static bool
renewed_without_a_gap(void)
{
	assert_true(pool_peer_stat("idle_count") >= 1);
	return pool_peer_stat("evict_count") >= 6;
}

static void
test_idle_vms_expire_down_to_the_minimum(void **state)
{
	pid_t pid = pool_peer_run(NULL, "--max-idle-time", "1", NULL);
	struct vmpool *pool;

	(void)state;
	pool_peer_ready(pid);
	pool = pool_client_attach();
	assert_int_equal(vmpool_warm(pool, 4, 10000), 3);
	assert_int_equal(pool_peer_stat("idle_count"), 4);
	assert_int_equal(vmpool_warm(pool, 0, 0), 0);
	/* The one that is kept, and the one that is to replace it: it lives no longer than a tick.
	 */
	pool_peer_until(pool_peer_stat("idle_count") <= 2);
	assert_true(pool_peer_stat("evict_count") >= 2);
	pool_peer_until(renewed_without_a_gap());
	assert_true(pool_peer_stat("idle_count") <= 2);
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
				if (vmpool_acquire(pool, &pool_client_10_s, &vm) != 0)
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

/* --- health checks ------------------------------------------------------------------------ */

/* Borrow a VM and give it back as it is. */
static void
recycle_one(struct vmpool *pool)
{
	struct vmpool_vm *vm = pool_client_acquire(pool);

	assert_int_equal(vmpool_release(vm), 0);
}

static void
test_healthy_vms_come_back(void **state)
{
	pid_t pid = pool_peer_run(NULL, "--health-interval", "3", NULL), before, after;
	struct vmpool *pool;

	(void)state;
	pool_peer_ready(pid);
	pool = pool_client_attach();
	assert_int_equal(pool_peer_workers(&before, 1), 1);
	for (int round = 1; round <= 3; round++) {
		for (int i = 0; i < 3; i++)
			recycle_one(pool);
		pool_peer_until(pool_peer_stat("health_check_count") == round);
		pool_peer_until(pool_peer_stat("resetting_count") == 0);
	}
	assert_int_equal(pool_peer_stat("health_fail_count"), 0);
	assert_int_equal(pool_peer_stat("spawn_count"), 1);
	assert_int_equal(pool_peer_workers(&after, 1), 1);
	assert_int_equal(before, after);
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

static void
test_sick_vms_are_replaced(void **state)
{
	pid_t pid = pool_peer_run("sick", "--health-interval", "1", NULL);
	struct vmpool *pool;

	(void)state;
	pool_peer_ready(pid);
	pool = pool_client_attach();
	recycle_one(pool);
	pool_peer_until(pool_peer_stat("health_fail_count") == 1);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("health_check_count"), 1);
	assert_int_equal(pool_peer_stat("spawn_count"), 2);
	assert_true(pool_peer_log_says("failed a health check: /bin/true did not end"));
	vmpool_detach(pool);
	assert_int_equal(pool_peer_stop(pid), 0);
}

/* A worker that does not answer, and dies: the check has failed. */
static void
test_silent_vms_are_replaced(void **state)
{
	pid_t pid = pool_peer_run("silent", "--health-interval", "1", NULL), worker;
	struct vmpool *pool;

	(void)state;
	pool_peer_ready(pid);
	pool = pool_client_attach();
	assert_int_equal(pool_peer_workers(&worker, 1), 1);
	recycle_one(pool);
	pool_peer_until(pool_peer_stat("resetting_count") == 1);
	assert_int_equal(kill(worker, SIGKILL), 0);
	pool_peer_until(pool_peer_stat("health_fail_count") == 1);
	pool_peer_until(pool_peer_stat("idle_count") == 1);
	assert_int_equal(pool_peer_stat("spawn_count"), 2);
	assert_true(pool_peer_log_says("VM ended in a health check"));
	vmpool_detach(pool);
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
	    TEST(test_drain_waits_for_leases),
	    TEST(test_second_signal_ends_at_once),
	    TEST(test_stop_by_message),
	    TEST(test_reload_changes_policy),
	    TEST(test_idle_vms_expire_down_to_the_minimum),
	    TEST(test_waiters_take_turns_at_the_total),
	    TEST(test_healthy_vms_come_back),
	    TEST(test_sick_vms_are_replaced),
	    TEST(test_silent_vms_are_replaced),
	};

	pool_peer_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
