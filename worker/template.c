/* SPDX-License-Identifier: MIT
 *
 * template.c - see template.h. Runs in builders, and in workers whose VM is copied.
 */
#include "worker/template.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

/* Not F_SEAL_WRITE: whoever makes the template has it mapped still. */
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)

int
template_make(int fds[TEMPLATE_FILES], uint32_t mem_mib, char *err, size_t errlen)
{
	int r;

	fds[TEMPLATE_MEM] = memfd_create("vmpool-template", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	fds[TEMPLATE_STATE] = memfd_create("vmpool-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fds[TEMPLATE_MEM] >= 0 && fds[TEMPLATE_STATE] >= 0 &&
	    ftruncate(fds[TEMPLATE_MEM], (off_t)mem_mib << 20) == 0)
		return 0;
	r = fail(errno, err, errlen, "no memory for the template: %s", strerror(errno));
	template_close(fds);
	return r;
}

int
template_seal(const int fds[TEMPLATE_FILES], char *err, size_t errlen)
{
	for (int i = 0; i < TEMPLATE_FILES; i++)
		if (fcntl(fds[i], F_ADD_SEALS, SEALS) < 0)
			return fail(errno, err, errlen, "sealing the template: %s",
				    strerror(errno));
	return 0;
}

void
template_close(int fds[TEMPLATE_FILES])
{
	closep(&fds[TEMPLATE_MEM]);
	closep(&fds[TEMPLATE_STATE]);
}
