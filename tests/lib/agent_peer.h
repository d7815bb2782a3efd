/* SPDX-License-Identifier: MIT
 *
 * agent_peer.h - the host's end of the guest channel, for tests of the agent:
 * starts the agent on a socketpair, speaks kvm/proto.h with it, and keeps what
 * every stream has said. Everything fails the running cmocka test by itself
 * when it cannot go on, or when nothing comes for PEER_TIMEOUT_MS.
 */
#ifndef TEST_AGENT_PEER_H
#define TEST_AGENT_PEER_H

#include "kvm/proto.h"
#include "tests/lib/agent_pages.h"

#include <stdbool.h>
#include <sys/types.h>

#define PEER_TIMEOUT_MS 30000
#define PEER_STREAMS 300u /* tests use the ids 1 to this */

/* What one stream has sent so far. */
struct peer_run {
	char *out, *err; /* NUL-terminated after out_len, err_len bytes */
	size_t out_len, err_len;
	bool no_grant;	 /* set it to make the reader stop: no CREDIT is sent */
	size_t in_spent; /* STDIN bytes sent */
	size_t in_given; /* CREDIT received */
	unsigned ends;	 /* EXIT + FILE_DONE + ERROR + VMSTATS frames: 1 when all is well */
	bool exited;	 /* it was an EXIT */
	struct proto_exit exit;
	bool filed; /* it was a FILE_DONE */
	struct proto_file_done done;
	struct proto_error error;
	char text[257];		    /* of the ERROR */
	struct proto_vmstats stats; /* of the VMSTATS */
};

struct peer {
	pid_t pid;
	int fd;
	char cgroup[256]; /* the directory made for it, "" = none */
	char renew[64];	  /* the same for what renewals change */
	struct proto_ready ready;
	unsigned pongs;
	char pong[64];
	unsigned renewals;
	struct proto_renewed renewed; /* the last answer */
	unsigned shares;	      /* SHARE frames */
	size_t shared;		      /* bytes of output that came through pages */
	bool tells_nothing;	      /* set it, and the agent never hears that they were taken */
	struct agent_pages pages;
	size_t in_len;
	unsigned char in[64u << 10];
	struct peer_run run[PEER_STREAMS + 1];
};

struct peer_exec {
	const char *const *argv; /* NULL-terminated, as env */
	const char *const *env;
	const char *const *unset; /* as env; NULL = none */
	const char *cwd, *user;	  /* NULL = "" */
	uint32_t timeout_ms, flags;
	struct proto_exec want; /* its umask, limits, rows and cols count */
};

struct peer_file {
	struct proto_file head;
	const char *path, *other, *root; /* NULL = "" */
};

/* The agent's program: $VMPOOL_TEST_AGENT, else build/guest/agent. */
const char *peer_program(void);

/* Start an agent and read its READY. With cgroups, below a fresh directory of
 * this machine's cgroup v2 tree: NULL when there is none to write to. */
struct peer *peer_new(bool cgroups);

/* Hang up and expect the agent to end with this status, all its children
 * gone. */
void peer_free(struct peer *p, int status);

/* cmocka fixtures: *state is a struct peer *; the test is skipped when cgroups
 * are asked for and there are none. With renew, renewals change files in a new
 * directory; otherwise the agent refuses them. */
int peer_setup(void **state);
int peer_setup_cgroups(void **state);
int peer_setup_renew(void **state);
int peer_teardown(void **state);

void peer_send(struct peer *p, uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
	       size_t len);
void peer_send_raw(struct peer *p, const void *bytes, size_t len);

/* A request as the wire has it: *len bytes to free. */
unsigned char *peer_encode(const struct peer_exec *e, size_t *len);

/* Send it, in as many EXEC frames as it takes. */
void peer_exec(struct peer *p, uint32_t stream, const struct peer_exec *e);
/* The same for sh -c script. */
void peer_sh(struct peer *p, uint32_t stream, const char *script, uint32_t flags);

/* A FILE request, as it is. */
void peer_file(struct peer *p, uint32_t stream, const struct peer_file *f);

/* Send bytes to its stdin as the credit allows, handling what comes meanwhile. */
void peer_stdin(struct peer *p, uint32_t stream, const void *bytes, size_t len, bool eof);
void peer_grant(struct peer *p, uint32_t stream, uint32_t bytes);
void peer_kill(struct peer *p, uint32_t stream, uint32_t sig);

/* Take in one frame. False: none came within that time. */
bool peer_step(struct peer *p, int timeout_ms);

/* Until the stream has ended; or has sent so many bytes of output. */
struct peer_run *peer_wait(struct peer *p, uint32_t stream);
struct peer_run *peer_wait_output(struct peer *p, uint32_t stream, size_t out, size_t err);

/* A PING and its PONG: everything sent before has been acted on. */
void peer_ping(struct peer *p);

/* A RENEW and its RENEWED, which is then in p->renewed. */
void peer_renew(struct peer *p, const struct proto_renew *r);
/* With flags. */
void peer_renew_so(struct peer *p, const struct proto_renew *r, uint8_t flags);

/* Pidfds of the processes whose numbers a command printed, one a line; how many. */
size_t peer_open_pids(const char *text, int *fds, size_t max);
/* Wait for the end of each of them, and close them. */
void peer_assert_die(int *fds, size_t n);

/* The agent has gone: expect it, with that exit status. */
void peer_wait_gone(struct peer *p, int status);

#endif
