/* SPDX-License-Identifier: MIT
 *
 * base.h - what every part of vmpool leans on: cleanup attributes, checked
 * private structs, monotonic time. A leaf: includes no other project header.
 *
 * How errors travel: a function that can fail returns 0 or -errno (some return
 * a count or a descriptor instead of 0) and is marked must_check; where people
 * will read the reason it also takes (char *err, size_t errlen) and leaves one
 * line there. Libraries never print and never exit. AN/AZ/CHECK_OBJ assert on
 * our own private memory only, never on bytes that another process or a guest
 * can write.
 */
#ifndef VMPOOL_BASE_H
#define VMPOOL_BASE_H

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef NDEBUG
#error "asserts stay on in vmpool"
#endif

#define must_check __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))

#define AN(x) assert((x) != 0)
#define AZ(x) assert((x) == 0)
#define CHECK_OBJ(ptr, m) assert((ptr) != NULL && (ptr)->magic == (m))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define _cleanup_(fn) __attribute__((cleanup(fn)))

static inline void
closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static inline void
freep(void *p)
{
	free(*(void **)p);
	*(void **)p = NULL;
}

static inline int
steal_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/* Leave one formatted line in err and return -code: `return fail(...)`. */
static inline int printf_like(4, 5) fail(int code, char *err, size_t errlen, const char *fmt, ...)
{
	va_list ap;

	if (err != NULL && errlen > 0) {
		va_start(ap, fmt);
		(void)vsnprintf(err, errlen, fmt, ap);
		va_end(ap);
	}
	return -code;
}

/* CLOCK_MONOTONIC in nanoseconds: the same for all processes of a host. */
static inline uint64_t
now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#endif
