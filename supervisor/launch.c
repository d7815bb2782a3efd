/* SPDX-License-Identifier: MIT
 *
 * launch.c - posix_spawn as vmpoold uses it: fork server and probe.
 */
#include "supervisor/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

static int
launch_files(posix_spawn_file_actions_t *fa, const struct launch *what)
{
	int r = 0;

	for (int fd = 0; what->quiet && fd < 3 && r == 0; fd++)
		r = posix_spawn_file_actions_addopen(fa, fd, "/dev/null", O_RDWR, 0);
	if (r == 0 && what->out >= 0)
		r = posix_spawn_file_actions_adddup2(fa, what->out, STDOUT_FILENO);
	if (r == 0 && what->err >= 0)
		r = posix_spawn_file_actions_adddup2(fa, what->err, STDERR_FILENO);
	/* dup2 of a descriptor onto itself clears close-on-exec in the child. */
	for (unsigned i = 0; i < what->nkeep && r == 0; i++)
		r = posix_spawn_file_actions_adddup2(fa, what->keep[i], what->keep[i]);
	return -r;
}

static int
launch_signals(posix_spawnattr_t *attr)
{
	sigset_t none, all;
	int r;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	(void)sigdelset(&all, SIGPIPE);
	r = posix_spawnattr_setsigmask(attr, &none);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attr, &all);
	if (r == 0)
		r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	return -r;
}

int
launch(const struct launch *what, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	int r;

	AN(what->nkeep <= LAUNCH_KEEP_MAX);
	r = -posix_spawn_file_actions_init(&fa);
	if (r < 0)
		return r;
	r = -posix_spawnattr_init(&attr);
	if (r == 0) {
		r = launch_files(&fa, what);
		if (r == 0)
			r = launch_signals(&attr);
		if (r == 0)
			r = -posix_spawn(pid, what->argv[0], &fa, &attr,
					 (char *const *)(uintptr_t)what->argv, environ);
		(void)posix_spawnattr_destroy(&attr);
	}
	(void)posix_spawn_file_actions_destroy(&fa);
	return r;
}
