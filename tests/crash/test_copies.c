/* SPDX-License-Identifier: MIT
 *
 * test_copies.c - vmpoold with the null worker: snapshots and forks of borrowed VMs, and
 * every way in which the worker, the client or the pool spoils one. Every test ends
 * with a check that no process and no file is left.
 */
#include "tests/lib/pool_client.h"
#include "tests/lib/pool_peer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 20000

static pid_t supervisor;
static struct vmpool *pool;
static struct vmpool_vm *vm;

/* A pool of at most so many VMs whose null worker reads its mode from a file; one lease. */
static void
begin(const char *max_total)
{
	char mode[256];

	pool_peer_write("mode", "ready\n");
	(void)snprintf(mode, sizeof(mode), "file:%s", pool_peer_path("mode"));
	supervisor = pool_peer_run(mode, "--max-total", max_total, NULL);
	pool_peer_ready(supervisor);
	pool = pool_client_attach();
	vm = pool_client_acquire(pool);
}

static void
end(void)
{
	vmpool_detach(pool);
	pool_peer_until(pool_peer_stat("in_use_count") == 0);
	assert_int_equal(pool_peer_stop(supervisor), 0);
}

static const char *
snap_path(void)
{
	return pool_peer_path("x.snap");
}

static off_t
size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

/* --- what works ------------------------------------------------------------------------ */

static void
a_snapshot_has_its_file(void **state)
{
	(void)state;
	begin("4");
	pool_peer_write("x.snap", "what was there before");
	assert_int_equal(chmod(snap_path(), 0644), 0);
	assert_int_equal(vmpool_snapshot(vm, snap_path(), PATIENCE_MS), 0);
	assert_int_equal(size_of(snap_path()), 1);
	/* The lease goes on; another one is as good. */
	assert_int_equal(vmpool_snapshot(vm, snap_path(), PATIENCE_MS), 0);
	assert_int_equal(remove(snap_path()), 0);
	end();
}

static void
a_fork_is_another_lease(void **state)
{
	struct vmpool_vm *copy;

	(void)state;
	begin("4");
	assert_int_equal(vmpool_fork(vm, PATIENCE_MS, &copy), 0);
	assert_int_not_equal(vmpool_slot(copy), vmpool_slot(vm));
	assert_int_equal(pool_peer_stat("in_use_count"), 2);
	assert_int_equal(pool_peer_stat("miss_count"), 1);
	/* Nobody else gets it, though nothing was asked of it through its ring. */
	assert_int_equal(vmpool_release(copy), 0);
	pool_peer_until(pool_peer_stat("discard_count") == 1);
	assert_int_equal(pool_peer_stat("reset_count"), 0);
	assert_int_equal(pool_peer_stat("recycle_count"), 0);
	end();
}

/* With a client that dies its forks end, too. */
static void
forks_end_with_their_client(void **state)
{
	struct vmpool_vm *copy;
	pid_t client;
	int status;

	(void)state;
	begin("4");
	client = fork();
	assert_true(client >= 0);
	if (client == 0) {
		struct vmpool *mine;
		struct vmpool_vm *own;

		if (vmpool_attach(&mine, NULL) != 0 ||
		    vmpool_acquire(mine, &pool_client_10_s, &own) != 0 ||
		    vmpool_fork(own, PATIENCE_MS, &copy) != 0)
			_exit(1);
		(void)raise(SIGKILL);
	}
	assert_int_equal(waitpid(client, &status, 0), client);
	assert_true(WIFSIGNALED(status));
	pool_peer_until(pool_peer_stat("reclaim_count") == 2);
	pool_peer_until(pool_peer_stat("discard_count") == 1);
	pool_peer_until(pool_peer_stat("in_use_count") == 1);
	end();
}

/* --- what does not ----------------------------------------------------------------------- */

static void
refused_with_the_reason(void **state)
{
	struct vmpool_vm *copy;

	(void)state;
	begin("1");
	assert_int_equal(vmpool_snapshot(vm, "/nonexistent/x", PATIENCE_MS), -ENOENT);
	assert_non_null(strstr(vmpool_error(pool), "/nonexistent/x"));
	assert_int_equal(vmpool_fork(vm, PATIENCE_MS, &copy), VMPOOL_ECAPACITY);
	assert_non_null(strstr(vmpool_error(pool), "max-total"));
	pool_peer_write("mode", "busy\n");
	assert_int_equal(vmpool_snapshot(vm, snap_path(), PATIENCE_MS), -EBUSY);
	assert_non_null(strstr(vmpool_error(pool), "commands run in it"));
	assert_int_equal(vmpool_fork(vm, PATIENCE_MS, &copy), -EBUSY);
	assert_null(copy);
	assert_int_equal(size_of(snap_path()), -1);
	end();
}

