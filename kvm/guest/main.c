/* SPDX-License-Identifier: MIT
 *
 * main.c - the guest agent: PID 1 of every guest, and the only program of the
 * project in there. With --fd N it serves that descriptor instead, in the
 * machine where it is started and with nothing set up: for tests.
 *
 * usage: agent           as PID 1
 *        agent --fd N    over a socket, with
 *              [--cgroup DIR] commands below DIR (cgroup v2)
 *              [--renew DIR]  renewals changing two files in DIR, and nothing else
 */
#include "kvm/guest/agent.h"
#include "kvm/guest/group.h"
#include "kvm/guest/init.h"
#include "kvm/guest/renew.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

struct options {
	uint32_t fd;
	const char *cgroup, *renew;
};

static bool
parse_options(int argc, char **argv, struct options *o)
{
	bool have_fd = false;
	int i;

	for (i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--fd") == 0)
			have_fd = util_parse_u32(argv[i + 1], &o->fd);
		else if (strcmp(argv[i], "--cgroup") == 0)
			o->cgroup = argv[i + 1];
		else if (strcmp(argv[i], "--renew") == 0)
			o->renew = argv[i + 1];
		else
			return false;
	}
	return have_fd && i == argc;
}

static void
serve_port(void)
{
	agent_start(init_channel(), true);
	init_userland();
	renew_init(NULL);
	agent_serve(init_cgroups());
}

static int
serve_socket(const struct options *o)
{
	int fd = (int)o->fd;

	if (chdir("/") < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		util_fatal("--fd %u is not a descriptor to serve", o->fd);
	agent_start(fd, false);
	if (o->renew != NULL)
		renew_init(o->renew);
	agent_serve(o->cgroup);
	return 0;
}

int
main(int argc, char **argv)
{
	struct options o = {.cgroup = NULL};
	bool socket = parse_options(argc, argv, &o);

	if (!socket && getpid() != 1)
		util_fatal(
		    "usage: agent --fd N [--cgroup DIR] [--renew DIR] (or as PID 1, without)");
	agent_signals();
	if (socket)
		return serve_socket(&o);
	serve_port();
	util_fatal("the channel has closed");
}
