/* SPDX-License-Identifier: MIT
 *
 * map.h - the machine as its guest sees it: where memory, devices and
 * interrupts are. Everything that two files of kvm/ must agree on and that the
 * guest can observe is here; the ACPI tables (acpi.c) tell the guest the same.
 *
 *   0x00000000  RAM; one memory slot from 0 to the end of memory
 *   0x00000500    GDT, 0x7000 boot_params, 0x9000 page tables, 0x20000 command line
 *   0x000e0000    ACPI tables (reserved in the e820 map up to 1 MiB)
 *   0x01000000    kernel; the initrd ends at the end of memory
 *   0xd0000000  virtio-mmio devices, one page each
 *   0xfec00000  IOAPIC, 0xfee00000 local APICs (both inside KVM)
 *   0xfffbc000  KVM's own pages (real mode on Intel)
 */
#ifndef VMPOOL_MAP_H
#define VMPOOL_MAP_H

#define MAP_GDT 0x500u
#define MAP_BOOT_PARAMS 0x7000u
#define MAP_BOOT_STACK 0x8ff0u
#define MAP_PAGE_TABLES 0x9000u /* six pages */
#define MAP_CMDLINE 0x20000u
#define MAP_CMDLINE_MAX 2048u /* NUL included; COMMAND_LINE_SIZE of x86 */
#define MAP_LOW_RAM_END 0x9f000u
#define MAP_ACPI 0xe0000u
#define MAP_ACPI_END 0x100000u
#define MAP_HIGH_RAM 0x100000u

#define MAP_VIRTIO 0xd0000000u
#define MAP_VIRTIO_STRIDE 0x1000u
#define MAP_IOAPIC 0xfec00000u
#define MAP_LAPIC 0xfee00000u
#define MAP_KVM_IDENTITY 0xfffbc000u
#define MAP_KVM_TSS 0xfffbd000u

/* Ports. */
#define MAP_COM1 0x3f8u
#define MAP_COM1_LEN 8u
#define MAP_I8042_COMMAND 0x64u
#define MAP_SLEEP_CONTROL 0x600u
#define MAP_SLEEP_STATUS 0x601u
#define MAP_RESET 0x602u

#define MAP_RESET_VALUE 0x01u
#define MAP_SLEEP_S5 5u		    /* SLP_TYP of the \_S5 package */
#define MAP_I8042_PULSE_RESET 0xfeu /* the reset line of old keyboard controllers */

/* Interrupts: IOAPIC inputs, edge-triggered. */
#define MAP_GSI_COM1 4u
#define MAP_GSI_VIRTIO 5u /* the first device's; one each */

#endif
