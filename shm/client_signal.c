/* SPDX-License-Identifier: MIT
 *
 * client_signal.c - signals by name. Runs in clients.
 */
#include "shm/client.h"

#include <ctype.h>
#include <signal.h>
#include <string.h>

/* What stands after the name, or the sign: 0..max, or -1. */
static int
small_number(const char *text, int max)
{
	int v = 0;

	if (*text == '\0')
		return -1;
	for (; *text != '\0' && v <= max; text++) {
		if (!isdigit((unsigned char)*text))
			return -1;
		v = v * 10 + (*text - '0');
	}
	return v <= max ? v : -1;
}

/* "RTMIN", "RTMIN+n", "RTMAX", "RTMAX-n": as programs see them, the C library's own two
 * left out. */
static int
real_time(const char *name)
{
	const bool from_min = strncasecmp(name, "RTMIN", 5) == 0;
	int n = 0;

	if (!from_min && strncasecmp(name, "RTMAX", 5) != 0)
		return -1;
	name += 5;
	if (*name == (from_min ? '+' : '-'))
		n = small_number(name + 1, SIGRTMAX - SIGRTMIN);
	else if (*name != '\0')
		n = -1;
	if (n < 0)
		return -1;
	return from_min ? SIGRTMIN + n : SIGRTMAX - n;
}

int
vmpool_signal(const char *name)
{
	const char *known;
	int n = small_number(name, CLIENT_SIGNAL_MAX);

	if (n > 0)
		return n;
	if (strncasecmp(name, "SIG", 3) == 0)
		name += 3;
	n = real_time(name);
	if (n > 0)
		return n;
	for (n = 1; n < SIGRTMIN; n++) {
		known = sigabbrev_np(n);
		if (known != NULL && strcasecmp(known, name) == 0)
			return n;
	}
	return VMPOOL_ECONFIG;
}
