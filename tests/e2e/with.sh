#!/bin/bash
# SPDX-License-Identifier: MIT
#
# with.sh - end-to-end test of vmpool with: programs of the host that share one VM,
# one after the other and at once; what ends when one of them, or the lease, is killed;
# exit statuses; leases that have ended.
#
# Usage: tests/e2e/with.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

is() { [ "$STATUS" -eq "$1" ]; }
out_is() { [ "$(cat "$TMP/out")" = "$1" ]; }
err_has() { grep -q -- "$1" "$TMP/err"; }
err_lines() { [ "$(wc -l <"$TMP/err")" -eq "$1" ]; }

# with SECS SCRIPT [ARG]...: run a bash script in a lease; $V is vmpool there.
with() {
	local secs=$1 script=$2
	shift 2
	vmpool "$secs" with -- bash -uc "$script" bash "$@"
}
export V=$BIN/vmpool TMP SLOW

# What the scripts share: until COMMAND succeeds; does a command of the VM run?
cat >"$TMP/lib" <<'END'
until_true() { local end=$((SECONDS + 60 * SLOW)); until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.05; done; }
runs() { "$V" exec -- sh -c "ps | grep -q \"[${1:0:1}]${1:1}\""; }
runs_not() { ! runs "$@"; }
END

pool_start --min-idle 1 --max-idle 2 --max-total 3

# --- one VM, used again and again ----------------------------------------------------

with 60 '"$V" exec -- sh -c "echo mine >/tmp/note" && "$V" exec -- cat /tmp/note'
is 0 && out_is mine
result $? "what one command leaves the next one finds"
vmpool 60 exec -- test -e /tmp/note
is 1
result $? "... and the next borrower does not"

with 60 '"$V" -p e2e list | grep -c in_use; "$V" ping; "$V" ping --json; exit 7'
is 7 && grep -qx 1 "$TMP/out" && grep -q 'joined in' "$TMP/out" && grep -q '"joined": true' "$TMP/out"
result $? "every command uses that one VM, and the status is the program's"
vmpool 60 ping --json
is 0 && grep -q '"joined": false' "$TMP/out"
result $? "without a lease ping borrows a VM"

# shellcheck disable=SC2016
with 60 'echo hello | "$V" exec -i -e K=V -C /tmp -- sh -c "cat; echo \$K \$PWD" && exec "$V" exec -t 1 -- sleep 100'
is 124 && [ "$(cat "$TMP/out")" = $'hello\nV /tmp' ] && err_has 'timed out'
result $? "exec's options work there, a time-out too"

# --- the lease's environment, and its statistics ----------------------------------------

# shellcheck disable=SC2016
vmpool 60 with -e A=1 -e $'B=two\nlines=\xff' -- bash -uc '"$V" exec -- sh -c "echo \"\$A\"; echo \"\$B\""
"$V" exec -e A=2 --clean-env -- /bin/env
VMPOOL_ENV_A=3 "$V" exec -- sh -c "echo \$A"
"$V" -p e2e with -e C=1 -- sh -c "\"\$V\" exec -- /bin/env" | grep -c "^[ABC]="'
printf '1\ntwo\nlines=\xff\nA=2\nB=two\nlines=\xff\n3\n1\n' >"$TMP/want"
is 0 && sort "$TMP/out" | cmp -s - <(sort "$TMP/want")
result $? "with -e is for every command of the lease, and of no other"
# shellcheck disable=SC2016
with 60 '"$V" exec -- sh -c "sleep 1000 & sleep 1001 & exit 0"
"$V" stat-vm; "$V" stat-vm --json >"$TMP/stat"'
is 0 && grep -q 'on the host: CPU' "$TMP/out" && grep -q '"processes": 3' "$TMP/stat" &&
	grep -q '"commands": 0' "$TMP/stat" && ! grep -qE '"(cpu_ns|memory_used_bytes|bytes_in)": 0' "$TMP/stat"
result $? "stat-vm counts what runs in the VM, background included"

# shellcheck disable=SC2016
with 300 'for i in $(seq 20); do "$V" exec -- sh -c "echo up; exec sleep 1000" >>"$TMP/ups" & done
. "$TMP/lib"; up() { [ "$(wc -l <"$TMP/ups")" -eq 20 ]; }; until_true up || exit 9
"$V" stat-vm --json | grep -c "\"commands\": 20\$"; kill $(jobs -p); wait; "$V" exec -- echo fine'
is 0 && out_is $'1\nfine'
result $? "20 vmpools have a command each in one VM"

