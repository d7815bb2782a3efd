/* SPDX-License-Identifier: MIT
 *
 * vm_state.c - encoding of a machine's state. See vm_state.h. Runs in the
 * worker, on the owner's thread.
 */
#include "kvm/vm_state.h"
#include "kvm/map.h"
#include <string.h>

#define STATE_MAGIC "VMPSTATE"
#define HEADER_LEN 56u

enum {
	KIND_CHIP = 1,
	KIND_SERIAL = 2,
	KIND_VCON = 3,
	KIND_WARM = 4,
	KIND_VCPU = 16, /* and the following VCPU_PARTS */
	KIND_END = KIND_VCPU + VCPU_PARTS + 1,
};

struct header {
	char magic[8];
	uint32_t version, len;
	uint64_t total;
	struct vm_identity id;
};
_Static_assert(sizeof(struct header) == HEADER_LEN, "no padding");

uint64_t
vm_state_layout(void)
{
	const uint64_t facts[] = {
	    MAP_LOW_RAM_END,
	    MAP_ACPI,
	    MAP_ACPI_END,
	    MAP_HIGH_RAM,
	    MAP_VIRTIO,
	    MAP_IOAPIC,
	    MAP_LAPIC,
	    MAP_KVM_IDENTITY,
	    MAP_KVM_TSS,
	    MAP_COM1,
	    MAP_RESET,
	    MAP_SLEEP_CONTROL,
	    MAP_GSI_COM1,
	    MAP_GSI_VIRTIO,
	    VIRTIO_QUEUES_MAX,
	    vcon_queue_max(VCON_QUEUE_RX),
	    vcon_queue_max(VCON_QUEUE_TX),
	    sizeof(struct vcpu_state),
	};
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < ARRAY_SIZE(facts); i++)
		hash = (hash ^ facts[i]) * 0x100000001b3u;
	return hash;
}

int
vm_state_encode(const struct vm_state *s, const struct vm_identity *id, struct blob *b)
{
	struct header h = {.version = VM_STATE_VERSION, .len = sizeof(h)};

	AZ(b->len);
	memcpy(h.magic, STATE_MAGIC, sizeof(h.magic));
	h.id = *id;
	blob_bytes(b, &h, sizeof(h));
	blob_begin(b, KIND_CHIP, 0);
	chip_state_encode(&s->chip, b);
	blob_end(b);
	blob_begin(b, KIND_SERIAL, 0);
	dev_state_encode_serial(&s->dev, b);
	blob_end(b);
	blob_begin(b, KIND_VCON, 0);
	dev_state_encode_vcon(&s->dev, b);
	blob_end(b);
	blob_begin(b, KIND_WARM, 0);
	for (uint32_t i = 0; i < s->warm.n; i++)
		blob_u32(b, s->warm.page[i]);
	blob_end(b);
	for (uint32_t i = 0; i < id->vcpus; i++)
		vcpu_state_encode(&s->vcpu[i], b, KIND_VCPU, i);
	if (b->failed)
		return -ENOMEM;
	h.total = b->len;
	memcpy(b->data, &h, sizeof(h));
	return 0;
}

static bool
khz_differs(uint32_t a, uint32_t b)
{
	return (a > b ? a - b : b - a) > MAX(a, b) / 1000;
}

static int
check_identity(const struct vm_identity *has, const struct vm_identity *want, char *err,
	       size_t errlen)
{
	if (has->layout != want->layout)
		return fail(EINVAL, err, errlen,
			    "the state is of a machine with another layout of devices");
	if (has->mem_size != want->mem_size)
		return fail(EINVAL, err, errlen,
			    "the state is of a machine with %llu MiB of memory, not %llu",
			    (unsigned long long)has->mem_size >> 20,
			    (unsigned long long)want->mem_size >> 20);
	if (has->vcpus != want->vcpus)
		return fail(EINVAL, err, errlen, "the state is of a machine with %u vCPUs, not %u",
			    has->vcpus, want->vcpus);
	if (has->cpuid != want->cpuid)
		return fail(EINVAL, err, errlen,
			    "the state is of a machine whose processor has other features");
	if (khz_differs(has->tsc_khz, want->tsc_khz))
		return fail(EINVAL, err, errlen,
			    "the state is of a machine with a TSC of %u kHz, not %u", has->tsc_khz,
			    want->tsc_khz);
	return 0;
}

