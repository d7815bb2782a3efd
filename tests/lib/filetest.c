/* SPDX-License-Identifier: MIT
 *
 * filetest.c - an agent and a directory for one test of file operations. Runs
 * in tests.
 */
#include "tests/lib/filetest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

char filetest_dir[64];

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

int
filetest_setup(void **state)
{
	struct filetest *f = calloc(1, sizeof(*f));

	(void)strcpy(filetest_dir, "/tmp/test_agent_file.XXXXXX");
	assert_non_null(f);
	assert_non_null(mkdtemp(filetest_dir));
	f->p = peer_new(false);
	f->home = open(".", O_PATH | O_CLOEXEC);
	assert_int_equal(chdir(filetest_dir), 0);
	*state = f;
	return 0;
}

int
filetest_teardown(void **state)
{
	struct filetest *f = *state;

	assert_int_equal(fchdir(f->home), 0);
	(void)close(f->home);
	peer_free(f->p, 0);
	free(f);
	return nftw(filetest_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Paths of the tests are relative to their directory; the agent's are not. */
static const char *
absolute(char buf[PROTO_PATH_MAX], const char *path)
{
	if (path == NULL || path[0] == '/' || path[0] == '\0')
		return path;
	(void)snprintf(buf, PROTO_PATH_MAX, "%s/%s", filetest_dir, path);
	return buf;
}

uint32_t
filetest_begin(struct filetest *f, const struct peer_file *file)
{
	char path[PROTO_PATH_MAX], other[PROTO_PATH_MAX], root[PROTO_PATH_MAX];
	struct peer_file abs = *file;

	if (file->root == NULL) {
		abs.path = absolute(path, file->path);
		if (file->head.op == PROTO_FILE_RENAME || file->head.op == PROTO_FILE_LINK)
			abs.other = absolute(other, file->other);
	}
	abs.root = absolute(root, file->root);
	peer_file(f->p, ++f->stream, &abs);
	return f->stream;
}

struct peer_run *
filetest_run(struct filetest *f, const struct peer_file *file)
{
	uint32_t stream = filetest_begin(f, file);
	struct peer_run *r = peer_wait(f->p, stream);

	assert_true(r->filed);
	return r;
}

struct peer_run *
filetest_write(struct filetest *f, const struct peer_file *file, const char *text)
{
	uint32_t stream = filetest_begin(f, file);

	peer_stdin(f->p, stream, text, strlen(text), true);
	return peer_wait(f->p, stream);
}

void
put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
}

void
assert_file(const char *path, const char *want)
{
	char buf[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	n = read(fd, buf, sizeof(buf) - 1);
	assert_true(n >= 0);
	buf[n] = '\0';
	(void)close(fd);
	assert_string_equal(buf, want);
}

unsigned
count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	(void)closedir(d);
	return n - 2;
}
