/* SPDX-License-Identifier: MIT
 *
 * qemu.c - a QEMU child process (software emulation) as a worker's machine,
 * for hosts whose KVM cannot run Linux. Runs in a worker; owns the child, the
 * socket of the guest channel and its buffers.
 *
 * qemu_child.c is the process, qemu_args.c its command line, qmp.c its monitor;
 * qemu_template.c and qemu_capture.c are what templates need.
 */
#include "worker/qemu.h"
#include "worker/qemu_args.h"
#include "worker/qemu_machine.h"
#include "worker/snapsum.h"
#include "worker/tsc.h"

#include "kvm/vm.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* --- the guest channel ---------------------------------------------------------- */

static void
want_recv(struct machine *m)
{
	if (m->recv.armed || m->closed || m->in_off < m->in_len)
		return;
	m->in_off = m->in_len = 0;
	loop_recv(m->loop, &m->recv, m->chan, m->in, sizeof(m->in));
}

static void
on_recv(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res <= 0) {
		m->closed = true; /* the exit of the child tells the rest */
		return;
	}
	m->in_len = (size_t)res;
	if (m->stage == QEMU_CAPTURES)
		m->cap.spoke = true;
	m->events.channel(m->events.owner);
}

static void
want_send(struct machine *m)
{
	if (!m->send.armed && !m->closed && m->out_len > 0)
		loop_send(m->loop, &m->send, m->chan, m->out, m->out_len);
}

static void
on_send(struct loop_op *op, int res)
{
	struct machine *m = op->owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (res < 0) {
		m->closed = true;
		return;
	}
	m->out_len -= (size_t)res;
	memmove(m->out, m->out + res, m->out_len);
	want_send(m);
	m->events.channel(m->events.owner);
}

static ssize_t
machine_qemu_recv(struct machine *m, void *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(m, QEMU_MAGIC);
	n = MIN(len, m->in_len - m->in_off);
	memcpy(buf, m->in + m->in_off, n);
	m->in_off += n;
	want_recv(m);
	return (ssize_t)n;
}

static ssize_t
machine_qemu_send(struct machine *m, const void *buf, size_t len)
{
	size_t n;

	CHECK_OBJ(m, QEMU_MAGIC);
	/* The kernel reads out[] while a send is in flight: only append behind it. */
	n = MIN(len, sizeof(m->out) - m->out_len);
	memcpy(m->out + m->out_len, buf, n);
	m->out_len += n;
	want_send(m);
	return (ssize_t)n;
}

/* --- events of the child ----------------------------------------------------------- */

static void
on_done(void *owner, int error, const char *why)
{
	struct machine *m = owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (m->stage == QEMU_CAPTURES)
		qemu_capture_done(m, error, why);
	else
		qemu_template_done(m, error, why);
}

static void
on_ended(void *owner)
{
	struct machine *m = owner;

	CHECK_OBJ(m, QEMU_MAGIC);
	if (m->stage == QEMU_CAPTURES)
		qemu_capture_ended(m);
	m->events.ended(m->events.owner);
}

const struct qemu_child_events qemu_machine_events = {.done = on_done, .ended = on_ended};

static const char *
machine_qemu_end(struct machine *m)
{
	CHECK_OBJ(m, QEMU_MAGIC);
	return m->child->ended ? m->child->end : NULL;
}

static size_t
machine_qemu_console(struct machine *m, char *buf, size_t len)
{
	CHECK_OBJ(m, QEMU_MAGIC);
	return qemu_child_console(m->child, buf, len);
}

/* --- start and end ------------------------------------------------------------------ */

static void
machine_qemu_free(struct machine *m)
{
	if (m == NULL)
		return;
	CHECK_OBJ(m, QEMU_MAGIC);
	qemu_capture_fini(m);
	qemu_template_fini(m);
	qemu_child_free(m->child);
	closep(&m->chan);
	closep(&m->mem_fd);
	m->magic = 0;
	free(m);
}

/* Keep the file that will be the guest's memory. */
static int
keep_memory(struct machine *m, char *err, size_t errlen)
{
	uint64_t size = (uint64_t)m->cfg.mem_mib << 20;
	struct stat st;

	if (m->cfg.mem_fd < 0)
		return 0;
	if (fstat(m->cfg.mem_fd, &st) < 0 || (uint64_t)st.st_size != size)
		return fail(EINVAL, err, errlen, "the file for the guest's memory is not of %u MiB",
			    m->cfg.mem_mib);
	m->mem_fd = fcntl(m->cfg.mem_fd, F_DUPFD_CLOEXEC, 0);
	return m->mem_fd >= 0 ? 0 : fail(errno, err, errlen, "descriptor for the memory: %m");
}

