/* SPDX-License-Identifier: MIT
 *
 * test_qmp.c - scripts on QEMU's monitor, against a peer that says what the test
 * wants, in one piece or byte by byte.
 */
#include "worker/qmp.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define RETURN "{\"return\": {}}\r\n"
#define EVENT(status) "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"" status "\"}}\r\n"
#define OTHER "{\"event\": \"RESUME\", \"timestamp\": {\"seconds\": 1}}\r\n"

struct scene {
	struct loop *loop;
	struct qmp qmp;
	int far;
	unsigned done;
	int error;
	char why[256];
	bool again; /* run another script when this one has ended */
};

static void
on_done(void *owner, int error, const char *why)
{
	struct scene *s = owner;

	s->done++;
	s->error = error;
	(void)snprintf(s->why, sizeof(s->why), "%s", why != NULL ? why : "");
	if (s->again) {
		s->again = false;
		qmp_add(&s->qmp, "again", NULL, -1);
		qmp_run(&s->qmp, now_ns() + 20000000000ull);
		assert_int_equal(send(s->far, RETURN, strlen(RETURN), MSG_NOSIGNAL),
				 strlen(RETURN));
		return;
	}
	loop_stop(s->loop, 0);
}

static void
scene_open(struct scene *s)
{
	char err[256];
	int pair[2];

	memset(s, 0, sizeof(*s));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(loop_new(&s->loop, 8, err, sizeof(err)), 0);
	qmp_init(&s->qmp, s->loop, pair[0], on_done, s);
	s->far = pair[1];
}

static void
scene_close(struct scene *s)
{
	loop_free(s->loop);
	qmp_fini(&s->qmp);
	closep(&s->far);
}

static void
say(struct scene *s, const char *text)
{
	assert_int_equal(send(s->far, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* What the peer has been sent, without waiting. */
static const char *
heard(struct scene *s)
{
	static char text[8192];
	ssize_t n = recv(s->far, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void
two_steps(struct scene *s, uint64_t ms)
{
	qmp_add(&s->qmp, "first", json_pack("{s:i}", "number", 1), -1);
	qmp_add_migration(&s->qmp, "second", NULL);
	qmp_run(&s->qmp, now_ns() + ms * 1000000u);
}

/* Everything that the peer says is there before the script begins: the answer to
 * a command counts only after the command has been sent, so this is no short cut. */
static void
dialogues(void **state)
{
	static const struct {
		const char *said;
		int error;
		const char *why;  /* part of it */
		const char *sent; /* the last command */
	} rows[] = {
	    {GREETING RETURN RETURN RETURN EVENT("completed"), 0, "", "second"},
	    {GREETING RETURN OTHER RETURN EVENT("setup") EVENT("active") EVENT("completed") RETURN,
	     0, "", "second"},
	    {GREETING "{\"error\": {\"class\": \"X\", \"desc\": \"no way\"}}\n", -EIO,
	     "qmp_capabilities: no way", "qmp_capabilities"},
	    {GREETING RETURN "{\"error\": {\"desc\": \"no number\"}}\n", -EIO, "first: no number",
	     "first"},
	    {GREETING RETURN "{\"error\": 7}\n", -EIO, "does not say why", "first"},
	    {GREETING RETURN RETURN RETURN EVENT(
		 "failed") "{\"return\": {\"status\": \"failed\", \"error-desc\": \"torn\"}}\n",
	     -EIO, "migration failed: torn", "query-migrate"},
	    {GREETING RETURN RETURN RETURN EVENT("failed") RETURN, -EIO, "does not say why",
	     "query-migrate"},
	    {GREETING GREETING, -EPROTO, "nobody asked for", "qmp_capabilities"},
	    {GREETING RETURN RETURN RETURN RETURN, -EPROTO, "nobody asked for", "second"},
	    {RETURN, -EPROTO, "nobody asked for", ""},
	    {OTHER, -EPROTO, "nobody asked for", ""},
	    {GREETING "{}\n", -EPROTO, "nobody asked for", "qmp_capabilities"},
	    {"hello\n", -EPROTO, "not JSON", ""},
	    {"[1]\n", -EPROTO, "not JSON", ""},
	    {"\n", -EPROTO, "not JSON", ""},
	    {GREETING "{\"return\": {\n", -EPROTO, "not JSON", "qmp_capabilities"},
	    {GREETING RETURN RETURN RETURN "{\"event\": 7}\n" EVENT("completed"), 0, "", "second"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct scene s;
		const char *text, *last;

		scene_open(&s);
		say(&s, rows[i].said);
		two_steps(&s, 20000);
		assert_int_equal(loop_run(s.loop), 0);
		if (s.done != 1 || s.error != rows[i].error || strstr(s.why, rows[i].why) == NULL)
			fail_msg("row %zu: done %u, error %d, %s", i, s.done, s.error, s.why);
		text = heard(&s);
		last = text;
		for (const char *p = text; (p = strstr(p, "{\"execute\"")) != NULL; p++)
			last = p;
		if (strstr(last, rows[i].sent) == NULL)
			fail_msg("row %zu: the last command is %s", i, last);
		scene_close(&s);
	}
}

static void *
dribble(void *arg)
{
	struct scene *s = arg;
	static const char text[] = GREETING RETURN RETURN EVENT("completed") OTHER RETURN;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		if (send(s->far, text + i, 1, MSG_NOSIGNAL) != 1)
			return NULL;
	return s;
}

static void
byte_by_byte(void **state)
{
	struct scene s;
	pthread_t thread;
	void *ok;

	(void)state;
	scene_open(&s);
	assert_int_equal(pthread_create(&thread, NULL, dribble, &s), 0);
	two_steps(&s, 20000);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(pthread_join(thread, &ok), 0);
	assert_non_null(ok);
	assert_int_equal(s.error, 0);
	assert_string_equal(heard(&s), "{\"execute\":\"qmp_capabilities\"}"
				       "{\"execute\":\"first\",\"arguments\":{\"number\":1}}"
				       "{\"execute\":\"second\"}");
	scene_close(&s);
}

/* A script begun by the end of another, while the buffer is being read. */
static void
one_after_the_other(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s);
	s.again = true;
	say(&s, GREETING RETURN RETURN RETURN EVENT("completed") OTHER);
	two_steps(&s, 20000);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.done, 2);
	assert_int_equal(s.error, 0);
	/* a deadline that was set as the one before it was cancelled holds, too */
	qmp_add(&s.qmp, "silence", NULL, -1);
	qmp_run(&s.qmp, now_ns() + 50000000);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, -ETIMEDOUT);
	assert_non_null(strstr(s.why, "silence in time"));
	/* and then it is over for good */
	qmp_add(&s.qmp, "more", NULL, -1);
	qmp_run(&s.qmp, now_ns() + 20000000000ull);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, -EPIPE);
	scene_close(&s);
}

static void
deadlines(void **state)
{
	static const struct {
		const char *said, *why;
	} rows[] = {
	    {"", "its start"},
	    {"{\"QMP\": ", "its start"},
	    {GREETING, "qmp_capabilities"},
	    {GREETING RETURN, "first"},
	    {GREETING RETURN RETURN, "second"},
	    {GREETING RETURN RETURN RETURN EVENT("active"), "second"},
	    {GREETING RETURN RETURN RETURN EVENT("failed"), "query-migrate"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct scene s;

		scene_open(&s);
		say(&s, rows[i].said);
		two_steps(&s, 50);
		assert_int_equal(loop_run(s.loop), 0);
		assert_int_equal(s.error, -ETIMEDOUT);
		if (strstr(s.why, rows[i].why) == NULL)
			fail_msg("row %zu: %s", i, s.why);
		scene_close(&s);
	}
}

/* A deadline that has passed before the loop runs, and is put off in time. */
static void
put_off(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s);
	say(&s, GREETING RETURN RETURN RETURN EVENT("completed"));
	two_steps(&s, 0);
	qmp_set_due(&s.qmp, now_ns() + 20000000000ull);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, 0);
	/* and drawn near while the old one lies far ahead */
	qmp_add(&s.qmp, "silence", NULL, -1);
	qmp_run(&s.qmp, now_ns() + 20000000000ull);
	qmp_set_due(&s.qmp, now_ns() + 50000000);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, -ETIMEDOUT);
	scene_close(&s);
}

