/* SPDX-License-Identifier: MIT
 *
 * util.c - clock, messages and small files for the guest agent (PID 1 of the
 * guest). Owns nothing.
 */
#include "kvm/guest/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

void
util_closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

void
util_freep(void *p)
{
	free(*(void **)p);
	*(void **)p = NULL;
}

uint64_t
util_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#define PRIORITY "<3>" /* an error, to the kernel's log */

/* PID 1 writes to the kernel's log, for that reaches the console at once; what is
 * written to the console itself may not be out when the machine stops. */
static void
put_line(const char *line, size_t len)
{
	const size_t skip = sizeof(PRIORITY) - 1;
	int fd = getpid() == 1 ? open("/dev/kmsg", O_WRONLY | O_CLOEXEC) : -1;

	/* If even standard error fails, nobody is left to tell. */
	if (fd < 0 || write(fd, line, len) < 0)
		(void)!write(STDERR_FILENO, line + skip, len - skip);
	util_closep(&fd);
}

static void printf_like(1, 0) say(const char *fmt, va_list ap)
{
	static const char head[] = PRIORITY "vmpool-agent: ";
	char line[512];
	size_t n = sizeof(head) - 1;
	int r;

	memcpy(line, head, n);
	r = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	if (r > 0)
		n += MIN((size_t)r, sizeof(line) - n - 2);
	line[n++] = '\n';
	put_line(line, n);
}

void
util_log(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
}

void
util_fatal(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	if (getpid() != 1)
		_exit(1);
	(void)reboot(RB_POWER_OFF);
	/* A kernel that cannot power off: PID 1 must not return all the same. */
	for (;;)
		pause();
}

int
util_read_file(const char *path, size_t max, char **out)
{
	_cleanup_(util_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_(util_freep) char *buf = NULL;
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	buf = malloc(max + 1);
	if (buf == NULL)
		return -ENOMEM;
	do {
		n = read(fd, buf + len, max + 1 - len);
		if (n < 0)
			return -errno;
		len += (size_t)n;
		if (len > max)
			return -EFBIG;
	} while (n > 0);
	buf[len] = '\0';
	*out = buf;
	buf = NULL;
	return 0;
}

int
util_write_file(int dirfd, const char *path, const char *text)
{
	int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	(void)close(fd);
	return r;
}

bool
util_parse_u32(const char *s, uint32_t *out)
{
	uint64_t v = 0;

	if (*s == '\0')
		return false;
	for (; *s != '\0'; s++) {
		if (*s < '0' || *s > '9')
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
		if (v > UINT32_MAX)
			return false;
	}
	*out = (uint32_t)v;
	return true;
}
