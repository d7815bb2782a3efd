/* SPDX-License-Identifier: MIT
 *
 * report.c - samples and report rows of the benchmark programs.
 */
#include "tests/bench/report.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

void
bench_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)fputs("bench: ", stderr);
	(void)vfprintf(stderr, fmt, ap);
	(void)fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

double
ms_since(uint64_t start)
{
	return (double)(now_ns() - start) / 1e6;
}

void
samples_add(struct samples *s, double v)
{
	if (s->n == s->room) {
		s->room = s->room == 0 ? 64 : 2 * s->room;
		s->v = reallocarray(s->v, s->room, sizeof(*s->v));
		if (s->v == NULL)
			bench_die("out of memory for samples");
	}
	s->v[s->n++] = v;
}

void
samples_fini(struct samples *s)
{
	free(s->v);
	memset(s, 0, sizeof(*s));
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double
samples_percentile(struct samples *s, double p)
{
	size_t rank;

	if (s->n == 0)
		return 0;
	qsort(s->v, s->n, sizeof(*s->v), compare);
	rank = (size_t)ceil(p / 100 * (double)s->n);
	return s->v[rank == 0 ? 0 : rank - 1];
}

int
report(const struct figure *f)
{
	const char *where = getenv("VMPOOL_BENCH_WHERE"), *path = getenv("VMPOOL_BENCH_OUT");
	bool met = f->lower_is_better ? f->value <= f->goal : f->value >= f->goal;
	FILE *out;
	json_t *row;
	int r;

	(void)printf("%-28s %10.2f %-6s goal %s %.2f: %s   (p50 %.2f, p99 %.2f, n %zu)\n", f->name,
		     f->value, f->unit, f->lower_is_better ? "<=" : ">=", f->goal,
		     met ? "met" : "MISSED", f->p50, f->p99, f->n);
	if (path == NULL)
		return 0;
	row = json_pack("{s:s, s:s, s:s, s:f, s:s, s:f, s:s, s:f, s:f, s:I}", "name", f->name,
			"where", where != NULL ? where : "host", "accel", f->accel, "value",
			f->value, "unit", f->unit, "goal", f->goal, "better",
			f->lower_is_better ? "lower" : "higher", "p50", f->p50, "p99", f->p99, "n",
			(json_int_t)f->n);
	out = fopen(path, "ae");
	if (row == NULL || out == NULL) {
		r = -errno;
	} else {
		r = json_dumpf(row, out, JSON_COMPACT) == 0 && fputc('\n', out) != EOF ? 0 : -EIO;
	}
	if (out != NULL && fclose(out) != 0)
		r = -errno;
	json_decref(row);
	return r;
}
