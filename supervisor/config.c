/* SPDX-License-Identifier: MIT
 *
 * config.c - the option table, and the two readers that fill a struct config
 * from it. Runs in vmpoold, at start and on SIGHUP; owns nothing.
 */
#include "supervisor/config.h"

#include <getopt.h>
#include <ini.h>
#include <string.h>

#include "shm/ctl.h"
#include "shm/layout.h"

#define LINE_MAX_BYTES (PATH_MAX + 256)

enum option_kind { OPT_NUMBER, OPT_STRING, OPT_CHOICE, OPT_FLAG };
enum {
	CLI_ONLY = 1, /* not in a file */
	LIVE = 2,     /* SIGHUP changes it */
};

struct option_row {
	const char *name, *arg;
	enum option_kind kind;
	unsigned flags;
	size_t offset, size;
	uint32_t min, max;   /* OPT_NUMBER; OPT_FLAG: min is the value to set */
	const char *choices; /* OPT_CHOICE: separated by '|' */
	const char *help;
};

#define FIELD(f) offsetof(struct config, f), sizeof(((struct config *)NULL)->f)
#define LIVE_MAX (SHM_SLOTS_MAX / 2)

/* The test build can do without VMs (tests/lib/machine_null.c). */
#ifdef VMPOOL_TEST
#define ACCELS "auto|kvm|tcg|null"
#else
#define ACCELS "auto|kvm|tcg"
#endif

/* clang-format off */
static const struct option_row rows[] = {
	{"config", "FILE", OPT_STRING, CLI_ONLY, FIELD(file), 0, 0, NULL, "read settings from FILE: these keys, 'key = value', under [pool]"},
	{"name", "NAME", OPT_STRING, 0, FIELD(name), 0, 0, NULL, "name of the pool"},
	{"min-idle", "N", OPT_NUMBER, LIVE, FIELD(min_idle), 0, LIVE_MAX, NULL, "VMs to keep ready"},
	{"max-idle", "N", OPT_NUMBER, LIVE, FIELD(max_idle), 1, LIVE_MAX, NULL, "VMs to keep at most"},
	{"max-total", "N", OPT_NUMBER, LIVE, FIELD(max_total), 1, LIVE_MAX, NULL, "VMs to have at most, borrowed ones included"},
	{"max-idle-time", "SECS", OPT_NUMBER, LIVE, FIELD(max_idle_time), 1, 31536000, NULL, "end VMs beyond min-idle that were idle this long"},
	{"health-interval", "N", OPT_NUMBER, LIVE, FIELD(health_interval), 0, 1000000, NULL, "check a VM on every Nth recycle; 0 = never"},
	{"memory", "MIB", OPT_NUMBER, 0, FIELD(memory_mib), 32, 3072, NULL, "memory of a VM"},
	{"vcpus", "N", OPT_NUMBER, 0, FIELD(vcpus), 1, 8, NULL, "processors of a VM"},
	{"kernel", "FILE", OPT_STRING, 0, FIELD(kernel), 0, 0, NULL, "guest kernel: ELF vmlinux or bzImage"},
	{"image", "FILE", OPT_STRING, 0, FIELD(image), 0, 0, NULL, "guest image: initramfs"},
	{"accel", "WHICH", OPT_CHOICE, 0, FIELD(accel), 0, 0, ACCELS, "what runs the VMs"},
	{"recycle", "HOW", OPT_CHOICE, LIVE, FIELD(recycle), 0, 0, "reset|discard", "what becomes of a used VM"},
	{"warmup", "COMMAND", OPT_STRING, 0, FIELD(warmup), 0, 0, NULL, "run COMMAND (/bin/sh -c) in the guest once, before VMs are made of it"},
	{"snapshot", "FILE", OPT_STRING, 0, FIELD(snapshot), 0, 0, NULL, "make VMs of this snapshot (vmpool snapshot) instead of booting one"},
	{"daemonize", NULL, OPT_FLAG, CLI_ONLY, FIELD(daemonize), 1, 0, NULL, "return when the pool is ready; log to syslog"},
	{"foreground", NULL, OPT_FLAG, CLI_ONLY, FIELD(daemonize), 0, 0, NULL, "stay in the foreground; log to stderr (default)"},
	{"help", NULL, OPT_FLAG, CLI_ONLY, FIELD(help), 1, 0, NULL, "print this"},
};
/* clang-format on */
#define NROWS ARRAY_SIZE(rows)
enum { ROW_CONFIG = 0, ROW_MAX_IDLE = 3, ROW_MEMORY = 7, ROW_VCPUS = 8 };

