/* SPDX-License-Identifier: MIT
 *
 * qemu_guest.c - a real guest in QEMU for tests. See qemu_guest.h.
 */
#include "tests/lib/qemu_guest.h"
#include "worker/qemu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static const char *
guest_dir(void)
{
	const char *dir = getenv("VMPOOL_GUEST");

	return dir != NULL ? dir : "build/guest/current";
}

void
qguest_need(void)
{
	char err[256], file[4096];

	(void)snprintf(file, sizeof(file), "%s/initramfs", guest_dir());
	if (qemu_check(err, sizeof(err)) == 0) {
		if (access(file, R_OK) == 0)
			return;
		(void)snprintf(err, sizeof(err), "the guest image is not built (make guest)");
	}
	print_message("# skipped: %s\n", err);
	skip();
}

struct machine_config
qguest_config(uint32_t mem_mib, uint32_t vcpus)
{
	static char kernel[4096], image[4096];

	(void)snprintf(kernel, sizeof(kernel), "%s/bzImage", guest_dir());
	(void)snprintf(image, sizeof(image), "%s/initramfs", guest_dir());
	return (struct machine_config){
	    .kernel = kernel, .image = image, .mem_mib = mem_mib, .vcpus = vcpus, .mem_fd = -1};
}

int
qguest_memfd(uint32_t mib)
{
	int fd = memfd_create("qguest", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)mib << 20), 0);
	return fd;
}

static void __attribute__((noreturn)) die(struct qguest *g, const char *what)
{
	static char console[4096];
	const char *end = machine_qemu.end(g->machine);

	(void)machine_qemu.console(g->machine, console, sizeof(console));
	print_error("%s; the machine: %s; the end of its console:\n%s\n", what,
		    end != NULL ? end : "runs", console);
	fail();
	abort();
}

/* --- what comes --------------------------------------------------------------------- */

static void
take_output(struct qguest *g, const struct proto_hdr *h, const uint8_t *payload)
{
	const struct proto_hdr credit = {
	    .length = sizeof(h->length), .type = PROTO_CREDIT, .stream = h->stream};
	size_t n = MIN(h->length, sizeof(g->out) - 1 - g->out_len);

	if (h->stream == g->stream) {
		memcpy(g->out + g->out_len, payload, n);
		g->out_len += n;
		g->out[g->out_len] = '\0';
	}
	if (chan_room(&g->chan))
		chan_send(&g->chan, &credit, &h->length);
}

static void
take_frames(struct qguest *g)
{
	const uint8_t *payload;
	struct proto_hdr h;
	int r;

	while ((r = chan_recv(&g->chan, &h, &payload)) == 1) {
		if (h.type == PROTO_READY)
			g->ready = true;
		else if (h.type == PROTO_PONG)
			g->pongs++;
		else if (h.type == PROTO_STDOUT || h.type == PROTO_STDERR)
			take_output(g, &h, payload);
		else if (h.type == PROTO_EXIT && h.stream == g->stream) {
			memcpy(&g->exit, payload, sizeof(g->exit));
			g->exits++;
		}
	}
	assert_int_equal(r, 0);
	(void)chan_flush(&g->chan, &r);
}

/* Every event stops the loop: the caller looks whether it has what it waits for. */
static void
on_channel(void *owner)
{
	struct qguest *g = owner;

	take_frames(g);
	loop_stop(g->loop, 0);
}

static void
on_ended(void *owner)
{
	struct qguest *g = owner;

	g->ended = true;
	loop_stop(g->loop, 0);
}

static void
on_captured(void *owner, int error, uint64_t state_len, const char *why)
{
	struct qguest *g = owner;

	g->captures++;
	g->capture_error = error;
	g->state_len = state_len;
	(void)snprintf(g->why, sizeof(g->why), "%s", why);
	loop_stop(g->loop, 0);
}

static void
on_timer(struct loop_op *op, int res)
{
	struct qguest *g = op->owner;

	if (res != -ETIME)
		return;
	g->late = true;
	loop_stop(g->loop, 0);
}

static void
step(struct qguest *g)
{
	if (g->late)
		die(g, "nothing came from the machine in time");
	assert_int_equal(loop_run(g->loop), 0);
}

static void
set_deadline(struct qguest *g, uint64_t ms)
{
	g->late = false;
	loop_timer(g->loop, &g->timer, now_ns() + ms * 1000000u);
}

