/* SPDX-License-Identifier: MIT
 *
 * origin.c - see origin.h. Runs in builders and workers; owns nothing.
 */
#include "worker/origin.h"
#include "kvm/proto.h"
#include "shm/vmpool.h"

#include <string.h>

/* Of what surrounds a machine's state: changes with the agent's protocol. The state
 * itself tells layouts of devices apart. */
#define ORIGIN_LAYOUT PROTO_VERSION

_Static_assert(sizeof(((struct ctl_origin *)NULL)->kernel) == SNAP_HASH_LEN, "hashes fit");

int
origin_find(struct ctl_origin *out, const struct machine_ops *ops, const struct machine_config *cfg,
	    char *err, size_t errlen)
{
	int r;

	*out = (struct ctl_origin){.zero = 0};
	r = ops->identify(cfg->vcpus, out->cpu, &out->tsc_khz, err, errlen);
	/* The test build's null machine boots no files. */
	if (r == 0 && cfg->kernel[0] != '\0')
		r = snap_hash_file(cfg->kernel, out->kernel, err, errlen);
	if (r == 0 && cfg->image[0] != '\0')
		r = snap_hash_file(cfg->image, out->image, err, errlen);
	return r;
}

struct snap_info
origin_info(const struct ctl_origin *o, const struct machine_ops *ops, uint32_t mem_mib,
	    uint32_t vcpus)
{
	struct snap_info info = {
	    .version = VMPOOL_VERSION,
	    .layout = ORIGIN_LAYOUT,
	    .mem_mib = mem_mib,
	    .vcpus = vcpus,
	    .tsc_khz = o->tsc_khz,
	};

	(void)snprintf(info.accel, sizeof(info.accel), "%s", ops->name);
	memcpy(info.kernel, o->kernel, sizeof(info.kernel));
	memcpy(info.image, o->image, sizeof(info.image));
	memcpy(info.cpu, o->cpu, sizeof(info.cpu));
	return info;
}
