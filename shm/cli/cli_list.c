/* SPDX-License-Identifier: MIT
 *
 * cli_list.c - ls and stat: what files of a VM are like. Names are bytes: they
 * are printed as they are, but on a terminal without what could command it.
 */
#include "shm/cli/cli_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *
type_name(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "link";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	case S_IFCHR: return "character device";
	case S_IFBLK: return "block device";
	default: return "unknown";
	}
}

/* As ls(1) has it: "-rwxr-xr-x". */
static const char *
mode_text(char buf[11], uint32_t mode)
{
	static const char types[] = "?pc?d?b?-?l?s???";

	(void)strcpy(buf, "-rwxrwxrwx");
	for (int i = 0; i < 9; i++)
		if ((mode & (0400u >> i)) == 0)
			buf[1 + i] = '-';
	buf[0] = types[(mode & S_IFMT) >> 12];
	if ((mode & S_ISUID) != 0)
		buf[3] = buf[3] == 'x' ? 's' : 'S';
	if ((mode & S_ISGID) != 0)
		buf[6] = buf[6] == 'x' ? 's' : 'S';
	if ((mode & S_ISVTX) != 0)
		buf[9] = buf[9] == 'x' ? 't' : 'T';
	return buf;
}

/* Local time to the second; its offset from UTC goes to zone, if that is not NULL. */
static const char *
time_text(char buf[64], char zone[16], const struct timespec *ts)
{
	struct tm tm;

	if (zone != NULL)
		zone[0] = '\0';
	if (localtime_r(&ts->tv_sec, &tm) == NULL || strftime(buf, 64, "%F %T", &tm) == 0)
		(void)snprintf(buf, 64, "@%lld", (long long)ts->tv_sec);
	else if (zone != NULL)
		(void)strftime(zone, 16, "%z", &tm);
	return buf;
}

void
cli_print_name(const char *name, char end)
{
	const bool terminal = isatty(STDOUT_FILENO) == 1;

	for (; *name != '\0'; name++) {
		unsigned char c = (unsigned char)*name;

		(void)putchar(terminal && (c < 0x20 || c == 0x7f) ? '?' : c);
	}
	(void)putchar(end);
}

/* JSON knows text only: a name that is not UTF-8 comes with its bytes, too. */
static json_t *
stat_json(const char *name, const struct vmpool_file_stat *st)
{
	json_t *text = json_string(name), *o;
	char *hex = NULL;

	if (text == NULL) {
		hex = malloc(2 * strlen(name) + 1);
		for (size_t i = 0; hex != NULL && name[i] != '\0'; i++)
			(void)sprintf(hex + 2 * i, "%02x", (unsigned char)name[i]);
	}
	o = json_pack("{s:o?, s:s*, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "name",
		      text, "name_hex", hex, "type", type_name(st->mode), "mode",
		      (int)(st->mode & 07777), "size", (json_int_t)st->size, "blocks",
		      (json_int_t)st->blocks, "ino", (json_int_t)st->ino, "nlink",
		      (json_int_t)st->nlink, "uid", (json_int_t)st->uid, "gid", (json_int_t)st->gid,
		      "mtime", (json_int_t)st->mtime.tv_sec, "mtime_nsec", (int)st->mtime.tv_nsec);
	free(hex);
	return o;
}

/* --- ls ----------------------------------------------------------------------------- */

struct ls_args {
	struct cli_file_args file;
	bool details, zero, json;
};

