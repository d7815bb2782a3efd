/* SPDX-License-Identifier: MIT
 *
 * client_copy.c - copies of a borrowed VM: into a snapshot file, or as another VM. Runs
 * in clients; owns the connection and the file until the copy is there.
 *
 * The supervisor is asked on a connection of its own, since the answer takes its time.
 * Closing it says that nobody waits any more; an answer that crosses with that still counts.
 */
#include "shm/client.h"
#include "shm/hist.h"
#include "shm/slot.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#define NAME_TRIES 8

/* --- the exchange ------------------------------------------------------------------------ */

/* Send the request with this file (-1: none), and wait. *reply is of this kind. */
static int
ask(struct vmpool_vm *vm, struct ctl_request *req, int file, uint32_t kind, int64_t timeout_ms,
    struct ctl_reply *reply)
{
	uint64_t deadline = client_deadline(timeout_ms);
	const struct vmpool *pool = vm->pool;
	_cleanup_(closep) int sock = -1;
	int r, waited;

	req->magic = CTL_MAGIC;
	req->format = SHM_FORMAT;
	req->slot = vm->lease.slot;
	req->lease = slot_generation(vm->lease.word);
	r = client_connect(pool->name, &sock);
	if (r < 0)
		return client_fail(pool, r == VMPOOL_ENOPOOL ? VMPOOL_ERESTARTED : r, "%s",
				   vmpool_error(NULL));
	r = ctl_send(sock, req, sizeof(*req), &file, file >= 0);
	waited = r == 0 ? client_poll(sock, POLLIN, deadline) : 0;
	if (waited < 0)
		(void)shutdown(sock, SHUT_WR);
	if (r == 0)
		r = ctl_recv(sock, reply, sizeof(*reply), NULL, 0);
	if (waited == 0 || r == 0)
		return client_reply(pool, r, reply, kind);
	if (waited == -ETIMEDOUT)
		return client_fail(pool, VMPOOL_ETIMEDOUT, "the VM was not copied in %.1f s",
				   (double)timeout_ms / 1000);
	return client_fail(pool, waited, "interrupted by a signal");
}

/* --- the file of a snapshot ---------------------------------------------------------------- */

/* A file that has no name yet, where the file system can do that; else a temporary name. */
struct fresh {
	int fd;
	char dir[PATH_MAX], name[PATH_MAX]; /* name "": none yet */
};

/* A name beside path that is hardly anybody's. */
static void
fresh_name(struct fresh *f, const char *path)
{
	uint32_t salt = 0;

	(void)!getrandom(&salt, sizeof(salt), 0);
	(void)snprintf(f->name, sizeof(f->name), "%.*s.%08x.tmp",
		       (int)(sizeof(f->name) - sizeof(".12345678.tmp")), path, salt);
}

static int
fresh_open(const struct vmpool *pool, struct fresh *f, const char *path)
{
	const char *slash = strrchr(path, '/');
	int dir_len = slash == NULL ? 1 : (int)MAX(slash - path, 1);

	f->name[0] = '\0';
	if (strlen(path) >= sizeof(f->name) - sizeof(".12345678.tmp"))
		return client_fail(pool, -ENAMETOOLONG, "%.100s...: %s", path,
				   strerror(ENAMETOOLONG));
	(void)snprintf(f->dir, sizeof(f->dir), "%.*s", dir_len, slash == NULL ? "." : path);
	f->fd = open(f->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (f->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
		fresh_name(f, path);
		f->fd = open(f->name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	}
	if (f->fd < 0)
		return client_fail(pool, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

/* Complete and synced: give it its name, in place of whatever had it. */
static int
fresh_publish(const struct vmpool *pool, struct fresh *f, const char *path)
{
	_cleanup_(closep) int dir = -1;
	char self[64];
	int r = f->name[0] == '\0' ? -1 : 0;

	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
	for (int i = 0; i < NAME_TRIES && r < 0; i++) {
		fresh_name(f, path);
		r = linkat(AT_FDCWD, self, AT_FDCWD, f->name, AT_SYMLINK_FOLLOW);
		if (r < 0 && errno != EEXIST)
			break;
	}
	if (r < 0)
		f->name[0] = '\0';
	if (r < 0 || rename(f->name, path) < 0)
		return client_fail(pool, -errno, "%s: %s", path, strerror(errno));
	f->name[0] = '\0';
	dir = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fsync(dir) < 0)
		return client_fail(pool, -errno, "%s: %s", f->dir, strerror(errno));
	return 0;
}

static void
fresh_fini(struct fresh *f)
{
	if (f->name[0] != '\0')
		(void)unlink(f->name);
	closep(&f->fd);
}

/* --- what callers do ---------------------------------------------------------------------------
 */

int
vmpool_snapshot(struct vmpool_vm *vm, const char *path, int64_t timeout_ms)
{
	struct ctl_request req = {.kind = CTL_SNAPSHOT};
	_cleanup_(fresh_fini) struct fresh f = {.fd = -1};
	struct ctl_reply reply;
	int r;

	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = client_enter(vm->pool, true);
	if (r == 0)
		r = fresh_open(vm->pool, &f, path);
	if (r == 0)
		r = ask(vm, &req, f.fd, CTL_OK, timeout_ms, &reply);
	return r == 0 ? fresh_publish(vm->pool, &f, path) : r;
}

/* The new lease, as the supervisor says; the segment is asked as well, at every use. */
static int
take_lease(struct vmpool *pool, const struct ctl_reply *reply, uint64_t start_ns,
	   struct vmpool_vm **out)
{
	const struct lease lease = {.slot = reply->slot, .word = reply->word};

	if (lease.slot >= pool->seg->nslots || slot_state(lease.word) != SLOT_IN_USE ||
	    slot_client(lease.word) != pool->client)
		return client_fail(pool, -EPROTO, "the pool's supervisor speaks another protocol");
	/* The one value of this generation (shm/README.md); nobody else writes it. */
	hist_add(&pool->seg->chan[lease.slot].hist[H_acquire_ns], now_ns() - start_ns);
	*out = client_vm(pool, &lease);
	if (*out != NULL)
		return 0;
	(void)!lease_release(pool->seg, &lease, pool->kick_fd);
	return client_fail(pool, -ENOMEM, "out of memory");
}

int
vmpool_fork(struct vmpool_vm *vm, int64_t timeout_ms, struct vmpool_vm **out)
{
	struct ctl_request req = {.kind = CTL_FORK};
	uint64_t start = now_ns();
	struct ctl_reply reply;
	int r;

	*out = NULL;
	CHECK_OBJ(vm, CLIENT_VM_MAGIC);
	r = client_enter(vm->pool, true);
	if (r < 0)
		return r;
	req.client = vm->pool->client;
	r = ask(vm, &req, -1, CTL_FORKED, timeout_ms, &reply);
	if (r == -EUSERS)
		r = VMPOOL_ECAPACITY;
	return r < 0 ? r : take_lease(vm->pool, &reply, start, out);
}
