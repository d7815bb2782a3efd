/* SPDX-License-Identifier: MIT
 *
 * agent_world.c - see agent_world.h. Takes the place of the agent's poller.c, spawn.c,
 * group.c, tty.c, place.c, share.c, file_ops.c, file_read.c, file_write.c, file_tree.c,
 * renew.c and vmstat.c; the linker turns some calls of util.c and of the system here (--wrap).
 */
#include "tests/fuzz/agent_world.h"
#include "kvm/guest/cmd.h"
#include "kvm/guest/file.h"
#include "kvm/guest/renew.h"
#include "kvm/guest/share.h"
#include "kvm/guest/tty.h"
#include "kvm/guest/vmstat.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#define FDS_MAX 1024
#define PROCESSES 128u
#define OUTPUT_MAX (48u << 10) /* a pipe takes as much at once */
#define FIRST_PID 0x100000
#define TURN_NS 1000000u

_Noreturn void __wrap_util_fatal(const char *fmt, ...);
void __wrap_util_log(const char *fmt, ...);
uint64_t __wrap_util_now_ns(void);
int __wrap_util_read_file(const char *path, size_t max, char **out);
int __wrap_signalfd(int fd, const void *mask, int flags);
pid_t __wrap_waitpid(pid_t pid, int *status, int options);

static struct fuzz *input;
static void (*on_turn)(void);
static jmp_buf *on_fatal;

static struct source *watched[FDS_MAX];
static int nwatched; /* all from here on are NULL */
static struct process {
	pid_t pid; /* 0: none */
	int in;	   /* its standard input, until it ends */
} processes[PROCESSES];
static unsigned spawned;
static bool lingers;
static uint64_t now; /* its clock, so that an input always does the same */

void
world_begin(struct fuzz *f, void (*turn)(void), jmp_buf *fatal)
{
	input = f;
	on_turn = turn;
	on_fatal = fatal;
	memset(watched, 0, sizeof(watched));
	nwatched = 0;
	spawned = 0;
	lingers = false;
	now = TURN_NS;
	share_offer(false);
}

void
world_end(void)
{
	for (unsigned i = 0; i < PROCESSES; i++) {
		if (processes[i].pid != 0)
			util_closep(&processes[i].in);
		processes[i].pid = 0;
	}
}

void
world_linger(bool linger)
{
	lingers = linger;
}

/* 0, mostly, or one of what system calls say. */
static int
any_result(void)
{
	static const int errors[] = {ENOENT, EACCES, E2BIG, ENOMEM, EIO, EOPNOTSUPP, ELOOP, ENOSPC};
	unsigned i = fuzz_below(input, 32);

	return i > 0 && i <= ARRAY_SIZE(errors) ? -errors[i - 1] : 0;
}

/* --- share.c: pages that nobody reads ------------------------------------------------------ */

static bool offered, told;
static uint8_t pages[PROTO_PAYLOAD_MAX];

void
share_offer(bool yes)
{
	offered = yes;
	told = false;
}

bool
share_begin(uint64_t *addresses)
{
	bool first = offered && !told;

	if (first)
		memset(addresses, 0, PROTO_SHARE_PAGES * sizeof(*addresses));
	told = offered;
	return first;
}

uint8_t *
share_room(size_t len)
{
	return told && len <= sizeof(pages) && !fuzz_one_in(input, 4) ? pages : NULL;
}

void
share_sent(size_t len)
{
	(void)len;
}

const uint8_t *
share_next(size_t len)
{
	return told && len > 0 && len <= sizeof(pages) ? pages : NULL;
}

void
share_taken(size_t len)
{
	(void)len;
}

/* --- util.c ---------------------------------------------------------------------------- */

void
__wrap_util_fatal(const char *fmt, ...)
{
	(void)fmt;
	longjmp(*on_fatal, 1);
}

void
__wrap_util_log(const char *fmt, ...)
{
	(void)fmt;
}

uint64_t
__wrap_util_now_ns(void)
{
	return now;
}

int
__wrap_util_read_file(const char *path, size_t max, char **out)
{
	static const char text[] = "root:x:0:0:root:/root:/bin/sh\n"
				   "user:x:1000:1000::/home/user:/bin/sh\n"
				   "odd:x:4294967295:5:::\n"
				   "half:x\n"
				   "wheel:x:10:root,user\n";

	assert(strncmp(path, "/etc/", 5) == 0 && sizeof(text) <= max);
	*out = strdup(text);
	return *out == NULL ? -ENOMEM : 0;
}

