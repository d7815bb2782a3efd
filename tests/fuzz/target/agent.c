/* SPDX-License-Identifier: MIT
 *
 * agent.c - the guest's agent and a host that says what the input says: frames that are
 * right, almost right, or rubbish, in pieces of any size, to an agent whose commands and
 * files only pretend to be there (agent_world.c). What it answers must be frames that a
 * guest may send; nothing that a frame says may reach beyond it.
 */
#include "kvm/guest/agent.h"
#include "kvm/guest/cmd.h"
#include "kvm/guest/exec.h"
#include "kvm/guest/file.h"
#include "kvm/proto.h"
#include "tests/fuzz/agent_world.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define FRAME (sizeof(struct proto_hdr) + PROTO_PAYLOAD_MAX)
#define STREAMS 8u
#define LAST_TURNS 48u /* after the input: what is under way may end */
#define SOCKET_BYTES 8192

static struct fuzz input;
static jmp_buf fatal;

static struct {
	int fd, agent_fd;
	uint8_t out[4 * FRAME]; /* not sent yet */
	size_t out_len;
	size_t bite; /* sent at once */
	uint8_t in[2 * FRAME];
	size_t in_len;
	unsigned last_turns;
} host;

/* --- the host's socket --------------------------------------------------------------------- */

static void
host_sends(const void *bytes, size_t len)
{
	if (len > sizeof(host.out) - host.out_len)
		return;
	memcpy(host.out + host.out_len, bytes, len);
	host.out_len += len;
}

static void
flush(void)
{
	ssize_t n = send(host.fd, host.out, MIN(host.out_len, host.bite), MSG_NOSIGNAL);

	if (n <= 0)
		return;
	host.out_len -= (size_t)n;
	memmove(host.out, host.out + n, host.out_len);
}

/* Whole frames, which a guest may send. */
static void
check_answers(void)
{
	struct proto_hdr hdr;
	size_t at = 0;

	for (; host.in_len - at >= sizeof(hdr); at += sizeof(hdr) + hdr.length) {
		memcpy(&hdr, host.in + at, sizeof(hdr));
		assert(proto_check(&hdr, true));
		if (host.in_len - at < sizeof(hdr) + hdr.length)
			break;
	}
	host.in_len -= at;
	memmove(host.in, host.in + at, host.in_len);
}

static void
listen_to_agent(void)
{
	ssize_t n;

	while ((n = recv(host.fd, host.in + host.in_len, sizeof(host.in) - host.in_len, 0)) > 0) {
		host.in_len += (size_t)n;
		check_answers();
	}
}

/* --- frames ---------------------------------------------------------------------------------- */

static uint32_t
any_stream(void)
{
	unsigned how = fuzz_below(&input, 16);

	if (how == 1)
		return (uint32_t)fuzz_value(&input);
	return how == 2 ? 0 : how == 3 ? fuzz_below(&input, 256) : 1 + how % STREAMS;
}

static void
say(uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t len)
{
	struct proto_hdr hdr = {
	    .length = (uint32_t)len, .type = type, .flags = flags, .stream = stream};
	static uint8_t frame[FRAME];

	memcpy(frame + sizeof(hdr), payload, len);
	if (fuzz_below(&input, 32) == 1)
		fuzz_mutate(&input, (uint8_t *)&hdr, sizeof(hdr));
	memcpy(frame, &hdr, sizeof(hdr));
	host_sends(frame, sizeof(hdr) + len);
}

/* n strings, one after the other: how long they are. */
static size_t
add_strings(uint8_t *to, size_t room, unsigned n, const char *like)
{
	size_t len = 0, size;

	for (; n > 0 && room - len > 64; n--) {
		size = fuzz_below(&input, 4) == 1 ? fuzz_below(&input, 32) : strlen(like);
		memset(to + len, 'x', size);
		memcpy(to + len, like, MIN(size, strlen(like)));
		to[len + size] = '\0';
		len += size + 1;
	}
	return len;
}

static void
say_in_pieces(uint32_t stream, const uint8_t *bytes, size_t len)
{
	size_t n;

	for (; len > 0; bytes += n, len -= n) {
		n = fuzz_below(&input, 4) == 1 ? 1 + fuzz_below(&input, 256) : len;
		n = MIN(n, len);
		say(PROTO_EXEC, n < len ? PROTO_F_MORE : 0, stream, bytes, n);
		if (fuzz_below(&input, 16) == 1)
			return; /* the rest does not come, yet */
	}
}

static void
say_exec(void)
{
	static uint8_t bytes[PROTO_PAYLOAD_MAX];
	static const char *const users[] = {"", "user", "0:10", "odd", "user:wheel", "12:"};
	struct proto_exec h = {.argc = 1 + fuzz_below(&input, 4),
			       .envc = fuzz_below(&input, 4),
			       .unsetc = fuzz_below(&input, 4),
			       .flags = fuzz_below(&input, 16)};
	const char *user = users[fuzz_below(&input, ARRAY_SIZE(users))];
	size_t len = sizeof(h);

	h.memory_mib = fuzz_below(&input, 4) == 1;
	h.umask = (h.flags & PROTO_EXEC_UMASK) != 0 ? 022 : 0;
	len += add_strings(bytes + len, sizeof(bytes) - len, h.argc, "prog");
	len += add_strings(bytes + len, sizeof(bytes) - len, h.envc, "HOME=/x");
	len += add_strings(bytes + len, sizeof(bytes) - len, h.unsetc, "PATH");
	len += add_strings(bytes + len, sizeof(bytes) - len, 1, "/");
	len += add_strings(bytes + len, sizeof(bytes) - len, 1, user);
	h.size = (uint32_t)len;
	memcpy(bytes, &h, sizeof(h));
	if (fuzz_below(&input, 4) == 1)
		fuzz_mutate(&input, bytes, len);
	say_in_pieces(any_stream(), bytes, len);
}

