/* SPDX-License-Identifier: MIT
 *
 * cli_tree_get.c - get -r: a directory of the VM to this host, entry by entry.
 *
 * What comes from a VM is hostile. It goes to a fresh directory that is nobody else's,
 * each directory in it made by us before anything goes into it, so that no path of ours
 * leads through a link; names have been checked by the library (no '/', no "..").
 * Links that lead out, devices, pipes and sockets end it all.
 */
#include "shm/cli/cli_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTS_MAX (64u << 20) /* bytes of lists that are held at a time, of all levels */

struct get {
	struct cli_vm *v;
	const char *root, *top; /* the directory of the VM */
	struct progress progress;
	uint64_t limit;
	size_t held; /* bytes of lists */
	struct tree_names names;
};

static int
done(struct get *g, int r)
{
	return cli_file_done(g->v, &g->progress, r);
}

static int
say(struct get *g, const char *path, int error)
{
	return cli_file_failed(&g->progress, path, error);
}

static int
refuse(struct get *g, const char *what, const char *path)
{
	progress_end(&g->progress);
	cli_say("refused: the VM sent %s: \"%s\"", what, path);
	return CLI_FAILED;
}

static mode_t
allowed(uint32_t mode)
{
	mode_t mask = umask(0);

	(void)umask(mask);
	return mode & 0777 & ~mask;
}

/* --- entries: path is of this host, from the working directory; guest the same in the VM --- */

static int
get_file(struct get *g, const struct vmpool_file_stat *st, const char *path, const char *guest)
{
	const struct vmpool_file_opts opts = {.root = g->root};
	/* A number may be another file's on another file system, or later; not with this. */
	const struct tree_id id = {st->size, st->ino,
				   (uint64_t)st->ctime.tv_sec * 1000000000u +
				       (uint64_t)st->ctime.tv_nsec};
	struct file_writer w = {.limit = g->limit, .progress = &g->progress};
	const char *first = st->nlink > 1 ? tree_names_first(&g->names, &id, path) : NULL;
	int status;

	if (first != NULL)
		return linkat(AT_FDCWD, first, AT_FDCWD, path, 0) == 0 ? 0 : say(g, path, errno);
	if (host_file_open(&w.host, path, st->blocks < st->size / 512) < 0)
		return CLI_FAILED;
	status = cli_file_fetch(g->v, guest, &opts, &w);
	host_file_close(&w.host);
	return status;
}

static int
get_link(struct get *g, const struct vmpool_file_stat *st, const char *path, const char *guest)
{
	const struct vmpool_file_opts opts = {.root = g->root};
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st->mtime};
	char *target = NULL;
	int status = done(g, vmpool_readlink(g->v->vm, guest, &opts, &target));

	if (status == 0 && !tree_stays_inside(path, target))
		status = refuse(g, "a link that leads out", path);
	else if (status == 0 && (symlink(target, path) < 0 ||
				 utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0))
		status = say(g, path, errno);
	free(target);
	return status;
}

static int get_dir(struct get *g, const char *path, const char *guest);

/* Beneath the top: a directory that does not exist yet. */
static int
get_subdir(struct get *g, const struct vmpool_file_stat *st, const char *path, const char *guest)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st->mtime};
	int status = mkdir(path, 0700) == 0 ? get_dir(g, path, guest) : say(g, path, errno);

	if (status == 0 && (chmod(path, allowed(st->mode)) < 0 ||
			    utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0))
		status = say(g, path, errno);
	return status;
}

static int
get_entry(struct get *g, const struct vmpool_dirent *entry, const char *path, const char *guest)
{
	switch (entry->st.mode & S_IFMT) {
	case S_IFREG: return get_file(g, &entry->st, path, guest);
	case S_IFDIR: return get_subdir(g, &entry->st, path, guest);
	case S_IFLNK: return get_link(g, &entry->st, path, guest);
	default: return refuse(g, "neither file, directory nor link", path);
	}
}

static int
get_named(struct get *g, const struct vmpool_dirent *entry, const char *dir, const char *guest_dir)
{
	char *path = tree_join(dir, entry->name), *guest = tree_join(guest_dir, entry->name);
	int status = path != NULL && guest != NULL && !tree_interrupted() ? 0 : CLI_FAILED;

	progress_add(&g->progress, sizeof(*entry) + strlen(entry->name));
	if (status == 0 && g->limit != 0 && g->progress.done > g->limit)
		status = cli_file_beyond(&g->progress, guest, g->limit);
	if (status == 0)
		status = get_entry(g, entry, path, guest);
	free(path);
	free(guest);
	return status;
}

