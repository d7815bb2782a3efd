/* SPDX-License-Identifier: MIT
 *
 * cli.h - what the commands of vmpool, and vmpoolstat, share.
 *
 * These programs know libvmpool by its public header only. Exit statuses, for
 * all but exec: 0 done, 1 failed, 2 bad usage; a failure leaves one line on
 * stderr that names the thing and, where there is one, the remedy.
 */
#ifndef VMPOOL_CLI_H
#define VMPOOL_CLI_H

#include "shm/vmpool.h"

#include <jansson.h>

#define CLI_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CLI_FAILED 1
#define CLI_USAGE 2

/* One command of a program; a program without commands has one of these, too. */
struct cli_command {
	const char *name;    /* after the program's own name; "" = the program itself */
	const char *args;    /* of the usage line, e.g. "[OPTION]... [--] ARGV..." */
	const char *summary; /* one line */
	const char *notes;   /* further help, lines; NULL = none */
	const char *example; /* one or more lines */
	int usage_status;    /* exit status for bad usage */
	/* argv[0] is the command's name; the exit status. */
	int (*run)(const struct cli_command *cmd, const char *pool, int argc, char **argv);
};

/* exec and with, whose exit status is otherwise the command's. */
#define CLI_COMMAND_FAILED 125 /* the pool or the VM */
#define CLI_NOT_EXECUTABLE 126
#define CLI_NOT_FOUND 127

/* The pool's name unless -p is given: then it is another pointer. */
extern const char cli_default_pool[];

extern const struct cli_command cli_exec, cli_shell, cli_stat_vm, cli_with, cli_snapshot, cli_fork,
    cli_ping, cli_stats, cli_list, cli_warm, cli_start, cli_stop, cli_doctor, cli_put, cli_get,
    cli_cat, cli_ls, cli_stat, cli_exists, cli_rm, cli_mv, cli_mkdir, cli_chmod, cli_symlink,
    cli_readlink;

/* --- options: cli_options.c --------------------------------------------------------- */

enum cli_kind {
	CLI_FLAG,    /* bool */
	CLI_STRING,  /* const char * */
	CLI_SECONDS, /* int64_t milliseconds; decimals allowed, not negative */
	CLI_NUMBER,  /* uint32_t; a whole number, not negative */
	CLI_LIST,    /* struct cli_list: may be given several times */
};
struct cli_list {
	const char **item; /* NULL-terminated; never freed: it lives as long as the program */
	size_t n;
};
struct cli_option {
	char letter;	  /* 0 = none */
	const char *name; /* long name, NULL = none */
	const char *arg;  /* what its argument is called; NULL = none */
	const char *help;
	enum cli_kind kind;
	void *value; /* of the kind's type; left alone unless the option is given */
};

/* Parse argv up to the first argument that is no option. Returns its index; or
 * -1 after --help, or after one line about bad usage, with *status to exit with.
 * --help is added to the options. */
int cli_parse(const struct cli_command *cmd, const struct cli_option *options, size_t n, int argc,
	      char **argv, int *status);

/* One line about bad usage; returns the command's usage_status. */
int cli_bad_usage(const struct cli_command *cmd, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* "1.5" to milliseconds, rounded up; false if it is no such number. */
bool cli_seconds(const char *text, int64_t *ms);
/* A whole number of at most max. */
bool cli_number(const char *text, unsigned max, unsigned *value);

/* --- messages and output: cli_util.c ------------------------------------------------- */

/* Make sure that descriptors 0 to 2 exist, so that no other file becomes one of them. */
void cli_init(void);

/* One line to stderr, after the program's name and a colon. */
void cli_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same for the failure of a library call: its own text and a remedy. */
void cli_say_error(const struct vmpool *pool, int error);

/* Flush stdout; the exit status: the given one, or CLI_FAILED if output was lost. */
int cli_finish(int status);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t cli_now(void);

/* Nanoseconds for people, three digits: "950ns", "1.25us", "13.0ms", "2.50s". */
const char *cli_duration(char *buf, size_t len, uint64_t ns);

/* Full path of a program that belongs to this one: beside it in one of the
 * NULL-terminated folders, relative to its own. False: not there. */
bool cli_find_program(char *buf, size_t len, const char *const *dirs, const char *name);

/* --- JSON: cli_json.c ------------------------------------------------------------------ */

/* Statistics under their exact names; NULL: out of memory. */
json_t *cli_json_stats(const struct vmpool_stat *stats, size_t count);
json_t *cli_json_info(const struct vmpool_info *info);
/* Print it to stdout, indented or as one line, and free it; the exit status. */
int cli_json_print(json_t *json, bool one_line);

#endif
