/* SPDX-License-Identifier: MIT
 *
 * benchguest.c - a real guest for benchmarks of the VMM. See benchguest.h. Runs in
 * the benchmark's own process.
 */
#include "tests/bench/benchguest.h"
#include "worker/chan.h"

#include <poll.h>
#include <string.h>

#define DEADLINE_MS 120000

static char err[256];

static void
wait_kick(struct vm *vm)
{
	struct pollfd p[2] = {{vm_chan_kick_fd(vm), POLLIN, 0}, {vm_end_fd(vm), POLLIN, 0}};
	uint64_t kicks;

	if (poll(p, 2, DEADLINE_MS) <= 0 || p[1].revents != 0)
		bench_die("the guest ended or fell silent: %s", vm_end_text(vm));
	(void)!read(p[0].fd, &kicks, sizeof(kicks));
}

/* Wait for the next frame, which must be of this type. */
static void
expect(struct benchguest *g, uint8_t type)
{
	struct proto_hdr h;
	ssize_t n;

	for (;;) {
		memcpy(&h, g->in, sizeof(h));
		if (g->have >= sizeof(h) && g->have >= sizeof(h) + h.length)
			break;
		n = vm_chan_recv(g->vm, g->in + g->have, sizeof(g->in) - g->have);
		if (n < 0)
			bench_die("guest channel broken");
		g->have += (size_t)n;
		if (n == 0)
			wait_kick(g->vm);
	}
	if (h.type != type)
		bench_die("a frame of type %u, not %u", h.type, type);
	g->have -= sizeof(h) + h.length;
	memmove(g->in, g->in + sizeof(h) + h.length, g->have);
}

static void
send_all(struct benchguest *g, const void *bytes, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = vm_chan_send(g->vm, (const uint8_t *)bytes + at, len - at);

		if (n < 0)
			bench_die("guest channel broken");
		at += (size_t)n;
		if (n == 0)
			wait_kick(g->vm);
	}
}

void
benchguest_new(struct benchguest *g, const struct vm_config *cfg)
{
	g->have = 0;
	if (vm_new(&g->vm, cfg, err, sizeof(err)) < 0)
		bench_die("%s", err);
	if (cfg->tmpl != NULL)
		return;
	if (vm_start(g->vm, err, sizeof(err)) < 0)
		bench_die("%s", err);
	expect(g, PROTO_READY);
}

void
benchguest_end(struct benchguest *g)
{
	vm_free(g->vm);
	g->vm = NULL;
}

void
benchguest_load(struct benchguest *g, uint64_t *dirty_pages)
{
	g->have = 0;
	if (vm_load(g->vm, dirty_pages, err, sizeof(err)) < 0)
		bench_die("%s", err);
	vm_resume(g->vm);
}

void
benchguest_ping(struct benchguest *g)
{
	const struct {
		struct proto_hdr h;
		uint32_t payload;
	} frame = {.h = {.length = 4, .type = PROTO_PING}, .payload = 0x676e6970};

	send_all(g, &frame, sizeof(frame));
	expect(g, PROTO_PONG);
}

void
benchguest_renew(struct benchguest *g)
{
	struct __attribute__((packed)) {
		struct proto_hdr h;
		struct proto_renew renew;
	} frame = {.h = {.length = sizeof(struct proto_renew), .type = PROTO_RENEW}};
	struct proto_renew renew;

	if (chan_renewal(&renew) < 0)
		bench_die("no random bytes");
	frame.renew = renew;
	send_all(g, &frame, sizeof(frame));
	expect(g, PROTO_RENEWED);
}

void
benchguest_sh(struct benchguest *g, const char *script)
{
	struct {
		struct proto_hdr h;
		struct proto_exec e;
		char strings[1024];
	} frame = {.h = {.type = PROTO_EXEC, .stream = 1}, .e = {.argc = 3}};
	/* Three arguments; no directory, no user. */
	int n =
	    snprintf(frame.strings, sizeof(frame.strings), "sh%c-c%c%s%c%c", 0, 0, script, 0, 0);

	if (n < 0 || (size_t)n >= sizeof(frame.strings))
		bench_die("a script of more than %zu bytes", sizeof(frame.strings));
	frame.e.size = (uint32_t)(sizeof(frame.e) + (size_t)n + 1);
	frame.h.length = frame.e.size;
	send_all(g, &frame, sizeof(frame.h) + frame.h.length);
	expect(g, PROTO_EXIT);
}
