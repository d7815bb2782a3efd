/* SPDX-License-Identifier: MIT
 *
 * tty.c - makes the terminals of commands. Runs in the agent; owns nothing.
 */
#include "kvm/guest/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

int
tty_open(int *master, int *slave, const struct proto_winsize *size)
{
	_cleanup_(util_closep) int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || unlockpt(fd) < 0)
		return -errno;
	/* Through the master: the path may lead elsewhere in a guest that mounts things. */
	*slave = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0)
		return -errno;
	tty_resize(fd, size);
	*master = fd;
	fd = -1;
	return 0;
}

void
tty_resize(int master, const struct proto_winsize *size)
{
	const struct winsize ws = {.ws_row = size->rows, .ws_col = size->cols};

	(void)ioctl(master, TIOCSWINSZ, &ws); /* fails on no terminal of ours */
}

int
tty_type_eof(int master)
{
	struct termios t;

	if (tcgetattr(master, &t) < 0)
		return -errno;
	/* A program that has turned it off sees every key as it is. */
	if ((t.c_lflag & ICANON) == 0 || t.c_cc[VEOF] == _POSIX_VDISABLE)
		return 0;
	return write(master, &t.c_cc[VEOF], 1) < 0 ? -errno : 0;
}
