/* SPDX-License-Identifier: MIT
 *
 * e2eclient.h - what the clients of the end-to-end tests share: TAP, one VM of one
 * pool, and a script in it. They know the library only.
 */
#ifndef VMPOOL_E2ECLIENT_H
#define VMPOOL_E2ECLIENT_H

#include "shm/vmpool.h"

extern struct vmpool *pool;
extern struct vmpool_vm *vm;

/* Borrow a VM of that pool, waiting long; false, and said, if there is none. */
bool e2e_begin(const char *name);
/* Give it back, and print the plan; the exit status. */
int e2e_end(void);

/* One test. A failure shows the library's own line, too. */
void result(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Does the script print this, in the VM? e2e_say: the number that it prints (-1: none). */
bool sh(const char *script, const char *want);
long long e2e_say(const char *script);

/* CLOCK_MONOTONIC. */
double seconds(void);

/* Look again, 50 ms later, until it is so, for 20 s at most; false: it never was. (What
 * others do in a VM has no event that a client could wait for.) */
bool e2e_until(bool (*is_so)(void *arg), void *arg);

#endif
