/* SPDX-License-Identifier: MIT
 *
 * cli_tree.c - put -r and get -r: a directory with all that is in it, as a tar
 * archive that libarchive writes or reads here and tar there. Both ends unpack
 * into a new directory, which gets its name when all is well.
 *
 * What comes from a VM is hostile. Here it meets: a fresh directory that is
 * nobody else's, refusals of our own (tar_refuse), and libarchive's (SECURE_*).
 */
#include "shm/cli/cli_tree.h"

#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY (64u << 10)

/* Of a broken pipe to tar it is tar that says why. */
static int
say_archive(const char *what, struct archive *a)
{
	const char *why = archive_error_string(a);

	if (archive_errno(a) != EPIPE)
		cli_say("%s: %s", what, why != NULL ? why : "failed");
	return CLI_FAILED;
}

/* --- put -r ------------------------------------------------------------------------------- */

/* Owners here mean nothing there; tar knows no sockets, and the rest is for devices. */
static bool
prepare(struct archive_entry *e)
{
	const mode_t type = archive_entry_filetype(e);

	archive_entry_set_uid(e, 0);
	archive_entry_set_gid(e, 0);
	archive_entry_set_uname(e, NULL);
	archive_entry_set_gname(e, NULL);
	if (type == AE_IFREG || type == AE_IFDIR || type == AE_IFLNK)
		return true;
	cli_say("left out: %s is neither file, directory nor link", archive_entry_pathname(e));
	return false;
}

static int
pack_data(struct archive *from, struct archive *to, const char *path)
{
	static char buf[COPY];
	la_ssize_t n;

	while ((n = archive_read_data(from, buf, sizeof(buf))) > 0)
		if (archive_write_data(to, buf, (size_t)n) < 0)
			return say_archive(path, to);
	return n < 0 ? say_archive(path, from) : 0;
}

/* Each entry beneath the working directory; the exit status. The names of one file
 * after the first become links to that. */
static int
pack(struct archive *from, struct archive *to, struct archive_entry_linkresolver *links,
     const char *host)
{
	struct archive_entry *e, *later;
	int r, status = 0;

	archive_entry_linkresolver_set_strategy(links, archive_format(to));
	while (status == 0 && (r = archive_read_next_header(from, &e)) != ARCHIVE_EOF) {
		if (r < ARCHIVE_WARN || (archive_read_disk_can_descend(from) != 0 &&
					 archive_read_disk_descend(from) < ARCHIVE_WARN))
			return say_archive(host, from);
		if (!prepare(e))
			continue;
		archive_entry_linkify(links, &e, &later);
		if (archive_write_header(to, e) < ARCHIVE_WARN)
			return say_archive(archive_entry_pathname(e), to);
		if (archive_entry_size(e) > 0)
			status = pack_data(from, to, archive_entry_pathname(e));
	}
	return status;
}

