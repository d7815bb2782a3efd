/* SPDX-License-Identifier: MIT
 *
 * snaptest.h - snapshot files for tests: small ones with known contents, changed, and
 * opened again. Whatever fails ends the test.
 */
#ifndef TEST_SNAPTEST_H
#define TEST_SNAPTEST_H

#include "kvm/vm.h"
#include "worker/snapfile.h"

#define SNAPTEST_MIB VM_MEM_MIB_MIN /* of guest memory */
#define SNAPTEST_STATE_LEN 57771u   /* nothing round */

/* The text of the last call that has left one; what the state is; what all is made of. */
extern char snaptest_err[256];
extern uint8_t snaptest_state[SNAPTEST_STATE_LEN];
extern const struct snap_info snaptest_info;

/* Of the group: fills snaptest_state. */
int snaptest_setup(void **state);

/* A number from the sequence that *state stands in. */
uint64_t snaptest_dice(uint64_t *state);

int snaptest_new_file(void);
void snaptest_put(int fd, uint64_t off, const void *bytes, size_t len);
/* Bytes that follow from their offset, and are rarely 0. */
void snaptest_put_pattern(int fd, uint64_t off, size_t len);
uint8_t snaptest_byte_at(int fd, uint64_t off);
uint64_t snaptest_size_of(int fd);
/* Change the bits of mask in one byte; again: as it was. */
void snaptest_flip(int fd, uint64_t off, uint8_t mask);

/* Memory with data in a few MiB, at odd places; zero pages written as data. */
void snaptest_put_sparse(int fd, const struct snap_place *p);
/* Take a snapshot of such memory and the first state_len bytes of the state, which
 * the capture has put in the file itself (in_place) or elsewhere. */
void snaptest_take(int fd, void (*memory)(int fd, const struct snap_place *p), uint64_t state_len,
		   bool in_place);
int snaptest_sparse_snapshot(void);

/* snap_open, which leaves a text exactly if it fails. s may be NULL. */
int snaptest_open_it(int fd, struct snap *s);
/* It fails with -code and these words; it does not fail. */
void snaptest_refused(int fd, int code, const char *words);
void snaptest_accepted(int fd);

#endif
