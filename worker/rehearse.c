/* SPDX-License-Identifier: MIT
 *
 * rehearse.c - tries a template out. See rehearse.h. Runs in a builder.
 *
 * The host maps guest memory in aligned groups of pages when one of them is read,
 * so one trial marks too many. Each trial has its memory at another distance from
 * the groups' borders: what is marked every time is hardly more than what the
 * guest touched.
 */
#include "worker/rehearse.h"
#include "worker/chan.h"
#include <poll.h>
#include <string.h>

#define TRIALS 8u

struct trials {
	uint64_t pages;
	uint8_t *now;		 /* vm_touched of one trial */
	uint8_t *seen, *written; /* in how many trials */
};

/* Wait for the channel until deadline. */
static int
wait_kick(struct vm *vm, uint64_t deadline, char *err, size_t errlen)
{
	struct pollfd p[2] = {{.fd = vm_chan_kick_fd(vm), .events = POLLIN},
			      {.fd = vm_end_fd(vm), .events = POLLIN}};
	uint64_t now = now_ns(), kicks;
	int left = now >= deadline ? 0 : (int)((deadline - now) / 1000000) + 1;

	if (poll(p, 2, left) <= 0)
		return fail(ETIMEDOUT, err, errlen, "the template's guest does not answer");
	if (p[1].revents != 0)
		return fail(EIO, err, errlen, "the template's guest ended: %s", vm_end_text(vm));
	(void)!read(p[0].fd, &kicks, sizeof(kicks));
	return 0;
}

static int
send_all(struct vm *vm, const void *bytes, size_t len, uint64_t deadline, char *err, size_t errlen)
{
	ssize_t n;
	int r = 0;

	for (size_t at = 0; at < len && r == 0; at += (size_t)n) {
		n = vm_chan_send(vm, (const uint8_t *)bytes + at, len - at);
		if (n < 0)
			return fail((int)-n, err, errlen, "the guest's channel is broken");
		if (n == 0)
			r = wait_kick(vm, deadline, err, errlen);
	}
	return r;
}

/* Take frames until the PONG. */
static int
await_pong(struct vm *vm, uint64_t deadline, char *err, size_t errlen)
{
	uint8_t in[4 * sizeof(struct proto_hdr) + 256] = {0};
	struct proto_hdr h;
	size_t have = 0;
	ssize_t n;
	int r;

	for (;;) {
		memcpy(&h, in, sizeof(h));
		if (have >= sizeof(h) &&
		    (!proto_check(&h, true) || sizeof(h) + h.length > sizeof(in)))
			return fail(EPROTO, err, errlen, "the guest sent a bad frame");
		if (have >= sizeof(h) && have >= sizeof(h) + h.length) {
			if (h.type == PROTO_PONG)
				return 0;
			have -= sizeof(h) + h.length;
			memmove(in, in + sizeof(h) + h.length, have);
			continue;
		}
		n = vm_chan_recv(vm, in + have, sizeof(in) - have);
		if (n < 0)
			return fail((int)-n, err, errlen, "the guest's channel is broken");
		have += (size_t)n;
		r = n == 0 ? wait_kick(vm, deadline, err, errlen) : 0;
		if (r < 0)
			return r;
	}
}

/* What a worker makes every machine do before a client gets it, and a PING. */
static int
converse(struct vm *vm, char *err, size_t errlen)
{
	struct __attribute__((packed)) {
		struct proto_hdr renew_hdr;
		struct proto_renew renew;
		struct proto_hdr ping_hdr;
	} out = {
	    .renew_hdr = {.length = sizeof(out.renew), .type = PROTO_RENEW},
	    .ping_hdr = {.type = PROTO_PING},
	};
	uint64_t deadline = now_ns() + REHEARSE_MS * 1000000ull;
	struct proto_renew renew;
	int r = chan_renewal(&renew);

	if (r < 0)
		return fail(-r, err, errlen, "getrandom: %s", strerror(-r));
	out.renew = renew;
	r = send_all(vm, &out, sizeof(out), deadline, err, errlen);
	return r == 0 ? await_pong(vm, deadline, err, errlen) : r;
}

static int
trial(struct trials *t, const struct vm_config *cfg, char *err, size_t errlen)
{
	struct vm *vm;
	uint64_t dirty;
	int r = vm_new(&vm, cfg, err, errlen);

	if (r < 0)
		return r;
	r = vm_load(vm, &dirty, err, errlen);
	if (r == 0) {
		vm_resume(vm);
		r = converse(vm, err, errlen);
		vm_pause(vm);
	}
	if (r == 0)
		r = vm_touched(vm, t->now, err, errlen);
	vm_free(vm);
	for (uint64_t i = 0; i < t->pages && r == 0; i++) {
		t->seen[i] += (t->now[i] & VM_TOUCHED) != 0;
		t->written[i] += (t->now[i] & VM_WRITTEN) != 0;
	}
	return r;
}

/* Touched in all trials, or written in most. */
static void
conclude(struct trials *t)
{
	for (uint64_t i = 0; i < t->pages; i++) {
		t->now[i] = t->seen[i] == TRIALS ? VM_TOUCHED : 0;
		if (t->written[i] > TRIALS / 2)
			t->now[i] = VM_TOUCHED | VM_WRITTEN;
	}
}

int
rehearse(struct vm *vm, const struct vm_template *tmpl, uint32_t mem_mib, uint32_t vcpus, char *err,
	 size_t errlen)
{
	struct trials t = {.pages = (uint64_t)mem_mib << 8};
	_cleanup_(freep) uint8_t *maps = calloc(3, t.pages);
	struct vm_config cfg = {.kvm_fd = -1, .mem_mib = mem_mib, .vcpus = vcpus, .tmpl = tmpl};
	int r = 0;

	if (maps == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	t.now = maps;
	t.seen = maps + t.pages;
	t.written = t.seen + t.pages;
	for (uint32_t i = 0; i < TRIALS && r == 0; i++) {
		cfg.skew = i * (VM_SKEWS / TRIALS);
		r = trial(&t, &cfg, err, errlen);
	}
	if (r < 0)
		return r;
	conclude(&t);
	return vm_expect(vm, t.now) < 0 ? fail(ENOMEM, err, errlen, "out of memory") : 0;
}
