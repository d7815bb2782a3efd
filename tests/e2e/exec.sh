#!/bin/bash
# SPDX-License-Identifier: MIT
#
# exec.sh - end-to-end test of vmpool exec: what a command prints, gets and
# returns; arguments byte for byte; time-outs; streams; taking turns.
#
# Usage: tests/e2e/exec.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

is() { [ "$STATUS" -eq "$1" ]; }
out_is() { [ "$(cat "$TMP/out")" = "$1" ]; }
err_has() { grep -q -- "$1" "$TMP/err"; }

pool_start --min-idle 2 --max-idle 2 --max-total 2

vmpool 20 exec -- sh -c 'echo out; echo err >&2; exit 7'
is 7 && out_is out && [ "$(cat "$TMP/err")" = err ]
result $? "stdout, stderr and status 7 arrive"

vmpool 20 exec -- sh -c 'exit 124'
is 124 && [ ! -s "$TMP/err" ]
result $? "status 124 of the command is no time-out"

vmpool 20 exec -- sh -c 'kill -9 $$'
is 137
result $? "a command ended by signal 9 is status 137"

# The time between the two lines, as we see them come.
"$BIN/vmpool" -p "$POOL" exec --wait $((180 * SLOW)) -- sh -c 'echo a; sleep 2; echo b' </dev/null |
	while read -r line; do printf '%s %s\n' "$line" "$(date +%s%N)"; done >"$TMP/out"
awk '$1 == "a" { a = $2 } $1 == "b" { b = $2 } END { exit !(a > 0 && b - a > 1.5e9) }' "$TMP/out"
result $? "output comes while it is written"

# Everything that an argument can hold, and 100 KiB of it. The guest's kernel
# says what it got. (With something after it, cat does not replace the shell.)
# shellcheck disable=SC2016
print='cat /proc/$$/cmdline; exit 0'
args=('' $'two\nlines' "\"double\" 'single' \\ \$HOME *" $'\xff\xfe\x80\x01 \t' '' -- -x)
big=$(printf '%*s' 60000 '' | tr ' ' 'B')
args+=("$big")
for ((i = 0; i < 400; i++)); do args+=("argument $i ${big:0:100}"); done
printf '%s\0' sh -c "$print" sh "${args[@]}" >"$TMP/want"
vmpool 30 exec -- sh -c "$print" sh "${args[@]}"
is 0 && [ "$(stat -c %s "$TMP/want")" -gt 102400 ] && cmp -s "$TMP/want" "$TMP/out"
result $? "arguments arrive byte for byte, 100 KiB of them"

# shellcheck disable=SC2016
vmpool 20 exec -e 'A=1' -e 'B=x y' -e 'C=' -C /tmp -- sh -c 'printf "%s|" "$A" "$B" "${C-unset}" "$PWD"'
is 0 && out_is '1|x y||/tmp|'
result $? "-e and -C work"

vmpool 20 exec -e A=1 -e A=2 --unset HOME -- sh -c 'echo "$A,${HOME-unset},$USER"'
is 0 && out_is '2,unset,root'
result $? "the later of two counts, and --unset takes away"
vmpool 20 exec --clean-env -e PATH=/bin -- env
is 0 && out_is 'PATH=/bin'
result $? "--clean-env leaves nothing"
bytes=$(printf '\377\200=\303')
# shellcheck disable=SC2016
vmpool 20 exec -e "A=$bytes" -- sh -c 'printf "%s|%s|\001\377\000\300" "$A" "$1"' sh "$bytes"
printf '%s|%s|\001\377\000\300' "$bytes" "$bytes" >"$TMP/want"
is 0 && cmp -s "$TMP/want" "$TMP/out"
result $? "bytes that are no text pass, in arguments, variables and output"
vmpool 20 exec -u 1000:7 --umask 027 -- sh -c 'id -u; id -g; umask'
is 0 && out_is $'1000\n7\n0027'
result $? "-u uid:gid and --umask work"

# --- limits --------------------------------------------------------------------------

