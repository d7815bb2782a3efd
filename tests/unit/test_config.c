/* SPDX-License-Identifier: MIT
 *
 * test_config.c - vmpoold's command line and configuration file (supervisor/config.c).
 */
#include "supervisor/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <string.h>

static char dir[] = "/tmp/vmpool-test-config-XXXXXX";
static char file[64];
static struct config cfg;
static char err[1024];

#define LOAD(...) load((char *[]){(char *)"vmpoold", __VA_ARGS__ __VA_OPT__(, ) NULL})
#define A(s) ((char *)(uintptr_t)(s))

static int
load(char **argv)
{
	int argc = 0;

	while (argv[argc] != NULL)
		argc++;
	err[0] = '\0';
	return config_load(&cfg, argc, argv, err, sizeof(err));
}

static void
write_file(const char *text)
{
	FILE *f = fopen(file, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
}

static void
assert_refused(int r, const char *words)
{
	assert_true(r < 0);
	if (strstr(err, words) == NULL)
		fail_msg("'%s' does not say '%s'", err, words);
	assert_null(strchr(err, '\n'));
}

static void
test_defaults(void **state)
{
	(void)state;
	assert_int_equal(LOAD(), 0);
	assert_string_equal(cfg.name, "default");
	assert_int_equal(cfg.min_idle, 1);
	assert_int_equal(cfg.max_idle, 16);
	assert_int_equal(cfg.max_total, 32);
	assert_int_equal(cfg.max_idle_time, 30);
	assert_int_equal(cfg.health_interval, 0);
	assert_int_equal(cfg.memory_mib, 128);
	assert_int_equal(cfg.vcpus, 1);
	assert_string_equal(cfg.accel, "auto");
	assert_false(cfg.daemonize);
}

static void
test_command_line(void **state)
{
	(void)state;
	assert_int_equal(LOAD(A("--min-idle"), A("2"), A("--name=blue"), A("--accel"), A("tcg"),
			      A("--daemonize"), A("--kernel=/a b")),
			 0);
	assert_int_equal(cfg.min_idle, 2);
	assert_string_equal(cfg.name, "blue");
	assert_string_equal(cfg.accel, "tcg");
	assert_string_equal(cfg.kernel, "/a b");
	assert_true(cfg.daemonize);
	assert_int_equal(LOAD(A("--daemonize"), A("--foreground")), 0);
	assert_false(cfg.daemonize);
	assert_int_equal(LOAD(A("--help")), 0);
	assert_true(cfg.help);
}

static void
test_bad_command_lines(void **state)
{
	(void)state;
	assert_refused(LOAD(A("--colour"), A("red")), "unknown option '--colour'");
	assert_refused(LOAD(A("-z")), "unknown option '-z'");
	assert_refused(LOAD(A("--min-idle")), "--min-idle needs a value");
	assert_refused(LOAD(A("--daemonize=1")), "--daemonize takes no value");
	assert_refused(LOAD(A("stray")), "unexpected argument 'stray'");
	assert_refused(LOAD(A("--min-idle"), A("two")), "--min-idle: 'two' is not a whole number");
	assert_refused(LOAD(A("--min-idle"), A("-1")), "not a whole number");
	assert_refused(LOAD(A("--min-idle"), A("")), "not a whole number");
	assert_refused(LOAD(A("--min-idle"), A(" 1")), "not a whole number");
	assert_refused(LOAD(A("--min-idle"), A("99999999999999999999")), "not within");
	assert_refused(LOAD(A("--memory"), A("31")), "memory: 31 is not within 32 to 3072");
	assert_refused(LOAD(A("--vcpus"), A("9")), "vcpus: 9 is not within 1 to 8");
	assert_refused(LOAD(A("--accel"), A("kv")), "'kv' is not one of auto|kvm|tcg");
	assert_refused(LOAD(A("--accel"), A("auto|kvm")), "is not one of");
	assert_refused(LOAD(A("--kernel"), A("")), "kernel: empty value");
	assert_refused(LOAD(A("--name"), A("a/b")), "");
	assert_refused(LOAD(A("--name"), A("0123456789012345678901234567890123456789"
					   "0123456789012345678901234567890123456789")),
		       "name: longer than 63 bytes");
}

static void
test_validity_rule(void **state)
{
	(void)state;
	assert_refused(LOAD(A("--max-idle"), A("0")), "max-idle: 0 is not within");
	assert_refused(LOAD(A("--min-idle"), A("5"), A("--max-idle"), A("4")),
		       "min-idle 5 is greater than max-idle 4");
	assert_refused(LOAD(A("--max-idle"), A("9"), A("--max-total"), A("8")),
		       "max-idle 9 is greater than max-total 8");
	assert_int_equal(
	    LOAD(A("--min-idle"), A("3"), A("--max-idle"), A("3"), A("--max-total"), A("3")), 0);
	/* Only the default of max-idle gives way. */
	assert_int_equal(LOAD(A("--max-total"), A("2")), 0);
	assert_int_equal(cfg.max_idle, 2);
	assert_refused(LOAD(A("--max-total"), A("2"), A("--max-idle"), A("16")), "greater");
}

static void
test_file(void **state)
{
	(void)state;
	write_file("# a pool\n[pool]\nmin-idle = 3\n; note\nname=green\nmemory : 256\n"
		   "kernel = /k\n");
	assert_int_equal(LOAD(A("--config"), file), 0);
	assert_int_equal(cfg.min_idle, 3);
	assert_string_equal(cfg.name, "green");
	assert_int_equal(cfg.memory_mib, 256);
	assert_string_equal(cfg.kernel, "/k");
	/* The command line wins, wherever --config stands. */
	assert_int_equal(LOAD(A("--min-idle=4"), A("--config"), file, A("--name"), A("red")), 0);
	assert_int_equal(cfg.min_idle, 4);
	assert_string_equal(cfg.name, "red");
	assert_int_equal(cfg.memory_mib, 256);
}

static void
refuse_file(const char *text, const char *line, const char *words)
{
	char where[128];

	write_file(text);
	(void)snprintf(where, sizeof(where), "%s:%s: ", file, line);
	assert_refused(LOAD(A("--config"), file), where);
	assert_refused(-1, words);
}

static void
test_bad_files(void **state)
{
	static char text[20000];

	(void)state;
	refuse_file("[pool]\nmin-idle = 1\ncolour = red\n", "3", "unknown key 'colour'");
	refuse_file("[pool]\nmin-idle = many\n", "2", "'many' is not a whole number");
	refuse_file("[pool]\n\n\nvcpus = 0\n", "4", "vcpus: 0 is not within 1 to 8");
	refuse_file("[pool]\nmin-idle 3\n", "2", "neither");
	refuse_file("min-idle = 3\n", "1", "not in section [pool]");
	refuse_file("[pond]\nmin-idle = 3\n", "2", "not in section [pool]");
	refuse_file("[pool]\nmin-idle = 3\nmin-idle = 4\n", "3", "given twice");
	refuse_file("[pool]\nmin-idle = 3\n  max-idle = 4 5\n", "3", "not a whole number");
	refuse_file("[pool]\nconfig = /x\n", "2", "unknown key 'config'");
	refuse_file("[pool]\ndaemonize = 1\n", "2", "unknown key 'daemonize'");
	/* The first of two errors is the one reported. */
	refuse_file("[pool]\nnonsense\ncolour = red\n", "2", "neither");
	refuse_file("[pool]\nkernel =\n", "2", "empty value");
	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "[pool]\nkernel = /", 17);
	refuse_file(text, "2", "line too long");

	assert_refused(LOAD(A("--config"), A("/nonexistent.conf")),
		       "/nonexistent.conf: No such file");
	assert_refused(LOAD(A("--config"), dir), "directory");
	/* Valid by itself, contradictory together. */
	write_file("[pool]\nmax-idle = 3\n");
	assert_refused(LOAD(A("--config"), file, A("--min-idle"), A("4")), "greater");
}

