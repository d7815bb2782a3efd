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

struct stream_opts {
	bool with_stdin, tty;
	int64_t timeout_ms; /* the command's own, 0 = none */
	int64_t warn_ms;    /* after so long it gets warn_signal; 0 = it does not */
	int warn_signal;
	uint32_t output_limit; /* bytes of each of stdout and stderr; UINT32_MAX = all */
};

struct stream {
	struct vmpool_proc *proc;
	bool tty;
	int signal_fd;
	sigset_t old_mask;
	int signal;
	/* Output that was fetched and not written yet; nothing is fetched meanwhile. */
	int out_fd;
	const char *out, *out_name;
	size_t out_left;
	int out_errno;
	/* What each may still write; what comes beyond is dropped. */
	uint32_t out_limit[2];
	bool cut[2];  /* stdout, stderr: something was */
	bool dropped; /* just now: there may be more at once */
	/* Input that was read and not taken by the VM yet; nothing is read meanwhile. */
	bool in_open;
	size_t in_off, in_len;
	char in[16384];
	/* No answer comes after this (ns), 0 = none; the VM ends it long before. */
	uint64_t overdue_ns;
	uint64_t warn_ns; /* when the signal is due (ns), 0 = none is */
	int warn_signal;
	bool warned;
};

/* Blocks and watches the signals that end a process, SIGPIPE too, until stream_fini; with
 * a terminal its changes of size, too. */
void stream_init(struct stream *s, struct vmpool_proc *proc, const struct stream_opts *opts);
void stream_fini(struct stream *s);

/* Until the command ends or something else does; enum stream_end, or a library error. */
int stream_run(struct stream *s, struct vmpool_event *end);

/* End this process by that signal, as if it had never been watched. */
void stream_die(int signal) __attribute__((noreturn));

#endif
