/* SPDX-License-Identifier: MIT
 *
 * crash.h - named places where a process of the test build can be told to die.
 *
 * CRASH_POINT("name") stands before a store whose loss must not matter. In the
 * product it is nothing. In the test build (VMPOOL_TEST) it calls crash_point,
 * which the test library defines (tests/lib/crash_point.c): there a test
 * records the points that a scenario passes, and then dies by SIGKILL at each.
 */
#ifndef VMPOOL_CRASH_H
#define VMPOOL_CRASH_H

#ifdef VMPOOL_TEST
void crash_point(const char *name);
#define CRASH_POINT(name) crash_point(name)
#else
#define CRASH_POINT(name) ((void)0)
#endif

#endif