static int
boot(struct machine *m, char *err, size_t errlen)
{
	const struct vm_config files = {
	    .kernel = m->cfg.kernel,
	    .initrd = m->cfg.image,
	    .mem_mib = m->cfg.mem_mib,
	};
	struct qemu_child_events events = qemu_machine_events;
	struct qemu_args args = {.role = QEMU_BOOT, .cfg = &m->cfg, .incoming = -1};
	/* QEMU's own words about a bad kernel or image help nobody. */
	int r = vm_check(&files, err, errlen);

	if (r == 0)
		r = keep_memory(m, err, errlen);
	if (r < 0)
		return r;
	events.owner = m;
	args.mem = m->mem_fd;
	return qemu_child_new(&m->child, &args, &m->chan, m->loop, &events, err, errlen);
}

static int
machine_qemu_start(struct machine **out, const struct machine_config *cfg, struct loop *loop,
		   const struct machine_events *events, char *err, size_t errlen)
{
	struct machine *m = calloc(1, sizeof(*m));
	int r;

	if (m == NULL)
		return fail(ENOMEM, err, errlen, "out of memory for the machine");
	m->magic = QEMU_MAGIC;
	m->chan = m->mem_fd = m->feed.sock = m->feed.state_fd = -1;
	m->loop = loop;
	m->events = *events;
	m->cfg = *cfg;
	m->cfg.tmpl = NULL;
	loop_op_init(&m->recv, on_recv, m);
	loop_op_init(&m->send, on_send, m);
	qemu_capture_init(m);
	r = qemu_check(err, errlen);
	if (r == 0)
		r = cfg->tmpl != NULL ? qemu_template_start(m, cfg->tmpl, err, errlen)
				      : boot(m, err, errlen);
	if (r < 0) {
		machine_qemu_free(m);
		return r;
	}
	want_recv(m);
	*out = m;
	return 0;
}

int
qemu_check(char *err, size_t errlen)
{
	const char *path = getenv("PATH");
	_cleanup_(freep) char *copy = strdup(path != NULL ? path : "/usr/bin:/bin");
	char *save = NULL, file[4096];

	if (copy == NULL)
		return fail(ENOMEM, err, errlen, "out of memory");
	for (char *dir = strtok_r(copy, ":", &save); dir != NULL;
	     dir = strtok_r(NULL, ":", &save)) {
		(void)snprintf(file, sizeof(file), "%s/%s", dir, QEMU_PROGRAM);
		if (access(file, X_OK) == 0)
			return 0;
	}
	return fail(ENOENT, err, errlen, "%s is not installed (apt-get install qemu-system-x86)",
		    QEMU_PROGRAM);
}

/* "QEMU emulator version 7.2.22 (Debian ...)": a version's point releases have the same
 * processors and states. */
static int
qemu_version(char *buf, size_t len, char *err, size_t errlen)
{
	FILE *f = popen(QEMU_PROGRAM " --version", "re");
	unsigned major = 0, minor = 0;
	int n = f == NULL ? 0 : fscanf(f, "QEMU emulator version %u.%u", &major, &minor);

	if (f != NULL)
		(void)pclose(f);
	if (n != 2)
		return fail(EIO, err, errlen, "%s does not tell its version", QEMU_PROGRAM);
	(void)snprintf(buf, len, "%u.%u", major, minor);
	return 0;
}

static int
machine_qemu_identify(uint32_t vcpus, uint8_t cpu[16], uint32_t *khz, char *err, size_t errlen)
{
	char version[32], text[96];
	uint64_t sum;
	int n, r = qemu_version(version, sizeof(version), err, errlen);

	if (r < 0)
		return r;
	n = snprintf(text, sizeof(text), "%s %s %u", version, QEMU_CPU, vcpus);
	sum = snapsum(text, (size_t)n);
	memcpy(cpu, &sum, sizeof(sum));
	*khz = tsc_khz();
	return 0;
}

const struct machine_ops machine_qemu = {
    .name = "tcg",
    .shells = 1,
    .copies = true,
    .identify = machine_qemu_identify,
    .start = machine_qemu_start,
    .load = qemu_template_load,
    .capture = qemu_capture_begin,
    .resume = qemu_template_resume,
    .recv = machine_qemu_recv,
    .send = machine_qemu_send,
    .peek = qemu_memory_peek,
    .poke = qemu_memory_poke,
    .end = machine_qemu_end,
    .console = machine_qemu_console,
    .free = machine_qemu_free,
};
