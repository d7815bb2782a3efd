/* SPDX-License-Identifier: MIT
 *
 * install.c - finds the parts of an installation relative to the running
 * program, so that a build tree and any PREFIX work alike. Used by the
 * supervisor and the worker; keeps no state.
 */
#include "shm/install.h"

#include <limits.h>
#include <string.h>

/* The first of the folders that holds a readable file of that name. */
static int
find(char *buf, size_t len, const char *override, const char *const *dirs, const char *file)
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (override != NULL && override[0] != '\0') {
		(void)snprintf(buf, len, "%s", override);
		return access(buf, R_OK) == 0 ? 0 : -errno;
	}
	if (n < 0)
		return -errno;
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash == NULL)
		return -ENOENT;
	*slash = '\0';
	for (; *dirs != NULL; dirs++) {
		int m = snprintf(buf, len, "%s/%s/%s", exe, *dirs, file);

		if (m > 0 && (size_t)m < len && access(buf, R_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

int
install_worker(char *buf, size_t len, char *err, size_t errlen)
{
	static const char *const dirs[] = {"../libexec", "../libexec/vmpool", ".", NULL};

	if (find(buf, len, getenv("VMPOOL_WORKER"), dirs, "vmpool-worker") < 0)
		return fail(ENOENT, err, errlen,
			    "vmpool-worker not found near this program (reinstall, or set "
			    "VMPOOL_WORKER to its path)");
	return 0;
}

int
install_guest(char *buf, size_t len, const char *file, char *err, size_t errlen)
{
	static const char *const dirs[] = {"../guest/current", "../share/vmpool/guest",
					   "../../share/vmpool/guest", NULL};
	const char *dir = getenv("VMPOOL_GUEST");
	char path[PATH_MAX];

	if (dir != NULL)
		(void)snprintf(path, sizeof(path), "%s/%s", dir, file);
	if (find(buf, len, dir == NULL ? NULL : path, dirs, file) < 0)
		return fail(
		    ENOENT, err, errlen,
		    "no guest file %s found (build it with `make guest`, or set VMPOOL_GUEST "
		    "to its folder)",
		    file);
	return 0;
}
