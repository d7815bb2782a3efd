/* SPDX-License-Identifier: MIT
 *
 * dirty.c - puts written guest memory back to the template. See dirty.h. Runs in
 * the worker, on the owner's thread, while the vCPUs stand still; owns the
 * bitmaps and the second mapping of the template.
 */
#include "kvm/dirty.h"
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define DIRTY_MAGIC 0xd127a9e5u
#define BITS 64u
#define QUIET_MAX 16u

int
dirty_enable(int vm_fd, char *err, size_t errlen)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				     .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE}};

	if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		return fail(errno, err, errlen, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: %s",
			    strerror(errno));
	return 0;
}

int
dirty_init(struct dirty *d, int vm_fd, struct gmem *mem, int fd, uint64_t off, char *err,
	   size_t errlen)
{
	uint64_t words = (mem->size / GMEM_PAGE + BITS - 1) / BITS;
	/* private: a sealed memfd cannot be mapped shared by every kernel */
	void *tmpl = mmap(NULL, mem->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, (off_t)off);

	if (tmpl == MAP_FAILED)
		return fail(errno, err, errlen, "mapping the template's memory: %s",
			    strerror(errno));
	(void)madvise(tmpl, mem->size, MADV_DONTDUMP);
	*d = (struct dirty){
	    .magic = DIRTY_MAGIC, .vm_fd = vm_fd, .mem = mem, .tmpl = tmpl, .words = words};
	d->log = calloc(3 * words, sizeof(uint64_t));
	if (d->log == NULL) {
		dirty_fini(d);
		return fail(ENOMEM, err, errlen, "out of memory");
	}
	d->dropped = d->log + words;
	d->hot = d->dropped + words;
	return 0;
}

void
dirty_fini(struct dirty *d)
{
	if (d->magic == 0)
		return;
	CHECK_OBJ(d, DIRTY_MAGIC);
	(void)munmap((void *)(uintptr_t)d->tmpl, d->mem->size);
	free(d->log);
	*d = (struct dirty){0};
}