vmpool 20 exec --files 19 --cpu 7 -- sh -c 'ulimit -n; ulimit -t'
is 0 && out_is $'19\n7'
result $? "--files and --cpu are set"
vmpool 60 exec --cpu 1 -- sh -c 'while :; do :; done'
is 152
result $? "CPU time that is used up ends a command by SIGXCPU"
# shellcheck disable=SC2016
vmpool 20 exec --procs 4 -- sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 10 & done; echo never'
is 2 && err_has 'fork' && out_is ''
result $? "--procs bounds what it starts"
hold() { printf 'head -c %d /dev/zero | tail -c %d' $(($1 + 1000)) "$1"; } # in memory
vmpool 20 exec --memory 24 -- sh -c "$(hold 40000000) | wc -c; exit 5"
is 5 && ! out_is 40000000
result $? "--memory ends what takes more"
vmpool 20 exec --memory 24 -- sh -c "$(hold 15000000) | wc -c"
is 0 && out_is 15000000
result $? "... and nothing that takes less"
vmpool 20 exec --memory 24 -- sh -c "{ $(hold 15000000); sleep 1; } | { $(hold 15000000); cat; } | wc -c"
! out_is 30000000
result $? "... all processes of a command together"
vmpool 20 exec --output-limit 1000 -- sh -c 'head -c 5000 /dev/zero | tr "\0" x; echo fine >&2; exit 3'
is 3 && [ "$(stat -c %s "$TMP/out")" -eq 1000 ] && err_has '^fine' && err_has 'stdout was truncated after 1000 bytes'
result $? "--output-limit drops the rest, and says so"
vmpool 60 exec -t 1 --output-limit 10 -- yes
is 124 && err_has truncated && err_has 'timed out'
result $? "... for as long as it takes"

# --- ends that others get wrong --------------------------------------------------------

# shellcheck disable=SC2016
vmpool 30 exec -t 1 --timeout-signal TERM -- sh -c 'trap "echo caught; exit 3" TERM; while :; do sleep 0.1; done'
is 124 && out_is caught && err_has 'timed out after 1 s'
result $? "--timeout-signal lets it clean up"
vmpool 30 exec -t 1 --timeout-signal INT --grace 0.5 -- sh -c 'trap "" INT; while :; do sleep 0.1; done'
is 124 && err_has 'timed out after 1 s'
result $? "... and --grace later it is killed"
vmpool 20 exec -t 20 --timeout-signal TERM -- sh -c 'exit 5'
is 5 && [ ! -s "$TMP/err" ]
result $? "... if it has not ended before"
vmpool 20 exec -- printf 'no end'
is 0 && [ "$(stat -c %s "$TMP/out")" -eq 6 ]
result $? "output without a line's end is not given one"
vmpool 60 exec -- sh -c 'head -c 1048576 /dev/zero | tr "\0" l'
is 0 && [ "$(stat -c %s "$TMP/out")" -eq 1048576 ]
result $? "a line may have a MiB"
vmpool 20 exec -- sh -c 'echo out; exec >&-; sleep 0.3; echo err >&2; exec 2>&-; sleep 0.3; exit 9'
is 9 && out_is out && [ "$(cat "$TMP/err")" = err ]
result $? "a command that closes its output lives on"
run 60 "$BIN/vmpool" -p "$POOL" exec --wait 60 -i -- sh -c 'exec <&-; echo deaf; exit 4' < <(yes)
is 4 && out_is deaf
result $? "a command that closes stdin, or never reads it, stops nothing"
timeout $((60 * SLOW)) "$BIN/vmpool" -p "$POOL" exec --wait 60 -i -- sh -c 'cat; echo over' </dev/null >"$TMP/out"
out_is over
result $? "the end of stdin arrives"

# Nobody reads; the end comes all the same, once somebody does.
timeout $((90 * SLOW)) "$BIN/vmpool" -p "$POOL" exec --wait 60 -t 1 -- yes </dev/null 2>"$TMP/err" | (sleep 3 && wc -c) >"$TMP/out"
[ "${PIPESTATUS[0]}" -eq 124 ] && err_has 'timed out' && [ "$(cat "$TMP/out")" -gt 65000 ]
result $? "a time-out needs no reader"

