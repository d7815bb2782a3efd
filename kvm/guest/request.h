/* SPDX-License-Identifier: MIT
 *
 * request.h - one assembled EXEC request, taken apart and checked.
 */
#ifndef GUEST_REQUEST_H
#define GUEST_REQUEST_H

#include "kvm/guest/user.h"
#include "kvm/guest/util.h"
#include "kvm/proto.h"

struct request {
	struct proto_exec head;
	char **argv;  /* NULL-terminated; the strings lie in the request's bytes */
	char **env;   /* NULL-terminated; what the request adds or overrides */
	char **unset; /* head.unsetc names of defaults that it does without */
	const char *cwd;
	const char *user;
};

/* Check bytes[0..len) and point into them: they must outlive *req. 0 (then
 * request_fini), or -EINVAL/-ENOMEM and *why says what is wrong with it. */
int request_parse(struct request *req, const uint8_t *bytes, size_t len,
		  const char **why) must_check;
void request_fini(struct request *req);

/* The environment of the command: the defaults for who, unless the request wants
 * none or unsets them, then the request's entries, which replace defaults of the same name.
 * NULL-terminated in *out; env_free it. 0 or -ENOMEM. */
struct env {
	char **list;
	char home[264], user[72], logname[72];
};
int env_init(struct env *e, const struct request *req, const struct user *who) must_check;
void env_fini(struct env *e);

/* Where argv[0] is looked up: the PATH of that environment, or the default. */
const char *env_path(const struct env *e);

#endif
