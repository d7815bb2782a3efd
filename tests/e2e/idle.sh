#!/bin/bash
# SPDX-License-Identifier: MIT
#
# idle.sh - end-to-end test that a VM which nobody uses sleeps: how often its
# processes wake up on the host, virtual processors and QEMU included.
#
# Usage: tests/e2e/idle.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

SECS=5
# Some ten are usual. A periodic timer of the machine, or what its kernel does by the
# clock, make more than twenty a second, however old the VM is.
LIMIT=30

# wakeups PID...: of all their threads, so far.
wakeups() {
	local pid
	for pid in "$@"; do cat /proc/"$pid"/task/*/status; done |
		awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n + 0 }'
}

pool_start --min-idle 1 --max-idle 1 --max-total 1
check "one VM is idle" until_true 120 stat_is idle_count 1

worker=$(pids_of idle)
# shellcheck disable=SC2046 # a list of numbers
set -- "$worker" $(children_of "$worker")
[ "$(wakeups "$@")" -gt 0 ]
result $? "its processes are to be seen"
# A young VM still has things to do; so there are several looks.
for _ in 1 2 3 4; do
	before=$(wakeups "$@")
	sleep "$SECS" # no wait for something: the time is what is measured
	n=$(($(wakeups "$@") - before))
	echo "# $n wake-ups in $SECS s"
	[ "$n" -ge "$LIMIT" ] || break
done
[ "$n" -lt "$LIMIT" ]
result $? "it wakes up less than $LIMIT times in $SECS s"

vmpool 60 exec -- echo up
[ "$STATUS" -eq 0 ] && grep -qx up "$TMP/out"
result $? "and it can still be used"
pool_stop
done_testing