vmpool 20 exec -C /no/such/dir -- true
is 125 && err_has '/no/such/dir'
result $? "a missing directory is status 125, with its name"
vmpool 20 exec -- no-such-program
is 127 && err_has 'no-such-program.*not found'
result $? "a missing program is status 127, with its name"
vmpool 20 exec -- /etc
is 126 && err_has '/etc.*cannot be executed'
result $? "what cannot be executed is status 126, with its name"

before=$(stat_of exec_timeout_count)
vmpool 20 exec -t 1 -- sh -c 'echo started; sleep 30'
is 124 && out_is started && err_has 'timed out'
result $? "a command is ended at its time-out, status 124"
# A VM boots meanwhile, so this bounds the sum.
vmpool 20 exec -- echo next
is 0 && out_is next
result $? "the next command works"
stat_is exec_timeout_count $((before + 1)) && stat_is vm_died_count 0
result $? "the statistics know of one more time-out and of no lost VM"

head -c 1000000 /dev/urandom >"$TMP/want"
run 240 "$BIN/vmpool" -p "$POOL" exec --wait 180 -i -- cat <"$TMP/want"
is 0 && cmp -s "$TMP/want" "$TMP/out"
result $? "stdin is passed on, a million bytes of it and back"

# A reader that takes its time loses nothing.
timeout $((240 * SLOW)) "$BIN/vmpool" -p "$POOL" exec --wait 180 -- \
	sh -c 'head -c 8000000 /dev/zero | tr "\000" x' </dev/null 2>"$TMP/err" | (sleep 1 && md5sum) >"$TMP/out"
[ "${PIPESTATUS[0]}" -eq 0 ] && out_is "$(head -c 8000000 /dev/zero | tr '\000' x | md5sum)"
result $? "8 MB arrive whole at a slow reader"
timeout $((240 * SLOW)) "$BIN/vmpool" -p "$POOL" exec --wait 180 -- echo lost </dev/null >/dev/full 2>"$TMP/err"
[ $? -eq 125 ] && err_has 'stdout: No space left'
result $? "output that cannot be written is status 125, with the reason"

# The reader goes away: so does the command.
timeout $((240 * SLOW)) "$BIN/vmpool" -p "$POOL" exec --wait 180 -- yes </dev/null 2>"$TMP/err" | head -n 1 >"$TMP/out"
[ "${PIPESTATUS[0]}" -eq 141 ] && out_is y
result $? "a reader that goes away ends the command"

"$BIN/vmpool" -p "$POOL" exec --wait 180 -- sh -c 'echo up; sleep 600' </dev/null >"$TMP/out" 2>"$TMP/err" &
client=$!
until_true 200 out_is up
kill -TERM $client
wait $client
STATUS=$?
is 143 && until_true 10 stat_is in_use_count 0
result $? "SIGTERM ends the client, and its lease"

# More callers than VMs: they take turns.
for ((i = 0; i < 8; i++)); do
	timeout $((300 * SLOW)) "$BIN/vmpool" -p "$POOL" exec --wait 280 -- echo "turn $i" </dev/null >"$TMP/turn$i" 2>&1 &
	clients[i]=$!
done
most=0 failed=0
busy() { for c in "${clients[@]}"; do kill -0 "$c" 2>/dev/null && return 0; done; return 1; }
while busy; do
	total=$("$BIN/vmpool" -p "$POOL" list 2>/dev/null | awk '$2 ~ /^(starting|idle|in_use)$/ { n++ } END { print n + 0 }')
	[ "$total" -le "$most" ] || most=$total
	sleep 0.1
done
for ((i = 0; i < 8; i++)); do
	wait "${clients[i]}" || failed=$((failed + 1))
	[ "$(cat "$TMP/turn$i")" = "turn $i" ] || failed=$((failed + 1))
done
cat "$TMP"/turn? >"$TMP/out"
[ $failed -eq 0 ] && [ "$most" -le 2 ]
result $? "8 callers share at most 2 VMs and all succeed"

check "the pool is whole again" until_true 120 pool_is_whole 2
[ "$(($(stat_of hit_count) + $(stat_of miss_count)))" -eq "$(stat_of release_count)" ] && stat_is reclaim_count 0
result $? "every acquire has its release"
pool_stop
done_testing
