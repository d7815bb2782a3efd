/* SPDX-License-Identifier: MIT
 *
 * benchpool.c - the supervisor and the worker of a pool without machines (see
 * benchpool.h). Runs in children of a benchmark program; owns the pool's segment,
 * its socket and the temporary runtime directory.
 */
#include "tests/bench/benchpool.h"

#include "kvm/proto.h"
#include "shm/ctl.h"
#include "shm/lifeline.h"
#include "worker/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define CONNS 64

struct supervisor {
	struct seg *seg;
	int listen_fd, door, req, rsp;
	struct {
		int fd;
		uint32_t id;
	} conn[CONNS];
	unsigned conns;
};

/* Supervisor calls never wait for the lock; here they may. */
#define UNTIL_NOT_BUSY(call) \
	({ \
		int r_; \
		while ((r_ = (call)) == -EBUSY) \
			(void)sched_yield(); \
		r_; \
	})

/* --- a machine whose guest says READY, and nothing else ------------------------------ */

struct machine {
	size_t said;
};

static int
null_start(struct machine **out, const struct machine_config *cfg, struct loop *loop,
	   const struct machine_events *events, char *err, size_t errlen)
{
	(void)cfg;
	(void)loop;
	(void)events;
	*out = calloc(1, sizeof(**out));
	return *out != NULL ? 0 : fail(ENOMEM, err, errlen, "out of memory");
}

static ssize_t
null_recv(struct machine *m, void *buf, size_t len)
{
	static const struct __attribute__((packed)) {
		struct proto_hdr hdr;
		struct proto_ready ready;
	} hello = {{.length = sizeof(struct proto_ready), .type = PROTO_READY},
		   {.version = PROTO_VERSION}};
	size_t n = MIN(len, sizeof(hello) - m->said);

	memcpy(buf, (const char *)&hello + m->said, n);
	m->said += n;
	return (ssize_t)n;
}

static ssize_t
null_send(struct machine *m, const void *buf, size_t len)
{
	(void)m;
	(void)buf;
	return (ssize_t)len;
}

static const char *
null_end(struct machine *m)
{
	(void)m;
	return NULL;
}

static size_t
null_console(struct machine *m, char *buf, size_t len)
{
	(void)m;
	if (len > 0)
		buf[0] = '\0';
	return 0;
}

static void
null_free(struct machine *m)
{
	free(m);
}

static const struct machine_ops null_ops = {
    .name = "null",
    .start = null_start,
    .recv = null_recv,
    .send = null_send,
    .end = null_end,
    .console = null_console,
    .free = null_free,
};

/* --- the supervisor ---------------------------------------------------------------------- */

