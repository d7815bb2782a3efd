/* SPDX-License-Identifier: MIT
 *
 * user.c - user and group look-up in the guest's files. Not by getpwnam: a
 * static program cannot load name service modules. Runs in the agent.
 */
#include "kvm/guest/user.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX (1u << 20)
#define FIELDS 7

/* Cut the first line off *text and split it at colons: how many fields, or -1
 * at the end of the text. Fields that are not there are "". */
static int
next_line(char **text, char *field[FIELDS])
{
	static char none[1];
	char *line = *text;
	size_t len = strcspn(line, "\n");
	int i, n = 0;

	if (*line == '\0')
		return -1;
	*text = line[len] == '\n' ? line + len + 1 : line + len;
	line[len] = '\0';
	while (line != NULL && n < FIELDS)
		field[n++] = strsep(&line, ":");
	for (i = n; i < FIELDS; i++)
		field[i] = none;
	return n;
}

static bool
copy(char *to, size_t size, const char *from)
{
	int n = snprintf(to, size, "%s", from);

	return n >= 0 && (size_t)n < size;
}

/* Fill u from the line of /etc/passwd that has this name or number. */
static int
find_passwd(const char *who, struct user *u)
{
	_cleanup_(util_freep) char *text = NULL;
	uint32_t want = 0, uid, gid;
	bool number = util_parse_u32(who, &want);
	char *rest, *f[FIELDS];

	if (util_read_file("/etc/passwd", FILE_MAX, &text) != 0)
		return -ENOENT;
	for (rest = text; next_line(&rest, f) >= 0;) {
		if (!util_parse_u32(f[2], &uid) || !util_parse_u32(f[3], &gid))
			continue;
		if (strcmp(f[0], who) != 0 && !(number && uid == want))
			continue;
		u->uid = uid;
		u->gid = gid;
		if (!copy(u->name, sizeof(u->name), f[0]) || !copy(u->home, sizeof(u->home), f[5]))
			return -EINVAL;
		return 0;
	}
	return -ENOENT;
}

static bool
is_member(char *members, const char *name)
{
	char *m;

	while ((m = strsep(&members, ",")) != NULL) {
		if (strcmp(m, name) == 0)
			return true;
	}
	return false;
}

/* One walk through /etc/group: the number of the group called name (NULL: not
 * asked), or the supplementary groups of u (name NULL). */
static int
find_group(const char *name, struct user *u)
{
	_cleanup_(util_freep) char *text = NULL;
	char *rest, *f[FIELDS];
	uint32_t gid;

	if (util_read_file("/etc/group", FILE_MAX, &text) != 0)
		return -ENOENT;
	for (rest = text; next_line(&rest, f) >= 0;) {
		if (!util_parse_u32(f[2], &gid))
			continue;
		if (name != NULL && strcmp(f[0], name) == 0) {
			u->gid = gid;
			return 0;
		}
		if (name == NULL && u->ngroups < USER_GROUPS_MAX && gid != u->gid &&
		    is_member(f[3], u->name))
			u->groups[u->ngroups++] = gid;
	}
	return -ENOENT;
}

int
user_find(const char *spec, struct user *u)
{
	char who[sizeof(u->name)];
	const char *colon = strchr(spec, ':');
	size_t len = colon != NULL ? (size_t)(colon - spec) : strlen(spec);
	uint32_t n;
	int r;

	memset(u, 0, sizeof(*u));
	if (len == 0 || len >= sizeof(who) || (colon != NULL && colon[1] == '\0'))
		return -EINVAL;
	memcpy(who, spec, len);
	who[len] = '\0';
	r = find_passwd(who, u);
	if (r == -ENOENT && util_parse_u32(who, &n)) {
		u->uid = u->gid = n;
		(void)copy(u->name, sizeof(u->name), who);
		(void)copy(u->home, sizeof(u->home), "/");
		r = 0;
	}
	if (r != 0)
		return r;
	u->groups[u->ngroups++] = u->gid;
	if (colon == NULL) {
		(void)find_group(NULL, u);
	} else {
		if (util_parse_u32(colon + 1, &n))
			u->gid = n;
		else if ((r = find_group(colon + 1, u)) != 0)
			return r;
		u->groups[0] = u->gid;
	}
	/* Minus one means "leave as it is" to the kernel, which is root here. */
	return u->uid == (uid_t)-1 || u->gid == (gid_t)-1 ? -EINVAL : 0;
}
