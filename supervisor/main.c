/* SPDX-License-Identifier: MIT
 *
 * main.c - vmpoold, the supervisor of one pool.
 */
#include "supervisor/service.h"

int
main(int argc, char **argv)
{
	return service_main(argc, argv);
}