/* The worker's process for this slot; returns once it is ready. */
static pid_t
start_worker(struct supervisor *s, uint32_t slot)
{
	const struct worker_config cfg = {.seg = s->seg, .ops = &null_ops};
	struct worker_place place = {.slot = slot, .request = s->req, .response = s->rsp};
	struct worker_msg msg;
	int sock[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		bench_die("socketpair: %m");
	pid = bench_fork();
	if (pid == 0) {
		(void)fcntl(sock[1], F_SETFL, O_NONBLOCK);
		closep(&sock[0]);
		place.control = sock[1];
		_exit(worker_run(&cfg, &place));
	}
	closep(&sock[1]);
	if (ctl_recv(sock[0], &msg, sizeof(msg), NULL, 0) < 0 || msg.kind != WORKER_READY)
		bench_die("the worker did not start");
	/* sock[0] stays open: its closing would end the worker. */
	return pid;
}

static void
start_vms(struct supervisor *s, bool worker)
{
	for (uint32_t i = 0; i < s->seg->nslots; i++) {
		uint64_t generation;
		uint32_t slot;
		pid_t pid;
		int r = UNTIL_NOT_BUSY(sup_start(s->seg, &slot, &generation));

		pid = r == 0 && worker ? start_worker(s, slot) : getpid();
		if (r == 0)
			r = UNTIL_NOT_BUSY(sup_set_worker(s->seg, slot, (uint32_t)pid));
		if (r == 0)
			r = UNTIL_NOT_BUSY(sup_ready(s->seg, slot, 1));
		if (r < 0)
			bench_die("VM %u: %s", i, strerror(-r));
	}
}

static void
open_pool(struct supervisor *s, const char *name, uint32_t nslots)
{
	const struct seg_params params = {name, "none", "a benchmark", nslots, 128, 1};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct shm_policy *policy;
	char err[256] = "";

	if (seg_create(&s->seg, &params, err, sizeof(err)) < 0)
		bench_die("%s", err);
	policy = &s->seg->head->policy;
	atomic_store(&policy->min_idle, 1);
	atomic_store(&policy->max_idle, nslots);
	atomic_store(&policy->max_total, nslots);
	atomic_store(&policy->max_idle_time, 3600);
	if (lifeline_hold(s->seg) < 0 ||
	    ctl_path(addr.sun_path, sizeof(addr.sun_path), name, ".sock", err, sizeof(err)) < 0)
		bench_die("pool: %s", err);
	s->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(s->listen_fd, CONNS) < 0)
		bench_die("%s: %m", addr.sun_path);
	s->door = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s->req = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	s->rsp = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

/* One request of a client; false: it has gone. */
static bool
serve(struct supervisor *s, unsigned i)
{
	struct ctl_reply reply = {.magic = CTL_MAGIC, .generation = s->seg->head->generation};
	int fds[2] = {s->seg->fd, s->door};
	struct ctl_request req;

	if (ctl_recv(s->conn[i].fd, &req, sizeof(req), NULL, 0) < 0)
		return false;
	reply.kind = req.kind == CTL_ATTACH ? CTL_ATTACHED : req.kind;
	if (req.kind == CTL_DOORBELLS) {
		fds[0] = s->req;
		fds[1] = s->rsp;
	} else if (UNTIL_NOT_BUSY(sup_client_new(s->seg, 1, &s->conn[i].id)) < 0) {
		return false;
	}
	reply.client = s->conn[i].id;
	return ctl_send(s->conn[i].fd, &reply, sizeof(reply), fds, 2) == 0;
}

static void
end_conn(struct supervisor *s, unsigned i)
{
	closep(&s->conn[i].fd);
	(void)UNTIL_NOT_BUSY(sup_client_gone(s->seg, s->conn[i].id));
	s->conn[i] = s->conn[--s->conns];
}

static void
supervise(struct supervisor *s)
{
	struct pollfd p[CONNS + 1];

	for (;;) {
		unsigned n = s->conns;

		for (unsigned i = 0; i < n; i++)
			p[i] = (struct pollfd){.fd = s->conn[i].fd, .events = POLLIN};
		p[n] = (struct pollfd){.fd = s->listen_fd, .events = n < CONNS ? POLLIN : 0};
		if (poll(p, n + 1, -1) < 0)
			return;
		for (unsigned i = n; i-- > 0;)
			if (p[i].revents != 0 && !serve(s, i))
				end_conn(s, i);
		if (p[n].revents != 0) {
			s->conn[s->conns].id = SHM_NO_CLIENT;
			s->conn[s->conns++].fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		}
	}
}

/* --- what the benchmarks call ---------------------------------------------------------- */

static char rundir[] = "/tmp/vmpool-bench.XXXXXX";
static pid_t rundir_owner;

static void
rundir_remove(void)
{
	if (getpid() == rundir_owner)
		(void)rmdir(rundir);
}

static void
rundir_make(void)
{
	if (rundir_owner != 0)
		return;
	if (mkdtemp(rundir) == NULL || setenv("VMPOOL_RUNDIR", rundir, 1) < 0)
		bench_die("%s: %m", rundir);
	rundir_owner = getpid();
	(void)atexit(rundir_remove);
}

pid_t
bench_fork(void)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		bench_die("fork: %m");
	if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
		_exit(1);
	return pid;
}

void
benchpool_open(struct benchpool *bp, const char *name, uint32_t nslots, bool worker)
{
	struct supervisor s = {.conns = 0};
	int sock[2];
	char byte;

	rundir_make();
	(void)snprintf(bp->name, sizeof(bp->name), "%s", name);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		bench_die("socketpair: %m");
	bp->pid = bench_fork();
	if (bp->pid == 0) {
		closep(&sock[0]);
		open_pool(&s, name, nslots);
		start_vms(&s, worker);
		if (write(sock[1], "r", 1) == 1)
			supervise(&s);
		_exit(1);
	}
	closep(&sock[1]);
	if (read(sock[0], &byte, 1) != 1)
		bench_die("the pool did not start");
	closep(&sock[0]);
}

void
benchpool_close(struct benchpool *bp)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];

	(void)kill(bp->pid, SIGKILL); /* its worker dies with it */
	(void)waitpid(bp->pid, NULL, 0);
	if (ctl_path(path, sizeof(path), bp->name, ".sock", NULL, 0) == 0)
		(void)unlink(path);
}

struct vmpool *
benchpool_attach(const struct benchpool *bp)
{
	struct vmpool *pool;

	if (vmpool_attach(&pool, bp->name) != 0)
		bench_die("attach: %s", vmpool_error(NULL));
	return pool;
}

void *
bench_share(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_die("mmap: %m");
	return p;
}

void
bench_mutex_init(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attr;

	if (pthread_mutexattr_init(&attr) != 0 ||
	    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) != 0 ||
	    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) != 0 ||
	    pthread_mutex_init(mutex, &attr) != 0)
		bench_die("no robust mutex");
	(void)pthread_mutexattr_destroy(&attr);
}

int
report_ratio(const char *name, double goal, struct samples *ours, struct samples *other)
{
	double unit = samples_percentile(other, 50);

	return report(&(struct figure){
	    .name = name,
	    .accel = "none",
	    .unit = "x",
	    .value = samples_percentile(ours, 50) / unit,
	    .goal = goal,
	    .lower_is_better = true,
	    .p50 = samples_percentile(ours, 50) / unit,
	    .p99 = samples_percentile(ours, 99) / unit,
	    .n = ours->n,
	});
}
