/* SPDX-License-Identifier: MIT
 *
 * service.c - puts the parts of vmpoold together, and ends them: start, signals,
 * readiness, drain. Owns everything that the supervisor owns.
 *
 * Start makes nothing before all that can be checked has been; whatever it has
 * made when something fails is taken back by the same service_fini that a normal
 * end uses.
 */
#include "supervisor/service.h"

#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "shm/lifeline.h"
#include "supervisor/daemon.h"
#include "supervisor/pool.h"
#include "supervisor/reap.h"
#include "supervisor/server.h"
#include "supervisor/suplog.h"
#include "supervisor/watchdog.h"

#define TICK_NS 1000000000ull
#define DRAIN_TICK_NS 50000000ull
#define DRAIN_MS 10000u
#define DRAIN_MAX_MS 86400000u
#define ORPHANS_MS 5000u
#define ERR_MAX 1024

struct service {
	struct config cfg;
	int argc;
	char **argv;
	struct parts parts;
	struct rundir dir;
	struct evloop *loop;
	struct seg *seg;
	struct retry retry;
	struct bells bells;
	struct pool *pool;
	struct server *server;
	struct watchdog watchdog;
	int ready_fd, signal_fd;
	struct ev_source ready_src, signal_src, door_src;
	struct ev_timer tick, drain_end;
	bool ready, stopping;
	int status;
};

/* --- the end ---------------------------------------------------------------------- */

static void
service_stop(struct service *s, uint32_t drain_ms)
{
	uint64_t end = now_ns() + (uint64_t)MIN(drain_ms, DRAIN_MAX_MS) * 1000000u;

	if (!s->stopping)
		daemon_notify("STOPPING=1");
	s->stopping = true;
	ev_timer_by(&s->drain_end, end);
	ev_timer_by(&s->tick, now_ns() + DRAIN_TICK_NS);
	if (drain_ms == 0)
		evloop_stop(s->loop);
	else
		pool_drain(s->pool);
}

static void
service_on_drain_end(void *arg)
{
	struct service *s = arg;

	suplog(LOG_WARNING, "leases are still held; ending them");
	evloop_stop(s->loop);
}

static void
service_on_drained(void *arg)
{
	struct service *s = arg;

	evloop_stop(s->loop);
}

static void
service_on_hopeless(void *arg, const char *why)
{
	struct service *s = arg;

	suplog(LOG_ERR, "no VM can start: %s", why);
	s->status = 1;
	evloop_stop(s->loop);
}

static void
service_on_client_stop(void *arg, pid_t pid, uint32_t drain_ms)
{
	struct service *s = arg;

	suplog(LOG_INFO, "asked to stop by pid %d", (int)pid);
	service_stop(s, drain_ms);
}

static int
service_on_client_copy(void *arg, const struct pool_copy_ask *ask, struct pool_copy **out,
		       char *err, size_t errlen)
{
	struct service *s = arg;

	return pool_copy(s->pool, ask, out, err, errlen);
}

/* --- events ------------------------------------------------------------------------ */

static void
service_on_ready(void *arg)
{
	struct service *s = arg;

	if (s->ready)
		return;
	s->ready = true;
	suplog(LOG_INFO, "pool '%s' is ready (pid %d), accelerator %s: %s", s->cfg.name,
	       (int)getpid(), s->parts.accel, s->parts.why);
	if (s->ready_fd >= 0) {
		evloop_del(s->loop, &s->ready_src);
		suplog_to_syslog();
		if (daemon_ready(&s->ready_fd) < 0) {
			suplog(LOG_ERR, "the program that started this one has gone");
			s->status = 1;
			evloop_stop(s->loop);
		}
	}
	daemon_notify("READY=1");
}

static void
service_on_caller_gone(void *arg, uint32_t events)
{
	struct service *s = arg;

	(void)events;
	evloop_del(s->loop, &s->ready_src);
	s->status = 1;
	evloop_stop(s->loop);
}

static void
service_on_tick(void *arg)
{
	struct service *s = arg;
	uint64_t now = now_ns();

	/* Read by monitors and clients (shm/client_info.c); a plain figure. */
	atomic_store_explicit(&s->seg->head->heartbeat_ns, now, memory_order_relaxed);
	pool_tick(s->pool);
	watchdog_look(&s->watchdog);
	server_tick(s->server, now);
	/* The release of an untouched VM rings no bell, and may be what a drain waits for. */
	s->tick.at_ns = now + (s->stopping ? DRAIN_TICK_NS : TICK_NS);
}