/* Nobody sends a signal here. */
int
__wrap_signalfd(int fd, const void *mask, int flags)
{
	(void)fd;
	(void)mask;
	(void)flags;
	return 0;
}

/* Our children are none of the agent's: libFuzzer may have some. */
pid_t
__wrap_waitpid(pid_t pid, int *status, int options)
{
	(void)pid;
	(void)status;
	(void)options;
	errno = ECHILD;
	return -1;
}

/* --- poller.c -------------------------------------------------------------------------- */

int
poller_init(void)
{
	return 0;
}

int
poller_add(int fd, struct source *s, bool out)
{
	(void)out;
	if (fd == 0) /* what signalfd has returned */
		return 0;
	if (fd >= FDS_MAX)
		return -EMFILE;
	watched[fd] = s;
	nwatched = MAX(nwatched, fd + 1);
	return 0;
}

void
poller_close(int *fd)
{
	if (*fd >= 0 && *fd < FDS_MAX)
		watched[*fd] = NULL;
	util_closep(fd);
}

void
poller_set_out(int fd, struct source *s, bool out)
{
	(void)out;
	assert(fd < FDS_MAX && watched[fd] == s);
}

/* An event that stands for nothing must do no harm. */
void
poller_wait(uint64_t deadline_ns)
{
	(void)deadline_ns;
	now += TURN_NS;
	on_turn();
	for (int fd = 0; fd < nwatched; fd++)
		if (watched[fd] != NULL)
			watched[fd]->event(watched[fd]);
}

/* --- processes ------------------------------------------------------------------------- */

static void
check_strings(char *const *list)
{
	for (; *list != NULL; list++)
		assert(strlen(*list) < PROTO_EXEC_MAX);
}

/* Its output is all there at once. */
static void
speak(int fd)
{
	static uint8_t bytes[OUTPUT_MAX];
	size_t len = fuzz_below(input, 4) == 1 ? fuzz_below(input, OUTPUT_MAX) : 0;

	if (len > 0)
		assert(write(fd, bytes, len) > 0);
}

int
spawn_run(struct spawn *s)
{
	struct process *p = processes;
	int r = any_result();

	AN(s->argv[0]);
	check_strings(s->argv);
	check_strings(s->env);
	AN(s->path);
	assert(strlen(s->cwd) < PROTO_EXEC_MAX && s->in >= 0 && s->out >= 0 && s->err >= 0);
	assert(s->user == NULL || s->user->ngroups <= USER_GROUPS_MAX);
	while (p < processes + PROCESSES && p->pid != 0)
		p++;
	if (r == 0 && p == processes + PROCESSES)
		r = -EAGAIN;
	s->stage = r == -ENOENT	 ? PROTO_STAGE_CWD
		   : r == -E2BIG ? PROTO_STAGE_EXEC
				 : PROTO_STAGE_FORK;
	if (r < 0)
		return r;
	p->in = fcntl(s->in, F_DUPFD_CLOEXEC, 3);
	s->pid = p->pid = FIRST_PID + (pid_t)spawned++;
	s->started_ns = now;
	speak(s->out);
	if (s->err != s->out)
		speak(s->err);
	return 0;
}

void
world_reap(unsigned which, int status)
{
	struct process *p = &processes[which % PROCESSES];
	pid_t pid = p->pid;

	if (pid == 0)
		return;
	util_closep(&p->in);
	p->pid = 0;
	cmd_reaped(pid, status);
}

int
group_init(const char *dir)
{
	AZ(dir);
	return 0;
}

void
group_fini(void)
{
}

int
group_new(struct group *g)
{
	*g = (struct group){.fd = 0}; /* as with cgroups; nobody reads it */
	return 0;
}

int
group_limit(const struct group *g, uint32_t memory_mib, uint32_t procs)
{
	AZ(g->fd);
	return memory_mib != 0 || procs != 0 ? any_result() : 0;
}

void
group_free(struct group *g)
{
	AZ(g->fd);
}

bool
group_is_empty(const struct group *g)
{
	AZ(g->fd);
	return !lingers;
}

void
group_kill_all(void)
{
}

int
group_signal(const struct group *g, int sig)
{
	AZ(g->fd);
	assert(sig > 0 && sig <= 64);
	return any_result();
}

int
tty_open(int *master, int *slave, const struct proto_winsize *size)
{
	int ends[2], r = any_result();

	(void)size;
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	*master = ends[0];
	*slave = ends[1];
	return 0;
}

void
tty_resize(int master, const struct proto_winsize *size)
{
	(void)size;
	assert(master > 2);
}

