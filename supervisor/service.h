/* SPDX-License-Identifier: MIT
 *
 * service.h - vmpoold from the first file it makes to the last it removes.
 */
#ifndef VMPOOL_SERVICE_H
#define VMPOOL_SERVICE_H

/* All of vmpoold: serve a pool until told to stop. Returns the exit status: 0,
 * 1 (what went wrong is in the log), 2 (so is what is wrong with the
 * configuration). With --daemonize the caller's process does not come back. */
int service_main(int argc, char **argv);

#endif
