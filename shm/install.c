/* SPDX-License-Identifier: MIT
 *
 * install.c - finds the parts of an installation relative to the running
 * program, so that a build tree and any PREFIX work alike. Used by the
 * supervisor and the worker; keeps no state.
 */
#include "shm/install.h"

#include <limits.h>
#include <string.h>

/* The directory of our own program; "." if it cannot be told. */
static void
exe_dir(char *buf, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", buf, len - 1);
	char *slash;

	(void)snprintf(buf + MAX(n, 0), len - (size_t)MAX(n, 0), "%s", n < 0 ? "." : "");
	slash = strrchr(buf, '/');
	if (slash != NULL)
		*slash = '\0';
}

static void
beside(char *buf, size_t len, const char *const *places, unsigned n, const char *file)
{
	char dir[PATH_MAX];

	exe_dir(dir, sizeof(dir));
	for (unsigned i = 0; i < n; i++) {
		(void)snprintf(buf, len, "%s/%s/%s", dir, places[i], file);
		if (access(buf, F_OK) == 0)
			return;
	}
	(void)snprintf(buf, len, "%s/%s/%s", dir, places[0], file);
}

void
install_worker(char *buf, size_t len)
{
	static const char *const places[] = {"../libexec", "../libexec/vmpool"};
	const char *env = getenv("VMPOOL_WORKER");

	if (env != NULL && *env != '\0')
		(void)snprintf(buf, len, "%s", env);
	else
		beside(buf, len, places, ARRAY_SIZE(places), "vmpool-worker");
}

void
install_guest(char *buf, size_t len, const char *file)
{
	static const char *const places[] = {"../guest/current", "../share/vmpool/guest",
					     "../../share/vmpool/guest"};
	const char *env = getenv("VMPOOL_GUEST");

	if (env != NULL && *env != '\0')
		(void)snprintf(buf, len, "%s/%s", env, file);
	else
		beside(buf, len, places, ARRAY_SIZE(places), file);
}
