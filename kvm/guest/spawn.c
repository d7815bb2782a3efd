/* SPDX-License-Identifier: MIT
 *
 * spawn.c - vfork and execve. Runs in the agent, and for a moment in a child
 * that shares the agent's memory (CLONE_VM) while the agent stands still
 * (CLONE_VFORK): no page table is copied, and the child reports a failure by
 * just storing it. What the child may call is therefore bounded: system calls,
 * and functions that touch only its own stack.
 */
#include "kvm/guest/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHARE (CLONE_VM | CLONE_VFORK)

/* The child's stack: it needs a path and a few frames. */
static char stack[32u << 10] __attribute__((aligned(16)));

/* Leave the stage and errno for the agent, and end. */
static _Noreturn void
give_up(struct spawn *s, enum proto_stage stage, int *err)
{
	*err = errno;
	s->stage = stage;
	_exit(127);
}

/* execve each candidate of the search path, as execvp does, but a file without
 * a format the kernel knows is an error, not a shell script. Returns on failure
 * only, with errno as people expect it: one file that may not be executed is
 * worth more than any number that are not there. It looks before it leaps, since
 * execve makes an address space before it knows that there is no such file. */
static void
exec_search(const struct spawn *s)
{
	const char *name = s->argv[0], *dir = s->path, *end;
	size_t len = strlen(name), dirlen;
	bool denied = false;
	char file[PATH_MAX];
	struct stat st;

	errno = ENOENT;
	if (len == 0 || len >= sizeof(file) - 1)
		return;
	for (;; dir = end + 1) {
		end = strchrnul(dir, ':');
		dirlen = (size_t)(end - dir);
		errno = ENOENT;
		if (dirlen + len + 2 <= sizeof(file)) {
			memcpy(file, dir, dirlen);
			file[dirlen] = '/';
			memcpy(file + dirlen + (dirlen > 0), name, len + 1);
			if (stat(file, &st) == 0)
				(void)execve(file, s->argv, s->env);
		}
		if (errno == EACCES)
			denied = true;
		else if (errno != ENOENT && errno != ENOTDIR)
			return;
		if (*end == '\0')
			break;
	}
	errno = denied ? EACCES : ENOENT;
}

static int
become(const struct user *u)
{
	/* The bare calls: the C library's versions reach for other threads. */
	if (syscall(SYS_setgroups, u->ngroups, u->groups) < 0 ||
	    syscall(SYS_setresgid, u->gid, u->gid, u->gid) < 0 ||
	    syscall(SYS_setresuid, u->uid, u->uid, u->uid) < 0)
		return -1;
	return 0;
}

static void
set_mark(unsigned mark)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%u", mark);
	if (util_write_file(AT_FDCWD, "/proc/self/oom_score_adj", text) != 0)
		return; /* without /proc nothing can be told apart anyway */
}

/* The session's terminal, which belongs to whom the command runs as. */
static int
take_terminal(const struct user *u)
{
	if (u != NULL && fchown(STDIN_FILENO, u->uid, (gid_t)-1) < 0)
		return -1;
	return ioctl(STDIN_FILENO, TIOCSCTTY, 0);
}

static int
set_limits(const struct proto_exec *want)
{
	/* The first signal may be caught, the second not. */
	const struct rlimit cpu = {.rlim_cur = want->cpu_s, .rlim_max = (rlim_t)want->cpu_s + 1};
	const struct rlimit files = {.rlim_cur = want->files, .rlim_max = want->files};

	if (want->cpu_s != 0 && setrlimit(RLIMIT_CPU, &cpu) < 0)
		return -1;
	return want->files != 0 ? setrlimit(RLIMIT_NOFILE, &files) : 0;
}

struct child {
	struct spawn *s;
	int err;
};

/* Runs in the child, on its own stack. */
static _Noreturn void
child_main(void *arg)
{
	struct child *c = arg;
	struct spawn *s = c->s;
	sigset_t none;

	(void)setsid();
	if (dup2(s->in, STDIN_FILENO) < 0 || dup2(s->out, STDOUT_FILENO) < 0 ||
	    dup2(s->err, STDERR_FILENO) < 0)
		give_up(s, PROTO_STAGE_FORK, &c->err);
	if (s->group->mark != 0)
		set_mark(s->group->mark);
	if ((s->want->flags & PROTO_EXEC_TTY) != 0 && take_terminal(s->user) < 0)
		give_up(s, PROTO_STAGE_FORK, &c->err);
	if ((s->want->flags & PROTO_EXEC_UMASK) != 0)
		(void)umask((mode_t)s->want->umask);
	if (set_limits(s->want) < 0)
		give_up(s, PROTO_STAGE_LIMITS, &c->err);
	if (s->user != NULL && become(s->user) < 0)
		give_up(s, PROTO_STAGE_USER, &c->err);
	if (s->cwd[0] != '\0' && chdir(s->cwd) < 0)
		give_up(s, PROTO_STAGE_CWD, &c->err);
	/* The agent blocks all signals and handles none, so this is all there
	 * is to give the program the defaults. */
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (strchr(s->argv[0], '/') != NULL)
		(void)execve(s->argv[0], s->argv, s->env);
	else
		exec_search(s);
	give_up(s, PROTO_STAGE_EXEC, &c->err);
}

/* clone (a0: flags, a1: top of the stack) or clone3 (a0: arguments, a1: their
 * size), and fn(arg) in the child. The C library has no wrapper of clone3, and
 * with a stack of its own the child cannot return through the agent's. */
static long
raw_clone(long nr, unsigned long a0, unsigned long a1, void (*fn)(void *), void *arg)
{
	register long tls __asm__("r8") = 0;
	register long child_tid __asm__("r10") = 0;
	register void (*entry)(void *) __asm__("r12") = fn;
	register void *entry_arg __asm__("r13") = arg;
	long ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r13, %%rdi\n\t"
			 "call *%%r12\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(ret)
			 : "a"(nr), "D"(a0), "S"(a1), "d"(0L), "r"(child_tid), "r"(tls), "r"(entry),
			   "r"(entry_arg)
			 : "rcx", "r11", "cc", "memory");
	return ret;
}

static long
start_child(struct child *c)
{
	const struct group *g = c->s->group;
	struct clone_args args = {.flags = SHARE | CLONE_INTO_CGROUP,
				  .exit_signal = SIGCHLD,
				  .stack = (uintptr_t)stack,
				  .stack_size = sizeof(stack),
				  .cgroup = (uint64_t)g->fd};

	/* Plain clone where it suffices: some sandboxes know no clone3. */
	if (g->fd < 0)
		return raw_clone(SYS_clone, SHARE | SIGCHLD, (uintptr_t)stack + sizeof(stack),
				 child_main, c);
	return raw_clone(SYS_clone3, (uintptr_t)&args, sizeof(args), child_main, c);
}

int
spawn_run(struct spawn *s)
{
	struct child c = {.s = s};
	long pid;

	assert(s->in > 2 && s->out > 2 && s->err > 2);
	s->stage = 0;
	s->started_ns = util_now_ns();
	pid = start_child(&c);
	if (pid < 0) {
		s->stage = PROTO_STAGE_FORK;
		return (int)pid;
	}
	s->pid = (pid_t)pid;
	/* The child has stored these before the kernel let us go on. */
	if (s->stage == 0)
		return 0;
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	return -c.err;
}
