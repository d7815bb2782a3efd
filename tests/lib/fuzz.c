/* SPDX-License-Identifier: MIT
 *
 * fuzz.c - the loop around a fuzz target, and its dice. Runs in fuzz programs; the
 * parent only watches.
 */
#include "tests/lib/fuzz.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct progress {
	_Atomic uint64_t seed, cases; /* of the present case; done so far */
};

/* The next n bytes of the input, little-endian. */
static uint64_t
draw(struct fuzz *f, size_t n)
{
	uint64_t v = 0;

	n = MIN(n, fuzz_left(f));
	memcpy(&v, f->at, n);
	f->at += n;
	return v;
}

uint64_t
fuzz_random(struct fuzz *f)
{
	uint64_t z;

	if (f->at != NULL)
		return draw(f, sizeof(z));
	z = f->state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint32_t
fuzz_below(struct fuzz *f, uint32_t n)
{
	if (f->at != NULL)
		return (uint32_t)(draw(f, n <= 1u << 8 ? 1 : n <= 1u << 16 ? 2 : 4) % n);
	return (uint32_t)(fuzz_random(f) % n);
}

uint64_t
fuzz_value(struct fuzz *f)
{
	switch (fuzz_below(f, 6)) {
	case 0: return fuzz_random(f);
	case 1: return fuzz_below(f, 20);
	case 2: return (1ull << fuzz_below(f, 64)) + fuzz_below(f, 3) - 1;
	case 3: return UINT64_MAX - fuzz_below(f, 3);
	case 4: return (uint64_t)fuzz_below(f, 20) << 32 | fuzz_below(f, 20);
	default: return fuzz_random(f) >> fuzz_below(f, 64);
	}
}

/* A pattern from the input. */
static void
fill_pattern(struct fuzz *f, uint8_t *at, size_t len)
{
	size_t n = draw(f, 1);
	const uint8_t *pattern = f->at;

	n = MIN(n, fuzz_left(f));
	f->at += n;
	memset(at, 0, n == 0 ? len : 0);
	for (size_t i = 0; n > 0 && i < len; i += n)
		memcpy(at + i, pattern, MIN(n, len - i));
}

void
fuzz_fill(struct fuzz *f, void *buf, size_t len)
{
	uint8_t *at = buf;

	if (f->at != NULL) {
		fill_pattern(f, at, len);
		return;
	}
	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = fuzz_random(f);

		memcpy(at + i, &v, MIN(len - i, sizeof(v)));
	}
}

/* Others may look at the bytes, or write them, at the same time. */
static void
store(uint8_t *bytes, size_t len, uint64_t value)
{
	for (size_t i = 0; i < len; i++)
		__atomic_store_n(bytes + i, (uint8_t)(value >> 8 * (i % 8)), __ATOMIC_RELAXED);
}

void
fuzz_mutate(struct fuzz *f, uint8_t *bytes, size_t len)
{
	size_t at = fuzz_below(f, (uint32_t)len), word = at / 8 * 8, n;

	switch (fuzz_below(f, 5)) {
	case 0:
		(void)__atomic_fetch_xor(bytes + at, 1u << fuzz_below(f, 8), __ATOMIC_RELAXED);
		break;
	case 1: store(bytes + at, 1, fuzz_value(f)); break;
	case 2: store(bytes + word, MIN(len - word, 8), fuzz_value(f)); break;
	case 3:
		word += fuzz_below(f, 2) * 4;
		if (word < len)
			store(bytes + word, MIN(len - word, 4), fuzz_value(f));
		break;
	default: n = fuzz_below(f, 200); store(bytes + at, MIN(len - at, n), fuzz_value(f));
	}
}

/* --- the loop --------------------------------------------------------------------------- */

static int
run_cases(struct progress *p, uint64_t first, uint64_t until_ns, void (*one)(struct fuzz *f))
{
	struct fuzz f = {.at = NULL};

	for (uint64_t seed = first;; seed++) {
		atomic_store(&p->seed, seed);
		f.state = seed;
		(void)alarm(FUZZ_CASE_S);
		one(&f);
		(void)alarm(0);
		atomic_fetch_add(&p->cases, 1);
		if (now_ns() >= until_ns)
			return 0;
	}
}

static bool
number(const char *text, uint64_t *out)
{
	char *end;

	*out = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && *end == '\0';
}

static int
watch(const char *name, const struct progress *p, uint64_t first, pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("%s: %llu cases from seed %llu\n", name,
		       (unsigned long long)atomic_load(&p->cases), (unsigned long long)first);
		return 0;
	}
	printf("%s: case %llu %s %d; repeat it with --case %llu\n", name,
	       (unsigned long long)atomic_load(&p->seed),
	       WIFSIGNALED(status) ? "died of signal" : "ended with status",
	       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
	       (unsigned long long)atomic_load(&p->seed));
	return 1;
}

int
fuzz_main(int argc, char **argv, const char *name, void (*one)(struct fuzz *f))
{
	uint64_t seconds = 10, seed = now_ns() % 1000000000u * 1000u, only = UINT64_MAX;
	bool ok = argc % 2 == 1;
	struct progress *p;
	pid_t pid;

	for (int i = 1; ok && i + 1 < argc; i += 2)
		ok = (strcmp(argv[i], "--seconds") == 0 && number(argv[i + 1], &seconds)) ||
		     (strcmp(argv[i], "--seed") == 0 && number(argv[i + 1], &seed)) ||
		     (strcmp(argv[i], "--case") == 0 && number(argv[i + 1], &only));
	if (!ok) {
		(void)fprintf(stderr, "usage: %s [--seconds N] [--seed N] [--case N]\n", name);
		return 2;
	}
	p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert(p != MAP_FAILED);
	if (only != UINT64_MAX)
		return run_cases(p, only, 0, one);
	pid = fork();
	assert(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* exit, so that a leak counts as well. */
		exit(run_cases(p, seed, now_ns() + seconds * 1000000000u, one));
	}
	return watch(name, p, seed, pid);
}
