/* SPDX-License-Identifier: MIT
 *
 * cli_stream.h - the bytes between a command in a VM and our own stdin, stdout
 * and stderr, while signals are watched.
 */
#ifndef VMPOOL_CLI_STREAM_H
#define VMPOOL_CLI_STREAM_H

#include "shm/cli/cli.h"

#include <signal.h>

enum stream_end {
	STREAM_ENDED = 1, /* the command has; *end says how */
	STREAM_SIGNAL,	  /* .signal came (SIGPIPE: nobody reads our output) */
	STREAM_OUTPUT,	  /* .out_name cannot be written: .out_errno */
};

struct stream {
	struct vmpool_proc *proc;
	int signal_fd;
	sigset_t old_mask;
	int signal;
	/* Output that was fetched and not written yet; nothing is fetched meanwhile. */
	int out_fd;
	const char *out, *out_name;
	size_t out_left;
	int out_errno;
	/* Input that was read and not taken by the VM yet; nothing is read meanwhile. */
	bool in_open;
	size_t in_off, in_len;
	char in[16384];
	/* No answer comes after this (ns), 0 = none; the VM ends it long before. */
	uint64_t overdue_ns;
};

/* timeout_ms: the command's own, 0 = none. Blocks and watches the signals that
 * end a process, SIGPIPE too, until stream_fini. */
void stream_init(struct stream *s, struct vmpool_proc *proc, bool with_stdin, int64_t timeout_ms);
void stream_fini(struct stream *s);

/* Until the command ends or something else does; enum stream_end, or a library error. */
int stream_run(struct stream *s, struct vmpool_event *end);

/* End this process by that signal, as if it had never been watched. */
void stream_die(int signal) __attribute__((noreturn));

#endif
