#!/bin/bash
# SPDX-License-Identifier: MIT
#
# kill.sh - end-to-end test of deaths: kill -9 of a worker, of a QEMU child, of a
# client and of vmpoold, while a command runs. The client is told at once, the
# pool is whole again, and nothing is left behind.
#
# Usage: tests/e2e/kill.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

IDLE=2
AT_ONCE=3 # seconds, on a machine that may be busy
err_has() { grep -qi -- "$1" "$TMP/err"; }

# client_start: a client whose command has started and would run for ten minutes.
client_start() {
	rm -f "$TMP/status"
	: >"$TMP/out"
	"$BIN/vmpool" -p "$POOL" exec --wait $((180 * SLOW)) -- sh -c 'echo up; sleep 600' \
		</dev/null >"$TMP/out" 2>"$TMP/err" &
	CLIENT=$!
	until_true 200 grep -q up "$TMP/out"
	VM=$(pids_of in_use)
}

# client_reap: STATUS of the client, which is given AT_ONCE to end by itself.
client_reap() {
	until_true $AT_ONCE gone "$CLIENT" || kill -KILL "$CLIENT"
	wait "$CLIENT" 2>/dev/null
	STATUS=$?
}

# client_ends WHAT PATTERN: the verdict on a client whose VM has gone.
client_ends() {
	client_reap
	echo "$STATUS" >"$TMP/status"
	[ $STATUS -ne 137 ]
	result $? "the client ends at once when $1 is killed"
	[ $STATUS -eq 125 ] && [ "$(wc -l <"$TMP/err")" -eq 1 ] && err_has "$2"
	result $? "... with status 125 and one line that says so"
}

whole_again() { check "the pool is whole again" until_true 180 pool_is_whole $IDLE; }

pool_start --min-idle $IDLE --max-idle $IDLE --max-total 4

client_start
kill -KILL "$VM"
client_ends "its worker" "died"
whole_again

client_start
qemu=$(children_of "$VM")
if [ -n "$qemu" ]; then
	# shellcheck disable=SC2086
	kill -KILL $qemu
	client_ends "its QEMU" "died"
	check "its worker has ended as well" until_true 5 gone "$VM"
	whole_again
else
	kill "$CLIENT"
	skip "the client ends at once when its QEMU is killed" "no QEMU with this accelerator"
fi

# A worker takes its QEMU along.
client_start
qemu=$(children_of "$VM")
kill -KILL "$VM"
client_reap
qemu_gone() { for p in $qemu; do gone "$p" || return 1; done; }
check "a worker takes its children along" until_true 5 qemu_gone

# The client: its lease is taken back, its VM goes to nobody else.
before=$(stat_of reclaim_count)
client_start
kill -KILL "$CLIENT"
client_reap
check "the lease of a killed client is taken back" until_true $AT_ONCE stat_is in_use_count 0
stat_is reclaim_count $((before + 1))
result $? "... and counted"
check "... and its VM is discarded" until_true 10 gone "$VM"
whole_again

# A VM that nobody has yet.
idle=$(pids_of idle | head -n 1)
kill -KILL "$idle"
vmpool 20 exec -- echo alive
[ "$STATUS" -eq 0 ] && [ "$(cat "$TMP/out")" = alive ]
result $? "an idle VM's death costs the next caller nothing"
whole_again

# The supervisor: everything ends, clients and monitors are told.
"$BIN/vmpoolstat" -p "$POOL" -j 0.2 >"$TMP/monitor" 2>&1 &
monitor=$!
client_start
supervisor=$(supervisor_pid)
kill -KILL "$supervisor"
client_ends "vmpoold" "supervisor"
check "no process of the pool is left" until_true 10 no_processes
check "no file of the pool is left" until_true 10 no_files
check "a monitor goes on and says that the supervisor is dead" \
	until_true 10 grep -q '"state":"dead"' "$TMP/monitor"
kill -INT $monitor
wait $monitor
result $? "^C ends the monitor cleanly"
vmpool 10 exec -- true
[ "$STATUS" -eq 125 ] && err_has 'no pool "e2e" is running'
result $? "without a pool exec says how to start one"

pool_start --min-idle 1 --max-total 2
vmpool 20 exec -- echo again
[ "$STATUS" -eq 0 ] && [ "$(cat "$TMP/out")" = again ]
result $? "a new pool of the same name serves"
pool_stop
done_testing
