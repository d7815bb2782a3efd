/* SPDX-License-Identifier: MIT
 *
 * share.c - pages that the host reads and writes. Runs in the agent; owns them, from
 * the first time they are needed on: a machine that is idle has none.
 *
 * They must stay where they are. A page that somebody else holds is not moved, so they
 * are held, by a pipe that nobody reads. Either ring is mapped twice, one behind the other:
 * what goes over its end is contiguous all the same.
 */
#include "kvm/guest/share.h"
#include "kvm/proto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define SIZE (PROTO_SHARE_PAGES * PROTO_PAGE)
#define PRESENT (1ull << 63) /* of an entry of /proc/PID/pagemap, whose lower bits are */
#define FRAME ((1ull << 55) - 1)

struct ring {
	uint8_t *bytes; /* twice PROTO_RING_BYTES */
	uint32_t pos;	/* bytes so far */
};

static bool offered, told;
static int made; /* 1: the pages are there, and held; -1: they cannot be had */
static struct proto_share *head;
static struct ring out, in;

void
share_offer(bool yes)
{
	offered = yes;
	told = false;
}

/* Map the ring that begins at this offset of the file. */
static uint8_t *
map_ring(int fd, off_t off)
{
	uint8_t *at =
	    mmap(NULL, 2 * PROTO_RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 2 && at != MAP_FAILED; i++)
		if (mmap(at + (size_t)i * PROTO_RING_BYTES, PROTO_RING_BYTES,
			 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd,
			 off) == MAP_FAILED)
			return NULL;
	return at == MAP_FAILED ? NULL : at;
}

/* All of it stays in memory, and where it is, for good. */
static int
hold(void *at, size_t len)
{
	struct iovec v = {at, len};
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	if (fcntl(fds[1], F_SETPIPE_SZ, (int)len) < 0 || vmsplice(fds[1], &v, 1, 0) != (ssize_t)len)
		return -ENOMEM;
	return 0;
}

static int
map(void)
{
	_cleanup_(util_closep) int fd = memfd_create("vmpool-share", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, SIZE) < 0)
		return -errno;
	head = mmap(NULL, PROTO_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	out.bytes = map_ring(fd, PROTO_PAGE);
	in.bytes = map_ring(fd, PROTO_PAGE + PROTO_RING_BYTES);
	if (head == MAP_FAILED || out.bytes == NULL || in.bytes == NULL)
		return -ENOMEM;
	if (hold(head, PROTO_PAGE) < 0 || hold(out.bytes, PROTO_RING_BYTES) < 0 ||
	    hold(in.bytes, PROTO_RING_BYTES) < 0)
		return -ENOMEM;
	return 0;
}

/* The addresses of n pages from there on. */
static int
addresses(int pagemap, const void *at, size_t n, uint64_t *pages)
{
	const off_t off = (off_t)((uintptr_t)at / PROTO_PAGE * sizeof(*pages));

	if (pread(pagemap, pages, n * sizeof(*pages), off) != (ssize_t)(n * sizeof(*pages)))
		return -EIO;
	for (size_t i = 0; i < n; i++) {
		if ((pages[i] & PRESENT) == 0 || (pages[i] & FRAME) == 0)
			return -EIO;
		pages[i] = (pages[i] & FRAME) * PROTO_PAGE;
	}
	return 0;
}

static int
find(uint64_t *pages)
{
	_cleanup_(util_closep) int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (pagemap < 0 || addresses(pagemap, head, 1, pages) < 0 ||
	    addresses(pagemap, out.bytes, PROTO_RING_PAGES, pages + 1) < 0 ||
	    addresses(pagemap, in.bytes, PROTO_RING_PAGES, pages + 1 + PROTO_RING_PAGES) < 0)
		return -EIO;
	return 0;
}

bool
share_begin(uint64_t *pages)
{
	if (!offered || told)
		return false;
	/* What cannot be had once is not asked for again: the channel will do. */
	if (made == 0)
		made = map() == 0 ? 1 : -1;
	offered = made > 0 && find(pages) == 0;
	if (!offered)
		return false;
	head->out_taken = head->in_taken = 0;
	out.pos = in.pos = 0;
	told = true;
	return true;
}

uint8_t *
share_room(size_t len)
{
	uint32_t taken;

	if (!told)
		return NULL;
	taken = atomic_load_explicit((_Atomic uint32_t *)&head->out_taken, memory_order_acquire);
	if (out.pos - taken + len > PROTO_RING_BYTES)
		return NULL;
	return out.bytes + out.pos % PROTO_RING_BYTES;
}

void
share_sent(size_t len)
{
	out.pos += (uint32_t)len;
}

const uint8_t *
share_next(size_t len)
{
	return told && len > 0 && len <= PROTO_PAYLOAD_MAX ? in.bytes + in.pos % PROTO_RING_BYTES
							   : NULL;
}

void
share_taken(size_t len)
{
	in.pos += (uint32_t)len;
	atomic_store_explicit((_Atomic uint32_t *)&head->in_taken, in.pos, memory_order_release);
}
