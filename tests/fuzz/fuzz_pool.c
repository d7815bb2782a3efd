/* SPDX-License-Identifier: MIT
 *
 * fuzz_pool.c - a real vmpoold with real workers (null machine), attacked by a
 * client: it writes over every byte of the segment that it can, or sends anything
 * on the socket, while honest clients work. The supervisor outlives it and ends
 * in order when asked; no other process crashes. After an attack on the socket
 * alone, honest clients are served as if nothing had happened.
 *
 * $VMPOOL_TEST_VMPOOLD names the supervisor. One case is one pool.
 */
#include "shm/ctl.h"
#include "shm/segment.h"
#include "tests/lib/fuzz.h"
#include "tests/lib/stress_body.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define HONEST 3u
#define READY_MS 60000
#define END_MS 60000
#define ATTACK_NS 1000000000ull

static struct {
	char dir[64], log[96];
	int notify;
	pid_t supervisor, honest[HONEST];
	struct shared {
		struct stress_plan plan;
		struct stress_party party[HONEST];
	} * shared;
} pool;

/* The case has failed: the log says more than we can. */
static _Noreturn void printf_like(1, 2) give_up(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	FILE *f = fopen(pool.log, "re");

	va_start(ap, fmt);
	(void)vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		printf("  %s", line);
	(void)fflush(stdout);
	(void)kill(pool.supervisor, SIGKILL);
	/* Its fork server removes the rest. */
	(void)unlink(pool.log);
	exit(1);
}

static void
pool_dir(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)strcpy(pool.dir, "/tmp/vmpool-fuzz.XXXXXX");
	assert(mkdtemp(pool.dir) != NULL);
	(void)snprintf(pool.log, sizeof(pool.log), "%s/log", pool.dir);
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", pool.dir);
	pool.notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	AZ(bind(pool.notify, (struct sockaddr *)&addr, sizeof(addr)));
	AZ(setenv("NOTIFY_SOCKET", addr.sun_path, 1));
	AZ(setenv("VMPOOL_RUNDIR", pool.dir, 1));
}

static void
pool_open(void)
{
	const char *argv[] = {getenv("VMPOOL_TEST_VMPOOLD"),
			      "--foreground",
			      "--accel=null",
			      "--min-idle=2",
			      "--max-idle=3",
			      "--max-total=4",
			      NULL};
	struct pollfd p = {.events = POLLIN};
	char text[64] = "";
	int fd;

	pool_dir();
	pool.supervisor = fork();
	if (pool.supervisor == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = open(pool.log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
		if (fd >= 0 && dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0)
			(void)execv(argv[0], (char *const *)(uintptr_t)argv);
		_exit(99);
	}
	p.fd = pool.notify;
	while (strncmp(text, "READY=1", 7) != 0)
		if (poll(&p, 1, READY_MS) != 1 || recv(pool.notify, text, sizeof(text) - 1, 0) <= 0)
			give_up("the pool does not become ready");
}

/* The process's end: its wait status. */
static int
ended(pid_t pid, const char *what)
{
	struct pollfd p = {.fd = pidfd_open(pid, 0), .events = POLLIN};
	int status;

	if (poll(&p, 1, END_MS) != 1)
		give_up("%s (pid %d) does not end within %d s", what, (int)pid, END_MS / 1000);
	(void)close(p.fd);
	assert(waitpid(pid, &status, 0) == pid);
	return status;
}

/* A worker that dies of itself, rather than by the supervisor's hand. */
static void
check_log(void)
{
	static const char *const bad[] = {"Sanitizer",	 "runtime error:", "Assertion",
					  "by signal 6", "by signal 11",   "by signal 7"};
	char line[512];
	FILE *f = fopen(pool.log, "re");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
			if (strstr(line, bad[i]) != NULL)
				give_up("somebody has crashed: %s", line);
	if (f != NULL)
		(void)fclose(f);
}

static void
pool_close(void)
{
	static const char *const names[] = {"log", "notify", "default.sock", "default.pid"};
	char path[128];
	int status;

	(void)kill(pool.supervisor, SIGTERM);
	/* The second one: do not wait for leases that are nobody's any more. */
	(void)kill(pool.supervisor, SIGINT);
	status = ended(pool.supervisor, "the supervisor");
	if (status != 0)
		give_up("the supervisor ended with wait status 0x%x", (unsigned)status);
	check_log();
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", pool.dir, names[i]);
		if (i >= 2 && access(path, F_OK) == 0)
			give_up("%s was left behind", path);
		(void)unlink(path);
	}
	if (rmdir(pool.dir) < 0)
		give_up("files were left in %s", pool.dir);
	(void)close(pool.notify);
}

/* --- the honest ------------------------------------------------------------------------- */

/* In a scribbled pool honest clients fail in any way; but they do not crash. */
static void
honest_start(struct fuzz *f, bool must_work)
{
	pool.shared->plan = (struct stress_plan){
	    .ops = STRESS_ALL & ~(1u << STRESS_MARK),
	    .touch = 300,
	    .patience_ms = 500,
	    .command_ms = must_work ? 20000 : 500,
	    .slack_ms = 30000,
	    .left = UINT64_MAX,
	};
	memset(pool.shared->party, 0, sizeof(pool.shared->party));
	for (unsigned i = 0; i < HONEST; i++) {
		uint32_t seed = (uint32_t)fuzz_random(f);

		pool.honest[i] = fork();
		if (pool.honest[i] != 0)
			continue;
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(stress_body(&pool.shared->party[i], &pool.shared->plan, seed) ? 0 : 1);
	}
}

