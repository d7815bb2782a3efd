/* SPDX-License-Identifier: MIT
 *
 * place.h - where the paths of a file request lead: anywhere, or nowhere but
 * beneath a root, which the kernel sees to (openat2), not a look at the text.
 */
#ifndef GUEST_PLACE_H
#define GUEST_PLACE_H

#include "kvm/guest/util.h"
#include "kvm/proto.h"

#include <sys/stat.h>
#include <sys/types.h>

struct place {
	int fd;	       /* the root; AT_FDCWD when there is none */
	bool confined; /* paths begin at fd, stay beneath it, and follow no links */
};

/* root "" is none. A root must be a directory and be reached without symbolic
 * links. 0 (then place_close) or -errno. */
int place_open(struct place *p, const char *root) must_check;
void place_close(struct place *p);

/* openat2 of the path. A descriptor, close-on-exec, or -errno; of a confined one
 * also -EXDEV (it leads out) and -ELOOP (a link is in the way). */
int place_openat(const struct place *p, const char *path, int flags) must_check;
/* The same with O_PATH, of a regular file only, whose st this is: else -EISDIR or -EINVAL. */
int place_regular(const struct place *p, const char *path, struct stat *st) must_check;

/* The directory that the last name of the path is in, which need not exist, as
 * an O_PATH descriptor, and that name. create: make what is missing of it. The
 * descriptor or -errno; -EISDIR if the path ends in no name ("/", "..").  */
int place_parent(const struct place *p, const char *path, bool create,
		 char name[PROTO_NAME_MAX + 1]) must_check;

/* Make the directory and those above it that are missing. 0 or -errno. */
int place_mkdirs(const struct place *p, const char *path) must_check;

/* Open what an O_PATH descriptor stands for. A descriptor or -errno. */
int place_reopen(int path_fd, int flags) must_check;
/* Its permission bits; it is no symbolic link. 0 or -errno. */
int place_chmod(int path_fd, mode_t mode) must_check;

#endif
