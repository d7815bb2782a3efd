/* SPDX-License-Identifier: MIT
 *
 * test_server_join.c - JOIN as the supervisor serves it: who may join what, what either
 * side gets, and what comes of a VM that was joined. The supervisor is real, its
 * workers only say hello.
 */
#include "shm/ctl.h"
#include "shm/joined.h"
#include "shm/lock.h"
#include "shm/segment.h"
#include "tests/lib/pool_client.h"
#include "tests/lib/pool_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

/* A holder, and somebody else's socket. */
static struct {
	pid_t supervisor;
	struct vmpool *pool;
	struct vmpool_vm *vm;
	int sock;
} t;

static struct ctl_request
join_request(uint32_t slot, uint64_t generation)
{
	struct ctl_request req = pool_client_request(CTL_JOIN);

	req.slot = slot;
	req.lease = generation;
	return req;
}

/* Ask on the other's socket: 0 with fds, or the refusal's error. */
static int
ask(const struct ctl_request *req, int fds[CTL_JOIN_FDS], struct ctl_reply *reply)
{
	assert_int_equal(ctl_send(t.sock, req, sizeof(*req), NULL, 0), 0);
	assert_int_equal(ctl_recv(t.sock, reply, sizeof(*reply), fds, CTL_JOIN_FDS), 0);
	if (reply->kind == CTL_REFUSED)
		return reply->error;
	assert_int_equal(reply->kind, CTL_JOIN);
	return 0;
}

static uint64_t
generation_of(unsigned slot)
{
	struct vmpool_slot_info *rows;
	uint64_t generation = 0;
	size_t n;

	assert_int_equal(vmpool_list(t.pool, &rows, &n), 0);
	for (size_t i = 0; i < n; i++)
		if (rows[i].slot == slot)
			generation = rows[i].generation;
	vmpool_list_free(rows);
	return generation;
}

static void
both_ends_of_one_channel(void **state)
{
	unsigned slot = vmpool_slot(t.vm);
	struct ctl_request req = join_request(slot, generation_of(slot));
	struct ctl_joined hello;
	struct shm_chan *chan;
	struct ctl_reply reply;
	int fds[CTL_JOIN_FDS], other[CTL_JOIN_FDS];

	(void)state;
	assert_int_equal(ask(&req, fds, &reply), 0);
	assert_int_equal(ask(&req, other, &reply), 0);
	assert_int_equal(ctl_recv(fds[CTL_JOIN_LIFE], &hello, sizeof(hello), NULL, 0), 0);
	assert_int_equal(hello.magic, CTL_MAGIC);
	assert_int_equal(hello.error, 0);
	assert_int_equal(joined_map(&chan, fds[CTL_JOIN_CHAN]), 0);
	/* Nobody can make it smaller than what is mapped. */
	assert_int_not_equal(ftruncate(fds[CTL_JOIN_CHAN], 0), 0);
	joined_unmap(chan);
	assert_int_equal(eventfd_write(fds[CTL_JOIN_REQUEST], 1), 0);
	assert_int_equal(eventfd_write(fds[CTL_JOIN_RESPONSE], 1), 0);
	for (unsigned i = 0; i < CTL_JOIN_FDS; i++) {
		closep(&fds[i]);
		closep(&other[i]);
	}
}

static void
what_is_refused(void **state)
{
	unsigned slot = vmpool_slot(t.vm);
	uint64_t generation = generation_of(slot);
	const struct {
		uint32_t slot;
		uint64_t generation;
		int error;
	} bad[] = {
	    {slot, generation + 1, -ESTALE},
	    {slot, generation - 1, -ESTALE},
	    {slot, UINT64_MAX, -ESTALE},
	    {1 - slot, 0, -ESTALE},
	    {63, 0, -ESTALE},
	    {UINT32_MAX, generation, -EINVAL},
	    {64, generation, -EINVAL},
	};
	struct ctl_request req;
	struct ctl_reply reply;
	int fds[CTL_JOIN_FDS], stranger;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		req = join_request(bad[i].slot, bad[i].generation);
		assert_int_equal(ask(&req, fds, &reply), bad[i].error);
		assert_string_not_equal(reply.text, "");
		assert_int_equal(fds[0], -1);
	}
	/* Only clients may: their end is what ends things. */
	stranger = pool_client_connect();
	req = join_request(slot, generation);
	assert_int_equal(ctl_send(stranger, &req, sizeof(req), NULL, 0), 0);
	assert_int_equal(ctl_recv(stranger, &reply, sizeof(reply), NULL, 0), -EPIPE);
	assert_int_equal(close(stranger), 0);
	/* After all that the lease can still be joined, until it ends. */
	assert_int_equal(ask(&req, fds, &reply), 0);
	for (unsigned i = 0; i < CTL_JOIN_FDS; i++)
		closep(&fds[i]);
	assert_int_equal(vmpool_release(t.vm), 0);
	assert_int_equal(ask(&req, fds, &reply), -ESTALE);
	assert_non_null(strstr(reply.text, "has ended"));
	t.vm = pool_client_acquire(t.pool);
}

