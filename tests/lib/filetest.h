/* SPDX-License-Identifier: MIT
 *
 * filetest.h - what the tests of the agent's file operations share. The agent
 * runs here, not in a VM, so its files are looked at directly. Paths of tests
 * are relative to a fresh directory, which is the working directory too.
 */
#ifndef TEST_FILETEST_H
#define TEST_FILETEST_H

#include "tests/lib/agent_peer.h"

struct filetest {
	struct peer *p;
	uint32_t stream; /* the last one used */
	int home;	 /* the working directory before */
};

extern char filetest_dir[64];

/* cmocka fixtures: *state is a struct filetest *. */
int filetest_setup(void **state);
int filetest_teardown(void **state);

/* Begin the operation; its stream. filetest_run: to its FILE_DONE; filetest_write:
 * with these bytes to write. Paths that are not absolute are of the test's
 * directory, but for those beneath a root. */
uint32_t filetest_begin(struct filetest *f, const struct peer_file *file);
struct peer_run *filetest_run(struct filetest *f, const struct peer_file *file);
struct peer_run *filetest_write(struct filetest *f, const struct peer_file *file, const char *text);

#define RUN(f, ...) filetest_run((f), &(const struct peer_file){__VA_ARGS__})
#define ERR(f, ...) ((int)RUN(f, __VA_ARGS__)->done.err)
#define WRITE(f, text, ...) filetest_write((f), &(const struct peer_file){__VA_ARGS__}, text)

/* A file of this host: make it, compare it, count those in a directory. */
void put_file(const char *path, const char *text);
void assert_file(const char *path, const char *want);
unsigned count_entries(const char *path);

#endif
