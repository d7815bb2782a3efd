/* SPDX-License-Identifier: MIT
 *
 * bench_boot.c - boot_vs_qemu: cold boot to the agent's READY by our VMM,
 * against QEMU's microvm with KVM, the same kernel build, image and memory.
 *
 * Usage: bench_boot VMLINUX BZIMAGE IMAGE [ROUNDS]
 *
 * QEMU is tried with both kernel files; the faster median is its figure. The
 * contestants take turns, round by round, so that a drifting machine slows all.
 */
#include "kvm/proto.h"
#include "kvm/vm.h"
#include "tests/bench/benchqemu.h"

#include <poll.h>
#include <string.h>

#define MEM_MIB 128
#define DEADLINE_MS 120000

static bool
is_ready(const uint8_t *buf, size_t len)
{
	struct proto_hdr hdr;

	if (len < sizeof(hdr))
		return false;
	memcpy(&hdr, buf, sizeof(hdr));
	if (hdr.type != PROTO_READY)
		bench_die("the guest's first frame is of type %u, not READY", hdr.type);
	return len >= sizeof(hdr) + sizeof(struct proto_ready);
}

static double
boot_ours(const char *kernel, const char *image)
{
	const struct vm_config cfg = {
	    .kvm_fd = -1, .kernel = kernel, .initrd = image, .mem_mib = MEM_MIB, .vcpus = 1};
	uint8_t buf[256];
	uint64_t start = now_ns(), kicks, end;
	size_t have = 0;
	struct vm *vm;
	char err[256];

	if (vm_new(&vm, &cfg, err, sizeof(err)) < 0 || vm_start(vm, err, sizeof(err)) < 0)
		bench_die("%s", err);
	while (!is_ready(buf, have)) {
		struct pollfd p[2] = {{vm_chan_kick_fd(vm), POLLIN, 0}, {vm_end_fd(vm), POLLIN, 0}};
		ssize_t n = vm_chan_recv(vm, buf + have, sizeof(buf) - have);

		if (n < 0)
			bench_die("guest channel broken");
		have += (size_t)n;
		if (n > 0)
			continue;
		if (poll(p, 2, DEADLINE_MS) <= 0 || p[1].revents != 0)
			bench_die("our VM did not boot: %s", vm_end_name(vm_end(vm)));
		(void)!read(p[0].fd, &kicks, sizeof(kicks));
	}
	end = now_ns();
	vm_free(vm);
	return (double)(end - start) / 1e6;
}

static double
boot_qemu(const char *kernel, const char *image)
{
	const struct benchqemu_config cfg = {"kvm", kernel, image, MEM_MIB};
	uint64_t start = now_ns(), end;
	struct benchqemu q;

	benchqemu_new(&q, &cfg);
	end = now_ns();
	benchqemu_end(&q);
	return (double)(end - start) / 1e6;
}

int
main(int argc, char **argv)
{
	struct samples ours = {0}, elf = {0}, bz = {0};
	int rounds = argc == 5 ? atoi(argv[4]) : 3, r;
	double best, mine;

	if (argc < 4 || rounds < 1)
		bench_die("usage: bench_boot VMLINUX BZIMAGE IMAGE [ROUNDS]");
	for (int i = 0; i < rounds; i++) {
		samples_add(&ours, boot_ours(argv[1], argv[3]));
		samples_add(&bz, boot_qemu(argv[2], argv[3]));
		samples_add(&elf, boot_qemu(argv[1], argv[3]));
	}
	mine = samples_percentile(&ours, 50);
	best = MIN(samples_percentile(&bz, 50), samples_percentile(&elf, 50));
	(void)printf(
	    "  ours, vmlinux: %.0f ms; QEMU microvm + KVM, bzImage: %.0f ms, vmlinux: %.0f ms\n",
	    mine, samples_percentile(&bz, 50), samples_percentile(&elf, 50));
	r = report(&(struct figure){
	    .name = "boot_vs_qemu",
	    .accel = "kvm",
	    .unit = "x",
	    .value = best / mine,
	    .goal = 2,
	    .p50 = best / mine,
	    .p99 = best / samples_percentile(&ours, 99),
	    .n = (size_t)rounds,
	});
	samples_fini(&ours);
	samples_fini(&elf);
	samples_fini(&bz);
	return r == 0 ? 0 : 1;
}
