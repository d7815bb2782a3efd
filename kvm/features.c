/* SPDX-License-Identifier: MIT
 *
 * features.c - can a state that was captured elsewhere run on this host's processor?
 * Runs wherever a template or a snapshot is looked at; owns nothing.
 */
#include "kvm/cpuid.h"
#include "kvm/vm.h"

#include <fcntl.h>
#include <string.h>

int
vm_features(int kvm_fd, uint32_t vcpus, uint64_t *hash, char *err, size_t errlen)
{
	_cleanup_(closep) int fd =
	    kvm_fd >= 0 ? fcntl(kvm_fd, F_DUPFD_CLOEXEC, 0) : open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct cpuid c;
	int r = 0;

	if (fd < 0)
		return fail(errno, err, errlen, "/dev/kvm: %s", strerror(errno));
	*hash = CPUID_HASH_START;
	for (uint32_t i = 0; i < vcpus && r == 0; i++) {
		r = cpuid_of_vcpu(fd, &c, i, vcpus, err, errlen);
		if (r == 0)
			*hash = cpuid_hash(&c, *hash);
	}
	return r;
}