run 60 "$V" -p "$POOL" with -- cat <<<"from stdin"
is 0 && out_is 'from stdin'
result $? "the program has our stdin"

# --- several at once -------------------------------------------------------------------

# Each 400 kB and more, in lines that are its own, on both streams.
# shellcheck disable=SC2016
print='i=0; while [ $i -lt 9000 ]; do echo "$1 $i some more of the line, so that it is long"; [ $((i % 4)) -ne 0 ] || echo "$1 $i" >&2; i=$((i + 1)); done'
for ((k = 0; k < 8; k++)); do sh -c "$print" sh $k >"$TMP/want$k" 2>"$TMP/wanterr$k"; done
# shellcheck disable=SC2016
with 300 'for k in 0 1 2 3 4 5 6 7; do
	"$V" exec -- sh -c "$1" sh $k >"$TMP/got$k" 2>"$TMP/goterr$k" & pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait $pid || failed=$((failed + 1)); done
exit $failed' "$print"
same=0
for ((k = 0; k < 8; k++)); do
	cmp -s "$TMP/want$k" "$TMP/got$k" && cmp -s "$TMP/wanterr$k" "$TMP/goterr$k" && same=$((same + 1))
done
is 0 && [ $same -eq 8 ] && [ "$(stat -c %s "$TMP/want0")" -gt 400000 ]
result $? "8 commands at once print 400 kB each, byte for byte"

# One that is not read does not stop the others.
# shellcheck disable=SC2016
with 120 '. "$TMP/lib"
"$V" exec -- sh -c "while :; do echo y; done" | { read -r _; echo started >"$TMP/started"; exec sleep 1000; } & reader=$!
until_true [ -e "$TMP/started" ]
head -c 1000000 /dev/zero | "$V" exec -i -- wc -c
kill $reader
wait
exit 0'
rm -f "$TMP/started"
is 0 && out_is 1000000
result $? "a command whose output nobody reads stops no other"

# --- deaths ------------------------------------------------------------------------------

# shellcheck disable=SC2016
with 120 '. "$TMP/lib"
"$V" exec -- sh -c "echo up; exec sleep 4711" >"$TMP/up" & inner=$!
until_true grep -q up "$TMP/up" && runs "sleep 4711" || exit 10
kill -KILL $inner
until_true runs_not "sleep 4711" || exit 11
"$V" exec -- yes >/dev/null & inner=$!
until_true runs yes || exit 12
kill -KILL $inner
until_true runs_not yes || exit 13
"$V" exec -- echo usable'
is 0 && out_is usable
result $? "a killed vmpool takes its command along, and the VM stays usable"

# with itself: the lease is over, and the program finds out.
before=$(stat_of reclaim_count)
# shellcheck disable=SC2016
"$V" -p "$POOL" with --wait $((180 * SLOW)) -- bash -uc '. "$TMP/lib"
"$V" exec -- sh -c "echo up; exec sleep 1000" >"$TMP/up2" 2>"$TMP/inner" & inner=$!
until_true grep -q up "$TMP/up2"
kill -KILL $PPID
wait $inner; echo "running $?" >"$TMP/seen"
"$V" exec -- true 2>>"$TMP/inner"; echo "new $?" >>"$TMP/seen"
echo "$VMPOOL_LEASE" >"$TMP/lease"' </dev/null >"$TMP/out" 2>"$TMP/err" &
wait $!
check "the program goes on when vmpool with is killed" until_true 60 test -s "$TMP/lease"
[ "$(cat "$TMP/seen")" = $'running 125\nnew 125' ] && [ "$(wc -l <"$TMP/inner")" -eq 2 ] &&
	[ "$(grep -c 'has ended' "$TMP/inner")" -eq 2 ]
result $? "... and its commands end at once, each saying that the lease has ended"
check "... and the lease is taken back" until_true 10 stat_is in_use_count 0
stat_is reclaim_count $((before + 1))
result $? "... and counted"
VMPOOL_LEASE=$(cat "$TMP/lease") run 20 "$V" exec -- true
is 125 && err_has 'VMPOOL_LEASE: the lease .* has ended' && err_lines 1
result $? "a lease that has ended is refused"

