/* SPDX-License-Identifier: MIT
 *
 * cli_tar.c - a tar that runs in the VM, as a pipe for libarchive; and which
 * entries of an archive that comes from there are taken.
 */
#include "shm/cli/cli_tree.h"

#include <archive_entry.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define REST_MAX (1u << 20)

/* Its stderr counts up to the first line feed; the rest is dropped. */
static void
hear(struct tar *t, const char *p, size_t len)
{
	for (; len > 0 && t->text_len + 1 < sizeof(t->text); len--, p++) {
		if (*p == '\n')
			t->text_len = sizeof(t->text);
		else
			t->text[t->text_len++] = *p >= ' ' && *p <= '~' ? *p : '?';
	}
}

/* Its next output, in *event; false: there is none any more. */
static bool
next(struct tar *t, struct vmpool_event *event)
{
	while (!t->ended && t->error == 0) {
		int r = vmpool_proc_next(t->proc, -1, event);

		if (r == -EINTR)
			continue;
		if (r < 0) {
			t->error = r;
			(void)snprintf(t->text, sizeof(t->text), "%s", vmpool_error(t->pool));
		} else if (event->type == VMPOOL_STDOUT) {
			return true;
		} else if (event->type == VMPOOL_STDERR) {
			hear(t, event->data, event->len);
		} else {
			t->ended = true;
			t->ok = event->exit_code == 0 && event->signal == 0;
		}
	}
	return false;
}

static void *
listen(void *arg)
{
	struct vmpool_event event;

	while (next(arg, &event))
		;
	return NULL;
}

int
tar_start(struct tar *t, struct cli_vm *v, const char *dir, bool unpack, struct progress *progress)
{
	const char *const in[] = {"tar", "-C", dir, "-xpf", "-", NULL};
	const char *const out[] = {"tar", "-C", dir, "-cf", "-", ".", NULL};
	const struct vmpool_exec_opts opts = {.want_stdin = unpack};
	int r;

	*t = (struct tar){.pool = v->pool, .progress = progress, .writing = unpack};
	r = vmpool_spawn(v->vm, unpack ? in : out, &opts, &t->proc);
	if (r < 0) {
		cli_say_error(v->pool, r);
		return r;
	}
	r = unpack ? -pthread_create(&t->listener, NULL, listen, t) : 0;
	if (r < 0) {
		cli_say("no thread: %s", strerror(-r));
		vmpool_proc_free(t->proc);
	}
	return r;
}

la_ssize_t
tar_read(struct archive *a, void *tar, const void **buf)
{
	struct tar *t = tar;
	struct vmpool_event event;

	if (!next(t, &event))
		return t->error < 0 ? -1 : 0;
	*buf = event.data;
	progress_add(t->progress, event.len);
	if (t->limit != 0 && t->progress->done > t->limit) {
		archive_set_error(a, EFBIG, "the VM sent more than %jd MiB",
				  (intmax_t)(t->limit >> 20));
		return -1;
	}
	return (la_ssize_t)event.len;
}

la_ssize_t
tar_write(struct archive *a, void *tar, const void *buf, size_t len)
{
	struct tar *t = tar;
	ssize_t n;

	do
		n = vmpool_proc_write(t->proc, buf, len, -1);
	while (n == -EINTR);
	if (n < 0) {
		t->broken = true;
		archive_set_error(a, EPIPE, "tar in the VM has ended");
		return -1;
	}
	progress_add(t->progress, (uint64_t)n);
	return (la_ssize_t)n;
}

void
tar_abort(struct tar *t)
{
	/* What it said before counts: it may be why. */
	(void)vmpool_proc_kill(t->proc, SIGKILL);
}

bool
tar_finish(struct tar *t, bool quiet)
{
	struct vmpool_event event;
	size_t rest = 0;

	if (t->writing) {
		(void)vmpool_proc_close_stdin(t->proc);
		(void)pthread_join(t->listener, NULL);
	}
	/* Beyond an archive's end comes padding, not an endless stream. */
	while (next(t, &event) && rest < REST_MAX)
		rest += event.len;
	if (!t->ok && !quiet) {
		t->text[sizeof(t->text) - 1] = '\0';
		cli_say("tar in the VM: %s", t->text[0] != '\0' ? t->text : "failed");
	}
	vmpool_proc_free(t->proc);
	return t->ok;
}

/* --- what is taken from a VM ---------------------------------------------------------------- */

/* A relative path that goes only down. */
static bool
goes_down(const char *path)
{
	const char *p = path;

	if (path[0] == '\0' || path[0] == '/')
		return false;
	while ((p = strstr(p, "..")) != NULL) {
		if ((p == path || p[-1] == '/') && (p[2] == '\0' || p[2] == '/'))
			return false;
		p += 2;
	}
	return true;
}

/* Names in a path that goes down. */
static unsigned
depth(const char *path)
{
	unsigned n = 0;

	while (*(path += strspn(path, "/")) != '\0') {
		size_t len = strcspn(path, "/");

		n += !(len == 1 && path[0] == '.');
		path += len;
	}
	return n;
}

/* A link may go up no further than to the top, and then only down: so whatever other
 * links it goes through, each of which is like that, it stays inside. */
static bool
stays_inside(const char *path, const char *target)
{
	unsigned above = depth(path);

	for (above -= above > 0; strncmp(target, "..", 2) == 0; above--) {
		if (target[2] != '/' && target[2] != '\0')
			break;
		if (above == 0)
			return false;
		target += 2;
		target += strspn(target, "/");
		if (*target == '\0')
			return true;
	}
	return goes_down(target);
}

const char *
tar_refuse(struct archive_entry *e)
{
	const char *path = archive_entry_pathname(e), *link = archive_entry_hardlink(e);

	if (path == NULL || !goes_down(path))
		return "a path that leads out";
	if (link != NULL)
		return goes_down(link) ? NULL : "a hard link that leads out";
	switch (archive_entry_filetype(e)) {
	case AE_IFREG:
	case AE_IFDIR: return NULL;
	case AE_IFLNK:
		link = archive_entry_symlink(e);
		return link != NULL && stays_inside(path, link) ? NULL : "a link that leads out";
	default: return "neither file, directory nor link";
	}
}
