/* SPDX-License-Identifier: MIT
 *
 * cli_transfer.c - put, get and cat: bytes of files between this host and a VM.
 * Nothing is held but one piece; whatever ends this program leaves no half file
 * at either end. (Trees: cli_tree_put.c, cli_tree_get.c, by the same means.)
 */
#include "shm/cli/cli_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- how it ended: messages begin where the progress bar has been ------------------- */

int
cli_file_done(struct cli_vm *v, struct progress *progress, int r)
{
	if (r == 0)
		return 0;
	progress_end(progress);
	cli_say_error(v->pool, r);
	return CLI_FAILED;
}

int
cli_file_failed(struct progress *progress, const char *path, int error)
{
	progress_end(progress);
	cli_say("%s: %s", path, strerror(error));
	return CLI_FAILED;
}

/* --- put --------------------------------------------------------------------------- */

struct put_args {
	struct cli_file_args file;
	struct vmpool_file_opts opts;
	const char *mode;
	bool tree, quiet;
};

struct reader {
	int fd, error;
	struct progress *progress;
};

static ssize_t
read_host(void *arg, void *buf, size_t len)
{
	struct reader *r = arg;
	ssize_t n;

	/* It may have come while nobody waited for anything. */
	if (tree_interrupted())
		return -EINTR;
	do
		n = read(r->fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		r->error = errno;
	else
		progress_add(r->progress, (uint64_t)n);
	return n < 0 ? -r->error : n;
}

void
cli_file_adopt(struct vmpool_file_opts *opts, const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return;
	if (!opts->set_mode && !opts->append)
		opts->mode = st->st_mode & 07777;
	opts->set_mode |= !opts->append;
	opts->set_mtime = !opts->append;
	opts->mtime = st->st_mtim;
	opts->sparse = !opts->append && st->st_blocks * 512 < st->st_size;
}

int
cli_file_send(struct cli_vm *v, int fd, const char *host, const char *guest,
	      const struct vmpool_file_opts *opts, struct progress *progress)
{
	struct reader reader = {.fd = fd, .progress = progress};
	int r = vmpool_write_file_from(v->vm, guest, opts, read_host, &reader, NULL);

	if (reader.error != 0)
		return cli_file_failed(progress, host, reader.error);
	return cli_file_done(v, progress, r);
}

static int
open_host(const char *path, struct stat *st)
{
	int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, st) < 0)
		cli_say("%s: %s", path, strerror(errno));
	else if (S_ISDIR(st->st_mode))
		cli_say("%s is a directory (use -r)", path);
	else
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

static int
put_file(struct cli_vm *v, struct put_args *args, const char *host, const char *guest)
{
	struct progress progress;
	struct stat st;
	int status, fd = open_host(host, &st);

	if (fd < 0)
		return CLI_FAILED;
	if (strcmp(host, "-") != 0)
		cli_file_adopt(&args->opts, &st);
	progress_init(&progress, guest, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0,
		      args->quiet);
	status = cli_file_send(v, fd, host, guest, &args->opts, &progress);
	progress_end(&progress);
	(void)close(fd);
	return status;
}

static int
put(const char *pool, struct put_args *args, const char *host, const char *path)
{
	const struct tree_args tree = {
	    .file = args->file, .parents = args->opts.parents, .quiet = args->quiet};
	char *guest = cli_file_target(path, strcmp(host, "-") == 0 ? "" : host);
	struct cli_vm v;
	int status = CLI_FAILED;

	if (guest == NULL) {
		cli_say("\"%s\" has no name of its own: say what it shall be called in the VM",
			host);
		return CLI_FAILED;
	}
	if (cli_vm_open(&v, pool, args->file.wait_ms) == 0) {
		status = args->tree ? cli_tree_put(&v, host, guest, &tree)
				    : put_file(&v, args, host, guest);
		cli_vm_close(&v);
	}
	free(guest);
	return status;
}

static int
put_check(const struct cli_command *cmd, struct put_args *args, const char *host)
{
	if (args->mode != NULL && !cli_file_mode(args->mode, &args->opts.mode))
		return cli_bad_usage(cmd, "\"%s\" is no mode", args->mode);
	if (args->tree && (args->opts.append || args->mode != NULL || strcmp(host, "-") == 0))
		return cli_bad_usage(cmd, "-r takes a directory, and neither -a nor -m");
	args->opts.set_mode = args->mode != NULL;
	args->opts.root = args->file.root;
	return 0;
}

