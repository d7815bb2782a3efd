/* SPDX-License-Identifier: MIT
 *
 * acpi.h - the ACPI tables through which a guest finds its processors,
 * interrupt controller and devices, and turns itself off. Hardware-reduced:
 * no PIC, no PIT, no fixed event hardware.
 */
#ifndef VMPOOL_ACPI_H
#define VMPOOL_ACPI_H

#include "shm/base.h"

#define ACPI_SPACE 0x10000u /* bytes to offer to acpi_build; far more than it needs */

/* Write all tables into buf, which will stand at guest physical address gpa:
 * RSDP first, then DSDT, FADT, MADT, XSDT. Returns the bytes used, or 0 if len
 * is too small. */
size_t acpi_build(uint8_t *buf, size_t len, uint64_t gpa, unsigned vcpus, unsigned virtio_devices);

#endif