# The VM itself.
# shellcheck disable=SC2016
with 120 '. "$TMP/lib"
"$V" exec -- sleep 1000 2>"$TMP/inner" & inner=$!
until_true runs "sleep 1000"
kill -KILL "$("$V" -p e2e list | awk "\$2 == \"in_use\" { print \$3 }")" || exit 9
wait $inner; echo "status $?"; exit 3'
is 3 && out_is 'status 125' && grep -q 'died' "$TMP/inner" && err_has 'the VM was lost while bash ran.*died'
result $? "if the VM dies, its commands say so, and so does vmpool with at its end"

# --- statuses and signals ---------------------------------------------------------------

vmpool 60 with -- no-such-program
is 127 && err_has 'no-such-program'
result $? "a missing program is status 127"
vmpool 60 with -- /etc
is 126 && err_has '/etc'
result $? "what cannot be executed is status 126"
# shellcheck disable=SC2016
with 60 'kill -KILL $$'
is 137
result $? "a program ended by signal 9 is status 137"
vmpool 20 with
is 125 && err_has 'no command given'
result $? "bad usage is status 125"

# A signal to vmpool with is passed on, and what the program makes of it counts.
# shellcheck disable=SC2016
"$V" -p "$POOL" with --wait $((180 * SLOW)) -- bash -c 'trap "echo caught; exit 5" TERM
echo up >"$TMP/up3"; while :; do sleep 0.1; done' </dev/null >"$TMP/out" 2>"$TMP/err" &
client=$!
until_true 200 grep -qs up "$TMP/up3"
kill -TERM $client
wait $client
STATUS=$?
is 5 && out_is caught && until_true 10 stat_is in_use_count 0
result $? "SIGTERM goes to the program, whose end is waited for"

# --- leases and pools that do not fit ------------------------------------------------------

lease_of() { awk -F: -v OFS=: '{ print $1, $2, $3, $4 }' "$TMP/lease"; }
VMPOOL_LEASE=$(lease_of) run 20 "$V" -p other exec -- true
is 125 && err_has 'pool "e2e".*-p names pool "other"'
result $? "-p with another pool is refused, and both are named"
VMPOOL_LEASE=nonsense run 20 "$V" exec -- true
is 125 && err_has '"nonsense" is not the name of a lease'
result $? "what is no lease is refused"
VMPOOL_LEASE=$(lease_of | sed 's/^e2e:./e2e:x/') run 20 "$V" exec -- true
is 125 && err_has 'is not the name of a lease'
result $? "... and what is almost one"

# shellcheck disable=SC2016
with 120 '"$V" exec -- touch /tmp/outer
"$V" -p "$1" with -- bash -c '\''"$V" exec -- test -e /tmp/outer && echo outer; echo "$VMPOOL_LEASE"'\''
"$V" exec -- test -e /tmp/outer && echo "$VMPOOL_LEASE"' "$POOL"
is 0 && [ "$(wc -l <"$TMP/out")" -eq 2 ] && [ "$(sort -u "$TMP/out" | wc -l)" -eq 2 ] && ! grep -qx outer "$TMP/out"
result $? "a vmpool with inside another borrows a VM of its own"

# The pool ends under it.
# shellcheck disable=SC2016
with 60 '. "$TMP/lib"
"$V" exec -- sleep 1000 2>"$TMP/inner" & inner=$!
until_true runs "sleep 1000"
kill -KILL "$1"
wait $inner
"$V" exec -- true 2>>"$TMP/inner"; echo $?' "$(supervisor_pid)"
is 0 && out_is 125 && grep -q 'supervisor has died' "$TMP/inner" &&
	grep -q 'pool "e2e", of whose lease' "$TMP/inner" && err_has 'the VM was lost.*supervisor has died'
result $? "if the pool goes away, everybody says so"
check "no process of the pool is left" until_true 10 no_processes
pool_start --min-idle 1 --max-total 1
VMPOOL_LEASE=$(lease_of) run 20 "$V" exec -- true
is 125 && err_has 'an earlier pool'
result $? "a lease of an earlier pool of that name is refused"
pool_stop
done_testing
