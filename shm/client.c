/* SPDX-License-Identifier: MIT
 *
 * client.c - libvmpool's handle on a pool: attaching, detaching, and the few
 * exchanges with the supervisor over its socket. Runs in clients; owns the
 * mapping of the segment, the socket and the doorbells.
 *
 * What can go wrong on the way, and what the caller sees:
 *   no socket, nobody listens        VMPOOL_ENOPOOL
 *   no permission                    -EACCES
 *   another layout                   VMPOOL_ELAYOUT
 *   supervisor silent for 5 s        VMPOOL_ETIMEDOUT
 *   supervisor dies meanwhile        VMPOOL_ENOPOOL (attach), VMPOOL_ERESTARTED
 */
#include "shm/client.h"
#include "shm/ctl.h"

#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char *
pool_name(const char *name)
{
	return name != NULL ? name : "default";
}

uint64_t
client_deadline(int64_t timeout_ms)
{
	return client_deadline_from(now_ns(), timeout_ms);
}

uint64_t
client_deadline_from(uint64_t now, int64_t timeout_ms)
{
	if (timeout_ms < 0 || (uint64_t)timeout_ms > (UINT64_MAX - now) / 1000000u)
		return LOCK_FOREVER;
	return now + (uint64_t)timeout_ms * 1000000u;
}

bool
client_forked(const struct vmpool *pool)
{
	return *pool->same_process == 0;
}

int
client_enter(const struct vmpool *pool, bool writes)
{
	CHECK_OBJ(pool, CLIENT_POOL_MAGIC);
	if (client_forked(pool))
		return client_fail(
		    pool, VMPOOL_EFORKED,
		    "this pool was attached before a fork: attach again in the child");
	if (writes && pool->read_only)
		return client_fail(pool, -EROFS,
				   "this handle was opened by vmpool_monitor: it "
				   "only reads");
	return 0;
}

int
client_poll(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = events};

	for (;;) {
		uint64_t now = now_ns();
		int left = -1, n;

		if (deadline_ns != LOCK_FOREVER)
			left = now >= deadline_ns
				   ? 0
				   : (int)MIN((deadline_ns - now + 999999) / 1000000, 1000000000u);
		n = poll(&p, 1, left);
		if (n != 0)
			return n < 0 ? -errno : 0;
		if (left == 0)
			return -ETIMEDOUT;
	}
}

/* --- the socket ----------------------------------------------------------------- */

static int
connect_error(int err, const char *name, const char *path)
{
	switch (err) {
	case ENOENT:
	case ECONNREFUSED:
		return client_fail(NULL, VMPOOL_ENOPOOL,
				   "no pool \"%s\" is running (start one with: vmpool%s%s start)",
				   name, strcmp(name, "default") == 0 ? "" : " -p ",
				   strcmp(name, "default") == 0 ? "" : name);
	case EACCES:
	case EPERM:
		return client_fail(NULL, -EACCES, "no permission to use pool \"%s\" (%s)", name,
				   path);
	case EAGAIN:
		return client_fail(NULL, VMPOOL_ETIMEDOUT,
				   "pool \"%s\" does not answer (its supervisor takes no "
				   "connections)",
				   name);
	default: return client_fail(NULL, -err, "pool \"%s\": %s: %s", name, path, strerror(err));
	}
}

