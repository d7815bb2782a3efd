/* SPDX-License-Identifier: MIT
 *
 * qemu_args.c - the command line of a QEMU child. Runs in a worker.
 *
 * A machine which takes over the state of another must have the same devices
 * and memory under the same names; kernel, image and clock rate are in that state.
 */
#include "worker/qemu_args.h"
#include "worker/qemu.h"
#include "worker/tsc.h"

#include "kvm/proto.h"

/* Translated code kept per VM; used as far as the guest runs new code, 8 MiB until
 * its first command has ended. A buffer which cannot hold what a command needs is
 * flushed over and over: with 4 MiB an `echo` takes 220 ms instead of 7. */
#define QEMU_TB_MIB 32
/* What QEMU itself calls the memory of this machine. */
#define QEMU_RAM "microvm.ram"

static void printf_like(2, 3) add(struct qemu_args *a, const char *fmt, ...)
{
	size_t room = sizeof(a->text) - a->used;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->used, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room || a->argc + 1 >= QEMU_ARGS_MAX) {
		a->used = sizeof(a->text); /* nothing more fits; _make refuses */
		return;
	}
	a->argv[a->argc++] = a->text + a->used;
	a->used += (size_t)n + 1;
}

static void
add_pair(struct qemu_args *a, const char *option, const char *value)
{
	add(a, "%s", option);
	add(a, "%s", value);
}

static void
add_machine(struct qemu_args *a)
{
	const char *share = a->role == QEMU_TEMPLATE ? "off" : "on";

	add_pair(a, "-cpu", QEMU_CPU);
	add(a, "-accel");
	add(a, "tcg,thread=multi,tb-size=%d", QEMU_TB_MIB);
	add(a, "-m");
	add(a, "%uM", a->cfg->mem_mib);
	add(a, "-smp");
	add(a, "%u", a->cfg->vcpus);
	add(a, "-M");
	add(a, "microvm,acpi=on,pit=off,rtc=on%s", a->mem >= 0 ? ",memory-backend=" QEMU_RAM : "");
	if (a->mem < 0)
		return;
	add(a, "-object");
	add(a, "memory-backend-file,id=" QEMU_RAM ",size=%uM,mem-path=/proc/self/fd/%d,share=%s",
	    a->cfg->mem_mib, a->mem, share);
}

static void
add_devices(struct qemu_args *a)
{
	add(a, "-chardev");
	add(a, "socket,id=chan,fd=%d", a->chan);
	add(a, "-chardev");
	add(a, "socket,id=console,fd=%d", a->console);
	add(a, "-chardev");
	add(a, "socket,id=qmp,fd=%d", a->qmp);
	add_pair(a, "-mon", "chardev=qmp,mode=control");
	add_pair(a, "-serial", "chardev:console");
	add_pair(a, "-device", "virtio-serial-device");
	add_pair(a, "-device", "virtserialport,chardev=chan,nr=1,name=" PROTO_PORT_NAME);
}

static void
add_kernel(struct qemu_args *a)
{
	uint32_t khz = tsc_khz();

	add_pair(a, "-kernel", a->cfg->kernel);
	add_pair(a, "-initrd", a->cfg->image);
	add(a, "-append");
	/* A busy host spoils the guest's calibration of its clock: tell it (tsc.c). lpj
	 * is for a HZ of 250, which both kernels have. With several processors it would
	 * distrust the TSC, and fall back to a clock of 4 ms. The last three: an idle
	 * guest does nothing every 2 s, every 4 s, and 10 s after its boot. */
	add(a,
	    "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable tsc_early_khz=%u "
	    "lpj=%llu random.trust_cpu=on psi=0 nowatchdog deferred_probe_timeout=0",
	    khz, khz * 1000ull / 250);
}

int
qemu_args_make(struct qemu_args *a, char *err, size_t errlen)
{
	a->argc = 0;
	a->used = 0;
	add(a, "%s", QEMU_PROGRAM);
	add(a, "-nodefaults");
	add(a, "-no-user-config");
	add_pair(a, "-display", "none");
	add(a, "-no-reboot");
	add_machine(a);
	add_devices(a);
	if (a->role == QEMU_BOOT)
		add_kernel(a);
	else
		add_pair(a, "-incoming", "defer");
	a->argv[a->argc] = NULL;
	if (a->used >= sizeof(a->text))
		return fail(E2BIG, err, errlen, "the paths of kernel and image are too long");
	return 0;
}

unsigned
qemu_args_fds(const struct qemu_args *a, int fds[5])
{
	const int all[] = {a->chan, a->console, a->qmp, a->mem, a->incoming};
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i] >= 0)
			fds[n++] = all[i];
	return n;
}
