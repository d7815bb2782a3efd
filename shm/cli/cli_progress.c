/* SPDX-License-Identifier: MIT
 *
 * cli_progress.c - a line on the terminal that says how far a transfer is.
 */
#include "shm/cli/cli_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define QUIET_NS 1000000000u /* transfers shorter than this show none */
#define DRAW_NS 100000000u   /* between two looks */
#define BAR_MAX 40

void
progress_init(struct progress *p, const char *what, uint64_t total, bool quiet)
{
	*p = (struct progress){.what = what,
			       .total = total,
			       .start_ns = cli_now(),
			       .on = !quiet && isatty(STDERR_FILENO) == 1};
}

static const char *
bytes(char *buf, size_t len, double n)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t i = 0;

	for (; n >= 999.5 && i + 1 < CLI_COUNT(units); i++)
		n /= 1024;
	(void)snprintf(buf, len, "%.*f %s", i == 0 || n >= 99.95 ? 0 : 1, n, units[i]);
	return buf;
}

/* "[====>   ] 42%", as wide as there is room; "" when the end is not known. */
static void
bar(char *buf, size_t len, const struct progress *p, unsigned width)
{
	unsigned full;

	buf[0] = '\0';
	if (p->total == 0 || width < 4 || len < BAR_MAX + 16)
		return;
	/* A file that grows meanwhile is no more than whole. */
	full = p->done >= p->total ? width
				   : (unsigned)((double)width * (double)p->done / (double)p->total);
	buf[0] = '[';
	memset(buf + 1, ' ', width);
	memset(buf + 1, '=', full);
	if (full < width)
		buf[1 + full] = '>';
	(void)snprintf(
	    buf + 1 + width, len - width - 1, "] %3u%% ",
	    (unsigned)(p->done >= p->total ? 100 : 100 * (double)p->done / (double)p->total));
}

static void
draw(struct progress *p)
{
	char line[512], gauge[BAR_MAX + 16], done[32], rate[32];
	uint64_t ns = cli_now() - p->start_ns;
	struct winsize ws = {.ws_col = 80};
	unsigned width;
	int n;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) < 0 || ws.ws_col == 0)
		ws.ws_col = 80;
	width = ws.ws_col > 60 ? (unsigned)ws.ws_col - 60 : 0;
	bar(gauge, sizeof(gauge), p, width > BAR_MAX ? BAR_MAX : width);
	n = snprintf(line, sizeof(line), "\r%.24s: %s%s, %s/s", p->what, gauge,
		     bytes(done, sizeof(done), (double)p->done),
		     bytes(rate, sizeof(rate), (double)p->done * 1e9 / (double)(ns + 1)));
	if (n > (int)ws.ws_col)
		n = (int)ws.ws_col; /* with the carriage return: one less than the row */
	/* To the end of the row, whatever stood there before. */
	(void)!write(STDERR_FILENO, line, (size_t)n);
	(void)!write(STDERR_FILENO, "\033[K", 3);
	p->shown = true;
}

void
progress_add(struct progress *p, uint64_t more)
{
	uint64_t now;

	p->done += more;
	if (!p->on)
		return;
	now = cli_now();
	if (now - p->start_ns < QUIET_NS || now - p->drawn_ns < DRAW_NS)
		return;
	p->drawn_ns = now;
	draw(p);
}

void
progress_end(struct progress *p)
{
	if (!p->shown)
		return;
	draw(p);
	(void)!write(STDERR_FILENO, "\n", 1);
	p->shown = false;
}
