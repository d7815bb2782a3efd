/* SPDX-License-Identifier: MIT
 *
 * fuzz_snapfile.c - a snapshot file in which something was changed, sometimes with
 * its checksums made right again. It is refused with a reason, or what is taken for a
 * snapshot lies within the file and is what was written.
 */
#include "kvm/vm.h"
#include "tests/lib/fuzz.h"
#include "worker/snapfile.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MIB (1ull << 20)

/* A small snapshot with random data in it. */
static int
take(struct fuzz *f)
{
	struct snap_info info = {.accel = "kvm", .version = "1", .mem_mib = VM_MEM_MIB_MIN};
	struct snap_source from = {.len = fuzz_below(f, 9000) + 1u};
	struct snap_place p;
	uint8_t bytes[9000];
	char err[256];

	from.fd = memfd_create("fuzz-snapshot", MFD_CLOEXEC);
	assert(from.fd >= 0);
	info.vcpus = fuzz_below(f, VM_VCPUS_MAX) + 1;
	fuzz_fill(f, info.warmup, fuzz_below(f, sizeof(info.warmup)) + 1u);
	AZ(snap_begin(from.fd, &info, &p, err, sizeof(err)));
	fuzz_fill(f, bytes, sizeof(bytes));
	for (uint32_t i = fuzz_below(f, 4); i > 0; i--)
		AZ(snapsum_pwrite(from.fd, bytes, fuzz_below(f, sizeof(bytes)),
				  p.mem_off + fuzz_random(f) % (p.mem_len - sizeof(bytes))));
	from.off = p.state_off;
	AZ(snapsum_pwrite(from.fd, bytes, from.len, from.off));
	AZ(snap_finish(from.fd, &info, &from, err, sizeof(err)));
	return from.fd;
}

/* Change some of [off, off + len); true if it is not what it was. */
static bool
change(struct fuzz *f, int fd, uint64_t off, uint32_t len)
{
	uint8_t bytes[4096], before[4096];

	len = MIN(len, (uint32_t)sizeof(bytes));
	AZ(snapsum_pread(fd, bytes, len, off));
	memcpy(before, bytes, len);
	fuzz_mutate(f, bytes, len);
	AZ(snapsum_pwrite(fd, bytes, len, off));
	return memcmp(before, bytes, len) != 0;
}

/* Make the sums of table and header right, as a forger would. */
static void
seal(int fd)
{
	static struct snapsum_entry table[VM_MEM_MIB_MIN];
	struct snapfile_header h;

	AZ(snapsum_pread(fd, &h, sizeof(h), 0));
	AZ(snapsum_pread(fd, table, sizeof(table), SNAP_HEADER_LEN));
	h.table_sum = snapsum(table, sizeof(table));
	h.sum = snapsum(&h, offsetof(struct snapfile_header, sum));
	AZ(snapsum_pwrite(fd, &h, sizeof(h), 0));
}

static bool
damage(struct fuzz *f, int fd, uint64_t size)
{
	uint64_t state = SNAP_MEM_OFF + VM_MEM_MIB_MIN * MIB, to;

	switch (fuzz_below(f, 6)) {
	case 0: return change(f, fd, 0, fuzz_one_in(f, 2) ? 96 : SNAP_HEADER_LEN);
	case 1:
		return change(f, fd, SNAP_HEADER_LEN,
			      VM_MEM_MIB_MIN * sizeof(struct snapsum_entry));
	case 2: return change(f, fd, fuzz_random(f) % state, 64);
	case 3: return change(f, fd, state, (uint32_t)(size - state));
	case 4: to = fuzz_random(f) % size; break;
	default: to = size + fuzz_value(f) % (4ull << 30); break;
	}
	AZ(ftruncate(fd, (off_t)to));
	return to != size;
}

static void
must_be_possible(const struct snap *s, uint64_t size)
{
	char text[2000];

	assert(snapinfo_wrong(&s->info) == NULL);
	assert(s->mem_off == SNAP_MEM_OFF && s->mem_len == s->info.mem_mib * MIB);
	assert(s->state_off == s->mem_off + s->mem_len && s->state_len > 0);
	assert(s->state_off + s->state_len == size && s->checked == size);
	assert(snap_check_fits(&s->info, &s->info, text, sizeof(text)) == 0);
	snap_describe(&s->info, text, sizeof(text));
	snap_describe_check(s, text, sizeof(text));
}

static void
one(struct fuzz *f)
{
	_cleanup_(closep) int fd = take(f);
	bool changed, sealed = false;
	char err[256] = "";
	struct stat st;
	struct snap s;
	int r;

	AZ(fstat(fd, &st));
	AZ(snap_open(fd, &s, err, sizeof(err)));
	must_be_possible(&s, (uint64_t)st.st_size);
	changed = damage(f, fd, (uint64_t)st.st_size);
	AZ(fstat(fd, &st));
	if (st.st_size >= (off_t)SNAP_MEM_OFF && fuzz_one_in(f, 2)) {
		seal(fd);
		sealed = true;
	}
	r = snap_open(fd, &s, err, sizeof(err));
	assert(r == 0 || r == -SNAP_EFORMAT || r == -SNAP_EVERSION || r == -SNAP_ETRUNCATED ||
	       r == -SNAP_ECHECKSUM);
	assert((r < 0) == (err[0] != '\0'));
	assert(r < 0 || sealed || !changed);
	if (r == 0)
		must_be_possible(&s, (uint64_t)st.st_size);
}

int
main(int argc, char **argv)
{
	return fuzz_main(argc, argv, "fuzz_snapfile", one);
}
