# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# e2e-box.sh - an end-to-end test with the whole pool in the KVM host in a box: our own
# VMM, a real /dev/kvm. Sourced by tests/e2e/*-box.sh, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BIN=${VMPOOL_BIN:-$ROOT/build/bin}
BUILD=$(dirname "$BIN")
GUEST=$(realpath "$BUILD/guest/current")
BOX_TOOLS="awk basename bash cat chmod cmp comm cp cut date dd diff dirname env find grep head ls mkdir mkfifo mktemp mv
	od rm sed sleep sort stat tail timeout touch tr uniq wc xargs"

# box_skip NAME WHY: the only test is skipped, and this is the end.
box_skip() {
	printf 'ok 1 - %s in the box # SKIP %s\n1..1\n' "$1" "$2"
	exit 0
}

# box_need NAME: skip where there is no box, or no need for one.
box_need() {
	[ -e "$GUEST/initramfs" ] || box_skip "$1" "the guest image is not built (make guest)"
	command -v qemu-system-x86_64 >/dev/null ||
		box_skip "$1" "qemu-system-x86_64 is not installed (scripts/setup)"
	! "$BUILD/libexec/vmpool-worker" probe --accel=kvm >/dev/null 2>&1 ||
		box_skip "$1" "this host's KVM runs Linux: $1.sh uses it"
}

# box_run SCRIPT [OPTION]... [-- ARG...]: run it in there, with options of kvm-box besides.
box_run() {
	local script=$1 args=(--memory 4096 --timeout "${VMPOOL_TEST_TIMEOUT:-1500}") file tool
	shift
	for file in "$GUEST"/{vmlinux,bzImage,initramfs} "$BIN"/{vmpool,vmpoold,vmpoolstat} \
		"$BUILD/libexec/vmpool-worker" "$script" "$ROOT/tests/lib/e2e.sh"; do
		args+=(--file "$file")
	done
	for tool in $BOX_TOOLS; do args+=(--file "$(command -v "$tool")"); done
	while [ $# -gt 0 ] && [ "$1" != -- ]; do args+=("$1") && shift; done
	[ $# = 0 ] || shift
	"$ROOT/scripts/kvm-box" "${args[@]}" -e "VMPOOL_BIN=$BIN" -e "VMPOOL_GUEST=$GUEST" \
		-e VMPOOL_E2E_ACCEL=kvm -e VMPOOL_E2E_SLOW=4 -- bash "$script" "$@"
}
