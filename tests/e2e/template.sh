#!/bin/bash
# SPDX-License-Identifier: MIT
#
# template.sh - end-to-end test of templates: one boot, a warm-up command, VMs made of
# it that share nothing they write and are machines of their own; and every way in which
# the making of a template fails is named.
#
# Usage: tests/e2e/template.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

# shellcheck disable=SC2016
WHO='cat /proc/sys/kernel/random/boot_id /etc/machine-id; head -c 32 /dev/urandom | od -An -tx1 | tr -d " \n"; echo'
LOG=$TMP/daemon.log
log_has() { grep -q -- "$1" "$LOG"; }

# daemon STATUS ARG...: vmpoold ends by itself with this status.
daemon() {
	local status=$1
	shift
	run 60 env "$MARK" "$BIN/vmpoold" --name "$POOL" "${ACCEL[@]}" "$@"
	cp "$TMP/err" "$LOG"
	[ "$STATUS" = "$status" ]
}

builder_there() {
	local pid
	for pid in $(children_of "$DAEMON"); do
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = vmpool-build ] && BUILDER=$pid && return
	done
	return 1
}

# who FILE: what one VM says of itself, after what the test adds.
who() {
	vmpool 60 exec -- sh -c "$2; $WHO"
	cp "$TMP/out" "$1"
}
differ() { [ "$(tail -n 3 "$1" | wc -l)" = 3 ] && [ -z "$(comm -12 <(tail -n 3 "$1" | sort) <(tail -n 3 "$2" | sort))" ]; }
clock_is_right() {
	vmpool 60 exec -- date +%s
	local off=$(($(cat "$TMP/out") - $(date +%s)))
	[ $off -ge $((-3 * SLOW)) ] && [ $off -le 3 ]
}
used_vms_came_back() {
	if grep -q 'accelerator tcg' "$LOG"; then
		stat_is discard_count 3 && stat_is reset_count 0
	else
		stat_is reset_count 3 && stat_is discard_count 0
	fi
}

[ -e "$ROOT/build/guest/current/initramfs" ] || [ -n "${VMPOOL_GUEST:-}" ] ||
	skip_all "the guest image is not built (make guest)"
ACCEL=(--accel "${VMPOOL_E2E_ACCEL:-auto}")

check "a warm-up command that fails ends vmpoold" daemon 1 --warmup 'echo cannot find it >&2; exit 3'
check "and is named, with its last words" log_has 'warm-up command exited with status 3: cannot find it'
# shellcheck disable=SC2016
check "one that a signal ends, too" daemon 1 --warmup 'kill -9 $$'
check "and is named" log_has 'warm-up command was ended by signal 9'
check "no process is left" no_processes
check "no file is left" no_files

# The warm-up takes a while, so that the builder can be met.
env "$MARK" "$BIN/vmpoold" --name "$POOL" --max-total 2 "${ACCEL[@]}" --warmup 'sleep 2; echo kept >/tmp/warm' \
	</dev/null >"$LOG" 2>&1 &
DAEMON=$!
check "a builder is at work" until_true 30 builder_there
check "it is killed" kill -9 "$BUILDER"
check "another one makes the template" until_true 60 stat_is idle_count 1
check "and the log says why" log_has 'template: VM failed to start: the process that makes the template ended (signal 9)'

who "$TMP/one" 'cat /tmp/warm; echo mine >/tmp/warm; touch /tmp/left'
who "$TMP/two" 'cat /tmp/warm; ls /tmp'
check "what the warm-up left is in the first VM" test "$(head -n 1 "$TMP/one")" = kept
check "and in the second" test "$(head -n 1 "$TMP/two")" = kept
check "what a lease left is not" test "$(sed -n 2p "$TMP/two")" = warm
check "boot id, machine id and random bytes are each VM's own" differ "$TMP/one" "$TMP/two"
check "the clock is right" clock_is_right
check "used VMs are reset, or replaced" until_true 30 used_vms_came_back
kill "$DAEMON"
wait "$DAEMON"
result "$?" "vmpoold ends"
check "no process of the pool is left" until_true 10 no_processes
check "no file of the pool is left" no_files
done_testing