/* The working directory through tar in the VM; the exit status. */
static int
send_tree(struct tar *t, const char *host)
{
	struct archive_entry_linkresolver *links = archive_entry_linkresolver_new();
	struct archive *from = archive_read_disk_new(), *to = archive_write_new();
	int status = CLI_FAILED;

	if (from == NULL || to == NULL || links == NULL ||
	    archive_write_set_format_gnutar(to) != ARCHIVE_OK ||
	    archive_read_disk_set_symlink_physical(from) != ARCHIVE_OK ||
	    archive_write_open(to, t, NULL, tar_write, NULL) != ARCHIVE_OK ||
	    archive_read_disk_open(from, ".") != ARCHIVE_OK)
		cli_say("%s: cannot be packed", host);
	else
		status = pack(from, to, links, host);
	if (status == 0 && archive_write_close(to) != ARCHIVE_OK)
		status = say_archive(host, to);
	if (status != 0)
		(void)archive_write_fail(to);
	(void)archive_write_free(to);
	(void)archive_read_free(from);
	archive_entry_linkresolver_free(links);
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
check_guest(struct cli_vm *v, const char *guest)
{
	int r = vmpool_list_dir_each(v->vm, guest, NULL, entry_found, NULL);

	if (r == 0 || r == VMPOOL_EFILE_NOTFOUND)
		return 0;
	if (r > 0)
		cli_say("%s exists in the VM and is not empty", guest);
	else
		cli_say_error(v->pool, r);
	return CLI_FAILED;
}

/* A name beside path, of the VM or of this host; freed by the caller. */
static char *
name_beside(const char *path)
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

static int
put_into(struct cli_vm *v, const char *host, const char *dir, struct progress *p)
{
	struct tar t;
	int status;

	if (tar_start(&t, v, dir, true, p) < 0)
		return CLI_FAILED;
	status = send_tree(&t, host);
	if (status != 0)
		tar_abort(&t);
	return tar_finish(&t, status != 0 && !t.broken) ? status : CLI_FAILED;
}

int
cli_tree_put(struct cli_vm *v, const char *host, const char *guest, const struct tree_args *args)
{
	const struct vmpool_file_opts make = {.set_mode = true,
					      .mode = 0700,
					      .parents = args->parents},
				      all = {.recursive = true};
	struct progress p;
	char *temp;
	int r, status;

	if (chdir(host) < 0) {
		cli_say("%s: %s", host, strerror(errno));
		return CLI_FAILED;
	}
	if (check_guest(v, guest) != 0)
		return CLI_FAILED;
	progress_init(&p, guest, 0, args->quiet);
	temp = name_beside(guest);
	r = temp != NULL ? vmpool_mkdir(v->vm, temp, &make) : -ENOMEM;
	status = r == 0 ? put_into(v, host, temp, &p) : CLI_FAILED;
	progress_end(&p);
	if (status == 0)
		r = vmpool_rename(v->vm, temp, guest, NULL);
	if (r < 0)
		cli_say_error(v->pool, r);
	if (temp != NULL && (r < 0 || status != 0))
		(void)vmpool_remove_file(v->vm, temp, &all);
	free(temp);
	return r < 0 ? CLI_FAILED : status;
}

/* --- get -r ------------------------------------------------------------------------------- */

static int
unpack_data(struct archive *from, struct archive *to, const char *path)
{
	const void *buf;
	int64_t at;
	size_t len;
	int r;

	while ((r = archive_read_data_block(from, &buf, &len, &at)) == ARCHIVE_OK)
		if (archive_write_data_block(to, buf, len, at) < ARCHIVE_OK)
			return say_archive(path, to);
	return r == ARCHIVE_EOF ? 0 : say_archive(path, from);
}

static int
unpack_entry(struct archive *from, struct archive *to, struct archive_entry *e)
{
	const char *path = archive_entry_pathname(e), *why = tar_refuse(e);
	int status = 0;

	if (why != NULL) {
		cli_say("refused: the VM sent %s: \"%s\"", why, path != NULL ? path : "?");
		return CLI_FAILED;
	}
	if (archive_write_header(to, e) < ARCHIVE_OK)
		return say_archive(path, to);
	if (archive_entry_size(e) > 0)
		status = unpack_data(from, to, path);
	if (status == 0 && archive_write_finish_entry(to) < ARCHIVE_OK)
		status = say_archive(path, to);
	return status;
}

/* What tar in the VM packs, into the working directory; the exit status, or -1 if
 * there is nothing to unpack: then tar says why. */
static int
receive_tree(struct tar *t, const char *guest)
{
	struct archive *from = archive_read_new(), *to = archive_write_disk_new();
	struct archive_entry *e;
	int r = ARCHIVE_OK, status = 0;

	/* Not PERM: the umask counts, and there is no set-user-ID from a VM. */
	if (from == NULL || to == NULL || archive_read_support_format_tar(from) < ARCHIVE_WARN ||
	    archive_write_disk_set_options(
		to, ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_SPARSE | ARCHIVE_EXTRACT_UNLINK |
			ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
			ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS) != 0 ||
	    archive_read_open(from, t, NULL, tar_read, NULL) != ARCHIVE_OK)
		status = -1;
	while (status == 0 && (r = archive_read_next_header(from, &e)) != ARCHIVE_EOF)
		status = r < ARCHIVE_WARN ? say_archive(guest, from) : unpack_entry(from, to, e);
	if (status == 0 && archive_write_close(to) < ARCHIVE_OK)
		status = say_archive(guest, to);
	/* Otherwise directories would get their modes, and could not be emptied. */
	if (status != 0)
		(void)archive_write_fail(to);
	(void)archive_write_free(to);
	(void)archive_read_free(from);
	return status;
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	/* The top itself is no name in the working directory. */
	if (ftw->level == 0)
		return 0;
	return unlinkat(AT_FDCWD, path + ftw->base, type == FTW_DP ? AT_REMOVEDIR : 0);
}

/* What was unpacked so far: ours alone, but with names that are not. */
static void
remove_tree(const char *dir)
{
	(void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_CHDIR);
	(void)rmdir(dir);
}

/* The directory of the VM into the working directory; the exit status. */
static int
unpack(struct cli_vm *v, const char *guest, uint64_t limit, struct progress *p)
{
	struct tar t;
	int status;

	if (tar_start(&t, v, guest, false, p) < 0)
		return CLI_FAILED;
	t.limit = limit;
	status = receive_tree(&t, guest);
	if (status > 0)
		tar_abort(&t);
	if (!tar_finish(&t, status > 0))
		return CLI_FAILED;
	if (status < 0)
		cli_say("%s: cannot be unpacked", guest);
	return status == 0 ? 0 : CLI_FAILED;
}

static int
get_into(struct cli_vm *v, const char *guest, const char *dir, uint64_t limit, struct progress *p)
{
	int back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), status = CLI_FAILED;

	if (back < 0 || chdir(dir) < 0)
		cli_say("%s: %s", dir, strerror(errno));
	else
		status = unpack(v, guest, limit, p);
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
give_name(const char *temp, const char *host, uint32_t mode)
{
	mode_t mask = umask(0);

	(void)umask(mask);
	if (chmod(temp, mode & 0777 & ~mask) == 0 && rename(temp, host) == 0)
		return 0;
	cli_say("%s: %s", host, strerror(errno));
	return CLI_FAILED;
}

int
cli_tree_get(struct cli_vm *v, const char *guest, const char *host, const struct tree_args *args)
{
	struct progress p;
	struct vmpool_file_stat st;
	int r = vmpool_stat(v->vm, guest, NULL, &st), status = CLI_FAILED;
	char *temp;

	if (r < 0) {
		cli_say_error(v->pool, r);
		return CLI_FAILED;
	}
	if (!S_ISDIR(st.mode)) {
		cli_say("%s is no directory (leave out -r)", guest);
		return CLI_FAILED;
	}
	if (!check_host(host))
		return CLI_FAILED;
	temp = name_beside(host);
	if (temp == NULL || mkdir(temp, 0700) < 0) {
		cli_say("%s: %s", host, strerror(errno));
		free(temp);
		return CLI_FAILED;
	}
	progress_init(&p, guest, 0, args->quiet);
	status = get_into(v, guest, temp, args->limit, &p);
	progress_end(&p);
	if (status == 0)
		status = give_name(temp, host, st.mode);
	if (status != 0)
		remove_tree(temp);
	free(temp);
	return status;
}
