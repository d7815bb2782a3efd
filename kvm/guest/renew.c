/* SPDX-License-Identifier: MIT
 *
 * renew.c - the guest's part of a start from a template. Runs in the agent.
 * Owns /dev/random, open, and the files that hold the two ids.
 *
 * Every machine pays for this at its start and after each reset, by time and by
 * the pages that it dirties. Hence everything is prepared in the template: both
 * files are open, and rewritten in place as long as they are still what their
 * paths lead to. The kernel's boot id cannot be set, so a file is mounted over it;
 * nobody has read the one below by then, and the kernel makes it up when somebody
 * does: whoever mounts a /proc of his own finds a fresh one there, too.
 */
#include "kvm/guest/renew.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ID_BYTES 16u
#define TEXT_MAX 40u
#define BOOT_ID_FILE "/run/vmpool-boot-id" /* what is mounted over the kernel's */

struct id_file {
	char path[256];
	int (*replace)(struct id_file *f, const char *text); /* in any state */
	int fd;						     /* the file; -1: none yet */
	struct stat st;					     /* as it was made */
};

static int random_fd = -1;
static bool ready, whole_machine;

/* Is the path still that file, as long as it was? */
static bool
is_in_place(const struct id_file *f)
{
	struct stat st;

	return f->fd >= 0 && stat(f->path, &st) == 0 && st.st_dev == f->st.st_dev &&
	       st.st_ino == f->st.st_ino && st.st_size == f->st.st_size;
}

static int
write_text(int fd, const char *text)
{
	size_t len = strlen(text);
	ssize_t n = pwrite(fd, text, len, 0);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -ENOSPC;
}

/* Take fd over as the file from now on, whether or not it has a name yet. */
static int
keep_file(struct id_file *f, int fd, const char *text)
{
	int r = write_text(fd, text);

	if (r == 0 && fstat(fd, &f->st) < 0)
		r = -errno;
	if (r != 0) {
		(void)close(fd);
		return r;
	}
	util_closep(&f->fd);
	f->fd = fd;
	return 0;
}

/* A new file under that name, at once for all who look. */
static int
put_file(struct id_file *f, const char *path, const char *text)
{
	char fresh[sizeof(f->path) + 4];
	int fd, r;

	(void)snprintf(fresh, sizeof(fresh), "%s.new", path);
	(void)unlink(fresh);
	fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	if (fd < 0)
		return -errno;
	r = keep_file(f, fd, text);
	if (r == 0 && rename(fresh, path) < 0)
		r = -errno;
	if (r != 0)
		(void)unlink(fresh);
	return r;
}

static int
replace_by_rename(struct id_file *f, const char *text)
{
	return put_file(f, f->path, text);
}

