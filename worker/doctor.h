/* SPDX-License-Identifier: MIT
 *
 * doctor.h - what this machine can do for a pool, with a remedy for each problem.
 */
#ifndef VMPOOL_DOCTOR_H
#define VMPOOL_DOCTOR_H

#include <stdbool.h>

/* Print the report to stdout, as text or as one JSON object. 0: a pool can
 * start here; 1: it cannot. */
int doctor_run(bool json);

#endif