static void
honest_end(bool must_work)
{
	atomic_store(&pool.shared->plan.stop, 1);
	for (unsigned i = 0; i < HONEST; i++) {
		int status = ended(pool.honest[i], "an honest client");

		if (WIFSIGNALED(status))
			give_up("an honest client died of signal %d", WTERMSIG(status));
		if (WEXITSTATUS(status) > 1)
			give_up("an honest client ended with status %d", WEXITSTATUS(status));
		if (must_work && WEXITSTATUS(status) != 0)
			give_up("an honest client failed: %s", pool.shared->party[i].complaint);
	}
}

/* --- the attackers ------------------------------------------------------------------------- */

static int
dial(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/default.sock", pool.dir);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		closep(&fd);
	return fd;
}

/* Everything that a client may map and write. */
static int
attack_segment(struct fuzz *f)
{
	const struct ctl_request req = {
	    .magic = CTL_MAGIC, .kind = CTL_ATTACH, .format = SHM_FORMAT};
	uint64_t end = now_ns() + ATTACK_NS;
	int sock = dial(), fds[2] = {-1, -1};
	struct ctl_reply reply;
	struct stat st;
	uint8_t *base;
	size_t head;

	if (sock < 0 || ctl_send(sock, &req, sizeof(req), NULL, 0) < 0 ||
	    ctl_recv(sock, &reply, sizeof(reply), fds, 2) < 0 || fstat(fds[0], &st) < 0)
		return 2;
	base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	if (base == MAP_FAILED)
		return 2;
	head = ((struct shm_head *)base)->chan_off;
	while (now_ns() < end) {
		uint32_t some = 1 + fuzz_below(f, 20);

		for (uint32_t i = 0; i < some; i++)
			fuzz_mutate(f, base, fuzz_one_in(f, 3) ? (size_t)st.st_size : head);
		/* Otherwise all would soon wait for the lock, and nothing be read. */
		if (!fuzz_one_in(f, 300))
			atomic_store(&((struct shm_head *)base)->lock.word, 0);
		if (fuzz_one_in(f, 4))
			(void)eventfd_write(fds[1], 1);
		(void)poll(NULL, 0, (int)fuzz_below(f, 3));
	}
	if (!fuzz_one_in(f, 4))
		atomic_store(&((struct shm_head *)base)->lock.word, 0);
	return 0;
}

/* A message that is almost right, with descriptors that nobody asked for. */
static int
send_rubbish(struct fuzz *f, int sock)
{
	static const uint32_t kinds[] = {CTL_ATTACH, CTL_MONITOR, CTL_DOORBELLS, CTL_JOIN,
					 CTL_ATTACHED};
	uint8_t bytes[4096];
	struct ctl_request req = {.magic = CTL_MAGIC,
				  .kind = kinds[fuzz_below(f, ARRAY_SIZE(kinds))],
				  .format = SHM_FORMAT,
				  .slot = fuzz_below(f, 12)};
	size_t len = fuzz_one_in(f, 3) ? fuzz_below(f, sizeof(bytes)) + 1u : sizeof(req);
	int fds[4] = {sock, sock, sock, sock};

	if (fuzz_one_in(f, 2))
		fuzz_mutate(f, (uint8_t *)&req, sizeof(req));
	if (req.kind == CTL_STOP)
		return 0;
	fuzz_fill(f, bytes, sizeof(bytes));
	memcpy(bytes, &req, MIN(len, sizeof(req)));
	return ctl_send(sock, bytes, len, fds, fuzz_one_in(f, 4) ? fuzz_below(f, 5) : 0);
}

static int
attack_socket(struct fuzz *f)
{
	uint64_t end = now_ns() + ATTACK_NS;
	int sock[20];

	for (size_t i = 0; i < ARRAY_SIZE(sock); i++)
		sock[i] = -1;
	while (now_ns() < end) {
		int *fd = &sock[fuzz_below(f, ARRAY_SIZE(sock))];

		if (*fd >= 0 && fuzz_one_in(f, 5))
			closep(fd);
		if (*fd < 0)
			*fd = dial();
		if (*fd >= 0 && send_rubbish(f, *fd) < 0)
			closep(fd);
	}
	return 0;
}

static void
attack(struct fuzz *f, bool segment)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(segment ? attack_segment(f) : attack_socket(f));
	}
	status = ended(pid, "the attacker");
	if (status != 0)
		give_up("the attacker ended with wait status 0x%x", (unsigned)status);
}

static void
one(struct fuzz *f)
{
	bool segment = !fuzz_one_in(f, 4);

	pool_open();
	honest_start(f, !segment);
	attack(f, segment);
	if (waitpid(pool.supervisor, NULL, WNOHANG) != 0)
		give_up("the supervisor has ended");
	honest_end(!segment);
	pool_close();
}

int
main(int argc, char **argv)
{
	if (getenv("VMPOOL_TEST_VMPOOLD") == NULL) {
		(void)fprintf(stderr, "fuzz_pool: VMPOOL_TEST_VMPOOLD is not set\n");
		return 2;
	}
	pool.shared = mmap(NULL, sizeof(*pool.shared), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert(pool.shared != MAP_FAILED);
	return fuzz_main(argc, argv, "fuzz_pool", one);
}
