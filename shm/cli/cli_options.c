/* SPDX-License-Identifier: MIT
 *
 * cli_options.c - options from tables: parsing, help, bad usage. Runs in the
 * client programs.
 */
#include "shm/cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 24
#define LONG_BASE 256 /* getopt_long's value of the i-th option */

static void
print_option(const struct cli_option *o)
{
	char left[48];

	(void)snprintf(left, sizeof(left), "%s%.1s%s%s%s%s%s", o->letter != 0 ? "-" : "   ",
		       o->letter != 0 ? &o->letter : "",
		       o->letter != 0 && o->name != NULL ? ", " : (o->name != NULL ? " " : ""),
		       o->name != NULL ? "--" : "", o->name != NULL ? o->name : "",
		       o->arg != NULL ? " " : "", o->arg != NULL ? o->arg : "");
	printf("  %-22s %s\n", left, o->help);
}

static void
print_help(const struct cli_command *cmd, const struct cli_option *options, size_t n)
{
	const struct cli_option help = {'h', "help", NULL, "show this help", CLI_FLAG, NULL};
	const bool own = cmd->name[0] == '\0';

	printf("Usage: %s%s%s %s\n%s\n\n", program_invocation_short_name, own ? "" : " [-p POOL] ",
	       cmd->name, cmd->args, cmd->summary);
	for (size_t i = 0; i < n; i++)
		print_option(&options[i]);
	print_option(&help);
	if (cmd->notes != NULL)
		printf("\n%s", cmd->notes);
	printf("\nExample:\n%s", cmd->example);
}

int
cli_bad_usage(const struct cli_command *cmd, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cli_say("%s%s%s (see %s%s%s --help)", cmd->name, cmd->name[0] != '\0' ? ": " : "", text,
		program_invocation_short_name, cmd->name[0] != '\0' ? " " : "", cmd->name);
	return cmd->usage_status;
}

bool
cli_seconds(const char *text, int64_t *ms)
{
	char *end;
	double s;

	errno = 0;
	s = strtod(text, &end);
	/* No hexadecimal, no infinity: digits and a point. */
	if (errno != 0 || end == text || *end != '\0' ||
	    strspn(text, "0123456789.") != strlen(text) || s > 1e9)
		return false;
	*ms = (int64_t)(s * 1000);
	*ms += (double)*ms < s * 1000; /* never shorter than asked for */
	return true;
}

bool
cli_number(const char *text, unsigned max, unsigned *value)
{
	unsigned long v;
	char *end;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || v > max || text[0] < '0' || text[0] > '9')
		return false;
	*value = (unsigned)v;
	return true;
}

static bool
list_add(struct cli_list *list, const char *item)
{
	const char **grown = realloc(list->item, (list->n + 2) * sizeof(*grown));

	if (grown == NULL)
		return false;
	list->item = grown;
	list->item[list->n++] = item;
	list->item[list->n] = NULL;
	return true;
}

static bool
store(const struct cli_option *o, const char *arg)
{
	switch (o->kind) {
	case CLI_FLAG: *(bool *)o->value = true; return true;
	case CLI_STRING: *(const char **)o->value = arg; return true;
	case CLI_SECONDS: return cli_seconds(arg, o->value);
	case CLI_NUMBER: return cli_number(arg, UINT32_MAX, o->value);
	case CLI_LIST: return list_add(o->value, arg);
	}
	return false;
}

/* getopt's tables from ours; '+': stop at the first argument that is no option. */
static void
make_tables(const struct cli_option *options, size_t n, char *letters, struct option *longs)
{
	*letters++ = '+';
	*letters++ = ':';
	*letters++ = 'h';
	for (size_t i = 0; i < n; i++) {
		if (options[i].letter != 0) {
			*letters++ = options[i].letter;
			if (options[i].arg != NULL)
				*letters++ = ':';
		}
		if (options[i].name != NULL)
			*longs++ = (struct option){options[i].name, options[i].arg != NULL, NULL,
						   LONG_BASE + (int)i};
	}
	*letters = '\0';
	*longs++ = (struct option){"help", 0, NULL, 'h'};
	*longs = (struct option){NULL, 0, NULL, 0};
}

static const struct cli_option *
find(const struct cli_option *options, size_t n, int c)
{
	if (c >= LONG_BASE)
		return &options[c - LONG_BASE];
	for (size_t i = 0; i < n; i++)
		if (options[i].letter == c)
			return &options[i];
	return NULL;
}

int
cli_parse(const struct cli_command *cmd, const struct cli_option *options, size_t n, int argc,
	  char **argv, int *status)
{
	char letters[3 + 2 * OPTIONS_MAX + 1];
	struct option longs[OPTIONS_MAX + 2];
	const struct cli_option *o;
	int c;

	make_tables(options, n, letters, longs);
	optind = 0; /* start afresh: the program has parsed its own options before */
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (c == 'h') {
			print_help(cmd, options, n);
			*status = cli_finish(0);
			return -1;
		}
		o = c == '?' || c == ':' ? NULL : find(options, n, c);
		if (o != NULL && store(o, optarg))
			continue;
		if (o != NULL)
			*status = cli_bad_usage(cmd, "\"%s\" is not a number%s", optarg,
						o->kind == CLI_SECONDS ? " of seconds" : "");
		else
			*status = cli_bad_usage(
			    cmd, c == ':' ? "option %s needs a value" : "unknown option %s",
			    argv[optind - 1]);
		return -1;
	}
	return optind;
}
