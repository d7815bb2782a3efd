/* SPDX-License-Identifier: MIT
 *
 * test_qemu_template.c - templates of software-emulated machines, with the real
 * guest under QEMU: capture, start, load, snapshots of running machines, and
 * what must be refused. Skips where QEMU or the guest's files are not there.
 */
#include "tests/lib/qemu_guest.h"
#include "worker/qemu_machine.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#define MEM_MIB 128u
#define SPARSE_BYTES ((uint64_t)(MEM_MIB - 16) << 20) /* no kernel leaves less untouched */
#define STATE_OFF 4096u /* states need not begin where their file does */

/* The template that most tests start from, made by the first. */
static struct machine_template tmpl = {.mem_fd = -1, .state_fd = -1};
static double boot_ms;

static double
ms_since(uint64_t start)
{
	return (double)(now_ns() - start) / 1e6;
}

static uint64_t
bytes_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512u;
}

/* A sum over the data of a memory file. */
static uint64_t
sum_of(int fd)
{
	static uint64_t buf[8192];
	uint64_t sum = 0;
	ssize_t n;

	for (off_t at = 0; (n = pread(fd, buf, sizeof(buf), at)) > 0; at += n)
		for (size_t i = 0; i < (size_t)n / sizeof(*buf); i++)
			sum = sum * 31 + buf[i];
	return sum;
}

/* Boot one and capture it; it stands still then. */
static void
capture_boot(struct qguest *g, struct machine_template *t, uint32_t vcpus)
{
	struct machine_config cfg = qguest_config(MEM_MIB, vcpus);
	const struct machine_capture to = {-1, qguest_memfd(0), 0, STATE_OFF};
	uint64_t start = now_ns();

	cfg.mem_fd = qguest_memfd(MEM_MIB);
	qguest_boot(g, &cfg);
	boot_ms = ms_since(start);
	assert_int_equal(qguest_sh(g, "echo template >/mark"), 0);
	qguest_ping(g);
	start = now_ns();
	if (machine_qemu.capture(g->machine, &to, g->why, sizeof(g->why)) < 0)
		fail_msg("capture: %s", g->why);
	qguest_wait_count(g, &g->captures, 1);
	if (g->capture_error != 0)
		fail_msg("captured: %s", g->why);
	print_message("# boot %.0f ms, capture %.1f ms, state %llu bytes, memory %llu KiB\n",
		      boot_ms, ms_since(start), (unsigned long long)g->state_len,
		      (unsigned long long)bytes_of(cfg.mem_fd) >> 10);
	*t = (struct machine_template){.mem_fd = cfg.mem_fd,
				       .state_fd = to.state_fd,
				       .state_off = STATE_OFF,
				       .state_len = g->state_len};
}

static void
close_template(struct machine_template *t)
{
	closep(&t->mem_fd);
	closep(&t->state_fd);
}

static struct machine_config
from(const struct machine_template *t)
{
	struct machine_config cfg = qguest_config(MEM_MIB, 1);

	cfg.tmpl = t;
	return cfg;
}

static void
need_template(void)
{
	struct qguest *g;

	qguest_need();
	if (tmpl.mem_fd >= 0)
		return;
	g = test_malloc(sizeof(*g));
	capture_boot(g, &tmpl, 1);
	qguest_free(g);
	test_free(g);
}

static void
spawn(struct qguest *g, const struct machine_template *t)
{
	const struct machine_config cfg = from(t);

	qguest_start(g, &cfg);
	qguest_load(g);
	qguest_ping(g);
}

/* --- what works ----------------------------------------------------------------------- */

static void
captures_and_goes_on(void **state)
{
	struct machine_template t;
	struct qguest g;
	char err[256];

	(void)state;
	qguest_need();
	capture_boot(&g, &t, 1);
	assert_true(bytes_of(t.mem_fd) < SPARSE_BYTES);
	assert_int_equal(machine_qemu.resume(g.machine, err, sizeof(err)), 0);
	assert_int_equal(qguest_sh(&g, "cat /mark"), 0);
	assert_string_equal(g.out, "template\n");
	qguest_free(&g);
	close_template(&t);
}

