/* SPDX-License-Identifier: MIT
 *
 * suplog.c - the log of vmpoold. Owns where it goes.
 */
#include "supervisor/suplog.h"

#include <string.h>
#include <sys/stat.h>

static bool to_syslog, to_journal, verbose;

/* systemd names its journal's stream in the environment, as device:inode. */
void
suplog_init(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	verbose = getenv("VMPOOL_DEBUG") != NULL;
	to_syslog = false;
	to_journal = stream != NULL && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
		     fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void
suplog_to_syslog(void)
{
	openlog("vmpoold", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	to_syslog = true;
}

void
suplog(int level, const char *fmt, ...)
{
	char line[1500];
	va_list ap;

	if (level == LOG_DEBUG && !verbose)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* Texts of workers hold bytes of the guest's console: nothing of theirs may
	 * steer a terminal or look like a second line. */
	for (char *p = line; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
	if (to_syslog)
		syslog(level, "%s", line);
	else if (to_journal)
		fprintf(stderr, "<%d>%s\n", level, line);
	else
		fprintf(stderr, "vmpoold: %s\n", line);
}

void
suplog_tail(int level, const char *prefix, const char *text, unsigned lines)
{
	const char *end = text + strlen(text), *p, *nl;
	unsigned n = 0;

	while (end > text && end[-1] == '\n')
		end--;
	for (p = end; p > text; p--)
		if (p[-1] == '\n' && ++n == lines)
			break;
	for (; p < end; p = nl + 1) {
		nl = memchr(p, '\n', (size_t)(end - p));
		if (nl == NULL)
			nl = end;
		n = (unsigned)(nl - p) - (nl > p && nl[-1] == '\r');
		suplog(level, "%s%.*s", prefix, (int)n, p);
	}
}
