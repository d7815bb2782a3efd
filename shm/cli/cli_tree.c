/* SPDX-License-Identifier: MIT
 *
 * cli_tree.c - what put -r and get -r share: signals, names beside others, files with
 * several names, and which symbolic links of a VM are taken.
 */
#include "shm/cli/cli_tree.h"

#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* --- signals ------------------------------------------------------------------------------- */

static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t caught;

static void
catch_end(int number)
{
	caught = number;
}

void
tree_signals_begin(void)
{
	const struct sigaction act = {.sa_handler = catch_end}; /* waits return EINTR */
	struct sigaction old;

	/* One that is ignored (nohup) stays so. */
	for (size_t i = 0; i < CLI_COUNT(ends); i++)
		if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			(void)sigaction(ends[i], &act, NULL);
}

bool
tree_interrupted(void)
{
	return caught != 0;
}

void
tree_signals_end(void)
{
	if (caught == 0)
		return;
	(void)signal(caught, SIG_DFL);
	(void)raise(caught);
}

/* --- names ----------------------------------------------------------------------------------- */

char *
tree_name_beside(const char *path)
{
	size_t len = strlen(path);
	uint64_t x = cli_now();
	char *out;

	(void)!getrandom(&x, sizeof(x), GRND_NONBLOCK);
	while (len > 1 && path[len - 1] == '/')
		len--;
	while (len > 0 && path[len - 1] != '/')
		len--;
	return asprintf(&out, "%.*s.vmpool-%016llx", (int)len, path, (unsigned long long)x) < 0
		   ? NULL
		   : out;
}

char *
tree_join(const char *dir, const char *name)
{
	char *out;

	if (asprintf(&out, "%s%s%s", dir, dir[0] != '\0' ? "/" : "", name) >= 0)
		return out;
	cli_say("out of memory");
	return NULL;
}

/* --- files with several names ------------------------------------------------------------- */

struct seen {
	struct tree_id id;
	char path[];
};

static int
compare(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	return memcmp(&x->id, &y->id, sizeof(x->id));
}

const char *
tree_names_first(struct tree_names *names, const struct tree_id *id, const char *path)
{
	struct seen *new = malloc(sizeof(*new) + strlen(path) + 1);
	struct seen **at;

	if (new == NULL)
		return NULL;
	new->id = *id;
	(void)strcpy(new->path, path);
	at = tsearch(new, &names->root, compare);
	if (at != NULL && *at == new)
		return NULL;
	free(new);
	return at != NULL ? (*at)->path : NULL;
}

void
tree_names_fini(struct tree_names *names)
{
	tdestroy(names->root, free);
	names->root = NULL;
}

/* --- symbolic links of a VM ----------------------------------------------------------------- */

/* A relative path that goes only down. */
static bool
goes_down(const char *path)
{
	const char *p = path;

	if (path[0] == '\0' || path[0] == '/')
		return false;
	while ((p = strstr(p, "..")) != NULL) {
		if ((p == path || p[-1] == '/') && (p[2] == '\0' || p[2] == '/'))
			return false;
		p += 2;
	}
	return true;
}

/* Names in a path that goes down. */
static unsigned
depth(const char *path)
{
	unsigned n = 0;

	while (*(path += strspn(path, "/")) != '\0') {
		size_t len = strcspn(path, "/");

		n += !(len == 1 && path[0] == '.');
		path += len;
	}
	return n;
}

bool
tree_stays_inside(const char *path, const char *target)
{
	unsigned above = depth(path);

	for (above -= above > 0; strncmp(target, "..", 2) == 0; above--) {
		if (target[2] != '/' && target[2] != '\0')
			break;
		if (above == 0)
			return false;
		target += 2;
		target += strspn(target, "/");
		if (*target == '\0')
			return true;
	}
	return goes_down(target);
}
