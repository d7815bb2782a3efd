/* SPDX-License-Identifier: MIT
 *
 * cli_util.c - messages, output and program paths of the client programs.
 */
#include "shm/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void
cli_init(void)
{
	/* Opened the wrong way round, so that using one is an error and not silence. */
	static const int mode[3] = {O_WRONLY, O_RDONLY, O_RDONLY};

	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", mode[fd]) != fd)
			_exit(CLI_FAILED);
}

void
cli_say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(line), "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	(void)vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	/* Names of files may stand in it: one line it is, which commands no terminal. */
	for (char *p = line; *p != '\0'; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	(void)strcat(line, "\n");
	/* One write: lines of several processes do not mix. */
	(void)!write(STDERR_FILENO, line, strlen(line));
}

void
cli_say_error(const struct vmpool *pool, int error)
{
	static const struct {
		int error;
		const char *text;
	} remedies[] = {
	    {VMPOOL_ECAPACITY, "wait longer with --wait, or raise the pool's max-total"},
	    {VMPOOL_EVMDIED, "the pool's log says why; run it again for a fresh VM"},
	    {VMPOOL_ERESTARTED, "run it again, or start the pool with: vmpool start"},
	    {VMPOOL_ELAYOUT, "use the vmpool that came with the running vmpoold"},
	    {VMPOOL_ESTART, "vmpool doctor tells what this machine lacks"},
	    {VMPOOL_EDRAINING, "start it again with: vmpool start"},
	    {VMPOOL_ECWD, "give -C a directory that exists in the VM"},
	    {VMPOOL_EUSER, "give -u a user of the VM"},
	    {VMPOOL_EPROTOCOL, "run it again for a fresh VM"},
	    {-EACCES, "ask for access to the pool's runtime directory, or use sudo"},
	    {-E2BIG, "pass large data on stdin with -i"},
	};
	const char *text = vmpool_error(pool), *remedy = NULL;

	for (size_t i = 0; i < CLI_COUNT(remedies); i++)
		if (remedies[i].error == error)
			remedy = remedies[i].text;
	if (text[0] == '\0')
		text = vmpool_strerror(error);
	if (remedy != NULL)
		cli_say("%s (%s)", text, remedy);
	else
		cli_say("%s", text);
}

int
cli_finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	cli_say("cannot write to stdout: %s", strerror(errno));
	return status != 0 ? status : CLI_FAILED;
}

const char *
cli_duration(char *buf, size_t len, uint64_t ns)
{
	static const struct {
		double scale;
		const char *unit;
	} units[] = {{1, "ns"}, {1e3, "us"}, {1e6, "ms"}, {1e9, "s"}};
	size_t i = 0;
	double v;

	while (i + 1 < CLI_COUNT(units) && (double)ns >= units[i + 1].scale * 0.9995)
		i++;
	v = (double)ns / units[i].scale;
	(void)snprintf(buf, len, "%.*f%s",
		       i == 0 || v >= 99.95 ? 0
		       : v >= 9.995	    ? 1
					    : 2,
		       v, units[i].unit);
	return buf;
}

bool
cli_find_program(char *buf, size_t len, const char *const *dirs, const char *name)
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (n < 0)
		return false;
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash == NULL)
		return false;
	*slash = '\0';
	for (; *dirs != NULL; dirs++) {
		int m = snprintf(buf, len, "%s/%s/%s", exe, *dirs, name);

		if (m > 0 && (size_t)m < len && access(buf, X_OK) == 0)
			return true;
	}
	return false;
}

uint64_t
cli_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
