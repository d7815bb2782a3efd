/* SPDX-License-Identifier: MIT
 *
 * stain.c - does in a guest what its shell cannot, or takes long for. Part of the
 * image that tests/e2e/isolation.sh makes; no C library, few pages to fault in.
 *
 * usage: stain fresh    what no two machines have in common, in one line: boot id,
 *                       machine id, 32 bytes of /dev/urandom, 32 of getrandom(), a
 *                       random UUID of the kernel; then CLOCK_MONOTONIC in
 *                       nanoseconds, and the words of /tmp/aged
 *        stain same     what all machines have in common, in one line: a hash each of
 *                       files (as ls -lR shows them), processes, mounts, settings;
 *                       after the boot id
 *        stain clock    CLOCK_REALTIME in nanoseconds
 *        stain limit    PID 1 may open 64 files, not one more
 *        stain frame    half a frame's head, on the agent's own port
 *        stain memory   is the pattern anywhere in the machine's memory, free or not?
 */
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

static long
sys(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

static long
address(const void *p)
{
	return (long)(uintptr_t)p;
}

static int
is(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static long
open_file(const char *path)
{
	return sys(SYS_open, address(path), O_RDONLY, 0, 0);
}

static void
say(const char *text, long len)
{
	(void)sys(SYS_write, 1, address(text), len, 0);
}

static void
say_bytes(const uint8_t *bytes, size_t len)
{
	char text[65];
	size_t i;

	for (i = 0; i < len; i++) {
		text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
	}
	text[2 * len] = ' ';
	say(text, 2 * (long)len + 1);
}

static void
say_number(uint64_t n)
{
	char text[24], *at = text + sizeof(text);

	*--at = ' ';
	do {
		*--at = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	say(at, text + sizeof(text) - at);
}

static void
say_clock(clockid_t clock)
{
	struct timespec ts = {0, 0};

	(void)sys(SYS_clock_gettime, clock, address(&ts), 0, 0);
	say_number((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
}

/* Read a file, at most len bytes of it; how many, 0 if there is none. */
static size_t
slurp(const char *path, void *to, size_t len)
{
	long fd = open_file(path), n = 0;
	size_t have = 0;

	while (fd >= 0 && have < len &&
	       (n = sys(SYS_read, fd, address((char *)to + have), (long)(len - have), 0)) > 0)
		have += (size_t)n;
	(void)sys(SYS_close, fd, 0, 0, 0);
	return have;
}

/* The first line of a file, and a space. */
static void
say_line(const char *path)
{
	char text[65];
	size_t n = slurp(path, text, sizeof(text) - 1), len = 0;

	while (len < n && text[len] != '\n')
		len++;
	text[len] = ' ';
	say(text, (long)len + 1);
}

static int
say_fresh(void)
{
	uint8_t bytes[64];

	if (sys(SYS_read, open_file("/dev/urandom"), address(bytes), 32, 0) != 32 ||
	    sys(SYS_getrandom, address(bytes + 32), 32, 0, 0) != 32)
		return 1;
	say_line("/proc/sys/kernel/random/boot_id");
	say_line("/etc/machine-id");
	say_bytes(bytes, 32);
	say_bytes(bytes + 32, 32);
	say_line("/proc/sys/kernel/random/uuid");
	say_clock(CLOCK_MONOTONIC);
	say_line("/tmp/aged");
	say("\n", 1);
	return 0;
}

static int
say_time(void)
{
	say_clock(CLOCK_REALTIME);
	say("\n", 1);
	return 0;
}

/* FNV-1a */
static uint64_t
hash(uint64_t h, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	while (len-- > 0)
		h = (h ^ *p++) * 0x100000001b3u;
	return h;
}
#define HASH_START 0xcbf29ce484222325u

static uint8_t window[1 << 16];

static uint64_t
hash_file(uint64_t h, const char *path)
{
	return hash(h, window, slurp(path, window, sizeof(window)));
}

/* A path, and room for names below it. */
struct path {
	size_t len;
	char text[1024];
};

/* The caller sets p->len back. 0: no room. */
static int
append(struct path *p, const char *name)
{
	size_t i;

	for (i = 0; name[i] != '\0'; i++) {
		if (p->len + 2 > sizeof(p->text))
			return 0;
		p->text[p->len++] = name[i];
	}
	p->text[p->len] = '\0';
	return 1;
}

/* The sum over all names in a directory, since they come in any order. */
static uint64_t
each_name(struct path *p, uint64_t (*hash_of)(struct path *p))
{
	long fd = open_file(p->len == 0 ? "/" : p->text), n, at;
	size_t was = p->len;
	uint64_t sum = 0;
	char names[2048];

	while ((n = sys(SYS_getdents64, fd, address(names), sizeof(names), 0)) > 0)
		for (at = 0; at < n;) {
			const struct dirent64 *d = (const void *)(names + at);

			if (!is(d->d_name, ".") && !is(d->d_name, "..") && append(p, "/") &&
			    append(p, d->d_name))
				sum += hash_of(p);
			p->len = was;
			p->text[was] = '\0';
			at += d->d_reclen;
		}
	(void)sys(SYS_close, fd, 0, 0, 0);
	return sum;
}

/* What ls -lR says of it and below it, but no time: both ids are written anew in each
 * machine. */
static uint64_t
hash_entry(struct path *p)
{
	uint64_t shown[5] = {0}, h;
	char target[256];
	struct stat st;
	long n;

	if (is(p->text, "/proc") || is(p->text, "/sys") ||
	    sys(SYS_newfstatat, AT_FDCWD, address(p->text), address(&st), AT_SYMLINK_NOFOLLOW) != 0)
		return 0;
	shown[0] = st.st_mode;
	shown[1] = st.st_uid;
	shown[2] = st.st_gid;
	shown[3] = st.st_rdev;
	shown[4] = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	h = hash(hash(HASH_START, p->text, p->len), shown, sizeof(shown));
	n = sys(SYS_readlink, address(p->text), address(target), sizeof(target), 0);
	h = n > 0 ? hash(h, target, (size_t)n) : h;
	return S_ISDIR(st.st_mode) ? h + each_name(p, hash_entry) : h;
}

/* Its command line, if it is a process that has one. */
static uint64_t
hash_process(struct path *p)
{
	size_t n;

	if (p->text[6] < '0' || p->text[6] > '9' || !append(p, "/cmdline"))
		return 0;
	n = slurp(p->text, window, sizeof(window));
	return n > 0 ? hash(HASH_START, window, n) : 0;
}

static int
say_same(void)
{
	static const char *const settings[] = {"/proc/sys/vm/swappiness",
					       "/proc/sys/vm/overcommit_memory",
					       "/proc/sys/kernel/hostname",
					       "/proc/sys/kernel/panic",
					       "/proc/sys/kernel/domainname",
					       "/proc/sys/kernel/randomize_va_space",
					       "/proc/sys/kernel/pid_max",
					       "/proc/sys/fs/file-max",
					       "/proc/1/limits",
					       "/proc/self/cgroup"};
	static struct path root, proc = {5, "/proc"};
	uint64_t h = HASH_START;
	size_t i;

	say_line("/proc/sys/kernel/random/boot_id");
	say_number(each_name(&root, hash_entry));
	say_number(each_name(&proc, hash_process));
	say_number(hash_file(HASH_START, "/proc/mounts"));
	for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		h = hash_file(h, settings[i]);
	say_number(h);
	say("\n", 1);
	return 0;
}

static int
limit_agent(void)
{
	struct rlimit few = {64, 64};

	return sys(SYS_prlimit64, 1, RLIMIT_NOFILE, address(&few), 0) != 0;
}

/* Nobody else can open the port, but root can have the agent's descriptor. */
static int
send_half(void)
{
	static const uint8_t half[7] = {4, 0, 0, 0, 34};
	long agent = sys(SYS_pidfd_open, 1, 0, 0, 0), fd, n;
	char link[] = "/proc/1/fd/00", to[32];

	for (n = 3; n < 100; n++) {
		link[11] = (char)('0' + n / 10);
		link[12] = (char)('0' + n % 10);
		if (n < 10) {
			link[11] = (char)('0' + n);
			link[12] = '\0';
		}
		if (sys(SYS_readlink, address(link), address(to), sizeof(to), 0) < 10)
			continue;
		to[10] = '\0';
		if (!is(to, "/dev/vport"))
			continue;
		fd = sys(SYS_pidfd_getfd, agent, n, 0, 0);
		return sys(SYS_write, fd, address(half), sizeof(half), 0) != sizeof(half);
	}
	return 1;
}

/* The pattern as it must not stand in any process that looks for it: each letter is
 * 13 places off, and compared without being put right in memory. */
static int
is_pattern(const uint8_t *at)
{
	static const char off[] = "fgnva-cnggrea-fgnva-cnggrea";
	size_t i;

	for (i = 0; i < sizeof(off) - 1; i++) {
		char c = off[i];

		if (at[i] != (c == '-' ? c : c >= 'n' ? c - 13 : c + 13))
			return 0;
	}
	return 1;
}

/* len bytes of memory from off, as far as they can be read. */
static int
search(long fd, uint64_t off, uint64_t len)
{
	uint64_t done = 0;

	while (done < len) {
		uint64_t want = len - done < sizeof(window) ? len - done : sizeof(window);
		long n = sys(SYS_pread64, fd, address(window), (long)want, (long)(off + done)), i;

		if (n <= 0)
			return 0;
		for (i = 0; i + 32 <= n; i++)
			if (window[i] == 's' && is_pattern(window + i))
				return 1;
		done += (uint64_t)n;
	}
	return 0;
}

/* All of memory is in /proc/kcore, in the segments with a physical address; a kernel
 * without that has it in /dev/mem. */
static int
search_memory(void)
{
	long fd = open_file("/proc/kcore"), mem = open_file("/dev/mem");
	Elf64_Ehdr head;
	Elf64_Phdr seg[64];
	int found = 0, i;

	if (fd < 0) {
		found = search(mem, 1 << 20, 1ull << 40);
	} else if (sys(SYS_pread64, fd, address(&head), sizeof(head), 0) != sizeof(head) ||
		   sys(SYS_pread64, fd, address(seg), sizeof(seg), (long)head.e_phoff) !=
		       sizeof(seg)) {
		return 1;
	}
	for (i = 0; fd >= 0 && i < 64 && i < head.e_phnum; i++)
		if (seg[i].p_type == PT_LOAD && seg[i].p_paddr != UINT64_MAX)
			found |= search(fd, seg[i].p_offset, seg[i].p_filesz);
	say(found ? "found\n" : "none\n", found ? 6 : 5);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} acts[] = {
    {"fresh", say_fresh},   {"same", say_same},	  {"clock", say_time},
    {"limit", limit_agent}, {"frame", send_half}, {"memory", search_memory},
};

__attribute__((noreturn, used)) void run(const long *stack);

__attribute__((noreturn, used)) void
run(const long *stack)
{
	const char *const *argv = (const char *const *)(stack + 1);
	int status = 2;
	size_t i;

	for (i = 0; stack[0] == 2 && i < sizeof(acts) / sizeof(acts[0]); i++) {
		if (is(argv[1], acts[i].name))
			status = acts[i].run();
	}
	(void)sys(SYS_exit_group, status, 0, 0, 0);
	__builtin_unreachable();
}

/* The kernel leaves argc and what follows at the top of the stack. */
__asm__(".globl _start\n"
	"_start:\n\t"
	"xor %ebp, %ebp\n\t"
	"mov %rsp, %rdi\n\t"
	"and $-16, %rsp\n\t"
	"call run\n\t"
	"ud2\n");