static int
check_header(struct view *v, size_t len, const struct vm_identity *id, char *err, size_t errlen)
{
	struct header h;

	view_bytes(v, &h, sizeof(h));
	if (v->failed || memcmp(h.magic, STATE_MAGIC, sizeof(h.magic)) != 0)
		return fail(EINVAL, err, errlen, "this is not the state of a machine");
	if (h.version != VM_STATE_VERSION || h.len != sizeof(h))
		return fail(ENOTSUP, err, errlen, "the state is of version %u, not %u", h.version,
			    VM_STATE_VERSION);
	if (h.total != len)
		return fail(EINVAL, err, errlen,
			    "the state is truncated: it has %zu bytes, and says %llu", len,
			    (unsigned long long)h.total);
	return check_identity(&h.id, id, err, errlen);
}

static int
decode_warm(struct vm_warm *w, struct view content, uint64_t mem_size, char *err, size_t errlen)
{
	w->n = (uint32_t)MIN(content.left / sizeof(w->page[0]), VM_WARM_MAX);
	for (uint32_t i = 0; i < w->n; i++) {
		w->page[i] = view_u32(&content);
		if (w->page[i] >> 1 >= mem_size / GMEM_PAGE)
			return fail(EINVAL, err, errlen,
				    "the state names a page that is not there");
	}
	return view_done(&content)
		   ? 0
		   : fail(EINVAL, err, errlen, "the state's list of pages makes no sense");
}

static int
decode_section(struct vm_state *s, const struct vm_identity *id, const struct msr_list *msrs,
	       uint32_t kind, uint32_t index, struct view content, char *err, size_t errlen)
{
	switch (kind) {
	case KIND_CHIP: return chip_state_decode(&s->chip, content, err, errlen);
	case KIND_SERIAL: return dev_state_decode_serial(&s->dev, content, err, errlen);
	case KIND_VCON: return dev_state_decode_vcon(&s->dev, content, id->mem_size, err, errlen);
	case KIND_WARM: return decode_warm(&s->warm, content, id->mem_size, err, errlen);
	default:
		return vcpu_state_decode(&s->vcpu[index], kind - KIND_VCPU, content, msrs, err,
					 errlen);
	}
}

/* Which sections belong to a machine: the index is that of a vCPU, or 0. */
static bool
belongs(const struct vm_identity *id, uint32_t kind, uint32_t index)
{
	if (kind >= KIND_CHIP && kind <= KIND_WARM)
		return index == 0;
	return kind >= KIND_VCPU && kind < KIND_END && index < id->vcpus;
}

int
vm_state_decode(struct vm_state *s, const struct vm_identity *id, const struct msr_list *msrs,
		const void *bytes, size_t len, char *err, size_t errlen)
{
	struct view v = {.p = bytes, .left = len}, content;
	uint64_t seen[VM_VCPUS_MAX] = {0};
	uint32_t kind, index, n = 0;
	int r = check_header(&v, len, id, err, errlen);

	while (r == 0 && view_section(&v, &kind, &index, &content)) {
		if (!belongs(id, kind, index))
			return fail(EINVAL, err, errlen, "the state has an unknown section %u.%u",
				    kind, index);
		if ((seen[index] & 1ull << kind) != 0)
			return fail(EINVAL, err, errlen, "the state has section %u.%u twice", kind,
				    index);
		seen[index] |= 1ull << kind;
		n++;
		r = decode_section(s, id, msrs, kind, index, content, err, errlen);
	}
	if (r == 0 && (!view_done(&v) || n != KIND_WARM + id->vcpus * (VCPU_PARTS + 1)))
		return fail(EINVAL, err, errlen, "the state is incomplete");
	return r;
}
