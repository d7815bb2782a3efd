/* SPDX-License-Identifier: MIT
 *
 * gmem.c - guest memory: one mapping, one memory slot, one bounds check.
 * Runs in the worker; owns the mapping. See gmem.h.
 */
#include "kvm/gmem.h"
#include <string.h>
#include <sys/mman.h>

#define GMEM_MAGIC 0x67a35e11u
#define HUGE_PAGE (2ull << 20)

/* Anonymous memory whose start is a multiple of the huge page size, so that the
 * host can back it, and KVM map it, by huge pages. */
static void *
map_aligned(uint64_t size)
{
	uint8_t *p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t head;

	if (p == MAP_FAILED)
		return p;
	head = -(uintptr_t)p & (HUGE_PAGE - 1);
	if (head > 0)
		(void)munmap(p, head);
	if (head < HUGE_PAGE)
		(void)munmap(p + head + size, HUGE_PAGE - head);
	(void)madvise(p + head, size, MADV_HUGEPAGE);
	return p + head;
}

int
gmem_init(struct gmem *m, uint64_t size, int fd)
{
	void *p;

	AZ(size % 4096);
	AN(size);
	if (fd < 0)
		p = map_aligned(size);
	else
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	/* A guest's memory is its tenant's: keep it out of our core dumps. */
	(void)madvise(p, size, MADV_DONTDUMP);
	*m = (struct gmem){.magic = GMEM_MAGIC, .size = size, .base = p};
	return 0;
}

void
gmem_fini(struct gmem *m)
{
	if (m->base == NULL)
		return;
	CHECK_OBJ(m, GMEM_MAGIC);
	(void)munmap(m->base, m->size);
	*m = (struct gmem){0};
}

bool
gmem_holds(const struct gmem *m, uint64_t gpa, uint64_t len)
{
	return len <= m->size && gpa <= m->size - len;
}

static void *
gmem_ptr(const struct gmem *m, uint64_t gpa, uint64_t len)
{
	CHECK_OBJ(m, GMEM_MAGIC);
	return gmem_holds(m, gpa, len) ? m->base + gpa : NULL;
}

int
gmem_read(const struct gmem *m, uint64_t gpa, void *dst, size_t len)
{
	const void *p = gmem_ptr(m, gpa, len);

	if (p == NULL)
		return -EFAULT;
	memcpy(dst, p, len);
	return 0;
}

int
gmem_write(struct gmem *m, uint64_t gpa, const void *src, size_t len)
{
	void *p = gmem_ptr(m, gpa, len);

	if (p == NULL)
		return -EFAULT;
	memcpy(p, src, len);
	return 0;
}

int
gmem_load16(const struct gmem *m, uint64_t gpa, uint16_t *out)
{
	const uint16_t *p = gmem_ptr(m, gpa, sizeof(*p));

	if (p == NULL || gpa % sizeof(*p) != 0)
		return -EFAULT;
	/* pairs with the guest driver's write barrier before it moves an index */
	*out = __atomic_load_n(p, __ATOMIC_ACQUIRE);
	return 0;
}

int
gmem_store16(struct gmem *m, uint64_t gpa, uint16_t v)
{
	uint16_t *p = gmem_ptr(m, gpa, sizeof(*p));

	if (p == NULL || gpa % sizeof(*p) != 0)
		return -EFAULT;
	/* pairs with the guest driver's read barrier after it sees an index move */
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
	return 0;
}

int
gmem_load_file(struct gmem *m, uint64_t gpa, int fd, uint64_t off, uint64_t len)
{
	uint8_t *p = gmem_ptr(m, gpa, len);
	ssize_t n;

	if (p == NULL)
		return -EFAULT;
	while (len > 0) {
		n = pread(fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

void
gmem_slot(const struct gmem *m, struct kvm_userspace_memory_region *out)
{
	CHECK_OBJ(m, GMEM_MAGIC);
	*out = (struct kvm_userspace_memory_region){
	    .slot = 0,
	    .guest_phys_addr = 0,
	    .memory_size = m->size,
	    .userspace_addr = (uintptr_t)m->base,
	};
}