static const struct config config_defaults = {
    .name = "default",
    .min_idle = 1,
    .max_idle = 16,
    .max_total = 32,
    .max_idle_time = 30,
    .memory_mib = 128,
    .vcpus = 1,
    .accel = "auto",
    .recycle = "reset",
};

static bool
config_is_choice(const char *choices, const char *value)
{
	size_t len = strlen(value), n;

	for (const char *p = choices; *p != '\0'; p += n + (p[n] == '|')) {
		n = strcspn(p, "|");
		if (n == len && memcmp(p, value, n) == 0)
			return true;
	}
	return false;
}

static int
config_set_number(const struct option_row *row, uint32_t *field, const char *value, char *err,
		  size_t errlen)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (value[strspn(value, "0123456789")] != '\0' || end == value || *end != '\0')
		return fail(EINVAL, err, errlen, "%s: '%s' is not a whole number", row->name,
			    value);
	if (errno != 0 || n < row->min || n > row->max)
		return fail(EINVAL, err, errlen, "%s: %s is not within %u to %u", row->name, value,
			    row->min, row->max);
	*field = (uint32_t)n;
	return 0;
}

static int
config_set(struct config *cfg, const struct option_row *row, const char *value, char *err,
	   size_t errlen)
{
	void *field = (char *)cfg + row->offset;

	switch (row->kind) {
	case OPT_NUMBER: return config_set_number(row, field, value, err, errlen);
	case OPT_FLAG: *(bool *)field = row->min != 0; return 0;
	case OPT_CHOICE:
		if (!config_is_choice(row->choices, value))
			return fail(EINVAL, err, errlen, "%s: '%s' is not one of %s", row->name,
				    value, row->choices);
		break;
	case OPT_STRING:
		if (*value == '\0')
			return fail(EINVAL, err, errlen, "%s: empty value", row->name);
		break;
	}
	if (strlen(value) >= row->size)
		return fail(EINVAL, err, errlen, "%s: longer than %zu bytes", row->name,
			    row->size - 1);
	memcpy(field, value, strlen(value) + 1);
	return 0;
}

/* --- the file ----------------------------------------------------------------- */

struct reader {
	struct config *cfg;
	FILE *in;
	unsigned line;
	uint32_t seen; /* bit per row */
	bool cut;      /* the present line is too long */
	char err[512]; /* the first error of the handler */
};
_Static_assert(NROWS <= 32, "reader.seen");

/* fgets that counts lines; the parser would take the rest of a long line for another. */
static char *
reader_line(char *buf, int len, void *arg)
{
	struct reader *rd = arg;
	char *s = fgets(buf, len, rd->in);

	if (s != NULL) {
		rd->line++;
		rd->cut = strchr(s, '\n') == NULL && !feof(rd->in);
	}
	return s;
}

static int
reader_key(void *arg, const char *section, const char *key, const char *value)
{
	struct reader *rd = arg;

	if (rd->cut) {
		(void)fail(0, rd->err, sizeof(rd->err), "line too long");
		return 0;
	}
	if (strcmp(section, "pool") != 0) {
		(void)fail(0, rd->err, sizeof(rd->err), "'%s' is not in section [pool]", key);
		return 0;
	}
	for (unsigned i = 0; i < NROWS; i++) {
		if (strcmp(rows[i].name, key) != 0 || (rows[i].flags & CLI_ONLY))
			continue;
		if (rd->seen & 1u << i) {
			(void)fail(0, rd->err, sizeof(rd->err), "'%s' is given twice", key);
			return 0;
		}
		rd->seen |= 1u << i;
		return config_set(rd->cfg, &rows[i], value, rd->err, sizeof(rd->err)) == 0;
	}
	(void)fail(0, rd->err, sizeof(rd->err), "unknown key '%s'", key);
	return 0;
}

static void
fclosep(FILE **f)
{
	if (*f != NULL)
		(void)fclose(*f);
}