static void
say_file(void)
{
	static uint8_t bytes[sizeof(struct proto_file) + 3 * PROTO_PATH_MAX];
	struct proto_file h = {.op = fuzz_below(&input, 12), .flags = 1u << fuzz_below(&input, 16)};
	size_t len = sizeof(h);

	h.flags = h.flags > PROTO_FILE_F_SPARSE ? 0 : h.flags;
	if (fuzz_below(&input, 8) == 1)
		h.flags |= (uint32_t)fuzz_value(&input);
	memcpy(bytes, &h, sizeof(h));
	len += add_strings(bytes + len, sizeof(bytes) - len, 1, "/file");
	len += add_strings(bytes + len, sizeof(bytes) - len, 1,
			   h.op == PROTO_FILE_RENAME || h.op == PROTO_FILE_SYMLINK ? "to" : "");
	len += add_strings(bytes + len, sizeof(bytes) - len, 1, "");
	if (fuzz_below(&input, 4) == 1)
		fuzz_mutate(&input, bytes, len);
	say(PROTO_FILE, 0, any_stream(), bytes, len);
}

static size_t
any_length(void)
{
	switch (fuzz_below(&input, 4)) {
	case 1: return fuzz_below(&input, PROTO_PAYLOAD_MAX + 1);
	case 2: return PROTO_PAYLOAD_MAX;
	default: return fuzz_below(&input, 64);
	}
}

/* Of a command, of a file, of the machine, or rubbish. */
static void
say_other(void)
{
	static const struct {
		uint8_t type;
		uint16_t len; /* UINT16_MAX: any */
	} rows[] = {{PROTO_STDIN, UINT16_MAX}, {PROTO_KILL, 4},		 {PROTO_CREDIT, 4},
		    {PROTO_WINSIZE, 4},	       {PROTO_VMSTAT, 0},	 {PROTO_PING, 8},
		    {PROTO_RENEW, 104},	       {PROTO_EXEC, UINT16_MAX}, {PROTO_FILE, UINT16_MAX},
		    {PROTO_STDOUT, 8}};
	static uint8_t payload[PROTO_PAYLOAD_MAX];
	unsigned i = fuzz_below(&input, ARRAY_SIZE(rows));
	bool machine = rows[i].type == PROTO_PING || rows[i].type == PROTO_RENEW;
	size_t len = rows[i].len;
	uint32_t stream;
	uint8_t flags;

	if (len == UINT16_MAX)
		len = any_length();
	fuzz_fill(&input, payload, len);
	flags = fuzz_below(&input, 4) == 1;
	stream = machine ? 0 : any_stream();
	for (unsigned n = fuzz_below(&input, 8) == 1 ? 1 + fuzz_below(&input, 8) : 1; n > 0; n--)
		say(rows[i].type, flags, stream, payload, len);
}

static void
say_rubbish(void)
{
	uint8_t bytes[40];

	fuzz_fill(&input, bytes, sizeof(bytes));
	host_sends(bytes, 1 + fuzz_below(&input, sizeof(bytes)));
}

/* --- the loop -------------------------------------------------------------------------------- */

static void
act(void)
{
	switch (fuzz_below(&input, 16)) {
	case 0: host.bite = 1 + fuzz_below(&input, 1u << 15); break;
	case 1: say_rubbish(); break;
	case 2:
	case 3: world_reap(fuzz_below(&input, 16), (int)fuzz_below(&input, 2) * 9); break;
	case 4: world_linger(fuzz_below(&input, 2) != 0); break;
	case 5:
	case 6: listen_to_agent(); break;
	case 7:
	case 8:
	case 9: say_exec(); break;
	case 10:
	case 11: say_file(); break;
	default: say_other();
	}
}

/* The agent has nothing more to do until we have done something. */
static void
turn(void)
{
	for (unsigned i = 1 + fuzz_below(&input, 4); i > 0 && fuzz_left(&input) > 0; i--)
		act();
	if (fuzz_left(&input) == 0) {
		host.bite = SIZE_MAX;
		world_reap(host.last_turns, 0);
		listen_to_agent();
	}
	flush();
	if (fuzz_left(&input) == 0 && ++host.last_turns == LAST_TURNS)
		(void)shutdown(host.fd, SHUT_WR);
}

static void
open_host(void)
{
	const int bytes = SOCKET_BYTES;
	int ends[2];

	AZ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends));
	AZ(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)));
	host.fd = ends[0];
	host.agent_fd = ends[1];
	host.out_len = host.in_len = 0;
	host.bite = SIZE_MAX;
	host.last_turns = 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = fuzz_input(data, size);
	(void)signal(SIGPIPE, SIG_IGN); /* the real one blocks all signals */
	open_host();
	world_begin(&input, turn, &fatal);
	if (setjmp(fatal) == 0) {
		agent_start(host.agent_fd, false);
		agent_serve(NULL);
	} else {
		exec_fini();
		file_fini();
		cmd_fini();
	}
	AZ(cmd_count());
	AZ(file_count());
	listen_to_agent();
	world_end();
	closep(&host.fd);
	closep(&host.agent_fd);
	return 0;
}
