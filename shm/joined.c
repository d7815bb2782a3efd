/* SPDX-License-Identifier: MIT
 *
 * joined.c - makes and maps the channels of clients that join a lease. Runs in the
 * supervisor (which maps none), in workers and in clients. Owns nothing.
 */
#include "shm/joined.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define JOINED_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

int
joined_create(void)
{
	_cleanup_(closep) int fd = memfd_create("vmpool-joined", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, sizeof(struct shm_chan)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, JOINED_SEALS | F_SEAL_SEAL) < 0)
		return -errno;
	return steal_fd(&fd);
}

int
joined_map(struct shm_chan **out, int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *base;

	/* One that shrinks under us would be a SIGBUS. */
	if (seals < 0 || (seals & JOINED_SEALS) != JOINED_SEALS || fstat(fd, &st) < 0 ||
	    st.st_size != (off_t)sizeof(struct shm_chan))
		return -EPROTO;
	base = mmap(NULL, sizeof(struct shm_chan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	*out = base;
	return 0;
}

void
joined_unmap(struct shm_chan *chan)
{
	(void)munmap(chan, sizeof(*chan));
}
