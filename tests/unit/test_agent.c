/* SPDX-License-Identifier: MIT
 *
 * test_agent.c - the guest agent starts commands exactly as asked, and says
 * exactly why it could not. The agent runs on this machine, over a socketpair.
 */
#include "tests/lib/agent_peer.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct peer_run *
run(struct peer *p, uint32_t stream, const struct peer_exec *e)
{
	peer_exec(p, stream, e);
	return peer_wait(p, stream);
}

static void
assert_error(const struct peer_run *r, enum proto_stage stage, int err, const char *names)
{
	assert_false(r->exited);
	assert_int_equal(r->error.stage, stage);
	assert_int_equal(r->error.err, err);
	if (strstr(r->text, names) == NULL)
		fail_msg("'%s' does not name '%s'", r->text, names);
}

static void
test_ready(void **state)
{
	struct peer *p = *state;

	assert_int_equal(p->ready.version, PROTO_VERSION);
	assert_true(p->ready.vcpus >= 1);
	assert_true(p->ready.mem_kib > 1024);
	peer_ping(p);
}

static void
test_output_and_status(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	peer_sh(p, 1, "echo out; echo err >&2; exit 7", 0);
	r = peer_wait(p, 1);
	assert_true(r->exited);
	assert_string_equal(r->out, "out\n");
	assert_string_equal(r->err, "err\n");
	assert_int_equal(r->exit.code, 7);
	assert_int_equal(r->exit.signal, 0);
	assert_int_equal(r->exit.timed_out, 0);
	assert_true(r->exit.elapsed_ns > 0 && r->exit.elapsed_ns < 60000000000u);
}

static void
test_exit_by_signal(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	peer_sh(p, 1, "kill -SEGV $$", 0);
	r = peer_wait(p, 1);
	assert_int_equal(r->exit.signal, SIGSEGV);
	assert_int_equal(r->exit.code, 0);
	assert_int_equal(r->exit.timed_out, 0);
}

/* printf writes each argument and a NUL, so that nothing can be mistaken. */
static void
test_arguments_arrive_byte_for_byte(void **state)
{
	static const char want[] = "a b\0\0new\nline\0'\"\\$*\0\377\200\303\0-n\0";
	const char *const argv[] = {"/usr/bin/printf", "%s\\0",	       "a b", "",  "new\nline",
				    "'\"\\$*",	       "\377\200\303", "-n",  NULL};
	struct peer_exec e = {.argv = argv};
	struct peer_run *r = run(*state, 1, &e);

	assert_int_equal(r->exit.code, 0);
	assert_int_equal(r->out_len, sizeof(want) - 1);
	assert_memory_equal(r->out, want, sizeof(want) - 1);
}

static void
test_long_arguments(void **state)
{
	enum { SIZE = 100 << 10 };
	char *big = malloc(SIZE + 1);
	const char *argv[] = {"/bin/sh", "-c", "printf %s \"$1\"", "sh", big, NULL};
	struct peer_exec e = {.argv = argv};
	struct peer_run *r;
	size_t i;

	assert_non_null(big);
	for (i = 0; i < SIZE; i++)
		big[i] = (char)(i % 255 + 1);
	big[SIZE] = '\0';
	r = run(*state, 1, &e);
	assert_int_equal(r->out_len, SIZE);
	assert_memory_equal(r->out, big, SIZE);
	free(big);
}

static void
test_environment(void **state)
{
	const char *script = "echo \"$HOME,$USER,$A,${E-unset},$PATH\"";
	const char *env[] = {"A=x=y", "E=", "HOME=/elsewhere", NULL};
	struct peer_exec e = {.argv = ARGV("/bin/sh", "-c", script), .env = env};
	struct peer_run *r = run(*state, 1, &e);

	assert_string_equal(r->out, "/elsewhere,root,x=y,,"
				    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:"
				    "/bin\n");
}

static void
test_clean_environment(void **state)
{
	struct peer_exec e = {
	    .argv = ARGV("env"), .env = ARGV("ONE=1", "TWO="), .flags = PROTO_EXEC_CLEAN_ENV};
	struct peer_run *r = run(*state, 1, &e);

	assert_string_equal(r->out, "ONE=1\nTWO=\n");
}

static void
test_path_is_the_commands_own(void **state)
{
	struct peer_exec e = {.argv = ARGV("sh", "-c", "echo found"),
			      .env = ARGV("PATH=/nowhere:/bin")};
	struct peer_exec none = {.argv = ARGV("sh", "-c", ":"), .env = ARGV("PATH=/nowhere")};

	assert_string_equal(run(*state, 1, &e)->out, "found\n");
	assert_error(run(*state, 2, &none), PROTO_STAGE_EXEC, ENOENT, "sh");
}

