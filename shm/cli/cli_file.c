/* SPDX-License-Identifier: MIT
 *
 * cli_file.c - the commands on files of a VM that move no bytes: exists, rm, mv,
 * mkdir, chmod, symlink, readlink; and what all commands on files share.
 */
#include "shm/cli/cli_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool
cli_file_mode(const char *text, uint32_t *mode)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	if (text[0] < '0' || text[0] > '7' || *end != '\0' || v > 07777)
		return false;
	*mode = (uint32_t)v;
	return true;
}

bool
cli_file_limit(const char *text, uint64_t *bytes)
{
	unsigned mib = 0;

	if (text != NULL && (!cli_number(text, UINT32_MAX, &mib) || mib == 0))
		return false;
	*bytes = (uint64_t)mib << 20;
	return true;
}

const char *
cli_file_name(const char *path, char *buf, size_t len)
{
	size_t end = strlen(path), start;

	while (end > 0 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/'; start--)
		;
	if (end == start || end - start >= len)
		return NULL;
	memcpy(buf, path + start, end - start);
	buf[end - start] = '\0';
	return strcmp(buf, ".") == 0 || strcmp(buf, "..") == 0 ? NULL : buf;
}

char *
cli_file_target(const char *path, const char *src)
{
	size_t len = strlen(path);
	const char *name = "";
	char buf[256], *out;

	if (len > 0 && path[len - 1] == '/')
		name = cli_file_name(src, buf, sizeof(buf));
	if (name == NULL || asprintf(&out, "%s%s", path, name) < 0)
		return NULL;
	return out;
}

/* --- exists --------------------------------------------------------------------------- */

static int
exists_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	const struct cli_option options[] = {CLI_FILE_OPTIONS(&args)};
	struct cli_vm v;
	int status, r, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first != 1)
		return cli_bad_usage(cmd, "one path is needed");
	if (cli_vm_open(&v, pool, args.wait_ms) < 0)
		return cmd->usage_status;
	r = vmpool_file_exists(v.vm, argv[first], &(struct vmpool_file_opts){.root = args.root});
	if (r < 0)
		cli_say_error(v.pool, r);
	cli_vm_close(&v);
	return r < 0 ? cmd->usage_status : !r;
}

const struct cli_command cli_exists = {
    .name = "exists",
    .args = "[OPTION]... [--] PATH",
    .summary = "Is there a file of that name in the VM?",
    .notes = "Exit status: 0 it exists, 1 it does not, 2 anything else.\n",
    .example = "  vmpool exists /etc/passwd\n",
    .usage_status = CLI_USAGE,
    .run = exists_main,
};

/* --- rm, mkdir: one call for each path ----------------------------------------------------- */

typedef int path_call(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts);

/* All are tried, as rm(1) does; the exit status. */
static int
for_each(const char *pool, const struct cli_file_args *args, char **paths, path_call *call,
	 struct vmpool_file_opts *opts)
{
	struct cli_vm v;
	int status = 0;

	if (cli_vm_open(&v, pool, args->wait_ms) < 0)
		return CLI_FAILED;
	opts->root = args->root;
	for (; *paths != NULL; paths++) {
		int r = call(v.vm, *paths, opts);

		if (r < 0) {
			cli_say_error(v.pool, r);
			status = CLI_FAILED;
		}
	}
	cli_vm_close(&v);
	return status;
}

static int
rm_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	struct vmpool_file_opts opts = {.recursive = false};
	const struct cli_option options[] = {
	    {'r', "recursive", NULL, "directories with all that is in them", CLI_FLAG,
	     &opts.recursive},
	    CLI_FILE_OPTIONS(&args),
	};
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no path given");
	return for_each(pool, &args, argv + first, vmpool_remove_file, &opts);
}

const struct cli_command cli_rm = {
    .name = "rm",
    .args = "[OPTION]... [--] PATH...",
    .summary = "Remove files and empty directories of the VM.",
    .example = "  vmpool rm -r /tmp/build\n",
    .usage_status = CLI_USAGE,
    .run = rm_main,
};

static int
mkdir_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	struct vmpool_file_opts opts = {.parents = false};
	const char *mode = NULL;
	const struct cli_option options[] = {
	    {'p', "parents", NULL, "make the directories above, too; one that exists is fine",
	     CLI_FLAG, &opts.parents},
	    {'m', "mode", "OCTAL", "its permissions (default: 755)", CLI_STRING, &mode},
	    CLI_FILE_OPTIONS(&args),
	};
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no path given");
	if (mode != NULL && !cli_file_mode(mode, &opts.mode))
		return cli_bad_usage(cmd, "\"%s\" is no mode", mode);
	opts.set_mode = mode != NULL;
	return for_each(pool, &args, argv + first, vmpool_mkdir, &opts);
}

const struct cli_command cli_mkdir = {
    .name = "mkdir",
    .args = "[OPTION]... [--] PATH...",
    .summary = "Make directories in the VM.",
    .example = "  vmpool mkdir -p /srv/data/in\n",
    .usage_status = CLI_USAGE,
    .run = mkdir_main,
};

/* --- mv ----------------------------------------------------------------------------------- */

