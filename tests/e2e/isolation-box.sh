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
# shellcheck source=tests/lib/e2e-box.sh
. "$(dirname "$0")/../lib/e2e-box.sh"
HERE=$ROOT/tests/e2e

box_need isolation
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
"$HERE/isolation.sh" --build-tools "$TMP" || {
	printf 'not ok 1 - the programs of the test compile\n1..1\n'
	exit 1
}

args=(-e "VMPOOL_E2E_AGAIN=${VMPOOL_E2E_AGAIN:-100}" -e "VMPOOL_E2E_FRESH=${VMPOOL_E2E_FRESH:-200}" -e "VMPOOL_E2E_TOOLS=$TMP")
for file in "$HERE/isolation/rows.bash" "$TMP"/{image,leave,borrow}; do args+=(--file "$file"); done
for name in RECYCLE CLOCK_MS; do
	var=VMPOOL_E2E_$name
	[ -z "${!var:-}" ] || args+=(-e "$var=${!var}")
done
box_run "$HERE/isolation.sh" "${args[@]}" -- "$@"