/* What is in a directory of the VM, to one of ours that is empty. As deep as paths may be
 * long; a VM that makes lists without end is refused with EFBIG. */
static int
get_dir(struct get *g, const char *path, const char *guest)
{
	const struct vmpool_file_opts opts = {.root = g->root, .limit = LISTS_MAX - g->held};
	struct vmpool_dirent *list = NULL;
	size_t n = 0, bytes = 1;
	int status;

	if (g->held >= LISTS_MAX)
		return say(g, guest, EFBIG);
	status = done(g, vmpool_list_dir(g->v->vm, guest, &opts, &list, &n));
	for (size_t i = 0; status == 0 && i < n; i++)
		bytes += sizeof(list[i]) + strlen(list[i].name) + 1;
	g->held += bytes;
	for (size_t i = 0; status == 0 && i < n; i++)
		status = get_named(g, &list[i], path, guest);
	g->held -= bytes;
	vmpool_list_dir_free(list, n);
	return status;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

/* Ours alone, but with names that are not. Directories that have their modes already
 * are opened again. */
static void
remove_tree(char *dir)
{
	char *top[] = {dir, NULL};
	FTS *fts = fts_open(top, FTS_PHYSICAL, NULL);
	FTSENT *e;

	while (fts != NULL && (e = fts_read(fts)) != NULL) {
		if (e->fts_info == FTS_D)
			(void)chmod(e->fts_accpath, 0700);
		else
			(void)unlinkat(AT_FDCWD, e->fts_accpath,
				       e->fts_info == FTS_DP ? AT_REMOVEDIR : 0);
	}
	if (fts != NULL)
		(void)fts_close(fts);
}

/* In the new directory; the working directory is the same afterwards. */
static int
get_into(struct get *g, const char *dir)
{
	int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), status = CLI_FAILED;

	if (back < 0 || chdir(dir) < 0)
		status = say(g, dir, errno);
	else
		status = get_dir(g, "", g->top);
	if (back >= 0 && fchdir(back) < 0)
		status = CLI_FAILED;
	if (back >= 0)
		(void)close(back);
	return status;
}

/* Is the place free, so that a rename will do? */
static bool
check_host(const char *host)
{
	struct stat st;

	/* rmdir takes empty directories only; it is made again in a moment. */
	if (lstat(host, &st) < 0 || (S_ISDIR(st.st_mode) && rmdir(host) == 0))
		return true;
	cli_say("%s: %s", host, strerror(S_ISDIR(st.st_mode) ? errno : EEXIST));
	return false;
}

static int
give_name(struct get *g, const char *temp, const char *host, const struct vmpool_file_stat *st)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st->mtime};

	if (chmod(temp, allowed(st->mode)) == 0 && utimensat(AT_FDCWD, temp, times, 0) == 0 &&
	    rename(temp, host) == 0)
		return 0;
	return say(g, host, errno);
}

static int
get_tree(struct get *g, const char *host, const struct vmpool_file_stat *st)
{
	char *temp = tree_name_beside(host);
	int status;

	if (temp == NULL || mkdir(temp, 0700) < 0) {
		status = say(g, host, errno);
		free(temp);
		return status;
	}
	status = get_into(g, temp);
	if (status == 0)
		status = give_name(g, temp, host, st);
	if (status != 0)
		remove_tree(temp);
	free(temp);
	return status;
}

int
cli_tree_get(struct cli_vm *v, const char *guest, const char *host, const struct tree_args *args)
{
	struct get g = {.v = v, .root = args->file.root, .top = guest, .limit = args->limit};
	const struct vmpool_file_opts opts = {.root = g.root};
	struct vmpool_file_stat st;
	int status;

	progress_init(&g.progress, guest, 0, args->quiet);
	tree_signals_begin();
	status = done(&g, vmpool_stat(v->vm, guest, &opts, &st));
	if (status == 0 && !S_ISDIR(st.mode)) {
		cli_say("%s is no directory (leave out -r)", guest);
		status = CLI_FAILED;
	}
	if (status == 0)
		status = check_host(host) ? get_tree(&g, host, &st) : CLI_FAILED;
	progress_end(&g.progress);
	tree_names_fini(&g.names);
	tree_signals_end();
	return status;
}
