/* SPDX-License-Identifier: MIT
 *
 * cmd.h - running commands: one per open stream, with its pipes, its group of
 * processes, its credit and its deadline.
 *
 *            cmd_start         main process reaped       drained
 *   (spare) ----------> RUNNING -----------------> DRAINING ------> DONE
 *      ^                   |                                          |
 *      |                   | cmd_abort                                | tidied
 *      |                   v                                          |
 *      +---- tidied --- BACKGROUND <---- processes are left ----------+
 *
 * A spare has its pipes and its cgroup already, so that starting a command is
 * little more than a vfork. A BACKGROUND command has no stream: what its
 * processes write is read and dropped, so that they live on undisturbed.
 */
#ifndef GUEST_CMD_H
#define GUEST_CMD_H

#include "kvm/guest/chan.h"
#include "kvm/guest/group.h"
#include "kvm/guest/poller.h"
#include "kvm/guest/spawn.h"
#include "kvm/guest/turn.h"
#include "kvm/guest/util.h"

#include <sys/queue.h>

enum cmd_state { CMD_SPARE, CMD_RUNNING, CMD_DRAINING, CMD_DONE, CMD_BACKGROUND };

struct cmd_pipe {
	struct source src;
	struct cmd *cmd;
	int fd;		 /* the agent's end, -1 once closed */
	int child_fd;	 /* the command's end, -1 once it has it */
	bool ready;	 /* no EAGAIN since the last event */
	bool eof;	 /* all writers are gone, or it failed */
	uint64_t passed; /* bytes of output so far (chan_pass) */
	size_t left;	 /* DRAINING: bytes that were in the pipe when it ended */
};

struct cmd {
	unsigned magic;
	enum cmd_state state;
	TAILQ_ENTRY(cmd) list; /* in the list of its kind */
	struct turn turn;
	uint32_t stream;
	struct group group;
	pid_t pid;
	int status;	      /* as wait(2) gave it */
	uint64_t started_ns;  /* just before the fork */
	uint64_t elapsed_ns;  /* from there to its being reaped */
	uint64_t deadline_ns; /* UINT64_MAX: none */
	bool timed_out;
	bool single_use;	/* limited, or with a terminal: never a spare again */
	bool tty;		/* out[0] and in are its terminal, and there is no out[1] */
	struct cmd_pipe out[2]; /* stdout, stderr */
	uint64_t credit;	/* bytes of output the host will take */
	struct cmd_pipe in;
	uint8_t *in_buf;  /* PROTO_WINDOW bytes, made on first use */
	size_t in_head;	  /* [in_head, in_head + in_len) is to be written */
	size_t in_len;	  /* in_len + in_window + in_grant == PROTO_WINDOW */
	size_t in_window; /* bytes the host may still send */
	size_t in_grant;  /* consumed, credit not sent yet */
	bool in_eof;
};

TAILQ_HEAD(cmd_list, cmd);

/* 0 or -errno. Call once, first. */
int cmd_init(void) must_check;

/* Kill everything, wait for it, remove the cgroups. Blocks. */
void cmd_fini(void);

/* The command of that stream, or NULL. */
struct cmd *cmd_find(uint32_t stream);
unsigned cmd_count(void);

/* Start s (all but its descriptors and group is filled in) on a stream nobody
 * uses. 0, or -errno with s->stage and nothing started. */
int cmd_start(uint32_t stream, struct spawn *s) must_check;

/* Bytes for its standard input. 0, or -EPROTO when the host overran the window. */
int cmd_stdin(struct cmd *c, const uint8_t *bytes, size_t len, bool eof) must_check;

/* The host takes n bytes more. */
void cmd_credit(struct cmd *c, uint32_t n);

/* Send sig to every process of the command. */
void cmd_signal(struct cmd *c, int sig);

/* Its terminal, if it has one, has another size. */
void cmd_resize(const struct cmd *c, const struct proto_winsize *size);

/* Kill everything of it and forget its stream, without an EXIT. */
void cmd_abort(struct cmd *c);

/* A child was reaped; those that are no command's main process are ignored. */
void cmd_reaped(pid_t pid, int status);

/* Kill what is past its deadline; returns the next deadline (UINT64_MAX: none). */
uint64_t cmd_expire(void);

/* Something can be read from or written to a pipe: its event (pipes.c). */
void cmd_pipe_event(struct source *s);

/* After the host has been answered: put ended commands away, keep some spares. */
void cmd_tidy(void);

#endif
