/* SPDX-License-Identifier: MIT
 *
 * segment.c - create, attach and validate the shared segment.
 *
 * The supervisor creates; clients, monitors and workers attach. Owns the only
 * mapping of the segment in a process, and its descriptor.
 */
#include "shm/segment.h"
#include "shm/lifeline.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define SEG_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* Where the parts of a segment with nslots slots lie. The only computation of
 * it: an attached segment must say exactly the same. */
struct places {
	size_t idle, wait, client, slot, chan, size;
};

static size_t
align_up(size_t v, size_t to)
{
	return (v + to - 1) / to * to;
}

static struct places
places_of(uint32_t nslots)
{
	struct places p;

	p.idle = align_up(sizeof(struct shm_head), SHM_CACHELINE);
	p.wait = align_up(p.idle + nslots * sizeof(uint32_t), SHM_CACHELINE);
	p.client = p.wait + SHM_WAITERS * sizeof(struct shm_waiter);
	p.slot = align_up(p.client + SHM_CLIENTS * sizeof(struct shm_client), SHM_CACHELINE);
	p.chan = align_up(p.slot + nslots * sizeof(struct shm_slot), SHM_PAGE);
	p.size = p.chan + nslots * sizeof(struct shm_chan);
	return p;
}

size_t
seg_size(uint32_t nslots)
{
	return places_of(nslots).size;
}

/* Map fd and fill in the private view. Takes ownership of fd. */
static int
seg_map(struct seg **out, int fd, uint32_t nslots, bool read_only)
{
	struct places p = places_of(nslots);
	_cleanup_(closep) int own = fd;
	struct seg *seg = calloc(1, sizeof(*seg));
	char *base;

	if (seg == NULL)
		return -ENOMEM;
	if (!read_only) {
		seg->scratch = calloc(nslots, sizeof(*seg->scratch));
		if (seg->scratch == NULL) {
			free(seg);
			return -ENOMEM;
		}
	}
	base =
	    mmap(NULL, p.size, read_only ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, own, 0);
	if (base == MAP_FAILED) {
		int r = -errno;

		free(seg->scratch);
		free(seg);
		return r;
	}
	seg->magic = SEG_MAGIC;
	seg->fd = steal_fd(&own);
	seg->read_only = read_only;
	seg->size = p.size;
	seg->nslots = nslots;
	seg->nclients = SHM_CLIENTS;
	seg->nwaiters = SHM_WAITERS;
	seg->head = (struct shm_head *)base;
	seg->idle = (_Atomic uint32_t *)(base + p.idle);
	seg->waiter = (struct shm_waiter *)(base + p.wait);
	seg->client = (struct shm_client *)(base + p.client);
	seg->slot = (struct shm_slot *)(base + p.slot);
	seg->chan = (struct shm_chan *)(base + p.chan);
	*out = seg;
	return 0;
}

static int
head_fill(struct shm_head *head, const struct seg_params *params)
{
	struct places p = places_of(params->nslots);

	if (getrandom(&head->generation, sizeof(head->generation), 0) !=
	    (ssize_t)sizeof(head->generation))
		return -EIO;
	head->magic = SHM_MAGIC;
	head->format = SHM_FORMAT;
	head->size = p.size;
	head->nslots = params->nslots;
	head->nclients = SHM_CLIENTS;
	head->nwaiters = SHM_WAITERS;
	head->supervisor_pid = (uint32_t)getpid();
	head->idle_off = (uint32_t)p.idle;
	head->wait_off = (uint32_t)p.wait;
	head->client_off = (uint32_t)p.client;
	head->slot_off = (uint32_t)p.slot;
	head->chan_off = p.chan;
	head->memory_mib = params->memory_mib;
	head->vcpus = params->vcpus;
	(void)snprintf(head->name, sizeof(head->name), "%s", params->name);
	(void)snprintf(head->accel, sizeof(head->accel), "%s", params->accel);
	(void)snprintf(head->why, sizeof(head->why), "%s", params->why);
	atomic_init(&head->state, POOL_RUNNING);
	atomic_init(&head->heartbeat_ns, now_ns());
	atomic_init(&head->count[SLOT_EMPTY], params->nslots);
	return 0;
}

