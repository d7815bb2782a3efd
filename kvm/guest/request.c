/* SPDX-License-Identifier: MIT
 *
 * request.c - the bytes of an EXEC request into argv, environment, directory
 * and user. Runs in the agent. Owns only the pointer arrays: the strings stay
 * where they were received.
 */
#include "kvm/guest/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KNOWN_FLAGS (PROTO_EXEC_STDIN | PROTO_EXEC_CLEAN_ENV | PROTO_EXEC_TTY | PROTO_EXEC_UMASK)
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The next NUL-terminated string of [*at, end), or NULL if there is none. */
static char *
next_string(const uint8_t **at, const uint8_t *end)
{
	const uint8_t *s = *at, *nul = memchr(s, '\0', (size_t)(end - s));

	if (nul == NULL)
		return NULL;
	*at = nul + 1;
	/* execve takes char *const * and leaves the strings alone. */
	return (char *)(uintptr_t)s;
}

static const char *
check_head(const struct proto_exec *h, size_t len)
{
	if (h->size != len)
		return "the request is not as long as it says";
	if (h->zero != 0 || (h->flags & ~KNOWN_FLAGS) != 0)
		return "the request has unknown flags";
	if (h->umask > ((h->flags & PROTO_EXEC_UMASK) != 0 ? 0777 : 0))
		return "the request has no such umask";
	if ((h->flags & PROTO_EXEC_TTY) == 0 ? (h->rows | h->cols) != 0
					     : (h->flags & PROTO_EXEC_STDIN) == 0)
		return "the request has half a terminal";
	if (h->argc == 0)
		return "the request has no arguments";
	/* Every string has its NUL, so this bounds the arrays by the bytes. */
	if ((uint64_t)h->argc + h->envc + h->unsetc + 2 > len - sizeof(*h))
		return "the request counts more strings than it holds";
	return NULL;
}

static const char *
parse_strings(struct request *req, const uint8_t *at, const uint8_t *end)
{
	uint32_t i;

	for (i = 0; i < req->head.argc; i++) {
		if ((req->argv[i] = next_string(&at, end)) == NULL)
			return "the request ends within an argument";
	}
	for (i = 0; i < req->head.envc; i++) {
		if ((req->env[i] = next_string(&at, end)) == NULL)
			return "the request ends within the environment";
		if (req->env[i][0] == '=' || strchr(req->env[i], '=') == NULL)
			return "an environment entry is not NAME=VALUE";
	}
	for (i = 0; i < req->head.unsetc; i++) {
		if ((req->unset[i] = next_string(&at, end)) == NULL)
			return "the request ends within the names to be unset";
	}
	req->cwd = next_string(&at, end);
	req->user = req->cwd != NULL ? next_string(&at, end) : NULL;
	if (req->user == NULL)
		return "the request ends before its last string";
	return at == end ? NULL : "the request goes on after its last string";
}

int
request_parse(struct request *req, const uint8_t *bytes, size_t len, const char **why)
{
	memset(req, 0, sizeof(*req));
	*why = "the request is shorter than its header";
	if (len < sizeof(req->head))
		return -EINVAL;
	memcpy(&req->head, bytes, sizeof(req->head));
	*why = check_head(&req->head, len);
	if (*why != NULL)
		return -EINVAL;
	req->argv =
	    calloc((size_t)req->head.argc + req->head.envc + req->head.unsetc + 2, sizeof(char *));
	if (req->argv == NULL) {
		*why = "no memory for the request";
		return -ENOMEM;
	}
	req->env = req->argv + req->head.argc + 1;
	req->unset = req->env + req->head.envc + 1;
	*why = parse_strings(req, bytes + sizeof(req->head), bytes + len);
	if (*why == NULL)
		return 0;
	request_fini(req);
	return -EINVAL;
}

void
request_fini(struct request *req)
{
	free(req->argv);
	req->argv = req->env = req->unset = NULL;
}

/* Does the request set or remove the variable that entry ("NAME=...") sets? */
static bool
overridden(const struct request *req, const char *entry)
{
	size_t len = (size_t)(strchr(entry, '=') - entry);
	uint32_t i;

	for (i = 0; i < req->head.envc; i++) {
		if (strncmp(req->env[i], entry, len + 1) == 0)
			return true;
	}
	for (i = 0; i < req->head.unsetc; i++) {
		if (strlen(req->unset[i]) == len && memcmp(req->unset[i], entry, len) == 0)
			return true;
	}
	return false;
}

int
env_init(struct env *e, const struct request *req, const struct user *who)
{
	static char path[] = "PATH=" DEFAULT_PATH;
	char *defaults[] = {path, e->home, e->user, e->logname};
	size_t i, n = 0;

	e->list = calloc(ARRAY_SIZE(defaults) + req->head.envc + 1, sizeof(char *));
	if (e->list == NULL)
		return -ENOMEM;
	(void)snprintf(e->home, sizeof(e->home), "HOME=%s", who->home);
	(void)snprintf(e->user, sizeof(e->user), "USER=%s", who->name);
	(void)snprintf(e->logname, sizeof(e->logname), "LOGNAME=%s", who->name);
	for (i = 0; i < ARRAY_SIZE(defaults); i++) {
		if ((req->head.flags & PROTO_EXEC_CLEAN_ENV) == 0 && !overridden(req, defaults[i]))
			e->list[n++] = defaults[i];
	}
	memcpy(e->list + n, req->env, req->head.envc * sizeof(char *));
	return 0;
}

void
env_fini(struct env *e)
{
	free(e->list);
	e->list = NULL;
}

const char *
env_path(const struct env *e)
{
	size_t i;

	for (i = 0; e->list[i] != NULL; i++) {
		if (strncmp(e->list[i], "PATH=", 5) == 0)
			return e->list[i] + 5;
	}
	return DEFAULT_PATH;
}