static void
test_directory(void **state)
{
	struct peer_exec here = {.argv = ARGV("pwd"), .cwd = "/usr/bin"};
	struct peer_exec root = {.argv = ARGV("pwd")};
	struct peer_exec missing = {.argv = ARGV("pwd"), .cwd = "/no/such"};
	struct peer_exec file = {.argv = ARGV("pwd"), .cwd = "/bin/sh"};

	assert_string_equal(run(*state, 1, &here)->out, "/usr/bin\n");
	assert_string_equal(run(*state, 2, &root)->out, "/\n");
	assert_error(run(*state, 3, &missing), PROTO_STAGE_CWD, ENOENT, "/no/such");
	assert_error(run(*state, 4, &file), PROTO_STAGE_CWD, ENOTDIR, "/bin/sh");
}

struct file_case {
	const char *name, *content;
	mode_t mode;
	int err;
	const char *says;
};

static const struct file_case file_cases[] = {
    {"plain-text", "just some words\n", 0755, ENOEXEC, "not a program"},
    {"not-executable", "#!/bin/sh\n", 0644, EACCES, "not executable"},
    {"no-interpreter", "#!/no/such/interpreter\n", 0755, ENOENT, "its interpreter"},
    {"empty", "", 0755, ENOEXEC, "not a program"},
};

static void
check_file_case(struct peer *p, uint32_t stream, const char *dir, const struct file_case *c)
{
	char path[128], pathvar[128];
	struct peer_exec direct = {.argv = ARGV(path)};
	struct peer_exec searched = {.argv = ARGV(c->name), .env = ARGV(pathvar)};
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, c->name);
	(void)snprintf(pathvar, sizeof(pathvar), "PATH=%s:/bin", dir);
	f = fopen(path, "we");
	assert_non_null(f);
	(void)fputs(c->content, f);
	(void)fclose(f);
	assert_int_equal(chmod(path, c->mode), 0);
	peer_exec(p, stream, &direct);
	assert_error(peer_wait(p, stream), PROTO_STAGE_EXEC, c->err, c->says);
	assert_error(&p->run[stream], PROTO_STAGE_EXEC, c->err, path);
	peer_exec(p, stream + 1, &searched);
	assert_error(peer_wait(p, stream + 1), PROTO_STAGE_EXEC, c->err, c->name);
	assert_int_equal(unlink(path), 0);
}

static void
test_programs_that_cannot_run(void **state)
{
	struct peer_exec missing = {.argv = ARGV("/no/such/program")};
	struct peer_exec unfound = {.argv = ARGV("no-such-program")};
	struct peer_exec nameless = {.argv = ARGV("")};
	struct peer_exec folder = {.argv = ARGV("/usr")};
	struct peer_exec below = {.argv = ARGV("/bin/sh/x")};
	char dir[] = "/tmp/test_agent.XXXXXX";
	size_t i;

	assert_error(run(*state, 1, &missing), PROTO_STAGE_EXEC, ENOENT, "/no/such/program");
	assert_error(run(*state, 2, &unfound), PROTO_STAGE_EXEC, ENOENT, "not found in PATH");
	assert_error(run(*state, 3, &nameless), PROTO_STAGE_EXEC, ENOENT, "not found");
	assert_error(run(*state, 4, &folder), PROTO_STAGE_EXEC, EACCES, "is a directory");
	assert_error(run(*state, 5, &below), PROTO_STAGE_EXEC, ENOTDIR, "/bin/sh/x");
	assert_non_null(mkdtemp(dir));
	for (i = 0; i < sizeof(file_cases) / sizeof(file_cases[0]); i++)
		check_file_case(*state, (uint32_t)(10 + 2 * i), dir, &file_cases[i]);
	assert_int_equal(rmdir(dir), 0);
}

/* One argument may have 128 KiB: the kernel's limit, not ours. */
static void
test_argument_beyond_the_kernels_limit(void **state)
{
	enum { SIZE = 200 << 10 };
	char *big = malloc(SIZE + 1);
	struct peer_exec e = {.argv = ARGV("/bin/echo", big)};

	assert_non_null(big);
	memset(big, 'x', SIZE);
	big[SIZE] = '\0';
	assert_error(run(*state, 1, &e), PROTO_STAGE_EXEC, E2BIG, "/bin/echo");
	peer_ping(*state);
	free(big);
}

static void
test_user(void **state)
{
	const char *script = "id -u; id -g; echo \"$HOME,$USER\"; id -G";
	const char *const *argv = ARGV("sh", "-c", script);
	struct peer_exec name = {.argv = argv, .user = "daemon"};
	struct peer_exec number = {.argv = argv, .user = "4242"};
	struct peer_exec both = {.argv = argv, .user = "4242:77"};
	struct peer_exec group = {.argv = argv, .user = "daemon:bin"};
	struct peer_exec closed = {.argv = argv, .user = "daemon", .cwd = "/root"};

	if (geteuid() != 0) {
		print_message("# skipped: only root can become somebody else\n");
		skip();
	}
	assert_string_equal(run(*state, 1, &name)->out, "1\n1\n/usr/sbin,daemon\n1\n");
	assert_string_equal(run(*state, 2, &number)->out, "4242\n4242\n/,4242\n4242\n");
	assert_string_equal(run(*state, 3, &both)->out, "4242\n77\n/,4242\n77\n");
	assert_string_equal(run(*state, 4, &group)->out, "1\n2\n/usr/sbin,daemon\n2\n");
	assert_error(run(*state, 5, &closed), PROTO_STAGE_CWD, EACCES, "/root");
}

