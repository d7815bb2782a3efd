#!/bin/bash
# SPDX-License-Identifier: MIT
#
# isolation-box.sh - tests/e2e/isolation.sh with the whole pool in the KVM host in a
# box: our own VMM, a real /dev/kvm. Where the host's KVM can run Linux,
# isolation.sh has used it already.
#
# Usage: tests/e2e/isolation-box.sh [ROW...]     (prints TAP)
#
# The variables as for isolation.sh; 100 leases in a row, and 200 fresh machines.

set -uo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
BIN=${VMPOOL_BIN:-$ROOT/build/bin}
BUILD=$(dirname "$BIN")
GUEST=$(realpath "$BUILD/guest/current")
HERE=$ROOT/tests/e2e
TOOLS="awk basename bash cat chmod cmp cp cut date dd diff dirname env grep head ls mkdir mkfifo mktemp mv
	rm sed sleep sort tail timeout tr uniq wc"

skip_all() {
	printf 'ok 1 - isolation in the box # SKIP %s\n1..1\n' "$1"
	exit 0
}

[ -e "$GUEST/initramfs" ] || skip_all "the guest image is not built (make guest)"
command -v qemu-system-x86_64 >/dev/null || skip_all "qemu-system-x86_64 is not installed (scripts/setup)"
! "$BUILD/libexec/vmpool-worker" probe --accel=kvm >/dev/null 2>&1 ||
	skip_all "this host's KVM runs Linux: isolation.sh uses it"

TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
"$HERE/isolation.sh" --build-tools "$TMP" || {
	printf 'not ok 1 - the programs of the test compile\n1..1\n'
	exit 1
}

args=(--memory 4096 --timeout "${VMPOOL_TEST_TIMEOUT:-1500}")
for file in "$GUEST"/{vmlinux,bzImage} "$BIN"/{vmpool,vmpoold,vmpoolstat} "$BUILD/libexec/vmpool-worker" \
	"$HERE/isolation.sh" "$HERE/isolation/rows.bash" "$ROOT/tests/lib/e2e.sh" "$TMP"/{image,leave,borrow}; do
	args+=(--file "$file")
done
for tool in $TOOLS; do args+=(--file "$(command -v "$tool")"); done
for name in RECYCLE CLOCK_MS; do
	var=VMPOOL_E2E_$name
	[ -z "${!var:-}" ] || args+=(-e "$var=${!var}")
done
"$ROOT/scripts/kvm-box" "${args[@]}" -e "VMPOOL_E2E_AGAIN=${VMPOOL_E2E_AGAIN:-100}" -e "VMPOOL_E2E_FRESH=${VMPOOL_E2E_FRESH:-200}" \
	-e "VMPOOL_BIN=$BIN" -e "VMPOOL_GUEST=$GUEST" -e "VMPOOL_E2E_TOOLS=$TMP" -e VMPOOL_E2E_ACCEL=kvm \
	-e VMPOOL_E2E_SLOW=4 -- bash "$HERE/isolation.sh" "$@"