static int
config_read_file(struct config *cfg, uint32_t *seen, char *err, size_t errlen)
{
	_cleanup_(fclosep) FILE *in = fopen(cfg->file, "re");
	struct reader rd = {.cfg = cfg, .in = in};
	int line;

	if (in == NULL)
		return fail(errno, err, errlen, "%s: %m", cfg->file);
	ini_use_stack = false;
	ini_initial_alloc = ini_max_line = LINE_MAX_BYTES;
	ini_allow_multiline = false;
	ini_stop_on_first_error = true;
	line = ini_parse_stream(reader_line, &rd, reader_key, &rd);
	if (line == 0 && ferror(in))
		return fail(EIO, err, errlen, "%s: cannot be read: %m", cfg->file);
	if (line < 0)
		return fail(ENOMEM, err, errlen, "%s: out of memory", cfg->file);
	if (line > 0)
		return fail(EINVAL, err, errlen, "%s:%u: %s", cfg->file, rd.line,
			    rd.err[0] != '\0' ? rd.err : "neither 'key = value' nor '[section]'");
	*seen |= rd.seen;
	return 0;
}

/* --- the command line ----------------------------------------------------------- */

static void
config_long_options(struct option *opts)
{
	for (unsigned i = 0; i < NROWS; i++)
		opts[i] = (struct option){
		    .name = rows[i].name,
		    .has_arg = rows[i].kind == OPT_FLAG ? no_argument : required_argument,
		    .val = 256 + (int)i,
		};
	opts[NROWS] = (struct option){0};
}

static int
config_bad_option(char **argv, char *err, size_t errlen)
{
	if (optopt >= 256)
		return fail(EINVAL, err, errlen, "--%s takes no value", rows[optopt - 256].name);
	if (optopt != 0)
		return fail(EINVAL, err, errlen, "unknown option '-%c' (try --help)", optopt);
	return fail(EINVAL, err, errlen, "unknown option '%s' (try --help)", argv[optind - 1]);
}

/* given[row] = its last value on the command line, NULL = not there. */
static int
config_read_argv(const char **given, struct config *cfg, int argc, char **argv, char *err,
		 size_t errlen)
{
	struct option opts[NROWS + 1];
	unsigned i;
	int c;

	config_long_options(opts);
	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", opts, NULL)) != -1) {
		if (c == ':')
			return fail(EINVAL, err, errlen, "%s needs a value", argv[optind - 1]);
		if (c == '?')
			return config_bad_option(argv, err, errlen);
		i = (unsigned)c - 256;
		if (rows[i].kind == OPT_FLAG)
			(void)config_set(cfg, &rows[i], "", NULL, 0);
		else
			given[i] = optarg;
	}
	if (optind < argc)
		return fail(EINVAL, err, errlen, "unexpected argument '%s' (try --help)",
			    argv[optind]);
	return 0;
}

static int
config_set_given(struct config *cfg, const char *const *given, uint32_t *seen, char *err,
		 size_t errlen)
{
	char why[512];
	int r;

	for (unsigned i = 0; i < NROWS; i++) {
		if (given[i] == NULL)
			continue;
		r = config_set(cfg, &rows[i], given[i], why, sizeof(why));
		if (r < 0)
			return fail(-r, err, errlen, "--%s", why);
		*seen |= 1u << i;
	}
	return 0;
}

static int
config_check(const struct config *cfg, char *err, size_t errlen)
{
	char path[PATH_MAX];

	if (ctl_path(path, sizeof(path), cfg->name, ".sock", err, errlen) == -EINVAL)
		return -EINVAL;
	if (cfg->min_idle > cfg->max_idle)
		return fail(EINVAL, err, errlen, "min-idle %u is greater than max-idle %u",
			    cfg->min_idle, cfg->max_idle);
	if (cfg->max_idle > cfg->max_total)
		return fail(EINVAL, err, errlen, "max-idle %u is greater than max-total %u",
			    cfg->max_idle, cfg->max_total);
	if (cfg->snapshot[0] != '\0' && cfg->warmup[0] != '\0')
		return fail(EINVAL, err, errlen,
			    "warmup and snapshot exclude each other: take the snapshot of a VM "
			    "that is warm");
	return 0;
}