/* Several from one template: each a machine of its own, none touches the template. */
static void
starts_many(void **state)
{
	struct qguest *g = test_calloc(3, sizeof(*g));
	struct machine_config cfg;
	uint64_t sum, start;
	double cold, warm;
	char script[64];

	(void)state;
	need_template();
	sum = sum_of(tmpl.mem_fd);
	cfg = from(&tmpl);
	for (int i = 0; i < 3; i++) {
		start = now_ns();
		qguest_start(&g[i], &cfg);
		qguest_load(&g[i]);
		qguest_ping(&g[i]);
		cold = ms_since(start);
		(void)snprintf(script, sizeof(script), "cat /mark; echo %d >/mark", i);
		start = now_ns();
		assert_int_equal(qguest_sh(&g[i], script), 0);
		warm = ms_since(start);
		assert_string_equal(g[i].out, "template\n");
		print_message(
		    "# answered after %.0f ms, boot / spawn %.1f; first command %.0f ms\n", cold,
		    boot_ms / cold, warm);
	}
	for (int i = 0; i < 3; i++) {
		(void)snprintf(script, sizeof(script), "test $(cat /mark) = %d", i);
		assert_int_equal(qguest_sh(&g[i], script), 0);
		qguest_free(&g[i]);
	}
	assert_true(sum == sum_of(tmpl.mem_fd));
	test_free(g);
}

/* A shell that waits, with a byte in its channel already. */
static void
waits_for_load(void **state)
{
	struct machine_config cfg;
	struct qguest g;
	uint64_t start;

	(void)state;
	need_template();
	cfg = from(&tmpl);
	qguest_start(&g, &cfg);
	qguest_send_ping(&g);
	/* nothing tells when a shell is prepared: look */
	while (g.machine->stage != QEMU_PREPARED) {
		loop_timer(g.loop, &g.timer, now_ns() + 1000000);
		assert_int_equal(loop_run(g.loop), 0);
		g.late = false;
		assert_false(g.ended);
	}
	assert_int_equal(g.pongs, 0);
	start = now_ns();
	qguest_load(&g);
	qguest_wait_count(&g, &g.pongs, 1);
	print_message("# a shell answers after %.0f ms, boot / that %.1f\n", ms_since(start),
		      boot_ms / ms_since(start));
	qguest_free(&g);
}

/* A shell whose owner did not run the loop until long after its start. */
static void
waits_unattended(void **state)
{
	struct machine_config cfg;
	struct qguest g;

	(void)state;
	need_template();
	cfg = from(&tmpl);
	qguest_start(&g, &cfg);
	qmp_set_due(&g.machine->child->qmp, 1);
	qguest_load(&g);
	qguest_ping(&g);
	qguest_free(&g);
}

/* A borrowed machine's present state, files and processes, again and again. */
static void
snapshots_of_snapshots(void **state)
{
	struct machine_template t[2];
	struct qguest g, h;
	char err[256];

	(void)state;
	need_template();
	spawn(&g, &tmpl);
	assert_int_equal(qguest_sh(&g, "echo mine >/mark; "
				       "head -c 8000000 /dev/urandom >/big; md5sum /big >/sum"),
			 0);
	for (int i = 0; i < 2; i++) {
		uint64_t start = now_ns();

		qguest_ping(&g);
		t[i] = (struct machine_template){.mem_fd = qguest_memfd(0),
						 .state_fd = qguest_memfd(0)};
		if (qguest_capture(&g, t[i].mem_fd, t[i].state_fd) != 0)
			fail_msg("capture: %s", g.why);
		t[i].state_len = g.state_len;
		print_message("# snapshot %.0f ms, state %llu bytes, memory %llu KiB\n",
			      ms_since(start), (unsigned long long)g.state_len,
			      (unsigned long long)bytes_of(t[i].mem_fd) >> 10);
		assert_true(bytes_of(t[i].mem_fd) < SPARSE_BYTES);
		assert_int_equal(machine_qemu.resume(g.machine, err, sizeof(err)), 0);
		assert_int_equal(qguest_sh(&g, "md5sum -c /sum && echo later >/mark"), 0);
		spawn(&h, &t[i]);
		assert_int_equal(qguest_sh(&h, "md5sum -c /sum && cat /mark"), 0);
		assert_string_equal(g.out, "/big: OK\n");
		assert_non_null(strstr(h.out, i == 0 ? "mine" : "later"));
		qguest_free(&h);
	}
	qguest_free(&g);
	spawn(&h, &tmpl);
	assert_int_equal(qguest_sh(&h, "test ! -e /big && cat /mark"), 0);
	assert_string_equal(h.out, "template\n");
	qguest_free(&h);
	close_template(&t[0]);
	close_template(&t[1]);
}

