#!/bin/bash
# SPDX-License-Identifier: MIT
#
# commands.sh - end-to-end test of many commands in one VM: those of a client of the
# library (commandcalls.c), and what vmpool itself makes of odd ones.
#
# Usage: tests/e2e/commands.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

is() { [ "$STATUS" -eq "$1" ]; }
out_is() { [ "$(cat "$TMP/out")" = "$1" ]; }
err_has() { grep -q -- "$1" "$TMP/err"; }
export V=$BIN/vmpool TMP

# in_one SCRIPT: with one VM, run a script on this host in which $V uses it.
in_one() { vmpool 60 with -- bash -uc "$1"; }

pool_start --memory 256 --min-idle 1 --max-total 2
run_client 200 commandcalls

vmpool 20 exec --
is 125 && err_has 'no command given'
result $? "no command is bad usage"
# shellcheck disable=SC2016
in_one '"$V" exec -- ""; echo $?; "$V" exec -t 0.3 -- sleep 9; echo $?; "$V" exec -u nobody -- id -un
"$V" exec -u no-one -- true; echo $?; "$V" exec -- sh -c "kill -USR1 \$\$"; echo $?'
is 0 && out_is $'127\n124\nnobody\n125\n138' && err_has 'timed out after 0.3 s' && err_has 'no-one'
result $? "an empty command, a time-out of 300 ms, users by name, an end by SIGUSR1"
# shellcheck disable=SC2016
in_one '"$V" exec --output-limit 100 -- sh -c "head -c 500 /dev/zero >&2; head -c 50 /dev/zero" 2>"$TMP/cut" | wc -c
head -c 100 "$TMP/cut" | tr -d "\0" | wc -c; tail -c +101 "$TMP/cut"
"$V" exec -- sh -c "(sleep 0.3; echo late >/tmp/late) & exec >&- 2>&-"
for _ in {1..500}; do "$V" exists /tmp/late && break; done; "$V" cat /tmp/late'
is 0 && out_is $'50\n0\nvmpool: stderr was truncated after 100 bytes\nlate'
result $? "stderr is truncated by itself; what is left running runs on"

pool_stop
done_testing
