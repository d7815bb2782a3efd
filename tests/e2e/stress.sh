#!/bin/bash
# SPDX-License-Identifier: MIT
#
# stress.sh - a short stress test with the null machine: everybody is killed and
# stopped while clients borrow and give back (scripts/stress says more).
#
# Usage: tests/e2e/stress.sh     (prints TAP; half a minute)

set -uo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
N=0

# check NAME: the verdict on the command before it.
check() {
	local status=$?
	N=$((N + 1))
	if [ $status = 0 ]; then echo "ok $N - $1"; else echo "not ok $N - $1"; fi
}

if [ ! -x "${VMPOOL_BUILD:-$ROOT/build}/stress/stress" ]; then
	echo "ok 1 - stress # SKIP not built (make stress-programs)"
	echo "1..1"
	exit 0
fi

"$ROOT/scripts/stress" --seconds 6 -- --acts none | sed 's/^/# /'
check "clients alone"
"$ROOT/scripts/stress" --seconds 18 | sed 's/^/# /'
check "clients, workers and supervisors that are killed and stopped"
"$ROOT/scripts/stress" --seconds 4 -- --clients 40 --every 5 --touch 1000 \
	--acts kill-client,kill-worker,stop-client,stop-worker | sed 's/^/# /'
check "many clients, and a death every few milliseconds"
echo "1..$N"