static void
two_processors(void **state)
{
	struct machine_template t;
	struct machine_config cfg;
	struct qguest g;

	(void)state;
	qguest_need();
	capture_boot(&g, &t, 2);
	qguest_free(&g);
	cfg = from(&t);
	cfg.vcpus = 2;
	qguest_start(&g, &cfg);
	qguest_load(&g);
	assert_int_equal(qguest_sh(&g, "grep -c ^processor /proc/cpuinfo"), 0);
	assert_string_equal(g.out, "2\n");
	qguest_free(&g);
	/* one processor cannot take the state of two */
	cfg.vcpus = 1;
	qguest_start(&g, &cfg);
	qguest_load(&g);
	qguest_wait(&g, &g.ended);
	print_message("# %s\n", machine_qemu.end(g.machine));
	assert_non_null(strstr(machine_qemu.end(g.machine), "QEMU failed"));
	qguest_free(&g);
	close_template(&t);
}

/* --- what does not --------------------------------------------------------------------- */

static void
refuses_out_of_turn(void **state)
{
	const struct machine_capture nowhere = {-1, -1, 0, 0};
	struct machine_capture to = {-1, qguest_memfd(0), 0, 0};
	struct machine_config cfg;
	struct qguest g;
	uint64_t dirty;
	char err[256];

	(void)state;
	need_template();
	cfg = from(&tmpl);
	qguest_start(&g, &cfg);
	assert_int_equal(machine_qemu.capture(g.machine, &to, err, sizeof(err)), -EINVAL);
	assert_int_equal(machine_qemu.resume(g.machine, err, sizeof(err)), -EINVAL);
	qguest_load(&g);
	assert_int_equal(machine_qemu.load(g.machine, &dirty, err, sizeof(err)), -EOPNOTSUPP);
	qguest_ping(&g);
	assert_int_equal(machine_qemu.load(g.machine, &dirty, err, sizeof(err)), -EOPNOTSUPP);
	assert_int_equal(machine_qemu.resume(g.machine, err, sizeof(err)), -EINVAL);
	assert_int_equal(machine_qemu.capture(g.machine, &nowhere, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "private"));
	to.mem_fd = to.state_fd;
	to.mem_off = 4096;
	assert_int_equal(machine_qemu.capture(g.machine, &to, err, sizeof(err)), -EINVAL);
	qguest_ping(&g);
	qguest_free(&g);
	closep(&to.state_fd);
}

static void
refuses_a_busy_channel(void **state)
{
	_cleanup_(closep) int mem = qguest_memfd(0);
	_cleanup_(closep) int st = qguest_memfd(0);
	struct qguest g;
	char err[256];

	(void)state;
	need_template();
	spawn(&g, &tmpl);
	qguest_send_ping(&g); /* waits in the buffer: the loop does not run */
	assert_int_equal(qguest_capture(&g, mem, st), -EBUSY);
	qguest_wait_count(&g, &g.pongs, 2);
	/* a command's output lies in the socket: the loop, which would take it, does not run */
	qguest_launch(&g, "while :; do echo x; done");
	while (g.machine->out_len > 0)
		assert_int_equal(loop_run(g.loop), 0);
	assert_int_equal(poll(&(struct pollfd){g.machine->chan, POLLIN, 0}, 1, QGUEST_WAIT_MS), 1);
	if (g.machine->in_off == g.machine->in_len)
		assert_int_equal(qguest_capture(&g, mem, st), -EBUSY);
	print_message("# %s\n", g.why);
	if (g.machine->stage == QEMU_CAPTURED)
		assert_int_equal(machine_qemu.resume(g.machine, err, sizeof(err)), 0);
	qguest_ping(&g);
	qguest_free(&g);
}

static void
refuses_another_shape(void **state)
{
	struct machine_template t;
	struct machine_config cfg;
	struct qguest g;

	(void)state;
	need_template();
	t = tmpl;
	cfg = from(&t);
	cfg.mem_mib = MEM_MIB * 2;
	assert_int_equal(qguest_try(&g, &cfg), -EINVAL);
	print_message("# %s\n", g.why);
	assert_non_null(strstr(g.why, "128 MiB"));
	cfg = from(&t);
	t.mem_off = 4096;
	assert_int_equal(qguest_try(&g, &cfg), -EINVAL);
	t = tmpl;
	t.state_len = 0;
	assert_int_equal(qguest_try(&g, &cfg), -EINVAL);
	t.state_len = QEMU_STATE_MAX + 1;
	assert_int_equal(qguest_try(&g, &cfg), -EINVAL);
}