static int
mv(struct cli_vm *v, const char *from, const char *path, const struct vmpool_file_opts *opts)
{
	char *to = cli_file_target(path, from);
	int r;

	if (to == NULL) {
		cli_say("\"%s\" has no name of its own", from);
		return CLI_FAILED;
	}
	r = vmpool_rename(v->vm, from, to, opts);
	if (r < 0)
		cli_say_error(v->pool, r);
	free(to);
	return r < 0 ? CLI_FAILED : 0;
}

static int
mv_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	struct vmpool_file_opts opts = {.parents = false};
	const struct cli_option options[] = {
	    {'n', "no-clobber", NULL, "fail rather than replace", CLI_FLAG, &opts.exclusive},
	    {'p', "parents", NULL, "make the directories above TO", CLI_FLAG, &opts.parents},
	    CLI_FILE_OPTIONS(&args),
	};
	struct cli_vm v;
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first != 2)
		return cli_bad_usage(cmd, "two paths are needed");
	opts.root = args.root;
	if (cli_vm_open(&v, pool, args.wait_ms) < 0)
		return CLI_FAILED;
	status = mv(&v, argv[first], argv[first + 1], &opts);
	cli_vm_close(&v);
	return status;
}

const struct cli_command cli_mv = {
    .name = "mv",
    .args = "[OPTION]... [--] FROM TO",
    .summary = "Rename a file of the VM.",
    .notes = "TO is the new name; with a slash at its end, the directory to move to.\n",
    .example = "  vmpool mv /tmp/a /srv/b\n  vmpool mv /tmp/a /srv/\n",
    .usage_status = CLI_USAGE,
    .run = mv_main,
};

/* --- chmod ---------------------------------------------------------------------------------- */

static int
set_mode(struct vmpool_vm *vm, const char *path, const struct vmpool_file_opts *opts)
{
	return vmpool_chmod(vm, path, opts->mode, opts);
}

static int
chmod_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	struct vmpool_file_opts opts = {.recursive = false};
	const struct cli_option options[] = {CLI_FILE_OPTIONS(&args)};
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first < 2)
		return cli_bad_usage(cmd, "a mode and a path are needed");
	if (!cli_file_mode(argv[first], &opts.mode))
		return cli_bad_usage(cmd, "\"%s\" is no mode", argv[first]);
	return for_each(pool, &args, argv + first + 1, set_mode, &opts);
}

const struct cli_command cli_chmod = {
    .name = "chmod",
    .args = "[OPTION]... [--] OCTAL PATH...",
    .summary = "Change the permissions of files of the VM.",
    .example = "  vmpool chmod 755 /srv/run.sh\n",
    .usage_status = CLI_USAGE,
    .run = chmod_main,
};

/* --- symbolic links -------------------------------------------------------------------------- */

static int
symlink_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	struct vmpool_file_opts opts = {.parents = false};
	const struct cli_option options[] = {
	    {'p', "parents", NULL, "make the directories above", CLI_FLAG, &opts.parents},
	    CLI_FILE_OPTIONS(&args),
	};
	struct cli_vm v;
	int r, status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first != 2)
		return cli_bad_usage(cmd, "TARGET and PATH are needed");
	if (cli_vm_open(&v, pool, args.wait_ms) < 0)
		return CLI_FAILED;
	opts.root = args.root;
	r = vmpool_symlink(v.vm, argv[first], argv[first + 1], &opts);
	if (r < 0)
		cli_say_error(v.pool, r);
	cli_vm_close(&v);
	return r < 0 ? CLI_FAILED : 0;
}

const struct cli_command cli_symlink = {
    .name = "symlink",
    .args = "[OPTION]... [--] TARGET PATH",
    .summary = "Make a symbolic link in the VM: PATH, which says TARGET.",
    .example = "  vmpool symlink python3.11 /usr/bin/python3\n",
    .usage_status = CLI_USAGE,
    .run = symlink_main,
};

/* Each on a line of its own; the exit status. */
static int
print_targets(struct cli_vm *v, char **paths, const struct vmpool_file_opts *opts, char end)
{
	int status = 0;

	for (; *paths != NULL; paths++) {
		char *target = NULL;
		int r = vmpool_readlink(v->vm, *paths, opts, &target);

		if (r < 0) {
			cli_say_error(v->pool, r);
			status = CLI_FAILED;
		} else {
			cli_print_name(target, end);
		}
		free(target);
	}
	return cli_finish(status);
}

static int
readlink_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	bool zero = false;
	const struct cli_option options[] = {
	    {'0', "zero", NULL, "end each with a NUL, for targets with line feeds", CLI_FLAG,
	     &zero},
	    CLI_FILE_OPTIONS(&args),
	};
	struct cli_vm v;
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no path given");
	if (cli_vm_open(&v, pool, args.wait_ms) < 0)
		return CLI_FAILED;
	status = print_targets(&v, argv + first, &(struct vmpool_file_opts){.root = args.root},
			       zero ? '\0' : '\n');
	cli_vm_close(&v);
	return status;
}

const struct cli_command cli_readlink = {
    .name = "readlink",
    .args = "[OPTION]... [--] PATH...",
    .summary = "Print what symbolic links of the VM say.",
    .example = "  vmpool readlink /bin/sh\n",
    .usage_status = CLI_USAGE,
    .run = readlink_main,
};
