/* SPDX-License-Identifier: MIT
 *
 * cli_tree_put.c - put -r: a directory of this host into the VM, entry by entry. A
 * directory gets its mode and time when all that is in it is there.
 */
#include "shm/cli/cli_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct put {
	struct cli_vm *v;
	const char *root, *top; /* the new directory of the VM */
	struct progress progress;
	struct tree_names names; /* paths in the VM */
};

static int
done(struct put *p, int r)
{
	return cli_file_done(p->v, &p->progress, r);
}

static int
say(struct put *p, const FTSENT *e, int error)
{
	return cli_file_failed(&p->progress, e->fts_path, error);
}

static int
enter_dir(struct put *p, const FTSENT *e, const char *guest)
{
	const struct vmpool_file_opts opts = {.root = p->root, .set_mode = true, .mode = 0700};

	return e->fts_level == 0 ? 0 : done(p, vmpool_mkdir(p->v->vm, guest, &opts));
}

static int
leave_dir(struct put *p, const FTSENT *e, const char *guest)
{
	const struct vmpool_file_opts opts = {.root = p->root};
	int r = vmpool_chmod(p->v->vm, guest, e->fts_statp->st_mode & 07777, &opts);

	if (r == 0)
		r = vmpool_set_mtime(p->v->vm, guest, &e->fts_statp->st_mtim, &opts);
	return done(p, r);
}

static int
put_file(struct put *p, const FTSENT *e, const char *guest)
{
	struct vmpool_file_opts opts = {.root = p->root};
	const struct tree_id id = {e->fts_statp->st_dev, e->fts_statp->st_ino, 0};
	const char *first = NULL;
	struct stat st;
	int fd, status;

	if (e->fts_statp->st_nlink > 1)
		first = tree_names_first(&p->names, &id, guest);
	if (first != NULL)
		return done(p, vmpool_link(p->v->vm, first, guest, &opts));
	/* It might be something else by now. */
	fd = open(e->fts_accpath, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return say(p, e, errno);
	status = fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ? say(p, e, ESTALE) : 0;
	if (status == 0) {
		cli_file_adopt(&opts, &st);
		status = cli_file_send(p->v, fd, e->fts_path, guest, &opts, &p->progress);
	}
	(void)close(fd);
	return status;
}

static int
put_link(struct put *p, const FTSENT *e, const char *guest)
{
	const struct vmpool_file_opts opts = {.root = p->root, .no_follow = true};
	char target[4096];
	ssize_t n = readlink(e->fts_accpath, target, sizeof(target) - 1);
	int r;

	if (n < 0)
		return say(p, e, errno);
	target[n] = '\0';
	r = vmpool_symlink(p->v->vm, target, guest, &opts);
	if (r == 0)
		r = vmpool_set_mtime(p->v->vm, guest, &e->fts_statp->st_mtim, &opts);
	return done(p, r);
}

static int
put_entry(struct put *p, const FTSENT *e, const char *guest)
{
	switch (e->fts_info) {
	case FTS_D: return enter_dir(p, e, guest);
	case FTS_DP: return leave_dir(p, e, guest);
	case FTS_F: return put_file(p, e, guest);
	case FTS_SL:
	case FTS_SLNONE: return put_link(p, e, guest);
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS: return say(p, e, e->fts_errno);
	default:
		progress_end(&p->progress);
		cli_say("left out: %s is neither file, directory nor link", e->fts_path);
		return 0;
	}
}

/* All beneath the working directory; the exit status. */
static int
put_all(struct put *p)
{
	char dot[] = ".", *top[] = {dot, NULL};
	FTS *fts = fts_open(top, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *e = NULL;
	int status = 0;

	while (status == 0 && fts != NULL && (e = fts_read(fts)) != NULL) {
		char *guest = tree_join(p->top, e->fts_level == 0 ? "." : e->fts_path + 2);

		status = guest != NULL && !tree_interrupted() ? put_entry(p, e, guest) : CLI_FAILED;
		free(guest);
	}
	if (status == 0 && (fts == NULL || errno != 0)) {
		cli_say("%s", strerror(errno));
		status = CLI_FAILED;
	}
	if (fts != NULL)
		(void)fts_close(fts);
	return status;
}

static int
entry_found(void *arg, const struct vmpool_dirent *entry)
{
	(void)arg;
	(void)entry;
	return 1;
}

/* Is the place free, so that a rename will do? 0 or a said error. */
static int
check_guest(struct cli_vm *v, const char *guest, const char *root)
{
	const struct vmpool_file_opts opts = {.root = root};
	int r = vmpool_list_dir_each(v->vm, guest, &opts, entry_found, NULL);

	if (r == 0 || r == VMPOOL_EFILE_NOTFOUND)
		return 0;
	if (r > 0)
		cli_say("%s exists in the VM and is not empty", guest);
	else
		cli_say_error(v->pool, r);
	return CLI_FAILED;
}

/* The new directory, what goes into it, and its name. */
static int
put_tree(struct put *p, const char *guest, const struct tree_args *args)
{
	const struct vmpool_file_opts make = {.root = p->root,
					      .set_mode = true,
					      .mode = 0700,
					      .parents = args->parents},
				      opts = {.root = p->root, .recursive = true};
	int status = done(p, vmpool_mkdir(p->v->vm, p->top, &make));

	if (status != 0)
		return status;
	status = put_all(p);
	if (status == 0)
		status = done(p, vmpool_rename(p->v->vm, p->top, guest, &opts));
	if (status != 0)
		(void)vmpool_remove_file(p->v->vm, p->top, &opts);
	return status;
}

int
cli_tree_put(struct cli_vm *v, const char *host, const char *guest, const struct tree_args *args)
{
	struct put p = {.v = v, .root = args->file.root};
	char *top;
	int status = CLI_FAILED;

	if (chdir(host) < 0) {
		cli_say("%s: %s", host, strerror(errno));
		return CLI_FAILED;
	}
	if (check_guest(v, guest, p.root) != 0)
		return CLI_FAILED;
	top = tree_name_beside(guest);
	p.top = top;
	progress_init(&p.progress, guest, 0, args->quiet);
	tree_signals_begin();
	if (top != NULL)
		status = put_tree(&p, guest, args);
	progress_end(&p.progress);
	tree_names_fini(&p.names);
	free(top);
	tree_signals_end();
	return status;
}
