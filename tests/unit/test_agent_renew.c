/* SPDX-License-Identifier: MIT
 *
 * test_agent_renew.c - RENEW, as far as that goes without a machine to renew:
 * the ids, their files, the order among other frames, and what fails. The agent
 * runs on this machine and is told to leave its kernel alone; random numbers and
 * clock are for tests in real guests.
 */
#include "tests/lib/agent_peer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define BOOT_LEN 37u
#define MACHINE_LEN 33u

static const struct proto_renew first = {
    .wall_ns = 1,
    .boot_id = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .machine_id = {0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8, 0xf7, 0xf6, 0xf5, 0xf4, 0xf3,
		   0xf2, 0xf1, 0xf0},
};
static const char first_boot[] = "00010203-0405-4607-8809-0a0b0c0d0e0f\n";
static const char first_machine[] = "fffefdfcfbfa49f8b7f6f5f4f3f2f1f0\n";

static const char *
path_of(const struct peer *p, const char *file)
{
	static char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", p->renew, file);
	return path;
}

static void
read_id(const struct peer *p, const char *file, char *text, size_t len)
{
	FILE *f = fopen(path_of(p, file), "re");
	size_t n;

	assert_non_null(f);
	n = fread(text, 1, len, f);
	(void)fclose(f);
	assert_true(n < len);
	text[n] = '\0';
}

static void
assert_ids(const struct peer *p, const char *boot, const char *machine)
{
	char text[64];

	read_id(p, "boot_id", text, sizeof(text));
	assert_string_equal(text, boot);
	read_id(p, "machine-id", text, sizeof(text));
	assert_string_equal(text, machine);
}

static uint64_t
wall_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void
test_random_ids_from_the_start(void **state)
{
	struct peer *p = *state, *q;
	char a[64], b[64], c[64];
	void *other;

	peer_ping(p); /* which says that all is set up */
	read_id(p, "boot_id", a, sizeof(a));
	assert_int_equal(strlen(a), BOOT_LEN);
	read_id(p, "machine-id", b, sizeof(b));
	assert_int_equal(strlen(b), MACHINE_LEN);
	assert_int_equal(peer_setup_renew(&other), 0);
	q = other;
	peer_ping(q);
	read_id(q, "boot_id", c, sizeof(c));
	assert_string_not_equal(a, c);
	read_id(q, "machine-id", c, sizeof(c));
	assert_string_not_equal(b, c);
	peer_free(q, 0);
}

static void
test_ids_and_answer(void **state)
{
	struct peer *p = *state;
	uint64_t before = wall_ns();

	peer_renew(p, &first);
	assert_int_equal(p->renewed.failed, 0);
	assert_int_equal(p->renewed.err, 0);
	assert_ids(p, first_boot, first_machine);
	/* Its clock is ours, and has not been set. */
	assert_true(p->renewed.wall_ns >= before && p->renewed.wall_ns <= wall_ns());
}

static void
test_files_are_rewritten_in_place(void **state)
{
	struct peer *p = *state;
	struct stat boot, machine, now;
	struct proto_renew r = first;
	char text[64], last[64] = "";
	unsigned i;

	peer_ping(p);
	assert_int_equal(stat(path_of(p, "boot_id"), &boot), 0);
	assert_int_equal(stat(path_of(p, "machine-id"), &machine), 0);
	for (i = 0; i < 1000; i++) {
		memcpy(r.boot_id, &i, sizeof(i));
		memcpy(r.machine_id, &i, sizeof(i));
		peer_renew(p, &r);
		assert_int_equal(p->renewed.failed, 0);
		read_id(p, "boot_id", text, sizeof(text));
		assert_string_not_equal(text, last);
		(void)strcpy(last, text);
	}
	assert_int_equal(stat(path_of(p, "boot_id"), &now), 0);
	assert_int_equal(now.st_ino, boot.st_ino);
	assert_int_equal(stat(path_of(p, "machine-id"), &now), 0);
	assert_int_equal(now.st_ino, machine.st_ino);
}

static void
remove_it(const char *path)
{
	assert_int_equal(unlink(path), 0);
}

static void
cut_it(const char *path)
{
	assert_int_equal(truncate(path, 3), 0);
}

static void
make_it_longer(const char *path)
{
	assert_int_equal(truncate(path, 100), 0);
}

