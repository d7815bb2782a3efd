/* SPDX-License-Identifier: MIT
 *
 * tsc-khz.c - prints the rate of this processor's time-stamp counter in kHz, for
 * the command line of the box's kernel. Run on the host by kvm-box.
 */
#include "worker/tsc.h"

#include <stdio.h>

int
main(void)
{
	return printf("%u\n", tsc_khz()) < 0;
}