void
qguest_wait(struct qguest *g, const bool *flag)
{
	set_deadline(g, QGUEST_BOOT_MS);
	while (!*flag) {
		if (g->ended && flag != &g->ended)
			die(g, "the machine has ended");
		step(g);
	}
}

void
qguest_wait_count(struct qguest *g, const unsigned *count, unsigned min)
{
	set_deadline(g, QGUEST_WAIT_MS);
	while (*count < min) {
		if (g->ended && count != &g->captures)
			die(g, "the machine has ended");
		step(g);
	}
}

/* --- start and end ------------------------------------------------------------------- */

int
qguest_try(struct qguest *g, const struct machine_config *cfg)
{
	const struct machine_events events = {
	    .channel = on_channel, .ended = on_ended, .captured = on_captured, .owner = g};
	int r;

	memset(g, 0, sizeof(*g));
	assert_int_equal(loop_new(&g->loop, 32, g->why, sizeof(g->why)), 0);
	loop_op_init(&g->timer, on_timer, g);
	r = machine_qemu.start(&g->machine, cfg, g->loop, &events, g->why, sizeof(g->why));
	if (r == 0) {
		chan_init(&g->chan, &machine_qemu, g->machine);
	} else {
		loop_free(g->loop);
		g->loop = NULL;
	}
	return r;
}

void
qguest_start(struct qguest *g, const struct machine_config *cfg)
{
	if (qguest_try(g, cfg) < 0)
		fail_msg("start: %s", g->why);
}

void
qguest_boot(struct qguest *g, const struct machine_config *cfg)
{
	qguest_start(g, cfg);
	qguest_wait(g, &g->ready);
	qguest_ping(g);
}

void
qguest_load(struct qguest *g)
{
	uint64_t dirty = 1;

	if (machine_qemu.load(g->machine, &dirty, g->why, sizeof(g->why)) < 0)
		fail_msg("load: %s", g->why);
	assert_int_equal(dirty, 0);
}

void
qguest_free(struct qguest *g)
{
	loop_free(g->loop);
	machine_qemu.free(g->machine);
	g->loop = NULL;
	g->machine = NULL;
}

/* --- the guest's agent ----------------------------------------------------------------- */

static void
send_frame(struct qguest *g, uint8_t type, uint32_t stream, const void *payload, size_t len)
{
	const struct proto_hdr h = {.length = (uint32_t)len, .type = type, .stream = stream};
	int err;

	chan_send(&g->chan, &h, payload);
	(void)chan_flush(&g->chan, &err);
}

void
qguest_send_ping(struct qguest *g)
{
	send_frame(g, PROTO_PING, 0, "ping", 4);
}

void
qguest_ping(struct qguest *g)
{
	unsigned before = g->pongs;

	qguest_send_ping(g);
	qguest_wait_count(g, &g->pongs, before + 1);
}

void
qguest_launch(struct qguest *g, const char *script)
{
	struct proto_exec e = {.argc = 3};
	char req[4096];
	int n = snprintf(req + sizeof(e), sizeof(req) - sizeof(e), "sh%c-c%c%s%c%c", 0, 0, script,
			 0, 0);

	assert_true(n > 0 && (size_t)n < sizeof(req) - sizeof(e));
	e.size = (uint32_t)(sizeof(e) + (size_t)n + 1);
	memcpy(req, &e, sizeof(e));
	g->out_len = 0;
	g->out[0] = '\0';
	send_frame(g, PROTO_EXEC, ++g->stream, req, e.size);
}

int
qguest_sh(struct qguest *g, const char *script)
{
	unsigned before = g->exits;

	qguest_launch(g, script);
	qguest_wait_count(g, &g->exits, before + 1);
	return g->exit.signal != 0 ? 128 + (int)g->exit.signal : (int)g->exit.code;
}

int
qguest_capture(struct qguest *g, int mem_fd, int state_fd)
{
	const struct machine_capture to = {.mem_fd = mem_fd, .state_fd = state_fd};
	unsigned before = g->captures;
	int r = machine_qemu.capture(g->machine, &to, g->why, sizeof(g->why));

	if (r < 0)
		return r;
	qguest_wait_count(g, &g->captures, before + 1);
	return g->capture_error;
}
