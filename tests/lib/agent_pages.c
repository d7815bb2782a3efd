/* SPDX-License-Identifier: MIT
 *
 * agent_pages.c - pages of an agent under test. See agent_pages.h. Runs in tests.
 */
#include "tests/lib/agent_pages.h"
#include "shm/base.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Where the file's mapping from this offset on is, the first time. */
static uint64_t
mapping(pid_t pid, uint64_t off)
{
	unsigned long long from, at;
	uint64_t found = 0;
	char line[512];
	FILE *maps;

	(void)snprintf(line, sizeof(line), "/proc/%d/maps", (int)pid);
	maps = fopen(line, "re");
	assert_non_null(maps);
	while (found == 0 && fgets(line, sizeof(line), maps) != NULL)
		if (strstr(line, "/memfd:vmpool-share") != NULL &&
		    sscanf(line, "%llx-%*x %*s %llx", &from, &at) == 2 && at == off)
			found = from;
	(void)fclose(maps);
	assert_true(found != 0);
	return found;
}

/* Is that page of the process where it says? */
static void
assert_address(pid_t pid, uint64_t at, uint64_t address)
{
	uint64_t entry;
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &entry, sizeof(entry), (off_t)(at / PROTO_PAGE * 8)), 8);
	(void)close(fd);
	assert_int_equal((entry & ((1ull << 55) - 1)) * PROTO_PAGE, address);
}

void
agent_pages_open(struct agent_pages *a, pid_t pid, const void *payload)
{
	const unsigned last = PROTO_RING_PAGES - 1;
	char path[64];

	memcpy(a->page, payload, sizeof(a->page));
	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	a->mem = open(path, O_RDWR | O_CLOEXEC);
	assert_true(a->mem >= 0);
	a->head = mapping(pid, 0);
	a->out = mapping(pid, PROTO_PAGE);
	a->in = mapping(pid, PROTO_PAGE + PROTO_RING_BYTES);
	a->out_pos = a->in_pos = 0;
	assert_address(pid, a->head, a->page[0]);
	assert_address(pid, a->out + (uint64_t)last * PROTO_PAGE, a->page[1 + last]);
	assert_address(pid, a->in, a->page[1 + PROTO_RING_PAGES]);
}

void
agent_pages_close(struct agent_pages *a)
{
	if (a->mem > 0)
		(void)close(a->mem);
	a->mem = -1;
}

void
agent_pages_take(struct agent_pages *a, void *buf, size_t len)
{
	/* Both rings are mapped twice, so that what goes over the end is contiguous. */
	const off_t at = (off_t)(a->out + a->out_pos % PROTO_RING_BYTES);

	assert_int_equal(pread(a->mem, buf, len, at), len);
	a->out_pos += (uint32_t)len;
}

void
agent_pages_tell(struct agent_pages *a)
{
	const off_t at = (off_t)(a->head + offsetof(struct proto_share, out_taken));

	assert_int_equal(pwrite(a->mem, &a->out_pos, sizeof(a->out_pos), at), sizeof(a->out_pos));
}

void
agent_pages_put(struct agent_pages *a, const void *buf, size_t len)
{
	const off_t at = (off_t)(a->in + a->in_pos % PROTO_RING_BYTES);

	assert_int_equal(pwrite(a->mem, buf, len, at), len);
	a->in_pos += (uint32_t)len;
}

uint32_t
agent_pages_left(struct agent_pages *a)
{
	const off_t at = (off_t)(a->head + offsetof(struct proto_share, in_taken));
	uint32_t taken;

	assert_int_equal(pread(a->mem, &taken, sizeof(taken), at), sizeof(taken));
	return a->in_pos - taken;
}