static unsigned nchanged;
static char changes[1024];

static void
note_change(const char *line)
{
	size_t len = strlen(changes);

	nchanged++;
	(void)snprintf(changes + len, sizeof(changes) - len, "%s;", line);
}

static void
test_update(void **state)
{
	struct config running;

	(void)state;
	assert_int_equal(LOAD(), 0);
	running = cfg;
	nchanged = 0;
	assert_int_equal(config_update(&running, &cfg, 32, note_change, err, sizeof(err)), 0);
	assert_int_equal(nchanged, 0);

	assert_int_equal(LOAD(A("--min-idle=4"), A("--memory=512"), A("--name=x")), 0);
	assert_int_equal(config_update(&running, &cfg, 32, note_change, err, sizeof(err)), 0);
	assert_int_equal(nchanged, 3);
	assert_int_equal(running.min_idle, 4);
	assert_int_equal(running.memory_mib, 128);
	assert_string_equal(running.name, "default");
	assert_non_null(strstr(changes, "min-idle: 4, was 1;"));
	assert_non_null(strstr(changes, "memory: stays 128 until a restart;"));

	assert_int_equal(LOAD(A("--max-total=33"), A("--min-idle=5")), 0);
	assert_int_equal(config_update(&running, &cfg, 32, note_change, err, sizeof(err)), -ERANGE);
	assert_int_equal(running.min_idle, 4);
	assert_int_equal(nchanged, 3);
}

static int
setup(void **state)
{
	(void)state;
	if (mkdtemp(dir) == NULL)
		return -1;
	(void)snprintf(file, sizeof(file), "%s/pool.conf", dir);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	(void)unlink(file);
	return rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_command_line),
	    cmocka_unit_test(test_bad_command_lines),
	    cmocka_unit_test(test_validity_rule),
	    cmocka_unit_test(test_file),
	    cmocka_unit_test(test_bad_files),
	    cmocka_unit_test(test_update),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