int
seg_create(struct seg **out, const struct seg_params *params, char *err, size_t errlen)
{
	_cleanup_(closep) int fd = -1;
	struct seg *seg;
	int r;

	*out = NULL;
	if (params->nslots < 1 || params->nslots > SHM_SLOTS_MAX)
		return fail(EINVAL, err, errlen, "a segment has 1 to %u slots, not %u",
			    SHM_SLOTS_MAX, params->nslots);
	fd = memfd_create("vmpool-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return fail(errno, err, errlen, "memfd_create: %m");
	/* Whoever gets a read-only descriptor must not reopen it for writing,
	 * unless it is the owner. */
	if (fchmod(fd, 0600) < 0)
		return fail(errno, err, errlen, "fchmod of the segment: %m");
	if (ftruncate(fd, (off_t)seg_size(params->nslots)) < 0)
		return fail(errno, err, errlen, "ftruncate of the segment to %zu bytes: %m",
			    seg_size(params->nslots));
	if (fcntl(fd, F_ADD_SEALS, SEG_SEALS | F_SEAL_SEAL) < 0)
		return fail(errno, err, errlen, "sealing the segment: %m");
	r = seg_map(&seg, steal_fd(&fd), params->nslots, false);
	if (r < 0)
		return fail(-r, err, errlen, "mapping the segment: %s", strerror(-r));
	r = head_fill(seg->head, params);
	if (r < 0) {
		seg_close(seg);
		return fail(-r, err, errlen, "getrandom: %s", strerror(-r));
	}
	*out = seg;
	return 0;
}

/* Is this descriptor a sealed file whose head describes a segment of this build? */
static int
head_check(int fd, uint32_t *nslots, char *err, size_t errlen)
{
	struct shm_head head; /* a copy: its owner may change the original */
	struct places p;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEG_SEALS) != SEG_SEALS || fstat(fd, &st) < 0)
		return fail(EPROTO, err, errlen, "not a pool segment: not a sealed memfd");
	if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) || head.magic != SHM_MAGIC)
		return fail(EPROTO, err, errlen, "not a pool segment: no magic");
	if (head.format != SHM_FORMAT)
		return fail(EMEDIUMTYPE, err, errlen,
			    "the pool was built with another segment layout (%#llx, here %#llx)",
			    (unsigned long long)head.format, (unsigned long long)SHM_FORMAT);
	if (head.nslots < 1 || head.nslots > SHM_SLOTS_MAX)
		return fail(EPROTO, err, errlen, "not a pool segment: %u slots", head.nslots);
	p = places_of(head.nslots);
	if (head.size != p.size || st.st_size < 0 || (size_t)st.st_size != p.size ||
	    head.nclients != SHM_CLIENTS || head.nwaiters != SHM_WAITERS ||
	    head.idle_off != p.idle || head.wait_off != p.wait || head.client_off != p.client ||
	    head.slot_off != p.slot || head.chan_off != p.chan)
		return fail(EPROTO, err, errlen, "not a pool segment: sizes disagree");
	*nslots = head.nslots;
	return 0;
}

int
seg_attach(struct seg **out, int fd, bool read_only, char *err, size_t errlen)
{
	_cleanup_(closep) int own = fd;
	uint32_t nslots;
	int r;

	*out = NULL;
	r = head_check(own, &nslots, err, errlen);
	if (r < 0)
		return r;
	r = seg_map(out, steal_fd(&own), nslots, read_only);
	if (r < 0)
		return fail(-r, err, errlen, "mapping the segment: %s", strerror(-r));
	return 0;
}

int
seg_read_only_fd(const struct seg *seg)
{
	char path[64];
	int fd;

	CHECK_OBJ(seg, SEG_MAGIC);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", seg->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

void
seg_close(struct seg *seg)
{
	if (seg == NULL)
		return;
	CHECK_OBJ(seg, SEG_MAGIC);
	lifeline_drop(seg);
	(void)munmap(seg->head, seg->size);
	closep(&seg->fd);
	free(seg->scratch);
	seg->magic = 0;
	free(seg);
}