static void
test_no_such_user(void **state)
{
	static const struct {
		const char *user;
		int err;
	} rows[] = {
	    {"no-such-user", ENOENT}, {"0:no-such-group", ENOENT},
	    {":0", EINVAL},	      {"0:", EINVAL},
	    {"4294967295", EINVAL},   {"0:4294967295", EINVAL},
	    {"4294967296", ENOENT},   {"-1", ENOENT},
	};
	size_t i;

	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct peer_exec e = {.argv = ARGV("true"), .user = rows[i].user};

		assert_error(run(*state, (uint32_t)i + 1, &e), PROTO_STAGE_USER, rows[i].err,
			     rows[i].user);
	}
}

/* Nothing of the agent's leaks into a command: descriptors, signal mask,
 * ignored signals, session. */
static void
test_clean_start(void **state)
{
	struct peer *p = *state;
	struct peer_run *r;

	peer_sh(p, 1, "ls /proc/self/fd | tr '\\n' ' '", 0);
	peer_sh(p, 2, "grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2 | uniq", 0);
	peer_sh(p, 3, "read -r l </proc/self/stat; set -- $l; [ $$ = $5 ] && [ $$ = $6 ] && umask",
		0);
	peer_sh(p, 4, "readlink /proc/self/fd/0; cat", 0);
	/* ls itself opens the directory, as 3. */
	assert_string_equal(peer_wait(p, 1)->out, "0 1 2 3 ");
	assert_string_equal(peer_wait(p, 2)->out, "0000000000000000\n");
	r = peer_wait(p, 3);
	assert_string_equal(r->out, "0022\n");
	assert_string_equal(peer_wait(p, 4)->out, "/dev/null\n");
}

/* The peer cannot crowd out what it did not ask for: 128 streams, no more. */
static void
test_too_many_streams(void **state)
{
	struct peer *p = *state;
	uint32_t i;

	for (i = 1; i <= PROTO_STREAMS_MAX; i++)
		peer_sh(p, i, "read x", PROTO_EXEC_STDIN);
	peer_sh(p, i, ":", 0);
	assert_error(peer_wait(p, i), PROTO_STAGE_REQUEST, EAGAIN, "too many");
	for (i = 1; i <= PROTO_STREAMS_MAX; i++)
		peer_stdin(p, i, "\n", 1, false);
	for (i = 1; i <= PROTO_STREAMS_MAX; i++)
		assert_int_equal(peer_wait(p, i)->exit.code, 0);
	peer_sh(p, i + 1, "exit 3", 0);
	assert_int_equal(peer_wait(p, i + 1)->exit.code, 3);
}

static unsigned
descriptors_of(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir) != NULL)
		n++;
	(void)closedir(dir);
	return n;
}

/* A command does not wait for the agent to prepare another one while one is left;
 * what is missing is made once nothing runs. */
static void
test_spares_are_made_out_of_the_way(void **state)
{
	struct peer *p = *state;
	unsigned before, during;

	peer_ping(p); /* all is set up */
	before = descriptors_of(p->pid);
	peer_sh(p, 1, "read x", PROTO_EXEC_STDIN);
	peer_ping(p);
	during = descriptors_of(p->pid);
	peer_stdin(p, 1, "\n", 1, false);
	assert_int_equal(peer_wait(p, 1)->exit.code, 0);
	peer_ping(p);
	/* gone: the child's ends of two pipes; new: its standard input */
	assert_int_equal(during, before - 1);
	assert_int_equal(descriptors_of(p->pid), before);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, peer_setup, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_ready),
	    TEST(test_output_and_status),
	    TEST(test_exit_by_signal),
	    TEST(test_arguments_arrive_byte_for_byte),
	    TEST(test_long_arguments),
	    TEST(test_environment),
	    TEST(test_clean_environment),
	    TEST(test_path_is_the_commands_own),
	    TEST(test_directory),
	    TEST(test_programs_that_cannot_run),
	    TEST(test_argument_beyond_the_kernels_limit),
	    TEST(test_user),
	    TEST(test_no_such_user),
	    TEST(test_clean_start),
	    TEST(test_too_many_streams),
	    TEST(test_spares_are_made_out_of_the_way),
	};

	return cmocka_run_group_tests_name("agent", tests, NULL, NULL);
}
