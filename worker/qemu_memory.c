/* SPDX-License-Identifier: MIT
 *
 * qemu_memory.c - the memory of QEMU's guest, read and written from outside. Runs in a
 * worker; owns nothing.
 *
 * A machine of a template has its memory in a private mapping of the template's file,
 * in the process of QEMU, which is our child: process_vm_readv(2) gets there. (The guest's
 * processor may be at work meanwhile; QEMU itself is not asked. Code that it has translated
 * is not ours to change: these are pages of data.)
 */
#include "worker/qemu_machine.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

void
qemu_memory_of(struct machine *m, const struct machine_template *tmpl)
{
	struct stat st;

	if (fstat(tmpl->mem_fd, &st) < 0)
		return;
	m->memory.dev = st.st_dev;
	m->memory.ino = st.st_ino;
}

/* A line of /proc/PID/maps: the whole of that file? Then where it is mapped. */
static uint64_t
mapped_at(const char *line, const struct machine *m)
{
	unsigned long long from, to, off, ino;
	unsigned dev_major, dev_minor;

	if (sscanf(line, "%llx-%llx %*s %llx %x:%x %llu", &from, &to, &off, &dev_major, &dev_minor,
		   &ino) != 6)
		return 0;
	return makedev(dev_major, dev_minor) == m->memory.dev && ino == m->memory.ino && off == 0 &&
		       to - from == (uint64_t)m->cfg.mem_mib << 20
		   ? from
		   : 0;
}

static void
look(struct machine *m)
{
	char line[512];
	FILE *maps;

	(void)snprintf(line, sizeof(line), "/proc/%d/maps", (int)m->child->pid);
	maps = m->memory.ino != 0 ? fopen(line, "re") : NULL;
	if (maps == NULL)
		return;
	while (m->memory.base == 0 && fgets(line, sizeof(line), maps) != NULL)
		m->memory.base = mapped_at(line, m);
	(void)fclose(maps);
}

/* The places, as that process has them; how many bytes in all, or -errno. */
static ssize_t
find(struct machine *m, const struct machine_place *at, unsigned n, struct iovec *there)
{
	const uint64_t size = (uint64_t)m->cfg.mem_mib << 20;
	size_t sum = 0;

	CHECK_OBJ(m, QEMU_MAGIC);
	assert(n <= MACHINE_PLACES);
	if (m->memory.base == 0)
		look(m);
	if (m->memory.base == 0 || m->child->gone)
		return -EOPNOTSUPP;
	for (unsigned i = 0; i < n; i++) {
		if (at[i].gpa >= size || at[i].len > size - at[i].gpa)
			return -EFAULT;
		there[i] = (struct iovec){(void *)(m->memory.base + at[i].gpa), at[i].len};
		sum += at[i].len;
	}
	return (ssize_t)sum;
}

static int
whole(ssize_t moved, ssize_t sum)
{
	/* The process may have ended: nobody is there to be told a lie. */
	if (moved < 0)
		return errno == EPERM || errno == ENOSYS ? -EOPNOTSUPP : -EFAULT;
	return moved == sum ? 0 : -EFAULT;
}

/* Does this system let us do such things? QEMU may not be there yet to try it on. */
static int
possible(void)
{
	uint8_t from = 1, to = 0;
	const struct iovec here = {&to, 1}, there = {&from, 1};

	return whole(process_vm_readv(getpid(), &here, 1, &there, 1, 0), 1);
}

int
qemu_memory_peek(struct machine *m, const struct machine_place *at, unsigned n, void *buf)
{
	struct iovec there[MACHINE_PLACES], here = {.iov_base = buf};
	ssize_t sum;

	if (n == 0)
		return m->templated ? possible() : -EOPNOTSUPP;
	sum = find(m, at, n, there);
	if (sum < 0)
		return (int)sum;
	here.iov_len = (size_t)sum;
	return whole(process_vm_readv(m->child->pid, &here, 1, there, n, 0), sum);
}

int
qemu_memory_poke(struct machine *m, const struct machine_place *at, unsigned n, const void *buf)
{
	struct iovec there[MACHINE_PLACES], here = {.iov_base = (void *)(uintptr_t)buf};
	ssize_t sum = find(m, at, n, there);

	if (sum < 0)
		return (int)sum;
	here.iov_len = (size_t)sum;
	return whole(process_vm_writev(m->child->pid, &here, 1, there, n, 0), sum);
}