/* Nobody may get a VM that somebody has joined, though its holder did nothing with it. */
static void
a_joined_vm_is_not_handed_on(void **state)
{
	char lease[VMPOOL_LEASE_SIZE];
	struct vmpool *pool = pool_client_attach();
	struct vmpool_vm *vm;
	long discards = pool_peer_stat("discard_count");

	(void)state;
	assert_int_equal(vmpool_lease(t.vm, lease, sizeof(lease)), 0);
	assert_int_equal(vmpool_join(pool, lease, &vm), 0);
	assert_int_equal(vmpool_release(vm), 0);
	assert_int_equal(vmpool_release(t.vm), 0);
	pool_peer_until(pool_peer_stat("discard_count") == discards + 1);
	assert_int_equal(vmpool_join(pool, lease, &vm), VMPOOL_ERELEASED);
	vmpool_detach(pool);
	t.vm = pool_client_acquire(t.pool);
}

/* Whoever holds the pool lock delays it; the supervisor waits for nobody. */
static void
it_waits_for_the_lock(void **state)
{
	unsigned slot = vmpool_slot(t.vm);
	struct ctl_request attach = pool_client_request(CTL_ATTACH);
	struct ctl_request req = join_request(slot, generation_of(slot));
	struct ctl_reply reply;
	struct seg *seg;
	int fds[CTL_JOIN_FDS], fd, sock = pool_client_ask_fd(&attach, &reply, &fd);

	(void)state;
	assert_int_equal(seg_attach(&seg, fd, false, NULL, 0), 0);
	assert_int_equal(lock_acquire(seg, LOCK_FOREVER), 0);
	assert_int_equal(ctl_send(t.sock, &req, sizeof(req), NULL, 0), 0);
	/* Others are served meanwhile; and a second request of this one is one too many. */
	assert_true(pool_peer_stat("in_use_count") == 1);
	assert_int_equal(ctl_send(t.sock, &req, sizeof(req), NULL, 0), 0);
	assert_int_equal(ctl_recv(t.sock, &reply, sizeof(reply), fds, CTL_JOIN_FDS), -EPIPE);
	lock_release(seg);
	assert_int_equal(close(t.sock), 0);
	t.sock = pool_client_ask(&attach, &reply);
	assert_int_equal(lock_acquire(seg, LOCK_FOREVER), 0);
	assert_int_equal(ctl_send(t.sock, &req, sizeof(req), NULL, 0), 0);
	assert_true(pool_peer_stat("in_use_count") == 1);
	lock_release(seg);
	assert_int_equal(ctl_recv(t.sock, &reply, sizeof(reply), fds, CTL_JOIN_FDS), 0);
	assert_int_equal(reply.kind, CTL_JOIN);
	for (unsigned i = 0; i < CTL_JOIN_FDS; i++)
		closep(&fds[i]);
	seg_close(seg);
	assert_int_equal(close(sock), 0);
}

static int
setup(void **state)
{
	struct ctl_request req = pool_client_request(CTL_ATTACH);
	struct ctl_reply reply;

	if (pool_peer_setup(state) != 0)
		return -1;
	t.supervisor = pool_peer_start("2");
	t.pool = pool_client_attach();
	t.vm = pool_client_acquire(t.pool);
	t.sock = pool_client_ask(&req, &reply);
	return 0;
}

static int
teardown(void **state)
{
	closep(&t.sock);
	vmpool_detach(t.pool);
	return pool_peer_stop(t.supervisor) + pool_peer_teardown(state);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    TEST(both_ends_of_one_channel),
	    TEST(what_is_refused),
	    TEST(a_joined_vm_is_not_handed_on),
	    TEST(it_waits_for_the_lock),
	};

	pool_peer_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