static int
by_name(const void *a, const void *b)
{
	const struct vmpool_dirent *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int
print_json(const struct vmpool_dirent *list, size_t count)
{
	json_t *all = json_array();

	for (size_t i = 0; i < count && all != NULL; i++) {
		/* Steals the entry; fails on NULL as well. */
		if (json_array_append_new(all, stat_json(list[i].name, &list[i].st)) < 0) {
			json_decref(all);
			all = NULL;
		}
	}
	return cli_json_print(all, false);
}

static int
print_list(const struct vmpool_dirent *list, size_t count, const struct ls_args *args)
{
	char mode[11], when[64];

	if (args->json)
		return print_json(list, count);
	for (size_t i = 0; i < count; i++) {
		const struct vmpool_file_stat *st = &list[i].st;

		if (args->details)
			printf("%s %3u %5u %5u %10llu %s ", mode_text(mode, st->mode), st->nlink,
			       st->uid, st->gid, (unsigned long long)st->size,
			       time_text(when, NULL, &st->mtime));
		cli_print_name(list[i].name, args->zero ? '\0' : '\n');
	}
	return cli_finish(0);
}

/* A file is a list of one. */
static int
ls(struct cli_vm *v, const char *path, const struct ls_args *args)
{
	struct vmpool_file_opts opts = {.root = args->file.root};
	struct vmpool_dirent *list = NULL, one = {.name = (char *)(uintptr_t)path};
	size_t count = 0;
	int status, r = vmpool_list_dir(v->vm, path, &opts, &list, &count);

	if (r == VMPOOL_EFILE_NOTDIR) {
		opts.no_follow = true;
		r = vmpool_stat(v->vm, path, &opts, &one.st);
		if (r == 0)
			return print_list(&one, 1, args);
	}
	if (r < 0) {
		cli_say_error(v->pool, r);
		return CLI_FAILED;
	}
	if (count > 0)
		qsort(list, count, sizeof(*list), by_name);
	status = print_list(list, count, args);
	vmpool_list_dir_free(list, count);
	return status;
}

static int
ls_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct ls_args args = {.file = CLI_FILE_ARGS};
	const struct cli_option options[] = {
	    {'l', "long", NULL, "with mode, links, uid, gid, size and time", CLI_FLAG,
	     &args.details},
	    {'0', "zero", NULL, "end each with a NUL, for names with line feeds", CLI_FLAG,
	     &args.zero},
	    {0, "json", NULL, "print JSON", CLI_FLAG, &args.json},
	    CLI_FILE_OPTIONS(&args.file),
	};
	struct cli_vm v;
	int status, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first != 1)
		return cli_bad_usage(cmd, "one path is needed");
	if (cli_vm_open(&v, pool, args.file.wait_ms) < 0)
		return CLI_FAILED;
	status = ls(&v, argv[first], &args);
	cli_vm_close(&v);
	return status;
}

const struct cli_command cli_ls = {
    .name = "ls",
    .args = "[OPTION]... [--] PATH",
    .summary = "List a directory of the VM, sorted by name, hidden files too.",
    .example = "  vmpool ls -l /etc\n",
    .usage_status = CLI_USAGE,
    .run = ls_main,
};

/* --- stat --------------------------------------------------------------------------- */

static int
print_stat(const char *path, const struct vmpool_file_stat *st, bool json)
{
	const struct {
		const char *name;
		const struct timespec *ts;
	} times[] = {{"access", &st->atime}, {"modify", &st->mtime}, {"change", &st->ctime}};
	char mode[11], when[64], zone[16];

	if (json)
		return cli_json_print(stat_json(path, st), false);
	printf("name:   ");
	cli_print_name(path, '\n');
	printf("type:   %s\nmode:   %04o (%s)\nowner:  %u:%u\nsize:   %llu\nblocks: %llu\n"
	       "inode:  %llu\nlinks:  %u\n",
	       type_name(st->mode), st->mode & 07777, mode_text(mode, st->mode), st->uid, st->gid,
	       (unsigned long long)st->size, (unsigned long long)st->blocks,
	       (unsigned long long)st->ino, st->nlink);
	for (size_t i = 0; i < CLI_COUNT(times); i++)
		printf("%s: %s.%09ld %s\n", times[i].name, time_text(when, zone, times[i].ts),
		       times[i].ts->tv_nsec, zone);
	return cli_finish(0);
}

static int
stat_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_file_args args = CLI_FILE_ARGS;
	bool json = false, follow = false;
	const struct cli_option options[] = {
	    {'L', "dereference", NULL, "what a link leads to, not the link", CLI_FLAG, &follow},
	    {0, "json", NULL, "print JSON", CLI_FLAG, &json},
	    CLI_FILE_OPTIONS(&args),
	};
	struct vmpool_file_stat st;
	struct cli_vm v;
	int status, r, first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);

	if (first < 0)
		return status;
	if (argc - first != 1)
		return cli_bad_usage(cmd, "one path is needed");
	if (cli_vm_open(&v, pool, args.wait_ms) < 0)
		return CLI_FAILED;
	r = vmpool_stat(v.vm, argv[first],
			&(struct vmpool_file_opts){.root = args.root, .no_follow = !follow}, &st);
	if (r < 0)
		cli_say_error(v.pool, r);
	cli_vm_close(&v);
	return r < 0 ? CLI_FAILED : print_stat(argv[first], &st, json);
}

const struct cli_command cli_stat = {
    .name = "stat",
    .args = "[OPTION]... [--] PATH",
    .summary = "Say what a file of the VM is: type, mode, owner, size, times.",
    .example = "  vmpool stat /etc/passwd\n",
    .usage_status = CLI_USAGE,
    .run = stat_main,
};
