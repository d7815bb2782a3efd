/* SPDX-License-Identifier: MIT
 *
 * accel.c - probes KVM and QEMU. Runs in short-lived `vmpool-worker probe` and
 * `vmpool-worker doctor` processes.
 */
#include "worker/accel.h"
#include "kvm/vm.h"
#include "worker/qemu.h"

#include <string.h>

static const struct machine_ops *
choose_kvm(char *why, size_t len)
{
	char reason[256];
	enum vm_probe p = vm_probe(-1, reason, sizeof(reason));

	(void)snprintf(why, len, "%s", reason);
	return p == VM_PROBE_OK ? &machine_kvm : NULL;
}

static const struct machine_ops *
choose_tcg(char *why, size_t len)
{
	if (qemu_check(why, len) < 0)
		return NULL;
	(void)snprintf(why, len, "software emulation by QEMU");
	return &machine_qemu;
}

const struct machine_ops *
accel_choose(const char *want, char *why, size_t len)
{
	char kvm[256], tcg[256];

	if (strcmp(want, "kvm") == 0)
		return choose_kvm(why, len);
	if (strcmp(want, "tcg") == 0)
		return choose_tcg(why, len);
#ifdef VMPOOL_TEST
	if (strcmp(want, "null") == 0) {
		(void)snprintf(why, len, "a guest that is only played, for tests");
		return &machine_null;
	}
#endif
	if (strcmp(want, "auto") != 0) {
		(void)snprintf(why, len, "unknown accelerator \"%s\" (auto, kvm or tcg)", want);
		return NULL;
	}
	if (choose_kvm(kvm, sizeof(kvm)) != NULL) {
		(void)snprintf(why, len, "%s", kvm);
		return &machine_kvm;
	}
	if (choose_tcg(tcg, sizeof(tcg)) == NULL) {
		(void)snprintf(why, len, "neither KVM nor emulation: %s; %s", kvm, tcg);
		return NULL;
	}
	(void)snprintf(why, len, "%s; using %s", kvm, tcg);
	return &machine_qemu;
}