/* A peer that leaves, and one that never ends a line. */
static void
bad_peers(void **state)
{
	static char flood[QMP_LINE];
	struct scene s;

	(void)state;
	scene_open(&s);
	say(&s, GREETING);
	assert_int_equal(shutdown(s.far, SHUT_WR), 0);
	two_steps(&s, 20000);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, -EPIPE);
	scene_close(&s);

	scene_open(&s);
	memset(flood, ' ', sizeof(flood));
	assert_int_equal(send(s.far, flood, sizeof(flood), 0), sizeof(flood));
	two_steps(&s, 20000);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, -EPROTO);
	assert_non_null(strstr(s.why, "line without end"));
	scene_close(&s);

	scene_open(&s);
	closep(&s.far);
	two_steps(&s, 20000);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, -EPIPE);
	scene_close(&s);
}

/* A descriptor goes with its command, and is not kept. */
static void
descriptors(void **state)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char text[512];
	struct iovec iov = {text, sizeof(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.space,
			     .msg_controllen = sizeof(control.space)};
	struct scene s;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC), got;

	(void)state;
	assert_true(fd >= 0);
	scene_open(&s);
	say(&s, GREETING RETURN RETURN);
	qmp_add(&s.qmp, "getfd", NULL, fd);
	qmp_run(&s.qmp, now_ns() + 20000000000ull);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	do {
		assert_true(recvmsg(s.far, &msg, MSG_CMSG_CLOEXEC) > 0);
	} while (CMSG_FIRSTHDR(&msg) == NULL);
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	assert_true(fcntl(got, F_GETFD) >= 0);
	closep(&got);
	scene_close(&s);
}

/* More than fits fails the script, not the program. */
static void
too_long(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s);
	for (unsigned i = 0; i <= QMP_STEPS; i++)
		qmp_add(&s.qmp, "step", NULL, i == QMP_STEPS ? open("/dev/null", O_RDONLY) : -1);
	qmp_run(&s.qmp, now_ns() + 20000000000ull);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, -ENOMEM);
	assert_string_equal(heard(&s), "");
	/* the next one may be fine */
	say(&s, GREETING RETURN RETURN);
	qmp_add(&s.qmp, "step", NULL, -1);
	qmp_run(&s.qmp, now_ns() + 20000000000ull);
	assert_int_equal(loop_run(s.loop), 0);
	assert_int_equal(s.error, 0);
	scene_close(&s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dialogues),
	    cmocka_unit_test(byte_by_byte),
	    cmocka_unit_test(one_after_the_other),
	    cmocka_unit_test(deadlines),
	    cmocka_unit_test(put_off),
	    cmocka_unit_test(bad_peers),
	    cmocka_unit_test(descriptors),
	    cmocka_unit_test(too_long),
	};

	return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
