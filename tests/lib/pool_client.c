/* SPDX-License-Identifier: MIT
 *
 * pool_client.c - clients for tests of the supervisor.
 */
#include "tests/lib/pool_client.h"

#include "tests/lib/pool_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

const struct vmpool_acquire_opts pool_client_10_s = {.timeout_ms = 10000};

struct vmpool *
pool_client_attach(void)
{
	struct vmpool *pool;
	int r = vmpool_attach(&pool, NULL);

	if (r != 0)
		fail_msg("attach: %s: %s", vmpool_strerror(r), vmpool_error(NULL));
	return pool;
}

struct vmpool_vm *
pool_client_acquire(struct vmpool *pool)
{
	struct vmpool_vm *vm;
	int r = vmpool_acquire(pool, &pool_client_10_s, &vm);

	if (r != 0)
		fail_msg("acquire: %s: %s\n%s", vmpool_strerror(r), vmpool_error(pool),
			 pool_peer_log());
	return vm;
}

int
pool_client_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s",
		       pool_peer_path("run/default.sock"));
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

struct ctl_request
pool_client_request(uint32_t kind)
{
	return (struct ctl_request){.magic = CTL_MAGIC, .kind = kind, .format = SHM_FORMAT};
}

int
pool_client_ask_fd(const struct ctl_request *req, struct ctl_reply *reply, int *segment_fd)
{
	int fds[2], fd = pool_client_connect();

	assert_int_equal(ctl_send(fd, req, sizeof(*req), NULL, 0), 0);
	assert_int_equal(ctl_recv(fd, reply, sizeof(*reply), fds, 2), 0);
	*segment_fd = fds[0];
	closep(&fds[1]);
	return fd;
}

int
pool_client_ask(const struct ctl_request *req, struct ctl_reply *reply)
{
	int segment_fd, fd = pool_client_ask_fd(req, reply, &segment_fd);

	closep(&segment_fd);
	return fd;
}
