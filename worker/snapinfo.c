/* SPDX-License-Identifier: MIT
 *
 * snapinfo.c - check, compare and describe what a snapshot was made of. See
 * snapinfo.h. Runs in the worker and in tools; owns nothing.
 */
#include "worker/snapinfo.h"
#include "kvm/vm.h"
#include "worker/snapsum.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define YEAR_10000 253402300800ull
#define HEX_LEN (2 * SNAP_HASH_LEN + 1)

_Static_assert(SNAP_HASH_LEN == SNAPSUM_FILE_LEN, "a file is known by its hash");

/* Terminated, printable, and nothing after the end. */
static bool
text_ok(const char *text, size_t size, bool may_be_empty)
{
	size_t len = strnlen(text, size);

	if (len == size || (len == 0 && !may_be_empty))
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	for (size_t i = len; i < size; i++)
		if (text[i] != '\0')
			return false;
	return true;
}

static void
text_put(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size - 1);

	memset(to, 0, size);
	for (size_t i = 0; i < len; i++)
		to[i] = from[i] < ' ' || from[i] > '~' ? '?' : from[i];
}

const char *
snapinfo_wrong(const struct snap_info *i)
{
	if (i->mem_mib < VM_MEM_MIB_MIN || i->mem_mib > VM_MEM_MIB_MAX)
		return "memory size out of range";
	if (i->vcpus < 1 || i->vcpus > VM_VCPUS_MAX)
		return "number of vCPUs out of range";
	if (!text_ok(i->accel, sizeof(i->accel), false))
		return "bad accelerator name";
	if (!text_ok(i->version, sizeof(i->version), false))
		return "bad version text";
	if (!text_ok(i->warmup, sizeof(i->warmup), true))
		return "bad warm-up text";
	return i->created_s >= YEAR_10000 ? "bad time of creation" : NULL;
}

struct snap_info
snapinfo_clean(const struct snap_info *info)
{
	struct snap_info i = *info;

	text_put(i.accel, sizeof(i.accel), info->accel);
	text_put(i.version, sizeof(i.version), info->version);
	text_put(i.warmup, sizeof(i.warmup), info->warmup);
	if (i.created_s == 0)
		i.created_s = (uint64_t)time(NULL);
	return i;
}

enum field_kind { TEXT, NUMBER, MEBIBYTES, KILOHERTZ, HASH };

static const struct field {
	const char *name;
	enum field_kind kind;
	size_t offset;
} fields[] = {
    {"vmpool version", TEXT, offsetof(struct snap_info, version)},
    {"device layout", NUMBER, offsetof(struct snap_info, layout)},
    {"accelerator", TEXT, offsetof(struct snap_info, accel)},
    {"kernel", HASH, offsetof(struct snap_info, kernel)},
    {"image", HASH, offsetof(struct snap_info, image)},
    {"CPU feature set", HASH, offsetof(struct snap_info, cpu)},
    {"TSC rate", KILOHERTZ, offsetof(struct snap_info, tsc_khz)},
    {"memory size", MEBIBYTES, offsetof(struct snap_info, mem_mib)},
    {"number of vCPUs", NUMBER, offsetof(struct snap_info, vcpus)},
};

static void
hex(const uint8_t *hash, char out[HEX_LEN])
{
	for (size_t i = 0; i < SNAP_HASH_LEN; i++)
		(void)sprintf(out + 2 * i, "%02x", hash[i]);
}

static const char *
field_unit(enum field_kind kind)
{
	return kind == MEBIBYTES ? " MiB" : kind == KILOHERTZ ? " kHz" : "";
}

static void
field_text(const struct field *f, const struct snap_info *info, char out[static HEX_LEN])
{
	const void *at = (const char *)info + f->offset;
	uint32_t n;

	if (f->kind == HASH) {
		hex(at, out);
	} else if (f->kind == TEXT) {
		(void)snprintf(out, HEX_LEN, "%s", (const char *)at);
	} else {
		memcpy(&n, at, sizeof(n));
		(void)snprintf(out, HEX_LEN, "%" PRIu32 "%s", n, field_unit(f->kind));
	}
}

/* The same rate, measured twice. */
static bool
rates_agree(uint32_t a, uint32_t b)
{
	return MAX(a, b) - MIN(a, b) <= MIN(a, b) / 200;
}

int
snap_check_fits(const struct snap_info *snap, const struct snap_info *mine, char *err,
		size_t errlen)
{
	char theirs[HEX_LEN], ours[HEX_LEN];

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		field_text(&fields[i], snap, theirs);
		field_text(&fields[i], mine, ours);
		if (fields[i].kind == KILOHERTZ && rates_agree(snap->tsc_khz, mine->tsc_khz))
			continue;
		if (strcmp(theirs, ours) != 0)
			return fail(SNAP_EMISMATCH, err, errlen,
				    "made with another %s: %s, the pool has %s", fields[i].name,
				    theirs, ours);
	}
	return 0;
}

void
snap_describe(const struct snap_info *info, char *buf, size_t len)
{
	char kernel[HEX_LEN], image[HEX_LEN], when[32] = "";
	time_t created = (time_t)info->created_s;
	struct tm tm;

	hex(info->kernel, kernel);
	hex(info->image, image);
	if (gmtime_r(&created, &tm) != NULL)
		(void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", &tm);
	(void)snprintf(buf, len,
		       "%s, %" PRIu32 " MiB, %" PRIu32 " vCPU%s, vmpool %s, device layout %" PRIu32
		       ", kernel %.8s, image %.8s, taken %s%s%s",
		       info->accel, info->mem_mib, info->vcpus, info->vcpus == 1 ? "" : "s",
		       info->version, info->layout, kernel, image, when,
		       info->warmup[0] == '\0' ? "" : ", warmed up by ", info->warmup);
}

int
snap_hash_file(const char *path, uint8_t out[SNAP_HASH_LEN], char *err, size_t errlen)
{
	/* Opening a FIFO must not wait for a writer. */
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(errno, err, errlen, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return fail(EINVAL, err, errlen, "%s: not a regular file", path);
	r = snapsum_file(fd, out);
	return r == 0 ? 0 : fail(-r, err, errlen, "%s: %s", path, strerror(-r));
}