static void
the_vm_dies_of_it(void **state)
{
	(void)state;
	begin("4");
	pool_peer_write("mode", "torn\n");
	assert_true(vmpool_snapshot(vm, snap_path(), PATIENCE_MS) < 0);
	assert_int_equal(size_of(snap_path()), -1);
	pool_peer_write("mode", "ready\n");
	pool_peer_until(pool_peer_stat("vm_died_count") == 1);
	assert_int_equal(vmpool_snapshot(vm, snap_path(), PATIENCE_MS), VMPOOL_ERELEASED);
	end();
}

static void
the_copy_does_not_start(void **state)
{
	static const char *const modes[] = {"nocopy\n", "nocopyfork\n"};
	struct vmpool_vm *copy;

	(void)state;
	begin("4");
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		pool_peer_write("mode", modes[i]);
		assert_true(vmpool_fork(vm, PATIENCE_MS, &copy) < 0);
		assert_null(copy);
	}
	assert_true(pool_peer_log_says("the copy of a VM did not start"));
	pool_peer_write("mode", "ready\n");
	assert_int_equal(vmpool_fork(vm, PATIENCE_MS, &copy), 0);
	/* That was no failure of the pool's own. */
	assert_false(pool_peer_log_says("in a row"));
	end();
}

/* Nobody waits any more: what was begun ends, and nothing stays with anybody. */
static void
the_client_leaves(void **state)
{
	struct vmpool_vm *copy;

	(void)state;
	begin("4");
	pool_peer_write("mode", "stuck\n");
	assert_int_equal(vmpool_fork(vm, 50, &copy), VMPOOL_ETIMEDOUT);
	/* The worker is still at it. */
	assert_int_equal(vmpool_snapshot(vm, snap_path(), PATIENCE_MS), -EBUSY);
	assert_non_null(strstr(vmpool_error(pool), "already"));
	assert_int_equal(pool_peer_stat("in_use_count"), 1);
	end();
}

/* By hand: nobody gets a VM for somebody else, and a file is where one belongs. */
static void
asked_wrongly(void **state)
{
	struct ctl_request req = pool_client_request(CTL_FORK);
	struct ctl_reply reply;
	char byte;
	int sock;

	(void)state;
	begin("4");
	req.slot = vmpool_slot(vm);
	req.lease = 1;
	req.client = 1000;
	sock = pool_client_ask(&req, &reply);
	assert_int_equal(reply.kind, CTL_REFUSED);
	assert_int_equal(reply.error, -EPERM);
	assert_int_equal(close(sock), 0);
	req.kind = CTL_SNAPSHOT; /* without a file */
	sock = pool_client_connect();
	assert_int_equal(ctl_send(sock, &req, sizeof(req), NULL, 0), 0);
	assert_int_equal(recv(sock, &byte, 1, 0), 0);
	assert_int_equal(close(sock), 0);
	req.kind = CTL_FORK;
	req.client = 0; /* this process's */
	req.lease = 7;
	sock = pool_client_ask(&req, &reply);
	assert_int_equal(reply.error, -ESTALE);
	assert_int_equal(close(sock), 0);
	req.slot = 100000;
	sock = pool_client_ask(&req, &reply);
	assert_int_equal(reply.error, -EINVAL);
	assert_int_equal(close(sock), 0);
	end();
}

/* The pool ends while a copy is made. */
static void
the_pool_ends(void **state)
{
	pid_t client;
	int status;

	(void)state;
	begin("4");
	pool_peer_write("mode", "stuck\n");
	client = fork();
	assert_true(client >= 0);
	if (client == 0) {
		struct vmpool *mine;
		struct vmpool_vm *own, *copy;

		if (vmpool_attach(&mine, NULL) != 0 ||
		    vmpool_acquire(mine, &pool_client_10_s, &own) != 0)
			_exit(1);
		_exit(vmpool_fork(own, PATIENCE_MS, &copy) == VMPOOL_ERESTARTED ? 0 : 2);
	}
	pool_peer_until(pool_peer_stat("in_use_count") == 2);
	assert_int_equal(kill(supervisor, SIGTERM), 0);
	/* Two signals that are pending together are one. */
	pool_peer_until(pool_peer_log_says("draining by signal"));
	assert_int_equal(kill(supervisor, SIGTERM), 0);
	assert_int_equal(waitpid(client, &status, 0), client);
	assert_int_equal(status, 0);
	vmpool_detach(pool);
	(void)pool_peer_status(supervisor);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_peer_setup, pool_peer_teardown)
	    TEST(a_snapshot_has_its_file),
	    TEST(a_fork_is_another_lease),
	    TEST(forks_end_with_their_client),
	    TEST(refused_with_the_reason),
	    TEST(the_vm_dies_of_it),
	    TEST(the_copy_does_not_start),
	    TEST(the_client_leaves),
	    TEST(asked_wrongly),
	    TEST(the_pool_ends),
	};

	pool_peer_role(argc, argv);
	return cmocka_run_group_tests_name("copies", tests, NULL, NULL);
}