static int
read_log(struct dirty *d, char *err, size_t errlen)
{
	struct kvm_dirty_log log = {.slot = 0, .dirty_bitmap = d->log};

	if (ioctl(d->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
		return fail(errno, err, errlen, "KVM_GET_DIRTY_LOG: %s", strerror(errno));
	return 0;
}

const uint64_t *
dirty_pages(struct dirty *d, char *err, size_t errlen)
{
	CHECK_OBJ(d, DIRTY_MAGIC);
	if (read_log(d, err, errlen) < 0)
		return NULL;
	for (uint64_t w = 0; w < d->words; w++)
		d->log[w] |= d->hot[w] | __atomic_load_n(&d->mem->written[w], __ATOMIC_RELAXED);
	return d->log;
}

/* true if the page had been written. */
static bool
copy_back(const struct dirty *d, uint64_t page)
{
	uint8_t *to = d->mem->base + page * GMEM_PAGE;
	const uint8_t *from = d->tmpl + page * GMEM_PAGE;

	if (memcmp(to, from, GMEM_PAGE) == 0)
		return false;
	memcpy(to, from, GMEM_PAGE);
	return true;
}

static void
make_hot(struct dirty *d, uint64_t page)
{
	d->list[d->hot_n++] = (struct dirty_hot){.page = (uint32_t)page};
	d->hot[page / BITS] |= 1ull << page % BITS;
}

void
dirty_expect(struct dirty *d, uint64_t page)
{
	CHECK_OBJ(d, DIRTY_MAGIC);
	AN(page < d->mem->size / GMEM_PAGE);
	if (d->hot_n < DIRTY_HOT_MAX && (d->hot[page / BITS] >> page % BITS & 1) == 0)
		make_hot(d, page);
}

/* Pages to drop, gathered into runs: one call each. */
struct run {
	uint64_t first, n;
};

static int
drop_run(const struct dirty *d, const struct run *run)
{
	if (run->n == 0)
		return 0;
	return madvise(d->mem->base + run->first * GMEM_PAGE, run->n * GMEM_PAGE, MADV_DONTNEED) < 0
		   ? -errno
		   : 0;
}

static int
drop(const struct dirty *d, struct run *run, uint64_t page)
{
	int r = 0;

	if (run->n > 0 && run->first + run->n == page) {
		run->n++;
		return 0;
	}
	r = drop_run(d, run);
	*run = (struct run){.first = page, .n = 1};
	return r;
}

/* Restore the written pages of one word that are not hot. Leaves in dropped[w]
 * those that were dropped. */
static int
restore_word(struct dirty *d, uint64_t w, bool few, struct run *run)
{
	uint64_t look = d->log[w] & ~d->hot[w], before = few ? ~0ull : d->dropped[w];
	int r = 0;

	d->dropped[w] = 0;
	d->log[w] = look;
	for (; look != 0 && r == 0; look &= look - 1) {
		uint64_t page = w * BITS + (unsigned)__builtin_ctzll(look), bit = look & -look;

		if ((before & bit) != 0 && d->hot_n < DIRTY_HOT_MAX) {
			make_hot(d, page);
			d->log[w] &= ~bit;
			(void)copy_back(d, page);
		} else {
			d->dropped[w] |= bit;
			r = drop(d, run, page);
		}
	}
	return r;
}

/* Copy the first n hot pages back (the others were just now); how many had changed. Their being
 * unchanged does not mean that nobody wrote them: many are written with what they held. So they are
 * watched again only now and then. */
static int
restore_hot(struct dirty *d, uint32_t n, uint64_t *changed)
{
	struct run run = {0};
	uint32_t kept = 0;
	int r = 0;

	for (uint32_t i = 0; i < d->hot_n && r == 0; i++) {
		struct dirty_hot h = d->list[i];
		uint64_t bit = 1ull << h.page % BITS;

		if (i < n) {
			bool written = copy_back(d, h.page);

			*changed += written;
			h.quiet = written ? 0 : h.quiet + 1;
		}
		if (h.quiet <= QUIET_MAX) {
			d->list[kept++] = h;
			continue;
		}
		d->hot[h.page / BITS] &= ~bit;
		d->dropped[h.page / BITS] |= bit;
		d->log[h.page / BITS] |= bit;
		r = drop(d, &run, h.page);
	}
	d->hot_n = kept;
	return r == 0 ? drop_run(d, &run) : r;
}

/* Let KVM watch the dropped pages again; the hot ones stay as they are, logged
 * and writable. */
static int
watch_again(struct dirty *d, uint64_t first, uint64_t end, char *err, size_t errlen)
{
	uint64_t pages = d->mem->size / GMEM_PAGE;
	struct kvm_clear_dirty_log clear = {
	    .slot = 0,
	    .first_page = first * BITS,
	    .num_pages = (uint32_t)(MIN(end * BITS, pages) - first * BITS),
	    .dirty_bitmap = d->log + first,
	};

	if (first < end && ioctl(d->vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
		return fail(errno, err, errlen, "KVM_CLEAR_DIRTY_LOG: %s", strerror(errno));
	return 0;
}

/* Add to the log what this process has written, and forget that; how many pages
 * are to be restored. */
static uint64_t
add_own_writes(struct dirty *d)
{
	uint64_t n = 0;

	for (uint64_t w = 0; w < d->words; w++) {
		if (__atomic_load_n(&d->mem->written[w], __ATOMIC_RELAXED) != 0)
			d->log[w] |= __atomic_exchange_n(&d->mem->written[w], 0, __ATOMIC_RELAXED);
		n += (unsigned)__builtin_popcountll(d->log[w] & ~d->hot[w]);
	}
	return n;
}

int
dirty_restore(struct dirty *d, uint64_t *pages, char *err, size_t errlen)
{
	uint64_t first = d->words, end = 0;
	struct run run = {0};
	uint32_t was_hot;
	bool few;
	int r;

	CHECK_OBJ(d, DIRTY_MAGIC);
	r = read_log(d, err, errlen);
	if (r < 0)
		return r;
	*pages = add_own_writes(d);
	was_hot = d->hot_n;
	few = d->lived && *pages <= DIRTY_HOT_MAX - was_hot;
	d->lived = true;
	for (uint64_t w = 0; w < d->words && r == 0; w++)
		if ((d->log[w] | d->dropped[w]) != 0)
			r = restore_word(d, w, few, &run);
	if (r == 0)
		r = drop_run(d, &run);
	if (r == 0)
		r = restore_hot(d, was_hot, pages);
	if (r < 0)
		return fail(-r, err, errlen, "dropping written guest memory: %s", strerror(-r));
	for (uint64_t w = 0; w < d->words; w++)
		if (d->log[w] != 0) {
			first = MIN(first, w);
			end = w + 1;
		}
	return watch_again(d, first, end, err, errlen);
}
