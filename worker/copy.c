/* SPDX-License-Identifier: MIT
 *
 * copy.c - see copy.h. Runs in a worker; owns the files of a copy while it is made.
 *
 * What can go wrong beside the happy path:
 *   commands run, or the lease has ended     refused, at once
 *   the guest does not answer                refused, COPY_QUIET_NS later
 *   the disk is full, the memory is          the copy fails with the reason, the VM runs on
 *   the machine ends                         the worker's affair, as always
 */
#include "worker/copy.h"
#include "worker/origin.h"
#include "worker/snapfile.h"

#include <string.h>

static struct snap_info
copy_info(const struct copy *c)
{
	const struct machine_config *mc = &c->cfg->machine;

	return origin_info(&mc->tmpl->origin, c->cfg->ops, mc->mem_mib, mc->vcpus);
}

void
copy_fini(struct copy *c)
{
	closep(&c->file);
	template_close(c->fds);
	c->busy = c->capturing = false;
}

int
copy_begin(struct copy *c, const struct worker_config *cfg, struct job *job,
	   struct machine *machine, uint64_t lease, int *file, char *err, size_t errlen)
{
	int r;

	if (cfg->machine.tmpl == NULL)
		return fail(EOPNOTSUPP, err, errlen, "this VM was booted, and cannot be copied");
	r = job_quiet(job, lease);
	if (r == -EBUSY)
		return fail(EBUSY, err, errlen,
			    "commands run in the VM: let them end, or detach them (setsid)");
	if (r < 0)
		return fail(-r, err, errlen, "the lease has ended");
	*c = (struct copy){
	    .cfg = cfg,
	    .job = job,
	    .machine = machine,
	    .busy = true,
	    .start_ns = now_ns(),
	    .file = steal_fd(file),
	    .fds = {-1, -1},
	};
	return 0;
}

uint64_t
copy_deadline(const struct copy *c)
{
	return c->busy && !c->capturing ? c->start_ns + COPY_QUIET_NS : 0;
}

/* Where the machine is to write. */
static int
copy_place(struct copy *c, struct machine_capture *to, char *err, size_t errlen)
{
	struct snap_info info = copy_info(c);
	struct snap_place place = {.mem_off = 0};
	int r = 0;

	if (c->file >= 0)
		r = snap_begin(c->file, &info, &place, err, errlen);
	if (r == 0 && (c->file < 0 || c->cfg->ops->copies))
		r = template_make(c->fds, info.mem_mib, err, errlen);
	if (r < 0)
		return r;
	c->state_off = place.state_off;
	*to = (struct machine_capture){
	    .mem_fd = c->file,
	    .state_fd = c->file >= 0 ? c->file : c->fds[TEMPLATE_STATE],
	    .mem_off = place.mem_off,
	    .state_off = place.state_off,
	};
	if (c->fds[TEMPLATE_MEM] >= 0) {
		to->mem_fd = c->fds[TEMPLATE_MEM];
		to->mem_off = 0;
	}
	return 0;
}

static int
copy_capture(struct copy *c, char *err, size_t errlen)
{
	struct machine_capture to;
	int r = copy_place(c, &to, err, errlen);

	if (r < 0)
		return r;
	c->capturing = true;
	return c->cfg->ops->capture(c->machine, &to, err, errlen);
}

int
copy_pump(struct copy *c, char *err, size_t errlen)
{
	int r = 0;

	if (!c->busy || c->capturing)
		return 0;
	if (c->job->quiet == QUIET_YES)
		r = copy_capture(c, err, errlen);
	else if (now_ns() >= copy_deadline(c))
		r = fail(ETIMEDOUT, err, errlen, "the VM's agent does not answer");
	if (r < 0) {
		job_unquiet(c->job);
		copy_fini(c);
	}
	return r;
}

/* The machine runs again: what is left to do for a snapshot is only our own. */
static int
copy_finish(struct copy *c, uint64_t state_len, char *err, size_t errlen)
{
	const struct snap_source state = {.fd = c->file, .off = c->state_off, .len = state_len};
	struct snap_info info = copy_info(c);
	int r = 0;

	if (c->fds[TEMPLATE_MEM] >= 0)
		r = snapsum_copy(c->fds[TEMPLATE_MEM], 0, c->file, SNAP_MEM_OFF,
				 (uint64_t)info.mem_mib << 20);
	if (r < 0)
		return fail(-r, err, errlen, "writing the memory: %s", strerror(-r));
	return snap_finish(c->file, &info, &state, err, errlen);
}

int
copy_captured(struct copy *c, int error, uint64_t state_len, const char *why,
	      struct ctl_template *tmpl, int fds[TEMPLATE_FILES], char *text, size_t len)
{
	uint64_t stood_ns = now_ns() - c->start_ns;
	char err[256] = "";
	int r = error < 0 ? fail(-error, text, len, "%s", why) : 0;

	if (c->cfg->ops->resume(c->machine, err, sizeof(err)) < 0 && r == 0)
		r = fail(EIO, text, len, "%s", err);
	job_unquiet(c->job);
	if (r == 0)
		r = c->file >= 0 ? copy_finish(c, state_len, text, len)
				 : template_seal(c->fds, text, len);
	if (r == 0 && c->file < 0) {
		*tmpl = (struct ctl_template){.state_len = state_len,
					      .origin = c->cfg->machine.tmpl->origin};
		for (int i = 0; i < TEMPLATE_FILES; i++)
			fds[i] = steal_fd(&c->fds[i]);
	}
	if (r == 0)
		(void)snprintf(text, len, "the VM stood still for %.0f ms, %.0f ms in all",
			       (double)stood_ns / 1e6, (double)(now_ns() - c->start_ns) / 1e6);
	copy_fini(c);
	return r;
}
