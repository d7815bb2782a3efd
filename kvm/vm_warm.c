/* SPDX-License-Identifier: MIT
 *
 * vm_warm.c - the pages that a guest touches as soon as it runs, brought in
 * before it does. See vm.h. Runs in the worker, on the owner's thread.
 *
 * A machine fresh from a template has none of its memory mapped for its guest:
 * each first access leaves the guest and costs more than what the guest does with
 * the page. KVM before Linux 6.11 has no call that maps a page ahead of time; but
 * any guest that touches it does that. So a machine that waits for its state runs
 * a guest of its own first: a dozen instructions, in pages that vm_load puts back
 * like all others. They read a page, or write into it what it holds ("lock or
 * $0"), which gives the machine its own copy. Those pages start as hot (dirty.h).
 */
#include "kvm/boot.h"
#include "kvm/map.h"
#include "kvm/vm_impl.h"
#include <fcntl.h>
#include <string.h>

#define WARM_CODE MAP_BOOT_PARAMS
#define WARM_LIST MAP_CMDLINE
#define PAGEMAP_PRESENT (1ull << 63)

_Static_assert(WARM_LIST + VM_WARM_MAX * sizeof(uint32_t) < MAP_LOW_RAM_END, "room for the list");

/* clang-format off */
static const uint8_t code[] = {
    0xbe, 0, 0, 0, 0,		/*    mov $list,%esi */
    0xb9, 0, 0, 0, 0,		/*    mov $n,%ecx */
    0xad,			/* 1: lodsl: address, bit 0: write */
    0xa8, 0x01,			/*    test $1,%al */
    0x74, 0x06,			/*    jz 2f */
    0xf0, 0x80, 0x08, 0x00,	/*    lock orb $0,(%rax) */
    0xeb, 0x02,			/*    jmp 3f */
    0x8a, 0x10,			/* 2: mov (%rax),%dl */
    0xe2, 0xf1,			/* 3: loop 1b */
    0x66, 0xba, 0x00, 0x06,	/*    mov $0x600,%dx */
    0xb0, 0x34, 0xee,		/*    power off */
};
/* clang-format on */
_Static_assert(MAP_SLEEP_CONTROL == 0x600, "where the code turns itself off");

static int
write_code(struct vm *vm)
{
	const struct vm_warm *w = &vm->tmpl->warm;
	uint32_t list = WARM_LIST, at[VM_WARM_MAX];
	uint8_t mine[sizeof(code)];

	memcpy(mine, code, sizeof(mine));
	memcpy(mine + 1, &list, sizeof(list));
	memcpy(mine + 6, &w->n, sizeof(w->n));
	for (uint32_t i = 0; i < w->n; i++)
		at[i] = (w->page[i] >> 1) * GMEM_PAGE | (w->page[i] & 1);
	if (boot_tables(&vm->mem) < 0 || gmem_write(&vm->mem, WARM_CODE, mine, sizeof(mine)) < 0 ||
	    gmem_write(&vm->mem, WARM_LIST, at, w->n * sizeof(at[0])) < 0)
		return vm_fail(vm, EFBIG, "the machine's memory ends below 1 MiB");
	return 0;
}

int
vm_warm(struct vm *vm)
{
	uint64_t pages;
	int r = 0;

	if (vm->tmpl->warm.n == 0)
		return 0;
	r = write_code(vm);
	if (r == 0)
		r = vcpu_set_boot(&vm->vcpu[0], WARM_CODE, vm->err, vm->errlen);
	if (r < 0)
		return r;
	vcpu_run(&vm->vcpu[0]);
	vcpu_wait(&vm->vcpu[0]);
	if (vm_end(vm) != VM_END_SHUTDOWN)
		return vm_fail(vm, EIO, "touching the template's pages: %s", vm_end_text(vm));
	vm_reborn(vm);
	for (uint32_t i = 0; i < vm->tmpl->warm.n; i++)
		if ((vm->tmpl->warm.page[i] & 1) != 0)
			dirty_expect(&vm->dirty, vm->tmpl->warm.page[i] >> 1);
	return dirty_restore(&vm->dirty, &pages, vm->err, vm->errlen);
}

int
vm_touched(struct vm *vm, uint8_t *map, char *err, size_t errlen)
{
	_cleanup_(closep) int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t page, pages = vm->mem.size / GMEM_PAGE, entry[512];
	const uint64_t *written;
	ssize_t n;

	CHECK_OBJ(vm, VM_MAGIC);
	AZ(vm->running);
	AN(vm->tmpl);
	written = dirty_pages(&vm->dirty, err, errlen);
	if (written == NULL)
		return -EIO;
	for (page = 0; page < pages; page += (uint64_t)n / sizeof(entry[0])) {
		n = pread(fd, entry, MIN(sizeof(entry), (pages - page) * sizeof(entry[0])),
			  (off_t)(((uintptr_t)vm->mem.base / GMEM_PAGE + page) * sizeof(entry[0])));
		if (n < (ssize_t)sizeof(entry[0]))
			return fail(n < 0 ? errno : EIO, err, errlen, "/proc/self/pagemap: %s",
				    strerror(errno));
		for (uint64_t i = 0; i < (uint64_t)n / sizeof(entry[0]); i++)
			map[page + i] = (entry[i] & PAGEMAP_PRESENT) != 0 ? VM_TOUCHED : 0;
	}
	for (page = 0; page < pages; page++)
		if ((written[page / 64] >> page % 64 & 1) != 0)
			map[page] = VM_TOUCHED | VM_WRITTEN;
	return 0;
}

int
vm_expect(struct vm *vm, const uint8_t *map)
{
	uint64_t pages = vm->mem.size / GMEM_PAGE;
	struct vm_warm *w;

	CHECK_OBJ(vm, VM_MAGIC);
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return -ENOMEM;
	for (uint64_t page = 0; page < pages && w->n < VM_WARM_MAX; page++)
		if (map[page] != 0)
			w->page[w->n++] =
			    (uint32_t)page << 1 | ((map[page] & VM_WRITTEN) != 0 ? 1 : 0);
	free(vm->warm);
	vm->warm = w;
	return 0;
}
