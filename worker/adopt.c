/* SPDX-License-Identifier: MIT
 *
 * adopt.c - takes a snapshot file into use. Runs in a process of its own, forked by the
 * fork server; owns what it copies. See adopt.h.
 *
 * The file itself becomes the template, by the descriptor that was verified: its
 * memory is mapped by every VM, never read again. Only machines that cannot map it
 * at an offset (QEMU's) get its memory copied, once.
 */
#include "worker/adopt.h"
#include "shm/ctl.h"
#include "worker/origin.h"
#include "worker/snapfile.h"
#include "worker/template.h"

#include <string.h>

int
adopt_peek(int fd, uint32_t *mem_mib, uint32_t *vcpus, char *err, size_t errlen)
{
	struct snap_info info;
	int r = snap_peek(fd, &info, err, errlen);

	*mem_mib = info.mem_mib;
	*vcpus = info.vcpus;
	return r;
}

/* Is it whole, and a machine as this pool would have them? */
static int
adopt_check(const struct builder_config *cfg, struct snap *snap, struct ctl_origin *origin,
	    char *err, size_t errlen)
{
	struct snap_info mine;
	int r = snap_open(cfg->snapshot, snap, err, errlen);

	if (r == 0)
		r = origin_find(origin, cfg->ops, &cfg->machine, err, errlen);
	if (r < 0)
		return r;
	mine = origin_info(origin, cfg->ops, cfg->machine.mem_mib, cfg->machine.vcpus);
	/* What is to be said of copies of it is what it says itself. */
	origin->tsc_khz = snap->info.tsc_khz;
	return snap_check_fits(&snap->info, &mine, err, errlen);
}

static int
adopt_copy(const struct builder_config *cfg, const struct snap *snap, int fds[TEMPLATE_FILES],
	   struct ctl_template *tmpl, char *err, size_t errlen)
{
	int r = template_make(fds, cfg->machine.mem_mib, err, errlen);

	if (r < 0)
		return r;
	r = snapsum_copy(cfg->snapshot, snap->mem_off, fds[TEMPLATE_MEM], 0, snap->mem_len);
	if (r == 0)
		r = snapsum_copy(cfg->snapshot, snap->state_off, fds[TEMPLATE_STATE], 0,
				 snap->state_len);
	if (r < 0)
		return fail(-r, err, errlen, "copying it: %s", strerror(-r));
	tmpl->state_len = snap->state_len;
	/* Zeros at its end were left out. */
	if (ftruncate(fds[TEMPLATE_STATE], (off_t)snap->state_len) < 0)
		return fail(errno, err, errlen, "copying it: %s", strerror(errno));
	return template_seal(fds, err, errlen);
}

static int
adopt(const struct builder_config *cfg, struct worker_msg *msg, int fds[TEMPLATE_FILES], char *err,
      size_t errlen)
{
	struct snap snap;
	int r = adopt_check(cfg, &snap, &msg->tmpl.origin, err, errlen);

	if (r < 0)
		return r;
	(void)snprintf(msg->text, sizeof(msg->text), "snapshot verified: ");
	snap_describe_check(&snap, msg->text + strlen(msg->text),
			    sizeof(msg->text) - strlen(msg->text));
	if (cfg->ops->copies)
		return adopt_copy(cfg, &snap, fds, &msg->tmpl, err, errlen);
	msg->tmpl.mem_off = snap.mem_off;
	msg->tmpl.state_off = snap.state_off;
	msg->tmpl.state_len = snap.state_len;
	return 0;
}

int
adopt_run(const struct builder_config *cfg)
{
	struct worker_msg msg = {.magic = CTL_MAGIC, .kind = WORKER_TEMPLATE};
	int copy[TEMPLATE_FILES] = {-1, -1};
	int file[TEMPLATE_FILES] = {cfg->snapshot, cfg->snapshot};
	uint64_t start = now_ns();
	char err[512];
	int r = adopt(cfg, &msg, copy, err, sizeof(err));

	if (r < 0) {
		msg = (struct worker_msg){.magic = CTL_MAGIC, .kind = WORKER_FAILED, .error = r};
		(void)snprintf(msg.text, sizeof(msg.text), "%s\n", err);
	}
	msg.took_ns = now_ns() - start;
	/* Nothing is left to do if this fails: the exit status speaks. */
	if (ctl_send(cfg->control, &msg, sizeof(msg), cfg->ops->copies ? copy : file,
		     r < 0 ? 0 : TEMPLATE_FILES) < 0)
		r = -EPIPE;
	template_close(copy);
	return r < 0 ? 1 : 0;
}