/* The daemon must find the file again, wherever it was named from. */
static int
config_absolute(char *path, const char *given, char *err, size_t errlen)
{
	if (realpath(given, path) == NULL)
		return fail(errno, err, errlen, "%s: %m", given);
	return 0;
}

int
config_load(struct config *cfg, int argc, char **argv, char *err, size_t errlen)
{
	const char *given[NROWS] = {NULL};
	uint32_t seen = 0;
	int r;

	*cfg = config_defaults;
	r = config_read_argv(given, cfg, argc, argv, err, errlen);
	if (r < 0 || cfg->help)
		return r;
	if (given[ROW_CONFIG] != NULL) {
		r = config_absolute(cfg->file, given[ROW_CONFIG], err, errlen);
		if (r < 0)
			return r;
		given[ROW_CONFIG] = NULL;
		r = config_read_file(cfg, &seen, err, errlen);
		if (r < 0)
			return r;
	}
	r = config_set_given(cfg, given, &seen, err, errlen);
	if (r < 0)
		return r;
	/* A small total alone is no contradiction to a max-idle nobody asked for. */
	if (!(seen & 1u << ROW_MAX_IDLE))
		cfg->max_idle = MIN(cfg->max_idle, cfg->max_total);
	cfg->memory_given = (seen & 1u << ROW_MEMORY) != 0;
	cfg->vcpus_given = (seen & 1u << ROW_VCPUS) != 0;
	return config_check(cfg, err, errlen);
}

void
config_help(FILE *out)
{
	char left[64];

	fputs("usage: vmpoold [OPTION]...\n"
	      "Keep a pool of prewarmed Linux VMs and serve it to the programs of this host.\n\n",
	      out);
	for (unsigned i = 0; i < NROWS; i++) {
		(void)snprintf(left, sizeof(left), "--%s%s%s", rows[i].name,
			       rows[i].arg != NULL ? " " : "",
			       rows[i].arg != NULL ? rows[i].arg : "");
		fprintf(out, "  %-24s %s", left, rows[i].help);
		if (rows[i].kind == OPT_CHOICE)
			fprintf(out, ": %s", rows[i].choices);
		if (rows[i].kind == OPT_NUMBER)
			fprintf(
			    out, " (%u)",
			    *(const uint32_t *)((const char *)&config_defaults + rows[i].offset));
		else if (rows[i].kind != OPT_FLAG &&
			 ((const char *)&config_defaults)[rows[i].offset] != '\0')
			fprintf(out, " (%s)", (const char *)&config_defaults + rows[i].offset);
		fputc('\n', out);
	}
}

/* --- changes on SIGHUP ------------------------------------------------------------ */

static void
config_show(char *buf, size_t len, const struct option_row *row, const struct config *cfg)
{
	const char *field = (const char *)cfg + row->offset;

	if (row->kind == OPT_NUMBER)
		(void)snprintf(buf, len, "%u", *(const uint32_t *)field);
	else
		(void)snprintf(buf, len, "%.*s", (int)row->size, field);
}

int
config_update(struct config *cfg, const struct config *new, uint32_t max_total_limit,
	      void (*changed)(const char *line), char *err, size_t errlen)
{
	char old_text[PATH_MAX], new_text[PATH_MAX], line[2 * PATH_MAX + 64];

	if (new->max_total > max_total_limit)
		return fail(ERANGE, err, errlen,
			    "max-total %u: this pool was started with room for %u; restart it",
			    new->max_total, max_total_limit);
	for (unsigned i = 0; i < NROWS; i++) {
		if (rows[i].flags & CLI_ONLY)
			continue;
		config_show(old_text, sizeof(old_text), &rows[i], cfg);
		config_show(new_text, sizeof(new_text), &rows[i], new);
		if (strcmp(old_text, new_text) == 0)
			continue;
		if (rows[i].flags & LIVE) {
			memcpy((char *)cfg + rows[i].offset, (const char *)new + rows[i].offset,
			       rows[i].size);
			(void)snprintf(line, sizeof(line), "%s: %s, was %s", rows[i].name, new_text,
				       old_text);
		} else {
			(void)snprintf(line, sizeof(line), "%s: stays %s until a restart",
				       rows[i].name, old_text);
		}
		changed(line);
	}
	return 0;
}
