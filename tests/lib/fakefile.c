/* SPDX-License-Identifier: MIT
 *
 * fakefile.c - a guest that answers file operations wrongly, as their paths say
 * (the rows below); "errno/N" fails with that errno, "silent" gets no answer.
 */
#include "shm/client.h"
#include "tests/lib/fakepool.h"

#include <string.h>

#define FRAME_MAX 512

/* One directory entry, as the row makes it. */
static size_t
entry(uint8_t *buf, const char *name, size_t name_len, uint32_t said_len)
{
	struct proto_dirent e = {.name_len = said_len};

	memcpy(buf, &e, sizeof(e));
	memcpy(buf + sizeof(e), name, name_len);
	return sizeof(e) + name_len;
}

static void
list(struct fake_worker *w, uint32_t stream, const char *name, size_t len, uint32_t said_len)
{
	const struct proto_file_done done = {.err = 0};
	uint8_t buf[FRAME_MAX];
	size_t n = entry(buf, "good", 4, 4);

	n += entry(buf + n, name, len, said_len);
	/* Cut where nobody expects it. */
	fakeguest_respond(w, stream, PROTO_STDOUT, buf, 50);
	fakeguest_respond(w, stream, PROTO_STDOUT, buf + 50, n - 50);
	fakeguest_respond(w, stream, PROTO_FILE_DONE, &done, sizeof(done));
}

static void
answer_errno(struct fake_worker *w, uint32_t stream, const char *path)
{
	const struct proto_file_done done = {.err = (uint32_t)atoll(path)};

	fakeguest_respond(w, stream, PROTO_FILE_DONE, &done, sizeof(done));
}

static void
forge(struct fake_worker *w, uint32_t stream, const char *path)
{
	struct proto_file_done done = {.err = 0};
	const struct proto_exit e = {.code = 0};
	const struct proto_error refused = {.stage = PROTO_STAGE_REQUEST, .err = EAGAIN};
	static const char bytes[8000];

	if (strcmp(path, "stderr") == 0)
		fakeguest_respond(w, stream, PROTO_STDERR, "x", 1);
	else if (strcmp(path, "exit") == 0)
		fakeguest_respond(w, stream, PROTO_EXIT, &e, sizeof(e));
	else if (strcmp(path, "refused") == 0)
		fakeguest_respond(w, stream, PROTO_ERROR, &refused, sizeof(refused));
	else if (strcmp(path, "overrun") == 0)
		/* Whenever the client looks, more is there than it has granted. */
		for (size_t i = 0; i <= CLIENT_WINDOW / sizeof(bytes); i++)
			fakeguest_respond(w, stream, PROTO_STDOUT, bytes, sizeof(bytes));
	if (strcmp(path, "badtime") == 0)
		done.stat.mtime_nsec = 1000000000;
	else if (strcmp(path, "badmode") == 0)
		done.stat.mode = 1u << 20;
	else if (strcmp(path, "badsize") == 0)
		done.stat.size = UINT64_MAX;
	else if (strcmp(path, "early") != 0)
		return;
	fakeguest_respond(w, stream, PROTO_FILE_DONE, &done, sizeof(done));
}

void
fakefile_request(struct fake_worker *w, const struct ring_rec *rec)
{
	static const struct {
		const char *path, *name;
		size_t len;
		uint32_t said_len;
	} lists[] = {
	    {"list/good", "x\ny", 3, 3}, {"list/slash", "a/b", 3, 3},
	    {"list/root", "/", 1, 1},	 {"list/nul", "a\0b", 3, 3},
	    {"list/dots", "..", 2, 2},	 {"list/dot", ".", 1, 1},
	    {"list/empty", "", 0, 0},	 {"list/long", "x", 1, 256},
	    {"list/cut", "x", 1, 5},	 {"list/huge", "x", 1, UINT32_MAX},
	};
	const char *path = (const char *)w->payload + sizeof(struct proto_file);

	if (strncmp(path, "errno/", 6) == 0) {
		answer_errno(w, rec->stream, path + 6);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		if (strcmp(lists[i].path, path) == 0) {
			list(w, rec->stream, lists[i].name, lists[i].len, lists[i].said_len);
			return;
		}
	}
	forge(w, rec->stream, path);
}