int
tty_type_eof(int master)
{
	return write(master, "\4", 1) < 0 ? -errno : 0;
}

/* --- files ----------------------------------------------------------------------------- */

static void
check_paths(const struct file_req *q)
{
	assert(strlen(q->path) < PROTO_PATH_MAX && strlen(q->other) < PROTO_PATH_MAX &&
	       strlen(q->root) < PROTO_PATH_MAX);
	assert(q->head.mode <= 07777 && q->head.mtime_nsec < 1000000000);
	assert(q->head.offset <= INT64_MAX);
}

int
place_open(struct place *p, const char *root)
{
	assert(strlen(root) < PROTO_PATH_MAX);
	p->fd = -1;
	return any_result();
}

void
place_close(struct place *p)
{
	p->fd = -1;
}

static int
one_step(const struct file_req *q, const struct place *p)
{
	AN(p);
	check_paths(q);
	return any_result();
}

int
file_rename(const struct file_req *q, const struct place *p)
{
	return one_step(q, p);
}

int
file_link(const struct file_req *q, const struct place *p)
{
	return one_step(q, p);
}

int
file_symlink(const struct file_req *q, const struct place *p)
{
	return one_step(q, p);
}

int
file_stat(const struct file_req *q, const struct place *p, struct stat *st)
{
	st->st_mode = S_IFREG;
	return one_step(q, p);
}

int
file_mkdir(const struct file_req *q, const struct place *p, struct stat *st)
{
	st->st_mode = S_IFDIR;
	return one_step(q, p);
}

int
file_setattr(const struct file_req *q, const struct place *p, struct stat *st)
{
	st->st_mode = S_IFREG;
	return one_step(q, p);
}

static int
begin(struct file *f, const struct file_req *q, const struct place *p, int step)
{
	int r = one_step(q, p);

	f->left = fuzz_below(input, OUTPUT_MAX);
	return r < 0 ? r : step;
}

int
file_read_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	f->fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the end of it is looked at */
	return begin(f, q, p, FILE_MORE);
}

int
file_list_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	return begin(f, q, p, FILE_MORE);
}

int
file_readlink_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	return begin(f, q, p, FILE_MORE);
}

int
file_remove_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	return begin(f, q, p, fuzz_below(input, 2) == 0 ? FILE_DONE : FILE_MORE);
}

int
file_write_begin(struct file *f, const struct file_req *q, const struct place *p)
{
	int r = begin(f, q, p, FILE_WAITS);

	f->w.pending = r >= 0;
	return r;
}

/* As much as the host takes, until there is no more. */
static int
send_some(struct file *f, struct chan *c)
{
	size_t want = MIN(MIN(f->credit, f->left), PROTO_PAYLOAD_MAX);

	if (f->left == 0)
		return FILE_DONE;
	if (want == 0)
		return FILE_WAITS;
	memset(chan_reserve(c, want), 'f', want);
	chan_commit(c, PROTO_STDOUT, f->stream, want);
	f->credit -= want;
	f->left -= want;
	return FILE_MORE;
}

int
file_read_step(struct file *f, struct chan *c)
{
	return send_some(f, c);
}

int
file_list_step(struct file *f, struct chan *c)
{
	return send_some(f, c);
}

int
file_readlink_step(struct file *f, struct chan *c)
{
	return send_some(f, c);
}

int
file_remove_step(struct file *f)
{
	f->left -= MIN(f->left, OUTPUT_MAX / 4);
	return f->left == 0 ? FILE_DONE : FILE_MORE;
}

int
file_write_bytes(struct file *f, const uint8_t *bytes, size_t len)
{
	assert(f->w.pending && (len == 0 || bytes != NULL));
	f->w.at += len;
	return any_result();
}

int
file_write_commit(struct file *f, struct stat *st)
{
	st->st_size = (off_t)f->w.at;
	f->w.pending = false;
	return any_result();
}

void
file_write_undo(struct file *f)
{
	f->w.pending = false;
}

void
file_tree_free(struct tree *t)
{
	AZ(t);
}

void
file_stat_out(struct proto_stat *out, const struct stat *st)
{
	*out = (struct proto_stat){.mode = st->st_mode, .size = (uint64_t)st->st_size};
}

/* --- the machine ------------------------------------------------------------------------- */

void
renew_run(const struct proto_renew *renew, struct proto_renewed *done)
{
	*done = (struct proto_renewed){.wall_ns = renew->wall_ns};
}

void
vmstat_read(struct proto_vmstats *s)
{
	s->processes = 1;
}
