/* SPDX-License-Identifier: MIT
 *
 * client_error.c - the texts of libvmpool's errors: a general one per number,
 * and the line of the last failure, kept per thread. Runs in clients.
 */
#include "shm/client.h"

#include <string.h>

/* One line per thread is enough: it is valid until the thread's next call. */
static _Thread_local struct {
	const struct vmpool *pool;
	char text[768];
} last;

static const struct {
	int code;
	const char *text;
} texts[] = {
    {VMPOOL_ECONFIG, "invalid configuration or option"},
    {VMPOOL_ENOPOOL, "no such pool is running"},
    {VMPOOL_ELAYOUT, "the pool was built with another segment layout"},
    {VMPOOL_ECAPACITY, "no VM became free before the deadline"},
    {VMPOOL_ERELEASED, "the lease has ended"},
    {VMPOOL_EVMDIED, "the VM died"},
    {VMPOOL_ETIMEDOUT, "the request's deadline passed"},
    {VMPOOL_ERESTARTED, "the pool's supervisor died or was replaced"},
    {VMPOOL_EFORKED, "handle used in a forked child"},
    {VMPOOL_ENOTEXEC, "not executable in the guest"},
    {VMPOOL_ENOTFOUND, "command not found in the guest"},
    {VMPOOL_ECWD, "cannot enter the working directory in the guest"},
    {VMPOOL_EUSER, "no such user in the guest"},
    {VMPOOL_EGUEST, "the guest could not start the command"},
    {VMPOOL_EDRAINING, "the pool is shutting down"},
    {VMPOOL_ESTART, "VMs fail to start"},
    {VMPOOL_EPROTOCOL, "the VM broke the protocol"},
    {VMPOOL_EFILE_NOTFOUND, "no such file in the guest"},
    {VMPOOL_EFILE_PERM, "not permitted in the guest"},
    {VMPOOL_EFILE_NOSPACE, "no space left in the guest"},
    {VMPOOL_EFILE_ISDIR, "is a directory in the guest"},
    {VMPOOL_EFILE_NOTDIR, "is not a directory in the guest"},
    {VMPOOL_EFILE_LINKS, "too many links in the guest"},
    {VMPOOL_EFILE_EXISTS, "exists in the guest already"},
    {VMPOOL_EFILE_NOTEMPTY, "the directory in the guest is not empty"},
    {VMPOOL_EFILE_READONLY, "read-only in the guest"},
    {VMPOOL_EFILE_IO, "the guest's file system failed"},
};

const char *
vmpool_strerror(int err)
{
	const char *s;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].code == err)
			return texts[i].text;
	s = strerrordesc_np(err < 0 ? -err : err);
	return s != NULL ? s : "unknown error";
}

const char *
vmpool_error(const struct vmpool *pool)
{
	return last.pool == pool ? last.text : "";
}

int
client_fail(const struct vmpool *pool, int code, const char *fmt, ...)
{
	va_list ap;

	last.pool = pool;
	va_start(ap, fmt);
	(void)vsnprintf(last.text, sizeof(last.text), fmt, ap);
	va_end(ap);
	return code;
}

void
client_forget_error(const struct vmpool *pool)
{
	/* Another pool may get the same address. */
	if (last.pool == pool) {
		last.pool = NULL;
		last.text[0] = '\0';
	}
}

void
client_printable(char *dst, size_t len, const void *src, size_t n)
{
	const unsigned char *s = src;
	size_t i;

	for (i = 0; i + 1 < len && i < n && s[i] != '\0'; i++)
		dst[i] = s[i] >= ' ' && s[i] <= '~' ? (char)s[i] : '?';
	if (len > 0)
		dst[i] = '\0';
}
