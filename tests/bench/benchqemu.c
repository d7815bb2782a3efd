/* SPDX-License-Identifier: MIT
 *
 * benchqemu.c - a guest in plain QEMU to compare with. See benchqemu.h. QEMU is a
 * child that dies with the benchmark.
 */
#include "tests/bench/benchqemu.h"
#include "worker/tsc.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define DEADLINE_MS 120000

static void __attribute__((noreturn))
exec_qemu(const struct benchqemu *q, const struct benchqemu_config *cfg, const char *clock,
	  int agent)
{
	const bool kvm = strcmp(cfg->accel, "kvm") == 0;
	char chan[64], port[128], mem[16], append[160];
	const char *argv[] = {"qemu-system-x86_64",
			      "-nodefaults",
			      "-no-user-config",
			      "-display",
			      "none",
			      "-no-reboot",
			      "-M",
			      kvm ? "microvm,acpi=on,pit=on,pic=on,rtc=off,isa-serial=off"
				  : "microvm,acpi=on,rtc=on",
			      "-accel",
			      kvm ? "kvm" : "tcg,thread=multi",
			      "-cpu",
			      kvm ? "host,-arch-capabilities" : "max,-erms",
			      "-m",
			      mem,
			      "-smp",
			      "1",
			      "-kernel",
			      cfg->kernel,
			      "-initrd",
			      cfg->image,
			      "-append",
			      append,
			      "-chardev",
			      chan,
			      "-chardev",
			      port,
			      "-device",
			      "virtio-serial-device",
			      "-device",
			      "virtserialport,chardev=chan,nr=1,name=" PROTO_PORT_NAME,
			      "-device",
			      "virtserialport,chardev=port,nr=2,name=bench.0",
			      NULL};

	(void)snprintf(chan, sizeof(chan), "socket,id=chan,fd=%d", agent);
	(void)snprintf(port, sizeof(port), "socket,id=port,path=%s,abstract=on,server=on,wait=off",
		       q->name);
	(void)snprintf(append, sizeof(append), "quiet panic=-1 reboot=t no_timer_check%s", clock);
	(void)snprintf(mem, sizeof(mem), "%uM", cfg->mem_mib);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)fcntl(agent, F_SETFD, 0);
	(void)execvp(argv[0], (char *const *)argv);
	_exit(127);
}

/* The next frame of the agent: its type, and its payload in q->in behind the header. */
static uint8_t
take(struct benchqemu *q)
{
	struct proto_hdr h;

	for (;;) {
		struct pollfd p = {q->agent, POLLIN, 0};
		ssize_t n;

		memcpy(&h, q->in, sizeof(h));
		if (q->have >= sizeof(h) && q->have >= sizeof(h) + h.length)
			return h.type;
		n = poll(&p, 1, DEADLINE_MS) == 1
			? read(q->agent, q->in + q->have, sizeof(q->in) - q->have)
			: -1;
		if (n <= 0)
			bench_die("QEMU's guest ended or fell silent");
		q->have += (size_t)n;
	}
}

static void
drop(struct benchqemu *q)
{
	struct proto_hdr h;

	memcpy(&h, q->in, sizeof(h));
	q->have -= sizeof(h) + h.length;
	memmove(q->in, q->in + sizeof(h) + h.length, q->have);
}

void
benchqemu_new(struct benchqemu *q, const struct benchqemu_config *cfg)
{
	char clock[64] = "";
	int sock[2];

	/* An emulated guest that has to find out the rate of its clock may not boot: as
	 * worker/qemu_args.c, and before the fork, since it takes a while. */
	if (strcmp(cfg->accel, "tcg") == 0)
		(void)snprintf(clock, sizeof(clock), " tsc=reliable tsc_early_khz=%u lpj=%llu",
			       tsc_khz(), tsc_khz() * 1000ull / 250);
	q->have = 0;
	(void)snprintf(q->name, sizeof(q->name), "vmpool-bench-%d", (int)getpid());
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		bench_die("socketpair: %m");
	q->pid = fork();
	if (q->pid == 0)
		exec_qemu(q, cfg, clock, sock[1]);
	if (q->pid < 0)
		bench_die("fork: %m");
	(void)close(sock[1]);
	q->agent = sock[0];
	if (take(q) != PROTO_READY)
		bench_die("QEMU's guest has not said READY first (%s)", cfg->kernel);
	drop(q);
}

void
benchqemu_end(struct benchqemu *q)
{
	(void)kill(q->pid, SIGKILL);
	(void)waitpid(q->pid, NULL, 0);
	(void)close(q->agent);
}

int
benchqemu_port(const struct benchqemu *q)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* An abstract name: no file is left when this program dies. */
	int n = snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%s", q->name);
	const socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + (socklen_t)n;

	if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, len) < 0)
		bench_die("@%s: %m", q->name);
	return fd;
}

void
benchqemu_start_sh(struct benchqemu *q, const char *script)
{
	struct proto_exec e = {.argc = 3};
	struct proto_hdr h = {.type = PROTO_EXEC, .stream = 1};
	uint8_t frame[sizeof(h) + sizeof(e) + 512];
	int n = snprintf((char *)frame + sizeof(h) + sizeof(e), 512, "sh%c-c%c%s%c%c", 0, 0, script,
			 0, 0);

	if (n < 0 || n >= 511)
		bench_die("a script of %d bytes", n);
	e.size = (uint32_t)(sizeof(e) + (size_t)n + 1);
	h.length = e.size;
	memcpy(frame, &h, sizeof(h));
	memcpy(frame + sizeof(h), &e, sizeof(e));
	if (write(q->agent, frame, sizeof(h) + e.size) != (ssize_t)(sizeof(h) + e.size))
		bench_die("QEMU's guest takes no command");
}

void
benchqemu_wait_sh(struct benchqemu *q)
{
	struct proto_exit ended;

	if (take(q) != PROTO_EXIT)
		bench_die("QEMU's guest prints something, or cannot run sh");
	memcpy(&ended, q->in + sizeof(struct proto_hdr), sizeof(ended));
	if (ended.code != 0 || ended.signal != 0)
		bench_die("a command in QEMU's guest failed: status %u, signal %u", ended.code,
			  ended.signal);
	drop(q);
}
