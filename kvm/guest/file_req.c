/* SPDX-License-Identifier: MIT
 *
 * file_req.c - the bytes of a FILE request into its header and paths. Runs in
 * the agent; owns nothing.
 */
#include "kvm/guest/file_req.h"

#include <string.h>

#define SET (PROTO_FILE_F_SET_MODE | PROTO_FILE_F_SET_MTIME)

/* What each operation knows of. */
static const struct {
	uint32_t flags;
	bool known, other;
} rows[] = {
    [PROTO_FILE_READ] = {.known = true},
    [PROTO_FILE_WRITE] = {PROTO_FILE_F_PARENTS | PROTO_FILE_F_APPEND | PROTO_FILE_F_IN_PLACE |
			      PROTO_FILE_F_EXCL | PROTO_FILE_F_SPARSE | SET,
			  .known = true},
    [PROTO_FILE_LIST] = {.known = true},
    [PROTO_FILE_STAT] = {PROTO_FILE_F_NOFOLLOW, .known = true},
    [PROTO_FILE_REMOVE] = {PROTO_FILE_F_TREE, .known = true},
    [PROTO_FILE_RENAME] = {PROTO_FILE_F_PARENTS | PROTO_FILE_F_EXCL, .known = true, .other = true},
    [PROTO_FILE_MKDIR] = {PROTO_FILE_F_PARENTS | PROTO_FILE_F_SET_MODE, .known = true},
    [PROTO_FILE_SETATTR] = {PROTO_FILE_F_NOFOLLOW | SET, .known = true},
    [PROTO_FILE_SYMLINK] = {PROTO_FILE_F_PARENTS, .known = true, .other = true},
    [PROTO_FILE_READLINK] = {.known = true},
    [PROTO_FILE_LINK] = {PROTO_FILE_F_PARENTS, .known = true, .other = true},
};

static bool
is_set(const struct proto_file *h, uint32_t flag)
{
	return (h->flags & flag) != 0;
}

static const char *
check_head(const struct proto_file *h)
{
	if (h->op >= ARRAY_SIZE(rows) || !rows[h->op].known)
		return "the request is for no known operation";
	if ((h->flags & ~rows[h->op].flags) != 0)
		return "the request has flags that its operation does not know";
	if (is_set(h, PROTO_FILE_F_SET_MODE) ? h->mode > 07777 : h->mode != 0)
		return "the request has a bad mode";
	if (is_set(h, PROTO_FILE_F_SET_MTIME) ? h->mtime_nsec > 999999999
					      : (h->mtime_nsec != 0 || h->mtime_sec != 0))
		return "the request has a bad time";
	if (h->op == PROTO_FILE_READ ? h->offset > INT64_MAX : (h->offset != 0 || h->length != 0))
		return "the request has a bad range";
	if ((is_set(h, PROTO_FILE_F_EXCL) &&
	     is_set(h, PROTO_FILE_F_APPEND | PROTO_FILE_F_IN_PLACE)) ||
	    (is_set(h, PROTO_FILE_F_SPARSE) && is_set(h, PROTO_FILE_F_APPEND)))
		return "the request has flags that exclude each other";
	return NULL;
}

/* The next string of [*at, end), shorter than a path may be; or NULL. */
static const char *
next_string(const uint8_t **at, const uint8_t *end)
{
	const uint8_t *s = *at, *nul = memchr(s, '\0', (size_t)(end - s));

	if (nul == NULL || nul - s >= (ptrdiff_t)PROTO_PATH_MAX)
		return NULL;
	*at = nul + 1;
	return (const char *)s;
}

const char *
file_req_parse(struct file_req *q, const uint8_t *bytes, size_t len)
{
	const uint8_t *at = bytes + sizeof(q->head), *end = bytes + len;
	const char *why;

	if (len < sizeof(q->head))
		return "the request is shorter than its header";
	memcpy(&q->head, bytes, sizeof(q->head));
	why = check_head(&q->head);
	if (why != NULL)
		return why;
	q->path = next_string(&at, end);
	q->other = q->path != NULL ? next_string(&at, end) : NULL;
	q->root = q->other != NULL ? next_string(&at, end) : NULL;
	if (q->root == NULL || at != end)
		return "the request does not hold three paths";
	if (!rows[q->head.op].other && q->other[0] != '\0')
		return "the request has a path too many";
	return NULL;
}