static void
put_another_there(const char *path)
{
	FILE *f;

	remove_it(path);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_true(fputs("00010203-0405-4607-8809-0a0b0c0d0e0e\n", f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void
lead_it_astray(const char *path)
{
	remove_it(path);
	assert_int_equal(symlink("/dev/null", path), 0);
}

static void
forbid_it(const char *path)
{
	assert_int_equal(chmod(path, 0), 0);
}

/* What commands of the template may have done to the files. */
static void (*const spoilers[])(const char *path) = {
    remove_it, cut_it, make_it_longer, put_another_there, lead_it_astray, forbid_it};

static void
test_files_that_were_tampered_with(void **state)
{
	struct peer *p = *state;
	struct proto_renew other = first;
	size_t i;

	memset(other.boot_id, 0x11, sizeof(other.boot_id));
	for (i = 0; i < sizeof(spoilers) / sizeof(spoilers[0]); i++) {
		peer_renew(p, &other);
		spoilers[i](path_of(p, "boot_id"));
		spoilers[i](path_of(p, "machine-id"));
		peer_renew(p, &first);
		assert_int_equal(p->renewed.failed, 0);
		assert_ids(p, first_boot, first_machine);
	}
}

static void
block(const struct peer *p, const char *file)
{
	(void)unlink(path_of(p, file));
	assert_int_equal(mkdir(path_of(p, file), 0700), 0);
}

/* The first step that failed is named, and those after it are done all the same. */
static void
test_a_step_that_fails(void **state)
{
	struct peer *p = *state;
	char text[64];

	peer_ping(p);
	block(p, "machine-id");
	peer_renew(p, &first);
	assert_int_equal(p->renewed.failed, PROTO_RENEW_MACHINE_ID);
	assert_int_equal(p->renewed.err, EISDIR);
	read_id(p, "boot_id", text, sizeof(text));
	assert_string_equal(text, first_boot);
	block(p, "boot_id");
	peer_renew(p, &first);
	assert_int_equal(p->renewed.failed, PROTO_RENEW_BOOT_ID);
	assert_int_equal(p->renewed.err, EISDIR);
	assert_int_equal(rmdir(path_of(p, "boot_id")), 0);
	assert_int_equal(rmdir(path_of(p, "machine-id")), 0);
	peer_renew(p, &first);
	assert_int_equal(p->renewed.failed, 0);
	assert_ids(p, first_boot, first_machine);
}

/* Among other frames, and while a command of the template runs. */
static void
test_order(void **state)
{
	struct peer *p = *state;
	char script[128];
	uint32_t i;

	(void)snprintf(script, sizeof(script), "read x; cat %s/boot_id", p->renew);
	peer_sh(p, 1, script, PROTO_EXEC_STDIN);
	peer_ping(p);
	peer_send(p, PROTO_RENEW, 0, 0, &first, sizeof(first));
	for (i = 2; i < 10; i++)
		peer_sh(p, i, script + sizeof("read x;"), 0);
	for (i = 2; i < 10; i++)
		assert_string_equal(peer_wait(p, i)->out, first_boot);
	assert_int_equal(p->renewals, 1);
	peer_stdin(p, 1, "\n", 1, true);
	assert_string_equal(peer_wait(p, 1)->out, first_boot);
}

/* Not told what to renew, it leaves this machine alone. */
static void
test_without_a_directory(void **state)
{
	struct peer *p = *state;
	uint64_t before = wall_ns();

	peer_renew(p, &first);
	assert_int_equal(p->renewed.failed, PROTO_RENEW_ENTROPY);
	assert_int_equal(p->renewed.err, EPERM);
	assert_true(p->renewed.wall_ns >= before && p->renewed.wall_ns <= wall_ns());
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, peer_setup_renew, peer_teardown)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(test_random_ids_from_the_start),
	    TEST(test_ids_and_answer),
	    TEST(test_files_are_rewritten_in_place),
	    TEST(test_files_that_were_tampered_with),
	    TEST(test_a_step_that_fails),
	    TEST(test_order),
	    cmocka_unit_test_setup_teardown(test_without_a_directory, peer_setup, peer_teardown),
	};

	return cmocka_run_group_tests_name("agent renewal", tests, NULL, NULL);
}
