#!/bin/bash
# SPDX-License-Identifier: MIT
#
# monitor.sh - end-to-end test of what shows a pool: vmpoolstat, vmpool stats,
# list, ping, warm, doctor.
#
# Usage: tests/e2e/monitor.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

is() { [ "$STATUS" -eq "$1" ]; }
out_has() { grep -qE -- "$1" "$TMP/out"; }
# json_lines N: N lines, each one JSON object by the look of its ends.
json_lines() { [ "$(grep -cE '^\{.*\}$' "$TMP/out")" -eq "$1" ] && [ "$(wc -l <"$TMP/out")" -eq "$1" ]; }

vmpool 60 doctor
out_has . && { is 0 || is 1; }
result $? "doctor speaks without a pool"
run 60 "$BIN/vmpool" doctor --json
checks=$(grep -c '"check"' "$TMP/out")
VMPOOL_GUEST=$'/no\xff' run 60 "$BIN/vmpool" doctor --json
is 1 && out_has '/no\?' && [ "$checks" -gt 5 ] && [ "$(grep -c '"check"' "$TMP/out")" -eq "$checks" ]
result $? "its JSON has every check, whatever bytes there are in paths"
if grep -q '^flags.*\(vmx\|svm\)' /proc/cpuinfo || [ ! -w /dev/kvm ]; then
	skip "doctor says why KVM is not used" "KVM is real or absent here"
else
	out_has 'cannot run Linux' && out_has 'tcg|emulation'
	result $? "doctor says why KVM is not used, and what is used instead"
fi

pool_start --min-idle 1 --max-idle 2 --max-total 3
check "one VM is kept idle" until_true 120 stat_is idle_count 1

run 20 "$BIN/vmpoolstat" -p "$POOL"
is 0 && [ "$(wc -l <"$TMP/out")" -eq 2 ] &&
	out_has '^ *idle +use +start +reset +wait +\| +hit/s +miss/s +evict/s +recyc/s +fail/s +\| +acq_p50 +acq_p99 +exec_p50 +exec_p99 +\| +dirty_mb$' &&
	out_has '^ *1 +0 +0 +0 +0 \|'
result $? "vmpoolstat prints its header and one line"
run 20 "$BIN/vmpoolstat" -p "$POOL" 0.2 3
is 0 && [ "$(wc -l <"$TMP/out")" -eq 4 ] && [ "$MS" -ge 350 ]
result $? "vmpoolstat prints a line per interval"
run 20 "$BIN/vmpoolstat" -p "$POOL" -j 0.1 4
is 0 && json_lines 4 && out_has '"hit_count":0' && out_has '"acquire_ns":\{"count":0' && out_has '"state":"running"'
result $? "vmpoolstat -j prints JSON lines"

vmpool 20 ping
is 0 && out_has 'answered in [0-9.]+(us|ms|s)$'
result $? "ping says how long the answer took"
vmpool 20 stats
is 0 && out_has '^hit_count +1 ' && out_has '^release_count +1 ' && out_has '^boot_ns +[1-9]'
result $? "stats has counted it"
vmpool 20 stats --json
is 0 && out_has '"hit_count": 1,' && out_has '"pool": \{'
result $? "stats --json has it, too"

vmpool 240 warm --wait 200 2
is 0 && out_has ' 2 idle \(target 2\)'
result $? "warm 2 makes two idle VMs"
vmpool 20 list
is 0 && [ "$(awk '$2 == "idle"' "$TMP/out" | wc -l)" -eq 2 ]
result $? "list shows them"
vmpool 20 warm --wait 0 9
is 0 && out_has 'target 2'
result $? "warm is capped at max-idle"

# Nobody needs to run for a monitor to look.
"$BIN/vmpool" -p "$POOL" exec --wait 180 -- sh -c 'echo up; sleep 600' </dev/null >"$TMP/out" 2>"$TMP/err" &
client=$!
until_true 200 grep -q up "$TMP/out"
kill -STOP $client
run 20 "$BIN/vmpoolstat" -p "$POOL"
is 0 && out_has '^ *[0-9]+ +1 '
result $? "a stopped client is shown as a VM in use"
kill -CONT $client
kill -TERM $client
wait $client 2>/dev/null
pool_stop
done_testing
