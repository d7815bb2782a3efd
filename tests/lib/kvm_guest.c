/* SPDX-License-Identifier: MIT
 *
 * kvm_guest.c - a real guest for tests. See kvm_guest.h.
 */
#include "tests/lib/kvm_guest.h"
#include "worker/rehearse.h"
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static char console[VM_CONSOLE_MAX + 1];

static void __attribute__((noreturn)) printf_like(2, 3) die(struct guest *g, const char *fmt, ...)
{
	char what[256];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	n = vm_console_tail(g->vm, console, 4096);
	print_error("%s; the machine: %s; the end of its console (%zu bytes):\n%s\n", what,
		    vm_end_text(g->vm), n, console);
	fail();
	abort();
}

const char *
guest_no_kvm(void)
{
	static char why[256];

	return vm_probe(-1, why, sizeof(why)) == VM_PROBE_OK ? NULL : why;
}

void
guest_need_kvm(void)
{
	const char *why = guest_no_kvm();

	if (why == NULL)
		return;
	print_message("# skipped: %s\n", why);
	skip();
}

const char *
guest_file(const char *env)
{
	const char *path = getenv(env);

	if (path != NULL && path[0] != '\0')
		return path;
	print_message("# skipped: %s is not set\n", env);
	skip();
	abort();
}

void
guest_start(struct guest *g, const char *kernel, const char *initrd, const char *cmdline,
	    uint32_t mem_mib, uint32_t vcpus)
{
	const struct vm_config cfg = {.kvm_fd = -1,
				      .kernel = kernel,
				      .initrd = initrd,
				      .cmdline = cmdline,
				      .mem_mib = mem_mib,
				      .vcpus = vcpus};
	char err[256] = "";

	memset(g, 0, sizeof(*g));
	if (vm_new(&g->vm, &cfg, err, sizeof(err)) < 0)
		fail_msg("vm_new: %s", err);
	if (vm_start(g->vm, err, sizeof(err)) < 0)
		fail_msg("vm_start: %s", err);
}

void
guest_end(struct guest *g)
{
	vm_free(g->vm);
	g->vm = NULL;
}

/* Milliseconds left until deadline, at least 0. */
static int
left(uint64_t deadline)
{
	uint64_t now = now_ns();

	return now >= deadline ? 0 : (int)((deadline - now) / 1000000) + 1;
}

/* Wait until the channel may have moved; dies with the machine or in time. */
static void
wait_kick(struct guest *g, uint64_t deadline)
{
	struct pollfd p[2] = {{.fd = vm_chan_kick_fd(g->vm), .events = POLLIN},
			      {.fd = vm_end_fd(g->vm), .events = POLLIN}};
	uint64_t kicks;

	if (poll(p, 2, left(deadline)) <= 0)
		die(g, "nothing came from the guest in time");
	if ((p[0].revents & POLLIN) != 0 && read(p[0].fd, &kicks, sizeof(kicks)) < 0 &&
	    errno != EAGAIN)
		die(g, "kick: %s", strerror(errno));
	if (p[1].revents != 0)
		die(g, "the machine ended");
}

/* The next frame: its header; payload points into the buffer, until the next call. */
static struct proto_hdr
next_frame(struct guest *g, const uint8_t **payload, uint64_t deadline)
{
	static uint8_t frame[PROTO_PAYLOAD_MAX];
	struct proto_hdr h;
	ssize_t n;

	for (;;) {
		memcpy(&h, g->in, sizeof(h));
		if (g->have >= sizeof(h) && !proto_check(&h, true))
			die(g, "bad frame: type %u, length %u, stream %u", h.type, h.length,
			    h.stream);
		if (g->have >= sizeof(h) && g->have >= sizeof(h) + h.length)
			break;
		n = vm_chan_recv(g->vm, g->in + g->have, sizeof(g->in) - g->have);
		if (n < 0)
			die(g, "vm_chan_recv: %s", strerror((int)-n));
		g->have += (size_t)n;
		if (n == 0)
			wait_kick(g, deadline);
	}
	memcpy(frame, g->in + sizeof(h), h.length);
	g->have -= sizeof(h) + h.length;
	memmove(g->in, g->in + sizeof(h) + h.length, g->have);
	*payload = frame;
	return h;
}

static void
send_all(struct guest *g, const void *bytes, size_t len)
{
	uint64_t deadline = now_ns() + GUEST_WAIT_MS * 1000000ull;
	const uint8_t *p = bytes;
	ssize_t n;

	while (len > 0) {
		n = vm_chan_send(g->vm, p, len);
		if (n < 0)
			die(g, "vm_chan_send: %s", strerror((int)-n));
		p += n;
		len -= (size_t)n;
		if (n == 0)
			wait_kick(g, deadline);
	}
}

