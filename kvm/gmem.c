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

/* Address space of size bytes that starts skew bytes after a multiple of align,
 * with nothing in it yet. */
static uint8_t *
reserve(uint64_t size, uint64_t align, uint64_t skew)
{
	uint64_t room = size + align, head;
	uint8_t *p =
	    mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return p;
	head = (skew - (uintptr_t)p) & (align - 1);
	if (head > 0)
		(void)munmap(p, head);
	if (room - head - size > 0)
		(void)munmap(p + head + size, room - head - size);
	return p + head;
}

static void *
map_at(uint8_t *p, uint64_t size, int flags, int fd, uint64_t off)
{
	void *q;

	if (p == MAP_FAILED)
		return p;
	q = mmap(p, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, (off_t)off);
	if (q == MAP_FAILED)
		(void)munmap(p, size);
	return q;
}

/* Anonymous memory whose start is a multiple of the huge page size, so that the
 * host can back it, and KVM map it, by huge pages. */
static void *
map_anonymous(uint64_t size)
{
	void *p = map_at(reserve(size, HUGE_PAGE, 0), size,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED)
		(void)madvise(p, size, MADV_HUGEPAGE);
	return p;
}

static int
gmem_of(struct gmem *m, uint64_t size, void *p)
{
	if (p == MAP_FAILED)
		return -errno;
	/* A guest's memory is its tenant's: keep it out of our core dumps. */
	(void)madvise(p, size, MADV_DONTDUMP);
	*m = (struct gmem){.magic = GMEM_MAGIC, .size = size, .base = p};
	return 0;
}

int
gmem_init(struct gmem *m, uint64_t size, int fd)
{
	AZ(size % GMEM_PAGE);
	AN(size);
	return fd < 0 ? gmem_of(m, size, map_anonymous(size)) : gmem_map(m, size, fd, 0, 0);
}

int
gmem_map(struct gmem *m, uint64_t size, int fd, uint64_t off, int how)
{
	int flags = how == GMEM_SHARED ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE;
	uint64_t skew = how == GMEM_SHARED ? 0 : (uint64_t)how * GMEM_PAGE;

	return gmem_of(m, size,
		       map_at(reserve(size, GMEM_SKEWS * GMEM_PAGE, skew), size, flags, fd, off));
}

int
gmem_track(struct gmem *m)
{
	CHECK_OBJ(m, GMEM_MAGIC);
	m->written = calloc((m->size / GMEM_PAGE + 63) / 64, sizeof(uint64_t));
	return m->written == NULL ? -ENOMEM : 0;
}

void
gmem_fini(struct gmem *m)
{
	if (m->base == NULL)
		return;
	CHECK_OBJ(m, GMEM_MAGIC);
	(void)munmap(m->base, m->size);
	free(m->written);
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

/* A vCPU thread and the owner may write at once; the owner takes the marks while
 * the vCPUs stand still (dirty.c), which orders them. */
static void
mark(const struct gmem *m, uint64_t gpa, uint64_t len)
{
	if (m->written == NULL || len == 0)
		return;
	for (uint64_t page = gpa / GMEM_PAGE; page <= (gpa + len - 1) / GMEM_PAGE; page++)
		(void)__atomic_fetch_or(&m->written[page / 64], 1ull << page % 64,
					__ATOMIC_RELAXED);
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
	mark(m, gpa, len);
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
	mark(m, gpa, sizeof(*p));
	return 0;
}

int
gmem_load_file(struct gmem *m, uint64_t gpa, int fd, uint64_t off, uint64_t len)
{
	uint8_t *p = gmem_ptr(m, gpa, len);
	ssize_t n;

	if (p == NULL)
		return -EFAULT;
	mark(m, gpa, len);
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
	    .flags = m->written != NULL ? KVM_MEM_LOG_DIRTY_PAGES : 0,
	    .guest_phys_addr = 0,
	    .memory_size = m->size,
	    .userspace_addr = (uintptr_t)m->base,
	};
}
