/* SPDX-License-Identifier: MIT
 *
 * user.h - "name", "uid", "name:group", "uid:gid": who a command runs as,
 * looked up in the guest's /etc/passwd and /etc/group.
 */
#ifndef GUEST_USER_H
#define GUEST_USER_H

#include "kvm/guest/util.h"

#include <sys/types.h>

#define USER_GROUPS_MAX 64u

struct user {
	uid_t uid;
	gid_t gid;
	size_t ngroups;
	gid_t groups[USER_GROUPS_MAX];
	char name[64];	/* as in /etc/passwd, or the number */
	char home[256]; /* as in /etc/passwd, or "/" */
};

/* 0; -ENOENT: no such user or group; -EINVAL: not of this form.
 * A number that /etc/passwd does not know is fine; its group is then the same
 * number. Supplementary groups are those that /etc/group lists for the name,
 * none when a group is given. */
int user_find(const char *spec, struct user *u) must_check;

#endif
