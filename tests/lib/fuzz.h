/* SPDX-License-Identifier: MIT
 *
 * fuzz.h - cases that are drawn, from dice or from the bytes of an input.
 *
 * A target is a function of a struct fuzz, from which it draws everything that is
 * random. There are two kinds. Of those that need processes or threads, fuzz_main
 * throws dice, case by case, in a child: a case that crashes, or takes more than
 * FUZZ_CASE_S, is named, and "--case N" repeats it. The others (tests/fuzz/target/)
 * are functions of an input: libFuzzer makes inputs, and replay.c repeats those kept.
 */
#ifndef VMPOOL_TESTS_FUZZ_H
#define VMPOOL_TESTS_FUZZ_H

#include "shm/base.h"

#define FUZZ_CASE_S 120

struct fuzz {
	uint64_t state;		 /* of the dice */
	const uint8_t *at, *end; /* what is left of the input; NULL: dice */
};

/* What libFuzzer calls: a target's one function. It leaves nothing behind. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Draw from these bytes: a draw takes as many as it needs; past their end all is 0. */
static inline struct fuzz
fuzz_input(const uint8_t *data, size_t size)
{
	static const uint8_t none[1];

	return size > 0 ? (struct fuzz){.at = data, .end = data + size}
			: (struct fuzz){.at = none, .end = none};
}
static inline size_t
fuzz_left(const struct fuzz *f)
{
	return (size_t)(f->end - f->at);
}

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
/* With anything; of an input: a length byte, and so many bytes, over and over. */
void fuzz_fill(struct fuzz *f, void *buf, size_t len);
/* Change something in these bytes: a bit, a byte, a word, a run of bytes. */
void fuzz_mutate(struct fuzz *f, uint8_t *bytes, size_t len);

#endif
