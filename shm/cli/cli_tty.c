/* SPDX-License-Identifier: MIT
 *
 * cli_tty.c - sets our terminal raw, and puts it back. Runs in vmpool; owns the mode of
 * its terminal meanwhile.
 *
 * The signals that people send are watched by whoever runs the command (cli_stream.c),
 * and end in cli_tty_restore. All others that kill, our own bugs among them, get there by
 * a handler. Nobody can help against SIGKILL.
 */
#include "shm/cli/cli_tty.h"

#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static const int deadly[] = {SIGABRT, SIGALRM, SIGBUS,	SIGFPE,	 SIGILL,    SIGPROF, SIGSEGV,
			     SIGSYS,  SIGTRAP, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ};

static struct termios before;
static volatile sig_atomic_t is_raw;

void
cli_tty_size(unsigned short *rows, unsigned short *cols)
{
	struct winsize ws;

	*rows = 24;
	*cols = 80;
	for (int fd = 0; fd < 3; fd++) {
		if (ioctl(fd, TIOCGWINSZ, &ws) < 0 || ws.ws_row == 0 || ws.ws_col == 0)
			continue;
		*rows = ws.ws_row;
		*cols = ws.ws_col;
		return;
	}
}

void
cli_tty_restore(void)
{
	if (is_raw)
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
	is_raw = 0;
}

static void
restore_and_die(int signal)
{
	cli_tty_restore();
	(void)raise(signal); /* SA_RESETHAND: now it kills */
}

void
cli_tty_raw(void)
{
	struct sigaction sa = {.sa_handler = restore_and_die,
			       .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
	struct sigaction old;
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return;
	for (size_t i = 0; i < CLI_COUNT(deadly); i++)
		if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
			(void)sigaction(deadly[i], &sa, NULL);
	raw = before;
	cfmakeraw(&raw);
	is_raw = 1;
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}