static int
put_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct put_args args = {.file = CLI_FILE_ARGS};
	const struct cli_option options[] = {
	    {'r', "recursive", NULL, "a directory with all that is in it", CLI_FLAG, &args.tree},
	    {'a', "append", NULL, "add to the end of the file that is there", CLI_FLAG,
	     &args.opts.append},
	    {'p', "parents", NULL, "make the directories above", CLI_FLAG, &args.opts.parents},
	    {'m', "mode", "OCTAL", "its permissions (default: as here; stdin: 644)", CLI_STRING,
	     &args.mode},
	    {'q', "quiet", NULL, "no progress bar", CLI_FLAG, &args.quiet},
	    CLI_FILE_OPTIONS(&args.file),
	};
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first != 2)
		return cli_bad_usage(cmd, "HOST and GUEST are needed");
	status = put_check(cmd, &args, argv[first]);
	return status != 0 ? status : put(pool, &args, argv[first], argv[first + 1]);
}

const struct cli_command cli_put = {
    .name = "put",
    .args = "[OPTION]... [--] HOST GUEST",
    .summary = "Copy a file of this host into the VM.",
    .notes = "HOST - is stdin. A GUEST that ends with a slash is the directory to put it into.\n"
	     "The file appears in the VM when it is whole, with the permissions and the time that\n"
	     "it has here. With -r GUEST must not exist, or be an empty directory.\n",
    .example = "  vmpool put main.c /srv/\n"
	       "  echo hello | vmpool put - /tmp/greeting\n"
	       "  vmpool put -r src /srv/src\n",
    .usage_status = CLI_USAGE,
    .run = put_main,
};

/* --- get --------------------------------------------------------------------------- */

struct get_args {
	struct cli_file_args file;
	bool tree, quiet;
	uint64_t limit;
};

int
cli_file_beyond(struct progress *progress, const char *guest, uint64_t limit)
{
	progress_end(progress);
	cli_say("%s: the VM sent more than %llu MiB", guest, (unsigned long long)(limit >> 20));
	return CLI_FAILED;
}

static int
write_host(void *arg, const void *buf, size_t len)
{
	struct file_writer *w = arg;

	/* As in read_host. */
	if (tree_interrupted())
		return -EINTR;
	progress_add(w->progress, len);
	w->beyond = w->limit != 0 && w->progress->done > w->limit;
	if (w->beyond)
		return -EFBIG;
	return host_file_write(&w->host, buf, len);
}

int
cli_file_fetch(struct cli_vm *v, const char *guest, const struct vmpool_file_opts *opts,
	       struct file_writer *w)
{
	struct vmpool_file_stat st;
	int r = vmpool_read_file_to(v->vm, guest, opts, write_host, w, &st);

	if (r == 0)
		r = host_file_commit(&w->host, &st);
	if (r < 0 && w->beyond)
		return cli_file_beyond(w->progress, guest, w->limit);
	if (r < 0 && w->host.error != 0)
		return cli_file_failed(w->progress, w->host.path, w->host.error);
	return cli_file_done(v, w->progress, r);
}

static int
get_file(struct cli_vm *v, const struct get_args *args, const char *guest, const char *host)
{
	const struct vmpool_file_opts opts = {.root = args->file.root};
	struct progress progress;
	struct file_writer w = {.limit = args->limit, .progress = &progress};
	struct vmpool_file_stat st;
	int status, r = vmpool_stat(v->vm, guest, &opts, &st);

	if (r < 0) {
		cli_say_error(v->pool, r);
		return CLI_FAILED;
	}
	if (S_ISDIR(st.mode)) {
		cli_say("%s is a directory (use -r)", guest);
		return CLI_FAILED;
	}
	if (host_file_open(&w.host, host, st.blocks < st.size / 512) < 0)
		return CLI_FAILED;
	progress_init(&progress, guest, st.size, args->quiet || isatty(w.host.fd) == 1);
	status = cli_file_fetch(v, guest, &opts, &w);
	progress_end(&progress);
	host_file_close(&w.host);
	return status;
}