static void
send_frame(struct guest *g, uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
	   size_t len)
{
	uint8_t frame[sizeof(struct proto_hdr) + PROTO_PAYLOAD_MAX];
	const struct proto_hdr h = {
	    .length = (uint32_t)len, .type = type, .flags = flags, .stream = stream};

	assert(len <= PROTO_PAYLOAD_MAX);
	memcpy(frame, &h, sizeof(h));
	memcpy(frame + sizeof(h), payload, len);
	send_all(g, frame, sizeof(h) + len);
}

void
guest_boot(struct guest *g, const char *kernel, uint32_t mem_mib, uint32_t vcpus)
{
	const uint8_t *payload;
	struct proto_hdr h;

	guest_start(g, kernel, guest_file("VMPOOL_TEST_INITRD"), NULL, mem_mib, vcpus);
	h = next_frame(g, &payload, now_ns() + GUEST_BOOT_MS * 1000000ull);
	if (h.type != PROTO_READY)
		die(g, "the first frame is of type %u, not READY", h.type);
	memcpy(&g->ready, payload, sizeof(g->ready));
	assert_int_equal(g->ready.version, PROTO_VERSION);
}

void
guest_ping(struct guest *g)
{
	uint32_t sent = ++g->stream;
	const uint8_t *payload;
	struct proto_hdr h;

	send_frame(g, PROTO_PING, 0, 0, &sent, sizeof(sent));
	do
		h = next_frame(g, &payload, now_ns() + GUEST_WAIT_MS * 1000000ull);
	while (h.type != PROTO_PONG);
	assert_int_equal(h.length, sizeof(sent));
	assert_memory_equal(payload, &sent, sizeof(sent));
}

void
guest_template(struct vm_template *t, const char *kernel, uint32_t mem_mib, uint32_t vcpus)
{
	struct vm_config cfg = {.kvm_fd = -1,
				.kernel = kernel,
				.initrd = guest_file("VMPOOL_TEST_INITRD"),
				.mem_mib = mem_mib,
				.vcpus = vcpus,
				.shared = true};
	struct guest g = {0};
	const uint8_t *payload;
	char err[256] = "";

	*t = (struct vm_template){.mem_fd = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING),
				  .state_fd = memfd_create("state", MFD_CLOEXEC)};
	cfg.mem_fd = t->mem_fd;
	assert_int_equal(ftruncate(t->mem_fd, (off_t)mem_mib << 20), 0);
	if (vm_new(&g.vm, &cfg, err, sizeof(err)) < 0 || vm_start(g.vm, err, sizeof(err)) < 0)
		fail_msg("%s", err);
	assert_int_equal(next_frame(&g, &payload, now_ns() + GUEST_BOOT_MS * 1000000ull).type,
			 PROTO_READY);
	guest_ping(&g);
	vm_pause(g.vm);
	if (vm_save(g.vm, t->state_fd, 0, &t->state_len, err, sizeof(err)) < 0 ||
	    rehearse(g.vm, t, mem_mib, vcpus, err, sizeof(err)) < 0 ||
	    vm_save(g.vm, t->state_fd, 0, &t->state_len, err, sizeof(err)) < 0)
		fail_msg("%s", err);
	guest_end(&g);
	assert_int_equal(fcntl(t->mem_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW),
			 0);
}

void
guest_template_close(struct vm_template *t)
{
	closep(&t->mem_fd);
	closep(&t->state_fd);
}

void
guest_shell(struct guest *g, const struct vm_template *t, uint32_t mem_mib, uint32_t vcpus)
{
	const struct vm_config cfg = {.kvm_fd = -1, .mem_mib = mem_mib, .vcpus = vcpus, .tmpl = t};
	char err[256] = "";

	memset(g, 0, sizeof(*g));
	if (vm_new(&g->vm, &cfg, err, sizeof(err)) < 0)
		fail_msg("vm_new: %s", err);
}

uint64_t
guest_load(struct guest *g)
{
	uint64_t dirty = 0;
	char err[256] = "";

	if (vm_load(g->vm, &dirty, err, sizeof(err)) < 0)
		fail_msg("vm_load: %s", err);
	g->have = 0;
	vm_resume(g->vm);
	return dirty;
}

