/* SPDX-License-Identifier: MIT
 *
 * suplog.h - the supervisor's log: one line per event, to stderr or syslog.
 */
#ifndef VMPOOL_SUPLOG_H
#define VMPOOL_SUPLOG_H

#include <syslog.h>

#include "shm/base.h"

/* Log to stderr as "vmpoold: ...", with the journal's level prefix when stderr is the journal. */
void suplog_init(void);

/* From now on log to syslog as vmpoold[pid]. */
void suplog_to_syslog(void);

/* One line; bytes that do not print become '?'. level: LOG_ERR ... LOG_DEBUG;
 * LOG_DEBUG lines (what happens to every VM and client) need $VMPOOL_DEBUG. */
void suplog(int level, const char *fmt, ...) printf_like(2, 3);

/* Log a text of several lines, each by itself, at most the last `lines` of them. */
void suplog_tail(int level, const char *prefix, const char *text, unsigned lines);

#endif
