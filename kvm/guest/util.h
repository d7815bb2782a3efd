/* SPDX-License-Identifier: MIT
 *
 * util.h - what every part of the guest agent leans on. The agent includes no
 * project header but its own and kvm/proto.h: it is built alone, statically,
 * and runs in a machine that has nothing else of the project.
 *
 * Errors travel as everywhere in the project: 0 or -errno. Asserts guard our
 * own private memory only; what the host or a command sends is checked.
 */
#ifndef GUEST_UTIL_H
#define GUEST_UTIL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define must_check __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define _cleanup_(fn) __attribute__((cleanup(fn)))

#define AN(x) assert((x) != 0)
#define AZ(x) assert((x) == 0)
#define CHECK_OBJ(ptr, m) assert((ptr) != NULL && (ptr)->magic == (m))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
/* The struct of this type whose member it is. */
#define owner_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

void util_closep(int *fd);
void util_freep(void *p);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t util_now_ns(void);

/* One line for people, on standard error (the console, for PID 1). */
void util_log(const char *fmt, ...) printf_like(1, 2);

/* The agent cannot go on: log why, then power the machine off (PID 1) or exit
 * with status 1 (anyone else). */
_Noreturn void util_fatal(const char *fmt, ...) printf_like(1, 2);

/* The whole of a small text file, NUL-terminated, in *out (free it). 0, or
 * -errno; -EFBIG if it is longer than max. */
int util_read_file(const char *path, size_t max, char **out) must_check;

/* Write a short string to an existing file, relative to dirfd. 0 or -errno.
 * Async-signal-safe. */
int util_write_file(int dirfd, const char *path, const char *text) must_check;

/* A decimal number that fills the whole string: true and *out. */
bool util_parse_u32(const char *s, uint32_t *out) must_check;

#endif