static uint32_t
launch(struct guest *g, const char *const *argv, uint32_t timeout_ms, uint32_t flags)
{
	uint8_t req[PROTO_PAYLOAD_MAX];
	struct proto_exec e = {.size = sizeof(e), .timeout_ms = timeout_ms, .flags = flags};

	for (; argv[e.argc] != NULL; e.argc++) {
		size_t n = strlen(argv[e.argc]) + 1;

		assert(e.size + n + 2 <= sizeof(req));
		memcpy(req + e.size, argv[e.argc], n);
		e.size += (uint32_t)n;
	}
	memcpy(req + e.size, "\0", 2); /* working directory and user: the defaults */
	e.size += 2;
	memcpy(req, &e, sizeof(e));
	send_frame(g, PROTO_EXEC, 0, ++g->stream, req, e.size);
	return g->stream;
}

static void
append(char **buf, size_t *have, const uint8_t *bytes, size_t len)
{
	*buf = realloc(*buf, *have + len + 1);
	assert(*buf != NULL);
	memcpy(*buf + *have, bytes, len);
	*have += len;
	(*buf)[*have] = '\0';
}

static void
take_output(struct guest *g, const struct proto_hdr *h, const uint8_t *payload,
	    struct guest_result *r)
{
	r->last_ns = now_ns();
	if (r->first_ns == 0)
		r->first_ns = r->last_ns;
	if (h->type == PROTO_STDOUT)
		append(&r->out, &r->out_len, payload, h->length);
	else
		append(&r->err, &r->err_len, payload, h->length);
	send_frame(g, PROTO_CREDIT, 0, h->stream, &h->length, sizeof(h->length));
}

void
guest_exec(struct guest *g, const char *const *argv, const char *input, uint32_t timeout_ms,
	   struct guest_result *r)
{
	uint32_t stream = launch(g, argv, timeout_ms, input != NULL ? PROTO_EXEC_STDIN : 0);
	uint64_t deadline = now_ns() + GUEST_WAIT_MS * 1000000ull;
	const uint8_t *payload;
	struct proto_hdr h;

	memset(r, 0, sizeof(*r));
	append(&r->out, &r->out_len, NULL, 0);
	append(&r->err, &r->err_len, NULL, 0);
	if (input != NULL) {
		assert(strlen(input) <= PROTO_WINDOW);
		send_frame(g, PROTO_STDIN, PROTO_F_EOF, stream, input, strlen(input));
	}
	for (;;) {
		h = next_frame(g, &payload, deadline);
		if (h.stream != stream)
			continue;
		if (h.type == PROTO_STDOUT || h.type == PROTO_STDERR)
			take_output(g, &h, payload, r);
		if (h.type == PROTO_EXIT || h.type == PROTO_ERROR)
			break;
	}
	r->failed = h.type == PROTO_ERROR;
	if (r->failed)
		memcpy(&r->error, payload, sizeof(r->error));
	else
		memcpy(&r->exit, payload, sizeof(r->exit));
}

void
guest_result_free(struct guest_result *r)
{
	free(r->out);
	free(r->err);
	memset(r, 0, sizeof(*r));
}

char *
guest_sh(struct guest *g, const char *script, uint32_t status)
{
	const char *const argv[] = {"sh", "-c", script, NULL};
	struct guest_result r;
	char *out;

	guest_exec(g, argv, NULL, 0, &r);
	if (r.failed || r.exit.signal != 0 || r.exit.code != status)
		die(g, "%s: status %u, signal %u, stage %u: %s%s", script, r.exit.code,
		    r.exit.signal, r.error.stage, r.out, r.err);
	out = r.out;
	r.out = NULL;
	guest_result_free(&r);
	return out;
}

void
guest_launch(struct guest *g, const char *script)
{
	const char *const argv[] = {"sh", "-c", script, NULL};

	(void)launch(g, argv, 0, 0);
}

enum vm_end
guest_wait_end(struct guest *g, int timeout_ms)
{
	struct pollfd p = {.fd = vm_end_fd(g->vm), .events = POLLIN};
	uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000u;
	char sink[4096];

	while (poll(&p, 1, MIN(left(deadline), 100)) == 0 && left(deadline) > 0)
		while (vm_chan_recv(g->vm, sink, sizeof(sink)) > 0)
			;
	return vm_end(g->vm);
}

void
guest_console_has(struct guest *g, const char *text)
{
	(void)vm_console_tail(g->vm, console, sizeof(console));
	if (strstr(console, text) == NULL)
		die(g, "the console does not say \"%s\"", text);
}
