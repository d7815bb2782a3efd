/* SPDX-License-Identifier: MIT
 *
 * replay.c - a target without libFuzzer: runs the inputs that are kept of it. Each has
 * found something once, new code or a fault: so they are regression tests, for any
 * compiler. Linked with one target.
 *
 * usage: test_corpus_TARGET [FILE or folder]...   tests/fuzz/corpus/TARGET by default
 */
#include "tests/lib/fuzz.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX (1u << 20)

static int
replay_file(const char *path)
{
	static uint8_t buf[INPUT_MAX];
	FILE *in = fopen(path, "r");
	uint8_t *exact;
	size_t n;

	if (in == NULL) {
		printf("# %s: %m\n", path);
		return -1;
	}
	n = fread(buf, 1, sizeof(buf), in);
	(void)fclose(in);
	/* If it kills us, this is the last line; and nothing may be read behind its end. */
	printf("# %s\n", path);
	exact = malloc(n);
	assert(n == 0 || exact != NULL);
	memcpy(exact, buf, n);
	(void)LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	return 0;
}

static int
is_input(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

/* How many inputs were run; -1 if one could not be, or there is none. */
static int
replay(const char *path)
{
	struct dirent **list;
	struct stat st;
	char file[4096];
	int done = 0, n;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
		return replay_file(path) < 0 ? -1 : 1;
	n = scandir(path, &list, is_input, alphasort);
	for (int i = 0; i < n; i++) {
		(void)snprintf(file, sizeof(file), "%s/%s", path, list[i]->d_name);
		if (done >= 0)
			done = replay_file(file) < 0 ? -1 : done + 1;
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	return done == 0 ? -1 : done;
}

int
main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '_');
	char corpus[256];
	char *own[] = {corpus};
	char **paths = argc > 1 ? argv + 1 : own;
	int n, bad = 0, count = MAX(argc - 1, 1);

	(void)snprintf(corpus, sizeof(corpus), "tests/fuzz/corpus/%s", name ? name + 1 : "");
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..%d\n", count);
	for (int i = 0; i < count; i++) {
		n = replay(paths[i]);
		printf("%sok %d - %s: %d inputs\n", n < 0 ? "not " : "", i + 1, paths[i],
		       MAX(n, 0));
		bad |= n < 0;
	}
	return bad;
}
