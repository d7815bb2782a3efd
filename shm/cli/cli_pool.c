/* SPDX-License-Identifier: MIT
 *
 * cli_pool.c - vmpool warm, start and stop: the pool as a whole.
 */
#include "shm/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_GRACE_MS 20000 /* what ending itself may take once the leases have ended */

/* --- warm ------------------------------------------------------------------------------ */

static int
print_warm(struct vmpool *pool, int inserted, bool json)
{
	struct vmpool_stat *stats;
	struct vmpool_info info;
	unsigned long long idle = 0;
	size_t count;

	if (vmpool_info(pool, &info) < 0 || vmpool_stats(pool, &stats, &count) < 0) {
		cli_say_error(pool, VMPOOL_ERESTARTED);
		return CLI_FAILED;
	}
	for (size_t i = 0; i < count; i++)
		if (strcmp(stats[i].name, "idle_count") == 0)
			idle = stats[i].value;
	vmpool_stats_free(stats);
	if (json)
		return cli_json_print(json_pack("{s:i, s:I, s:i}", "inserted", inserted,
						"idle_count", (json_int_t)idle, "warm_target",
						(int)info.warm_target),
				      false);
	printf("%d inserted, %llu idle (target %u)\n", inserted, idle, info.warm_target);
	return cli_finish(0);
}

static int
warm_main(const struct cli_command *cmd, const char *name, int argc, char **argv)
{
	int64_t wait_ms = 60000;
	bool json = false;
	const struct cli_option options[] = {
	    {0, "wait", "SECS", "wait at most SECS until they are idle (default: 60)", CLI_SECONDS,
	     &wait_ms},
	    {0, "json", NULL, "print JSON", CLI_FLAG, &json},
	};
	struct vmpool *pool;
	unsigned target;
	int status, first, r;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first + 1 != argc || !cli_number(argv[first], INT_MAX, &target))
		return cli_bad_usage(cmd, "give one number of VMs");
	r = vmpool_attach(&pool, name);
	if (r < 0) {
		cli_say_error(NULL, r);
		return CLI_FAILED;
	}
	r = vmpool_warm(pool, target, wait_ms);
	if (r < 0) {
		cli_say_error(pool, r);
		status = CLI_FAILED;
	} else {
		status = print_warm(pool, r, json);
	}
	vmpool_detach(pool);
	return status;
}

const struct cli_command cli_warm = {
    .name = "warm",
    .args = "[OPTION]... N",
    .summary = "Keep N VMs idle, at most max-idle, and wait until they are.",
    .notes = "The pool holds N from then on, until another number is set (0: back to its\n"
	     "min-idle).\n",
    .example = "  vmpool warm 8\n",
    .usage_status = CLI_USAGE,
    .run = warm_main,
};

/* --- start ----------------------------------------------------------------------------- */

static int
print_running(const char *name, bool already)
{
	struct vmpool *pool;
	struct vmpool_info info;
	int r = vmpool_monitor(&pool, name);

	if (r == 0) {
		r = vmpool_info(pool, &info);
		vmpool_detach(pool);
	}
	if (r < 0) {
		cli_say_error(NULL, r);
		return CLI_FAILED;
	}
	printf("pool %s is %srunning: supervisor %d, %s (%s)\n", info.name,
	       already ? "already " : "", info.supervisor_pid, info.accel, info.why);
	return cli_finish(0);
}

/* vmpoold --daemonize returns when the pool serves clients; its exit status. */
static int
run_vmpoold(const char *name, int argc, char **argv)
{
	static const char *const dirs[] = {".", "../sbin", "../libexec", NULL};
	const char **args = calloc((size_t)argc + 5, sizeof(*args));
	char path[PATH_MAX];
	int n = 0, wstatus = 0;
	pid_t pid;

	if (args == NULL) {
		cli_say("out of memory");
		return CLI_FAILED;
	}
	args[n++] = cli_find_program(path, sizeof(path), dirs, "vmpoold") ? path : "vmpoold";
	args[n++] = "--daemonize";
	args[n++] = "--name";
	args[n++] = name;
	for (int i = 0; i < argc; i++)
		args[n++] = argv[i];
	pid = fork();
	if (pid == 0) {
		(void)execvp(args[0], (char *const *)(uintptr_t)args);
		cli_say("%s: %s (install it, or add its folder to PATH)", args[0], strerror(errno));
		_exit(CLI_FAILED);
	}
	free(args);
	if (pid < 0) {
		cli_say("cannot start vmpoold: %s", strerror(errno));
		return CLI_FAILED;
	}
	while (waitpid(pid, &wstatus, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(wstatus)) {
		cli_say("vmpoold was ended by signal %d", WTERMSIG(wstatus));
		return CLI_FAILED;
	}
	return WEXITSTATUS(wstatus);
}

static int
start_main(const struct cli_command *cmd, const char *name, int argc, char **argv)
{
	struct vmpool *pool;
	int status;

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		(void)cli_parse(cmd, NULL, 0, argc, argv, &status);
		return status;
	}
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--name") == 0 || strncmp(argv[i], "--name=", 7) == 0)
			return cli_bad_usage(cmd, "name the pool with: vmpool -p NAME start");
	if (vmpool_monitor(&pool, name) == 0) {
		vmpool_detach(pool);
		return print_running(name, true);
	}
	status = run_vmpoold(name, argc - 1, argv + 1);
	return status != 0 ? status : print_running(name, false);
}

const struct cli_command cli_start = {
    .name = "start",
    .args = "[OPTION OF VMPOOLD]...",
    .summary = "Start the pool in the background; returns when it serves clients.",
    .notes = "All options are passed on to vmpoold --daemonize; see vmpoold --help. A pool that\n"
	     "is running already is left as it is.\n",
    .example = "  vmpool start --min-idle 4 --memory 256\n  vmpool -p big start --memory 1024\n",
    .usage_status = CLI_USAGE,
    .run = start_main,
};

/* --- stop ------------------------------------------------------------------------------- */

static int
stop_main(const struct cli_command *cmd, const char *name, int argc, char **argv)
{
	int64_t wait_ms = 10000;
	const struct cli_option options[] = {
	    {0, "wait", "SECS", "wait at most SECS for leases to end (default: 10)", CLI_SECONDS,
	     &wait_ms},
	};
	int status, first, r;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first < argc)
		return cli_bad_usage(cmd, "unexpected argument \"%s\"", argv[first]);
	if (wait_ms > UINT32_MAX)
		return cli_bad_usage(cmd, "a wait of more than %u s", UINT32_MAX / 1000);
	r = vmpool_stop(name, (uint32_t)wait_ms, wait_ms + STOP_GRACE_MS);
	if (r < 0) {
		cli_say_error(NULL, r);
		return CLI_FAILED;
	}
	return 0;
}

const struct cli_command cli_stop = {
    .name = "stop",
    .args = "[OPTION]...",
    .summary = "Stop the pool; returns when it has ended.",
    .notes = "The pool serves nobody new from then on, and ends when its leases have ended or\n"
	     "the wait is over.\n",
    .example = "  vmpool stop\n",
    .usage_status = CLI_USAGE,
    .run = stop_main,
};