static int
mount_file(const struct id_file *f)
{
	char source[32];

	(void)snprintf(source, sizeof(source), "/proc/self/fd/%d", f->fd);
	return mount(source, f->path, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

/* Over what is there, mount the file that we have: there may be no room for
 * another. It cannot be mounted any more once somebody has removed it. */
static int
replace_by_mount(struct id_file *f, const char *text)
{
	int r = f->fd >= 0 ? write_text(f->fd, text) : -ENOENT;

	if (r == 0 && mount_file(f) == 0)
		return 0;
	r = put_file(f, BOOT_ID_FILE, text);
	return r != 0 ? r : mount_file(f);
}

static struct id_file boot_id = {.path = "/proc/sys/kernel/random/boot_id",
				 .replace = replace_by_mount,
				 .fd = -1},
		      machine_id = {
			  .path = "/etc/machine-id", .replace = replace_by_rename, .fd = -1};

/* A version 4 UUID of random bytes as text and a line feed, with or without its
 * hyphens. */
static void
uuid_text(char *text, const uint8_t *random, bool hyphens)
{
	static const char hex[] = "0123456789abcdef";
	uint8_t b[ID_BYTES];
	size_t i;

	memcpy(b, random, sizeof(b));
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	for (i = 0; i < ID_BYTES; i++) {
		if (hyphens && (i == 4 || i == 6 || i == 8 || i == 10))
			*text++ = '-';
		*text++ = hex[b[i] >> 4];
		*text++ = hex[b[i] & 0xf];
	}
	*text++ = '\n';
	*text = '\0';
}

static int
set_id(struct id_file *f, const uint8_t *random, bool hyphens)
{
	char text[TEXT_MAX];

	uuid_text(text, random, hyphens);
	return is_in_place(f) ? write_text(f->fd, text) : f->replace(f, text);
}

static int
set_boot_id(const struct proto_renew *r)
{
	return set_id(&boot_id, r->boot_id, true);
}

static int
set_machine_id(const struct proto_renew *r)
{
	return set_id(&machine_id, r->machine_id, false);
}

static int
add_entropy(const struct proto_renew *r)
{
	union {
		struct rand_pool_info info;
		uint8_t bytes[sizeof(struct rand_pool_info) + sizeof(r->entropy)];
	} e = {.info = {.entropy_count = 8 * sizeof(r->entropy), .buf_size = sizeof(r->entropy)}};

	if (random_fd < 0)
		random_fd = open("/dev/random", O_RDWR | O_CLOEXEC);
	if (random_fd < 0)
		return -errno;
	memcpy(e.bytes + sizeof(e.info), r->entropy, sizeof(r->entropy));
	return ioctl(random_fd, RNDADDENTROPY, &e) < 0 ? -errno : 0;
}

/* What was added reaches readers, on every processor, only by this. */
static int
reseed(const struct proto_renew *r)
{
	(void)r;
	return ioctl(random_fd, RNDRESEEDCRNG) < 0 ? -errno : 0;
}

static int
set_clock(const struct proto_renew *r)
{
	struct timespec ts = {.tv_sec = (time_t)(r->wall_ns / 1000000000u),
			      .tv_nsec = (long)(r->wall_ns % 1000000000u)};

	return clock_settime(CLOCK_REALTIME, &ts) < 0 ? -errno : 0;
}

static const struct {
	enum proto_renew_step step;
	bool kernel; /* it changes the kernel's state: not in somebody else's machine */
	int (*run)(const struct proto_renew *r);
} steps[] = {
    {PROTO_RENEW_ENTROPY, true, add_entropy},
    {PROTO_RENEW_RESEED, true, reseed},
    {PROTO_RENEW_CLOCK, true, set_clock},
    {PROTO_RENEW_BOOT_ID, false, set_boot_id},
    {PROTO_RENEW_MACHINE_ID, false, set_machine_id},
};

static void
use_directory(const char *dir)
{
	(void)snprintf(boot_id.path, sizeof(boot_id.path), "%.200s/boot_id", dir);
	(void)snprintf(machine_id.path, sizeof(machine_id.path), "%.200s/machine-id", dir);
	boot_id.replace = replace_by_rename;
}

void
renew_init(const char *dir)
{
	struct proto_renew r = {.wall_ns = 0};
	int rb, rm;

	ready = true;
	whole_machine = dir == NULL;
	if (dir != NULL)
		use_directory(dir);
	else
		random_fd = open("/dev/random", O_RDWR | O_CLOEXEC);
	/* INSECURE: not to wait for entropy. RENEW brings some, and then new ids. */
	(void)getrandom(r.boot_id, sizeof(r.boot_id), GRND_INSECURE);
	(void)getrandom(r.machine_id, sizeof(r.machine_id), GRND_INSECURE);
	rb = set_boot_id(&r);
	if (rb != 0)
		util_log("%s: %s", boot_id.path, strerror(-rb));
	rm = set_machine_id(&r);
	if (rm != 0)
		util_log("%s: %s", machine_id.path, strerror(-rm));
}

void
renew_run(const struct proto_renew *renew, struct proto_renewed *done)
{
	struct timespec now;
	size_t i;
	int r;

	*done = (struct proto_renewed){.failed = ready ? 0 : PROTO_RENEW_ENTROPY,
				       .err = ready ? 0 : EPERM};
	for (i = 0; ready && i < ARRAY_SIZE(steps); i++) {
		if (steps[i].kernel && !whole_machine)
			continue;
		r = steps[i].run(renew);
		if (r != 0 && done->failed == 0) {
			done->failed = steps[i].step;
			done->err = (uint32_t)-r;
		}
	}
	(void)clock_gettime(CLOCK_REALTIME, &now);
	done->wall_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
