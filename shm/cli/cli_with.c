/* SPDX-License-Identifier: MIT
 *
 * cli_with.c - vmpool with: borrow a VM for as long as a program of this host runs,
 * which finds it by $VMPOOL_LEASE. Runs in vmpool; owns the lease.
 *
 * Signals. While waiting for a VM, a signal simply ends this process. Then the program
 * is what a user means: signals that somebody sends to this process are passed on to it;
 * those that the terminal sends, it gets from there itself. Either way this process
 * waits for its end, and gives the VM back after it. If it is killed all the same, the
 * lease ends with it, and the program finds its VM gone.
 */
#include "shm/cli/cli_env.h"
#include "shm/cli/cli_vm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/* Read them from a descriptor from now on; what our parent has us ignore stays ignored. */
static int
watch_signals(sigset_t *old)
{
	struct sigaction sa;
	sigset_t set;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < CLI_COUNT(passed_on); i++)
		if (sigaction(passed_on[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
			(void)sigaddset(&set, passed_on[i]);
	(void)sigprocmask(SIG_BLOCK, &set, old);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void __attribute__((noreturn)) become(char **argv, const char *lease, const sigset_t *mask)
{
	int error;

	(void)sigprocmask(SIG_SETMASK, mask, NULL);
	if (setenv(CLI_VM_LEASE, lease, 1) == 0)
		(void)execvp(argv[0], argv);
	error = errno;
	cli_say("%s: %s", argv[0], strerror(error));
	_exit(error == ENOENT || error == ENOTDIR ? CLI_NOT_FOUND : CLI_NOT_EXECUTABLE);
}

static void
pass_on(int signal_fd, int pidfd)
{
	struct signalfd_siginfo si;

	while (read(signal_fd, &si, sizeof(si)) == sizeof(si))
		/* SI_KERNEL, above 0: the terminal's, which goes to all who run in it. */
		if (si.ssi_code <= 0)
			(void)pidfd_send_signal(pidfd, (int)si.ssi_signo, NULL, 0);
}

/* Until the program ends; its exit status. */
static int
wait_for(pid_t pid, int pidfd, int signal_fd)
{
	struct pollfd p[] = {{.fd = pidfd, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
	int status;

	while (p[0].revents == 0) {
		if (poll(p, CLI_COUNT(p), -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents != 0)
			pass_on(signal_fd, pidfd);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return CLI_COMMAND_FAILED;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Run it with this lease; its exit status. */
static int
run(char **argv, const char *lease)
{
	sigset_t mask;
	int signal_fd = watch_signals(&mask), pidfd, status;
	pid_t pid = fork();

	if (pid == 0)
		become(argv, lease, &mask);
	pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
	if (pid < 0) {
		cli_say("cannot start %s: %s", argv[0], strerror(errno));
		status = CLI_COMMAND_FAILED;
	} else {
		status = wait_for(pid, pidfd, signal_fd);
	}
	if (pidfd >= 0)
		(void)close(pidfd);
	if (signal_fd >= 0)
		(void)close(signal_fd);
	return status;
}

int
cli_vm_lend(struct vmpool *pool, struct vmpool_vm *vm, char **argv)
{
	char lease[VMPOOL_LEASE_SIZE];
	int r = vmpool_lease(vm, lease, sizeof(lease)), status = CLI_COMMAND_FAILED;

	if (r < 0)
		cli_say_error(pool, r);
	else
		status = run(argv, lease);
	r = vmpool_release(vm);
	/* The program may have noticed, and cannot know why. */
	if (r < 0)
		cli_say("the VM was lost while %s ran: %s", argv[0], vmpool_error(pool));
	return status;
}

static int
borrow_and_run(const char *pool, int64_t wait_ms, char **argv)
{
	struct cli_vm vm;
	int status;

	if (cli_vm_borrow(&vm, pool, wait_ms) < 0)
		return CLI_COMMAND_FAILED;
	status = cli_vm_lend(vm.pool, vm.vm, argv);
	vmpool_detach(vm.pool);
	return status;
}

static int
with_main(const struct cli_command *cmd, const char *pool, int argc, char **argv)
{
	struct cli_list env = {.n = 0};
	int64_t wait_ms = 60000;
	const struct cli_option options[] = {
	    {'e', "env", "K=V", "add to the environment of every command in the VM", CLI_LIST,
	     &env},
	    {0, "wait", "SECS", "wait at most SECS for a VM (default: 60)", CLI_SECONDS, &wait_ms},
	};
	int status, first, r;

	first = cli_parse(cmd, options, CLI_COUNT(options), argc, argv, &status);
	if (first < 0)
		return status;
	if (first == argc)
		return cli_bad_usage(cmd, "no command given");
	if (!cli_env_check(cmd, &env))
		return cmd->usage_status;
	r = cli_env_keep(&env);
	if (r < 0) {
		cli_say("cannot set the environment: %s", strerror(-r));
		return CLI_COMMAND_FAILED;
	}
	return borrow_and_run(pool, wait_ms, argv + first);
}

const struct cli_command cli_with = {
    .name = "with",
    .args = "[OPTION]... [--] ARGV...",
    .summary = "Run a program on this host that has a VM while it runs.",
    .notes =
	"The program finds VMPOOL_LEASE in its environment: every vmpool command that it starts\n"
	"uses that one VM, several at a time if it likes. The VM is given back when the program\n"
	"ends. A vmpool with inside borrows another VM for what it runs. What -e adds stands in\n"
	"the program's environment as VMPOOL_ENV_K=V, and can be changed there. Exit status: the\n"
	"program's; 128+N if signal N ended it; 125 if the pool failed; 126 if the program cannot\n"
	"be executed; 127 if it is not found.\n",
    .example = "  vmpool with -- sh -c 'tar c src | vmpool exec -i -- tar x\n"
	       "                        vmpool exec -C /src -- make check'\n",
    .usage_status = CLI_COMMAND_FAILED,
    .run = with_main,
};
