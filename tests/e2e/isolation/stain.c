/* SPDX-License-Identifier: MIT
 *
 * stain.c - does in a guest what its shell cannot. Streamed into guests by
 * tests/e2e/isolation.sh, hence small: no C library, a few kilobytes.
 *
 * usage: stain random   32 bytes of getrandom(), in hexadecimal
 *        stain clock    CLOCK_REALTIME in nanoseconds
 *        stain limit    PID 1 may open 64 files, not one more
 *        stain frame    half a frame's head, on the agent's own port
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
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

static int
say_random(void)
{
	uint8_t bytes[32];
	char text[65];
	size_t i;

	if (sys(SYS_getrandom, address(bytes), sizeof(bytes), 0, 0) != sizeof(bytes))
		return 1;
	for (i = 0; i < sizeof(bytes); i++) {
		text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
	}
	text[64] = '\n';
	return sys(SYS_write, 1, address(text), sizeof(text), 0) != sizeof(text);
}

static int
say_clock(void)
{
	struct timespec ts;
	char text[24], *at = text + sizeof(text);
	uint64_t ns;

	if (sys(SYS_clock_gettime, CLOCK_REALTIME, address(&ts), 0, 0) != 0)
		return 1;
	ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	*--at = '\n';
	do {
		*--at = (char)('0' + ns % 10);
		ns /= 10;
	} while (ns > 0);
	return sys(SYS_write, 1, address(at), text + sizeof(text) - at, 0) < 0;
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

static const struct {
	const char *name;
	int (*run)(void);
} acts[] = {
    {"random", say_random},
    {"clock", say_clock},
    {"limit", limit_agent},
    {"frame", send_half},
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