int
client_connect(const char *name, int *out)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = CLIENT_SOCK_MS / 1000};
	_cleanup_(closep) int fd = -1;
	char err[256];
	int r;

	r = ctl_path(addr.sun_path, sizeof(addr.sun_path), name, ".sock", err, sizeof(err));
	if (r < 0)
		return client_fail(NULL, VMPOOL_ECONFIG, "%s", err);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return client_fail(NULL, -errno, "socket: %s", strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return client_fail(NULL, -errno, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return connect_error(errno, name, addr.sun_path);
	*out = steal_fd(&fd);
	return 0;
}

/* The class of a refusal, which comes as an errno. */
static int
refusal(int32_t error)
{
	switch (error) {
	case -EMEDIUMTYPE: return VMPOOL_ELAYOUT;
	case -ESHUTDOWN: return VMPOOL_EDRAINING;
	case -ESTALE: return VMPOOL_ERELEASED;
	default: return error < 0 && error > -4096 ? error : -EPROTO;
	}
}

int
client_reply(const struct vmpool *pool, int r, const struct ctl_reply *reply, uint32_t kind)
{
	char text[CTL_TEXT];

	if (r == -EAGAIN)
		return client_fail(pool, VMPOOL_ETIMEDOUT,
				   "the pool's supervisor has not answered for %d s",
				   CLIENT_SOCK_MS / 1000);
	if (r == -EPIPE || r == -ECONNRESET)
		return client_fail(pool, pool == NULL ? VMPOOL_ENOPOOL : VMPOOL_ERESTARTED,
				   "the pool's supervisor has ended");
	if (r < 0 || reply->magic != CTL_MAGIC ||
	    (reply->kind != kind && reply->kind != CTL_REFUSED))
		return client_fail(pool, r < 0 ? r : -EPROTO,
				   "the pool's supervisor speaks another protocol");
	if (reply->kind == CTL_REFUSED) {
		client_printable(text, sizeof(text), reply->text, sizeof(reply->text));
		return client_fail(pool, refusal(reply->error), "the pool refused: %s", text);
	}
	return 0;
}

/* One request and its reply, of this kind; the line of a failure goes to pool. */
static int
sock_exchange(const struct vmpool *pool, int sock, const struct ctl_request *req, uint32_t kind,
	      struct ctl_reply *reply, int *fds, unsigned nfds)
{
	int r = ctl_send(sock, req, sizeof(*req), NULL, 0);

	if (r == 0)
		r = ctl_recv(sock, reply, sizeof(*reply), fds, nfds);
	return client_reply(pool, r, reply, kind);
}

/* --- attaching -------------------------------------------------------------------- */

static int
pool_alloc(struct vmpool **out)
{
	struct vmpool *pool = calloc(1, sizeof(*pool));
	uint32_t *page;

	if (pool == NULL)
		return client_fail(NULL, -ENOMEM, "out of memory");
	page = mmap(NULL, SHM_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || madvise(page, SHM_PAGE, MADV_WIPEONFORK) < 0) {
		int r =
		    client_fail(NULL, -errno, "cannot set up fork detection: %s", strerror(errno));

		if (page != MAP_FAILED)
			(void)munmap(page, SHM_PAGE);
		free(pool);
		return r;
	}
	*page = 1;
	pool->magic = CLIENT_POOL_MAGIC;
	pool->same_process = page;
	pool->sock = pool->kick_fd = -1;
	AZ(pthread_mutex_init(&pool->lock, NULL));
	AZ(pthread_mutex_init(&pool->sock_lock, NULL));
	*out = pool;
	return 0;
}

/* What the handle holds in this process; leaves the segment's contents alone. */
static void
pool_free(struct vmpool *pool)
{
	for (uint32_t i = 0; pool->bells != NULL && i < pool->seg->nslots; i++) {
		closep(&pool->bells[i].req);
		closep(&pool->bells[i].rsp);
	}
	free(pool->bells);
	client_free_vms(pool);
	seg_close(pool->seg);
	closep(&pool->kick_fd);
	/* Last: the supervisor takes it as our end. */
	closep(&pool->sock);
	(void)munmap((void *)(uintptr_t)pool->same_process, SHM_PAGE);
	(void)pthread_mutex_destroy(&pool->lock);
	(void)pthread_mutex_destroy(&pool->sock_lock);
	pool->magic = 0;
	free(pool);
}

static void
pool_freep(struct vmpool **pool)
{
	if (*pool != NULL)
		pool_free(*pool);
}

static int
pool_map(struct vmpool *pool, int fd)
{
	char err[256] = "";
	int r = seg_attach(&pool->seg, fd, pool->read_only, err, sizeof(err));

	if (r < 0)
		return client_fail(NULL, r == -EMEDIUMTYPE ? VMPOOL_ELAYOUT : r, "%s", err);
	if (pool->read_only)
		return 0;
	if (pool->client >= pool->seg->nclients || pool->kick_fd < 0)
		return client_fail(NULL, -EPROTO, "the pool's supervisor speaks another protocol");
	pool->bells = malloc(pool->seg->nslots * sizeof(*pool->bells));
	if (pool->bells == NULL)
		return client_fail(NULL, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < pool->seg->nslots; i++)
		pool->bells[i].req = pool->bells[i].rsp = -1;
	return 0;
}

static int
attach(struct vmpool **out, const char *name, bool read_only)
{
	struct ctl_request req = {
	    .magic = CTL_MAGIC,
	    .kind = read_only ? CTL_MONITOR : CTL_ATTACH,
	    .format = SHM_FORMAT,
	};
	_cleanup_(pool_freep) struct vmpool *pool = NULL;
	struct ctl_reply reply;
	int fds[2] = {-1, -1}, r;

	*out = NULL;
	r = pool_alloc(&pool);
	if (r == 0)
		r = client_connect(pool_name(name), &pool->sock);
	if (r == 0)
		r = sock_exchange(NULL, pool->sock, &req, CTL_ATTACHED, &reply, fds,
				  read_only ? 1 : 2);
	if (r < 0)
		return r;
	(void)snprintf(pool->name, sizeof(pool->name), "%s", pool_name(name));
	pool->read_only = read_only;
	pool->kick_fd = fds[1];
	pool->client = reply.client;
	pool->generation = reply.generation;
	r = pool_map(pool, fds[0]);
	if (r < 0)
		return r;
	*out = pool;
	pool = NULL;
	return 0;
}

int
vmpool_attach(struct vmpool **out, const char *name)
{
	return attach(out, name, false);
}

int
vmpool_monitor(struct vmpool **out, const char *name)
{
	return attach(out, name, true);
}

void
vmpool_detach(struct vmpool *pool)
{
	if (pool == NULL)
		return;
	CHECK_OBJ(pool, CLIENT_POOL_MAGIC);
	/* In a forked child the VMs are the parent's: only our copies go. */
	if (!client_forked(pool))
		client_release_all(pool);
	client_forget_error(pool);
	pool_free(pool);
}

/* --- later exchanges -------------------------------------------------------------- */

/* Under sock_lock: one request and the descriptors of its reply. */
static int
ask(struct vmpool *pool, const struct ctl_request *req, int *fds, unsigned nfds)
{
	struct ctl_reply reply = {.kind = 0};
	int r;

	if (pool->sock_error < 0)
		return client_fail(pool, pool->sock_error, "the connection to the pool is lost");
	r = sock_exchange(pool, pool->sock, req, req->kind, &reply, fds, nfds);
	if (r < 0) {
		/* After anything but a refusal a late reply may still come. */
		if (reply.kind != CTL_REFUSED)
			pool->sock_error = r;
		return r;
	}
	if (fds[nfds - 1] >= 0)
		return 0;
	for (unsigned i = 0; i < nfds; i++)
		closep(&fds[i]);
	return client_fail(pool, -EPROTO, "the pool sent too few descriptors");
}

int
client_ask(struct vmpool *pool, const struct ctl_request *req, int *fds, unsigned nfds)
{
	int r;

	AZ(pthread_mutex_lock(&pool->sock_lock));
	r = ask(pool, req, fds, nfds);
	AZ(pthread_mutex_unlock(&pool->sock_lock));
	return r;
}

int
client_bells(struct vmpool *pool, uint32_t slot, struct bells *out)
{
	const struct ctl_request req = {.magic = CTL_MAGIC, .kind = CTL_DOORBELLS, .slot = slot};
	struct bells *b = &pool->bells[slot];
	int fds[2], r = 0;

	AZ(pthread_mutex_lock(&pool->sock_lock));
	if (b->req < 0) {
		r = ask(pool, &req, fds, 2);
		if (r == 0)
			*b = (struct bells){.req = fds[0], .rsp = fds[1]};
	}
	*out = *b;
	AZ(pthread_mutex_unlock(&pool->sock_lock));
	return r;
}

/* Until the other end closes: it has nothing more to say on this socket. */
static int
sock_wait_close(const char *name, int sock, int64_t timeout_ms)
{
	int r = client_poll(sock, POLLIN | POLLRDHUP, client_deadline(timeout_ms));

	if (r == -ETIMEDOUT)
		return client_fail(NULL, VMPOOL_ETIMEDOUT,
				   "pool \"%s\" has not ended yet; it goes on stopping", name);
	return r < 0 ? client_fail(NULL, r, "%s", strerror(-r)) : 0;
}

int
vmpool_stop(const char *name, uint32_t drain_ms, int64_t timeout_ms)
{
	struct ctl_request req = {
	    .magic = CTL_MAGIC, .kind = CTL_STOP, .format = SHM_FORMAT, .drain_ms = drain_ms};
	_cleanup_(closep) int sock = -1;
	struct ctl_reply reply;
	int r;

	r = client_connect(pool_name(name), &sock);
	if (r == 0)
		r = sock_exchange(NULL, sock, &req, CTL_OK, &reply, NULL, 0);
	if (r < 0)
		return r;
	return sock_wait_close(pool_name(name), sock, timeout_ms);
}
