/* SPDX-License-Identifier: MIT
 *
 * cli_env.c - environments of commands: what was given, and what the lease keeps. Runs
 * in vmpool.
 */
#include "shm/cli/cli_env.h"
#include "shm/cli/cli_vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX_LEN (sizeof(CLI_ENV_PREFIX) - 1)

bool
cli_env_check(const struct cli_command *cmd, const struct cli_list *given)
{
	for (size_t i = 0; i < given->n; i++) {
		const char *eq = strchr(given->item[i], '=');

		if (eq != NULL && eq != given->item[i])
			continue;
		(void)cli_bad_usage(cmd, "\"%.100s\" is not NAME=VALUE", given->item[i]);
		return false;
	}
	return true;
}

/* The first variable of ours that is the lease's, or NULL. */
static const char *
first_kept(void)
{
	for (char **e = environ; e != NULL && *e != NULL; e++)
		if (strncmp(*e, CLI_ENV_PREFIX, PREFIX_LEN) == 0)
			return *e;
	return NULL;
}

static int
keep(const char *entry)
{
	char *name;
	int r;

	if (asprintf(&name, CLI_ENV_PREFIX "%.*s", (int)strcspn(entry, "="), entry) < 0)
		return -ENOMEM;
	r = setenv(name, strchr(entry, '=') + 1, 1) < 0 ? -errno : 0;
	free(name);
	return r;
}

int
cli_env_keep(const struct cli_list *given)
{
	const char *old;
	int r = 0;

	while ((old = first_kept()) != NULL) {
		char *name = strndup(old, strcspn(old, "="));

		r = name == NULL ? -ENOMEM : unsetenv(name) < 0 ? -errno : 0;
		free(name);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < given->n && r == 0; i++)
		r = keep(given->item[i]);
	return r;
}

static bool
same_name(const char *a, const char *b)
{
	size_t len = strcspn(a, "=");

	return strncmp(a, b, len) == 0 && b[len] == '=';
}

/* Add an entry, in the place of an earlier one of its name. */
static void
put(const char **list, size_t *n, const char *entry)
{
	size_t i = 0;

	while (i < *n && !same_name(entry, list[i]))
		i++;
	list[i] = entry;
	*n += i == *n;
}

/* TERM as it is here; it need not be the right one there, but is the best guess. */
static const char *
our_term(void)
{
	for (char **e = environ; e != NULL && *e != NULL; e++)
		if (same_name("TERM=", *e))
			return *e;
	return "TERM=linux";
}

const char *const *
cli_env_list(const struct cli_list *given, bool tty)
{
	const char *lease = getenv(CLI_VM_LEASE);
	const char **list;
	size_t n = 0;

	for (char **e = environ; e != NULL && *e != NULL; e++)
		n++;
	list = calloc(n + given->n + 2, sizeof(*list));
	if (list == NULL)
		return NULL;
	n = 0;
	if (tty)
		put(list, &n, our_term());
	for (char **e = environ; lease != NULL && lease[0] != '\0' && *e != NULL; e++)
		if (strncmp(*e, CLI_ENV_PREFIX, PREFIX_LEN) == 0 && (*e)[PREFIX_LEN] != '=')
			put(list, &n, *e + PREFIX_LEN);
	for (size_t i = 0; i < given->n; i++)
		put(list, &n, given->item[i]);
	return list;
}