/* States that cannot be taken in: the machine ends with a reason, and soon. */
static void
refuses_broken_states(void **state)
{
	static const struct {
		const char *name;
		uint64_t flip, cut; /* byte to alter, bytes to leave (0: all) */
	} rows[] = {
	    {"magic", 0, 0},
	    {"version", 7, 0},
	    {"cut to a byte", 0, 1},
	    {"cut in half", 9000, 20000},
	};
	uint64_t len;
	char *copy;

	(void)state;
	need_template();
	len = tmpl.state_len;
	copy = test_malloc(len);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct machine_template t = tmpl;
		struct machine_config cfg = from(&t);
		uint64_t start = now_ns();
		struct qguest g;

		assert_true(pread(tmpl.state_fd, copy, len, STATE_OFF) == (ssize_t)len);
		copy[rows[i].flip] ^= 0x55;
		t.state_fd = qguest_memfd(0);
		t.state_off = 0;
		t.state_len = rows[i].cut != 0 ? rows[i].cut : len;
		assert_true(pwrite(t.state_fd, copy, t.state_len, 0) == (ssize_t)t.state_len);
		qguest_start(&g, &cfg);
		qguest_load(&g);
		qguest_wait(&g, &g.ended);
		print_message("# %s: %s (%.0f ms)\n", rows[i].name, machine_qemu.end(g.machine),
			      ms_since(start));
		assert_non_null(strstr(machine_qemu.end(g.machine), "QEMU"));
		assert_int_equal(g.pongs, 0);
		qguest_free(&g);
		closep(&t.state_fd);
	}
	test_free(copy);
}

static void
refuses_a_shorter_file(void **state)
{
	struct machine_template t;
	struct machine_config cfg;
	struct qguest g;
	uint64_t dirty;
	char err[256];

	(void)state;
	need_template();
	t = tmpl;
	t.state_len += 100;
	cfg = from(&t);
	qguest_start(&g, &cfg);
	qguest_wait(&g, &g.ended);
	print_message("# %s\n", machine_qemu.end(g.machine));
	assert_non_null(strstr(machine_qemu.end(g.machine), "truncated"));
	assert_int_equal(machine_qemu.load(g.machine, &dirty, err, sizeof(err)), -EIO);
	qguest_free(&g);
}

/* QEMU dies under its monitor's hands. */
static void
dies_while_captured(void **state)
{
	_cleanup_(closep) int mem = qguest_memfd(0);
	_cleanup_(closep) int st = qguest_memfd(0);
	const struct machine_capture to = {mem, st, 0, 0};
	struct qguest g;
	char err[256];

	(void)state;
	need_template();
	for (int who = 0; who < 2; who++) {
		spawn(&g, &tmpl);
		assert_int_equal(machine_qemu.capture(g.machine, &to, err, sizeof(err)), 0);
		while (g.machine->cap.copy == NULL)
			assert_int_equal(loop_run(g.loop), 0);
		pid_t pid = who == 0 ? g.machine->child->pid : g.machine->cap.copy->pid;
		assert_int_equal(kill(pid, SIGKILL), 0);
		qguest_wait_count(&g, &g.captures, 1);
		print_message("# %s\n", g.why);
		assert_int_equal(g.capture_error, -EIO);
		assert_true(g.why[0] != '\0');
		if (who == 0) {
			qguest_wait(&g, &g.ended);
		} else {
			assert_int_equal(machine_qemu.resume(g.machine, err, sizeof(err)), 0);
			qguest_ping(&g);
		}
		qguest_free(&g);
	}
}

static void
refuses_what_it_cannot_write(void **state)
{
	_cleanup_(closep) int mem = qguest_memfd(0);
	_cleanup_(closep) int null = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct qguest g;
	char err[256];

	(void)state;
	need_template();
	spawn(&g, &tmpl);
	assert_int_equal(qguest_capture(&g, mem, null), -ENOSPC);
	print_message("# %s\n", g.why);
	assert_int_equal(machine_qemu.resume(g.machine, err, sizeof(err)), 0);
	qguest_ping(&g);
	qguest_free(&g);
}

static int
drop_template(void **state)
{
	(void)state;
	close_template(&tmpl);
	return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : -1;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(captures_and_goes_on),
	    cmocka_unit_test(starts_many),
	    cmocka_unit_test(waits_for_load),
	    cmocka_unit_test(waits_unattended),
	    cmocka_unit_test(snapshots_of_snapshots),
	    cmocka_unit_test(two_processors),
	    cmocka_unit_test(refuses_out_of_turn),
	    cmocka_unit_test(refuses_a_busy_channel),
	    cmocka_unit_test(refuses_another_shape),
	    cmocka_unit_test(refuses_broken_states),
	    cmocka_unit_test(refuses_a_shorter_file),
	    cmocka_unit_test(dies_while_captured),
	    cmocka_unit_test(refuses_what_it_cannot_write),
	};

	return cmocka_run_group_tests_name("qemu template", tests, NULL, drop_template);
}
