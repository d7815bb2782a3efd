/* SPDX-License-Identifier: MIT
 *
 * fuzz.h - random cases until the time is up, each of which can be repeated.
 *
 * A target is a function of a struct fuzz, from which it draws everything that is
 * random. fuzz_main runs it in a child process, case by case: a case that
 * crashes, or takes more than FUZZ_CASE_S, is named, and "--case N" repeats it.
 */
#ifndef VMPOOL_TESTS_FUZZ_H
#define VMPOOL_TESTS_FUZZ_H

#include "shm/base.h"

#define FUZZ_CASE_S 120

struct fuzz {
	uint64_t state;
};

/* Options: --seconds N (10), --seed N, --case N. Exit status. */
int fuzz_main(int argc, char **argv, const char *name, void (*one)(struct fuzz *f));

uint64_t fuzz_random(struct fuzz *f);
/* 0 .. n - 1 */
uint32_t fuzz_below(struct fuzz *f, uint32_t n);
static inline bool
fuzz_one_in(struct fuzz *f, uint32_t n)
{
	return fuzz_below(f, n) == 0;
}
/* Of the kinds that hurt: random, small, a power of two and its neighbours, all
 * ones, the two halves of a word. */
uint64_t fuzz_value(struct fuzz *f);
void fuzz_fill(struct fuzz *f, void *buf, size_t len);
/* Change something in these bytes: a bit, a byte, a word, a run of bytes. */
void fuzz_mutate(struct fuzz *f, uint8_t *bytes, size_t len);

#endif
