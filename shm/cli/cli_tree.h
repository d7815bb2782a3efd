/* SPDX-License-Identifier: MIT
 *
 * cli_tree.h - put -r and get -r: directories with all that is in them, by the same
 * calls as single files. Both ways the copy grows in a new directory beside its place,
 * which gets its name when all is well.
 */
#ifndef VMPOOL_CLI_TREE_H
#define VMPOOL_CLI_TREE_H

#include "shm/cli/cli_file.h"

struct tree_args {
	struct cli_file_args file;
	bool parents, quiet;
	uint64_t limit; /* get: bytes taken from the VM, entries included; 0 = any number */
};

/* A directory of the host to one of the VM, and back; the target must not be there, or
 * be empty. The working directory may have changed afterwards. The exit status. */
int cli_tree_put(struct cli_vm *v, const char *host, const char *guest,
		 const struct tree_args *args);
int cli_tree_get(struct cli_vm *v, const char *guest, const char *host,
		 const struct tree_args *args);

/* --- what both share: cli_tree.c ----------------------------------------------------------- */

/* From here on a signal to end (INT, TERM, HUP) waits until what is half done is taken
 * back: tree_interrupted says that one has come. tree_signals_end dies of it then. */
void tree_signals_begin(void);
bool tree_interrupted(void);
void tree_signals_end(void);

/* A name beside path, of the VM or of this host; freed by the caller. NULL: no memory. */
char *tree_name_beside(const char *path);

/* "dir/name", or name where dir is ""; freed by the caller. NULL: no memory, and said. */
char *tree_join(const char *dir, const char *name);

/* Files that have several names, by what tells them apart: all zero is an empty one. */
struct tree_names {
	void *root;
};
struct tree_id {
	uint64_t dev, ino, version;
};
/* The path that this file was first seen under; NULL: it is seen for the first time, and
 * path remembered (but for want of memory). */
const char *tree_names_first(struct tree_names *names, const struct tree_id *id, const char *path);
void tree_names_fini(struct tree_names *names);

/* May a symbolic link that stands at this path of a tree, which goes only down, say
 * that? Up no further than the top of the tree, and then only down: so whatever other
 * links it goes through, each of which is like that, it stays inside. */
bool tree_stays_inside(const char *path, const char *target);

#endif
