# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# cpio.sh - writes a "newc" cpio archive, the format of an initramfs, entry by
# entry to standard output. Sourced, not run. Owner, times and inode numbers
# depend on nothing but the order of the calls, so that equal calls give equal
# bytes, and device nodes need no privileges. (Format: the kernel's
# Documentation/driver-api/early-userspace/buffer-format.rst.)

CPIO_INO=0

# cpio_entry NAME MODE(octal with type) NLINK SIZE [MAJOR MINOR]: header, name, padding.
cpio_entry() {
	local name=$1 mode=$2 nlink=$3 size=$4 major=${5:-0} minor=${6:-0} pad
	CPIO_INO=$((CPIO_INO + 1))
	pad=$(((4 - (110 + ${#name} + 1) % 4) % 4))
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
		"$CPIO_INO" "$((8#$mode))" 0 0 "$nlink" 0 "$size" 0 0 "$major" "$minor" \
		"$((${#name} + 1))" 0 "$name"
	cpio_zeros "$pad"
}

cpio_zeros() {
	case $1 in
	1) printf '\0' ;;
	2) printf '\0\0' ;;
	3) printf '\0\0\0' ;;
	esac
}

# Names have no leading slash. MODE is four octal digits.
cpio_dir() { cpio_entry "$1" "04$2" 2 0; }                # NAME MODE
cpio_link() {                                             # NAME TARGET
	cpio_entry "$1" 120777 1 "${#2}"
	printf '%s' "$2"
	cpio_zeros "$(((4 - ${#2} % 4) % 4))"
}
cpio_char() { cpio_entry "$1" "02$2" 1 0 "$3" "$4"; }     # NAME MODE MAJOR MINOR
cpio_file() {                                             # NAME MODE FILE [SIZE]
	local size=${4:-$(stat -Lc %s -- "$3")}
	cpio_entry "$1" "10$2" 1 "$size"
	cat -- "$3"
	cpio_zeros "$(((4 - size % 4) % 4))"
}
cpio_text() {                                             # NAME MODE TEXT
	cpio_entry "$1" "10$2" 1 "${#3}"
	printf '%s' "$3"
	cpio_zeros "$(((4 - ${#3} % 4) % 4))"
}
cpio_end() { CPIO_INO=-1 cpio_entry 'TRAILER!!!' 0 1 0; }