/* The file here that guest becomes: in a directory, it keeps its name. */
static char *
host_target(const char *host, const char *guest)
{
	struct stat st;
	char *dir, *target;

	if (strcmp(host, "-") == 0 || stat(host, &st) < 0 || !S_ISDIR(st.st_mode))
		return cli_file_target(host, guest);
	if (asprintf(&dir, "%s/", host) < 0)
		return NULL;
	target = cli_file_target(dir, guest);
	free(dir);
	return target;
}

static int
get(const char *pool, const struct get_args *args, const char *guest, const char *path)
{
	const struct tree_args tree = {
	    .file = args->file, .quiet = args->quiet, .limit = args->limit};
	char *host = args->tree ? cli_file_target(path, guest) : host_target(path, guest);
	struct cli_vm v;
	int status = CLI_FAILED;

	if (host == NULL) {
		cli_say("\"%s\" has no name of its own: say what it shall be called here", guest);
		return CLI_FAILED;
	}
	if (cli_vm_open(&v, pool, args->file.wait_ms) == 0) {
		status = args->tree ? cli_tree_get(&v, guest, host, &tree)
				    : get_file(&v, args, guest, host);
		cli_vm_close(&v);
	}
	free(host);
	return status;
}

static int
get_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct get_args args = {.file = CLI_FILE_ARGS};
	const char *limit = NULL;
	const struct cli_option options[] = {
	    {'r', "recursive", NULL, "a directory with all that is in it", CLI_FLAG, &args.tree},
	    {0, "limit", "MIB", "give up when the VM sends more than this", CLI_STRING, &limit},
	    {'q', "quiet", NULL, "no progress bar", CLI_FLAG, &args.quiet},
	    CLI_FILE_OPTIONS(&args.file),
	};
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first != 2)
		return cli_bad_usage(cmd, "GUEST and HOST are needed");
	if (!cli_file_limit(limit, &args.limit))
		return cli_bad_usage(cmd, "\"%s\" is no number of MiB", limit);
	if (args.tree && strcmp(argv[first + 1], "-") == 0)
		return cli_bad_usage(cmd, "-r needs a directory to make");
	return get(pool, &args, argv[first], argv[first + 1]);
}

const struct cli_command cli_get = {
    .name = "get",
    .args = "[OPTION]... [--] GUEST HOST",
    .summary = "Copy a file of the VM to this host.",
    .notes =
	"HOST - is stdout; a directory is where to put it. The file appears when it is whole,\n"
	"with its time, and its permissions as far as the umask allows. With -r HOST must not\n"
	"exist, or be an empty directory, and nothing but files, directories and links that\n"
	"stay inside is taken from the VM.\n",
    .example = "  vmpool get /srv/a.out .\n  vmpool get -r /var/log logs\n",
    .usage_status = CLI_USAGE,
    .run = get_main,
};

/* --- cat --------------------------------------------------------------------------- */

static int
cat(struct cli_vm *v, const char *path, const struct vmpool_file_opts *opts)
{
	struct progress none;
	struct file_writer w = {.progress = &none};
	int status;

	if (host_file_open(&w.host, "-", false) < 0)
		return CLI_FAILED;
	progress_init(&none, path, 0, true);
	status = cli_file_fetch(v, path, opts, &w);
	host_file_close(&w.host);
	return status;
}

static int
cat_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	const struct cli_option options[] = {CLI_FILE_OPTIONS(&args)};
	struct cli_vm v;
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no path given");
	if (cli_vm_open(&v, pool, args.wait_ms) < 0)
		return CLI_FAILED;
	for (; first < argc && status == 0; first++)
		status = cat(&v, argv[first], &(struct vmpool_file_opts){.root = args.root});
	cli_vm_close(&v);
	return status;
}

const struct cli_command cli_cat = {
    .name = "cat",
    .args = "[OPTION]... [--] PATH...",
    .summary = "Print files of the VM.",
    .example = "  vmpool cat /etc/passwd\n",
    .usage_status = CLI_USAGE,
    .run = cat_main,
};