static void
service_on_door(void *arg, uint32_t events)
{
	struct service *s = arg;
	uint64_t rings;

	(void)events;
	if (read(s->bells.door, &rings, sizeof(rings)) == sizeof(rings))
		pool_look(s->pool);
}

static void
service_on_client_gone(void *arg)
{
	struct service *s = arg;

	pool_look(s->pool);
}

static void
service_log_change(const char *line)
{
	suplog(LOG_INFO, "configuration: %s", line);
}

static void
service_reload(struct service *s)
{
	struct config fresh;
	char err[ERR_MAX];
	int r;

	r = config_load(&fresh, s->argc, s->argv, err, sizeof(err));
	if (r == 0)
		r = config_update(&s->cfg, &fresh, s->seg->nslots / 2, service_log_change, err,
				  sizeof(err));
	if (r < 0)
		suplog(LOG_ERR, "configuration stays as it was: %s", err);
	else
		pool_policy(s->pool);
}

static void
service_on_signal(void *arg, uint32_t events)
{
	struct service *s = arg;
	struct signalfd_siginfo si;

	(void)events;
	if (read(s->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	switch (si.ssi_signo) {
	case SIGCHLD: reap_ended(s->pool); break;
	case SIGHUP: service_reload(s); break;
	default:
		suplog(LOG_INFO, "%s by signal %u%s", s->stopping ? "stopped" : "draining",
		       si.ssi_signo, s->stopping ? ", at once" : "");
		service_stop(s, s->stopping ? 0 : DRAIN_MS);
	}
}

/* --- start --------------------------------------------------------------------------- */

static int
service_watch(struct service *s, struct ev_source *src, int fd, void (*ready)(void *, uint32_t),
	      uint32_t events)
{
	*src = (struct ev_source){.fd = fd, .ready = ready, .arg = s};
	return evloop_add(s->loop, src, events);
}

static int
service_init_loop(struct service *s)
{
	sigset_t set;
	int r;

	r = evloop_new(&s->loop);
	if (r < 0)
		return r;
	s->tick = (struct ev_timer){.at_ns = now_ns(), .fire = service_on_tick, .arg = s};
	s->drain_end = (struct ev_timer){.fire = service_on_drain_end, .arg = s};
	evloop_timer(s->loop, &s->tick);
	evloop_timer(s->loop, &s->drain_end);

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return -errno;
	r = service_watch(s, &s->signal_src, s->signal_fd, service_on_signal, EPOLLIN);
	if (r == 0 && s->ready_fd >= 0)
		r = service_watch(s, &s->ready_src, s->ready_fd, service_on_caller_gone, 0);
	return r;
}

/* What a slot needs: two doorbells; a VM: pidfd and control socket; and each
 * client its socket. */
static void
service_raise_limits(uint32_t nslots)
{
	struct rlimit rl;
	rlim_t need = 4 * (rlim_t)nslots + SHM_CLIENTS + 64;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return;
	rl.rlim_cur = rl.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &rl);
	if (rl.rlim_max < need)
		suplog(LOG_WARNING,
		       "only %lu open files are allowed, this pool may need %lu (raise the limit)",
		       (unsigned long)rl.rlim_max, (unsigned long)need);
}

static int
service_init_segment(struct service *s, char *err, size_t errlen)
{
	struct seg_params params = {
	    .name = s->cfg.name,
	    .accel = s->parts.accel,
	    .why = s->parts.why,
	    .nslots = MIN(MAX(2 * s->cfg.max_total, 64u), SHM_SLOTS_MAX),
	    .memory_mib = s->parts.memory_mib,
	    .vcpus = s->parts.vcpus,
	};
	int r;

	service_raise_limits(params.nslots);
	r = seg_create(&s->seg, &params, err, errlen);
	if (r < 0)
		return r;
	r = lifeline_hold(s->seg);
	if (r == 0)
		r = bells_init(&s->bells, params.nslots);
	if (r == 0)
		r = service_watch(s, &s->door_src, s->bells.door, service_on_door, EPOLLIN);
	if (r < 0)
		return fail(-r, err, errlen, "cannot set up the segment: %s", strerror(-r));
	atomic_store_explicit(&s->seg->head->heartbeat_ns, now_ns(), memory_order_relaxed);
	retry_init(&s->retry, s->loop, s->seg);
	return 0;
}

static int
service_on_join(void *arg, uint32_t slot, uint64_t generation, const int *fds)
{
	struct service *s = arg;

	return pool_join(s->pool, slot, generation, fds);
}

static bool
service_is_client(void *arg, pid_t pid)
{
	struct service *s = arg;

	return server_has_client(s->server, pid);
}

static int
service_init_server(struct service *s, char *err, size_t errlen)
{
	struct server_setup setup = {
	    .loop = s->loop,
	    .seg = s->seg,
	    .retry = &s->retry,
	    .bells = &s->bells,
	    .client_gone = service_on_client_gone,
	    .join = service_on_join,
	    .stop = service_on_client_stop,
	    .copy = service_on_client_copy,
	    .arg = s,
	};
	int r = rundir_listen(&s->dir, err, errlen);

	if (r < 0)
		return r;
	setup.listen_fd = s->dir.listen_fd;
	r = server_open(&s->server, &setup);
	watchdog_init(&s->watchdog, s->loop, s->seg, service_is_client, s);
	return r < 0 ? fail(-r, err, errlen, "cannot serve clients: %s", strerror(-r)) : 0;
}

static int
service_init_pool(struct service *s, char *err, size_t errlen)
{
	struct pool_setup setup = {
	    .loop = s->loop,
	    .seg = s->seg,
	    .retry = &s->retry,
	    .bells = &s->bells,
	    .cfg = &s->cfg,
	    .parts = &s->parts,
	    .dir = &s->dir,
	    .ready = service_on_ready,
	    .hopeless = service_on_hopeless,
	    .drained = service_on_drained,
	    .arg = s,
	};

	return pool_open(&s->pool, &setup, err, errlen);
}

static int
service_init(struct service *s, char *err, size_t errlen)
{
	int r;

	r = parts_find(&s->parts, &s->cfg, err, errlen);
	if (r < 0)
		return r;
	if (s->cfg.daemonize) {
		r = daemon_fork(&s->ready_fd);
		if (r < 0)
			return fail(-r, err, errlen, "cannot go into the background: %s",
				    strerror(-r));
	}
	r = rundir_open(&s->dir, s->cfg.name, err, errlen);
	if (r < 0)
		return r;
	/* What a killed worker leaves (its QEMU) becomes our child, and we see it end. */
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	r = service_init_loop(s);
	if (r < 0)
		return fail(-r, err, errlen, "cannot set up the event loop: %s", strerror(-r));
	r = service_init_segment(s, err, errlen);
	if (r == 0)
		r = service_init_server(s, err, errlen);
	if (r == 0)
		r = service_init_pool(s, err, errlen);
	return r;
}

static void
service_fini(struct service *s)
{
	pool_close(s->pool);
	reap_orphans(ORPHANS_MS);
	rundir_close(&s->dir);
	/* Last of what others see: who asked us to stop waits for this. */
	server_close(s->server);
	bells_fini(&s->bells);
	parts_close(&s->parts);
	closep(&s->signal_fd);
	evloop_free(s->loop);
	/* The segment stays mapped: the kernel releases the lifeline in it, and wakes
	 * who waits, when this process ends. */
}

static int
service_run(const struct config *cfg, int argc, char **argv)
{
	static struct service s;
	char err[ERR_MAX];
	int r;

	s = (struct service){.cfg = *cfg, .argc = argc, .argv = argv};
	s.ready_fd = s.signal_fd = s.dir.lock_fd = s.dir.listen_fd = s.bells.door = -1;
	s.parts.snapshot_fd = -1;
	r = service_init(&s, err, sizeof(err));
	if (r == 0) {
		r = evloop_run(s.loop);
		if (r < 0)
			(void)fail(-r, err, sizeof(err), "event loop: %s", strerror(-r));
	}
	if (r < 0) {
		suplog(LOG_ERR, "%s", err);
		s.status = 1;
	}
	service_fini(&s);
	if (r == 0 && s.status == 0)
		suplog(LOG_INFO, "pool '%s' has ended", s.cfg.name);
	return s.status;
}

int
service_main(int argc, char **argv)
{
	struct config cfg;
	char err[ERR_MAX];

	suplog_init();
	(void)signal(SIGPIPE, SIG_IGN);
	if (config_load(&cfg, argc, argv, err, sizeof(err)) < 0) {
		suplog(LOG_ERR, "%s", err);
		return 2;
	}
	if (cfg.help) {
		config_help(stdout);
		return 0;
	}
	return service_run(&cfg, argc, argv);
}
