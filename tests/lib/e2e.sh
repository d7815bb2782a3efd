# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# e2e.sh - what the end-to-end tests share: TAP, a pool in a runtime directory of
# its own, deadlines, and the proof that nothing is left behind. Sourced by
# tests/e2e/*.sh, not run.
#
# $VMPOOL_BIN: the programs (default: build/bin of this checkout).
# $VMPOOL_E2E_ACCEL: kvm or tcg instead of the best one here.
# $VMPOOL_E2E_SLOW: multiplies every deadline (default 1).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BIN=${VMPOOL_BIN:-$ROOT/build/bin}
SLOW=${VMPOOL_E2E_SLOW:-1}
POOL=e2e
N=0
export LC_ALL=C

TMP=$(mktemp -d "${TMPDIR:-/tmp}/vmpool-e2e.XXXXXX")
# Every process of this test's pools has this in its environment.
MARK=VMPOOL_E2E_MARK=$TMP
export VMPOOL_RUNDIR=$TMP/run
mkdir "$VMPOOL_RUNDIR"

# --- TAP ---------------------------------------------------------------------

# result STATUS NAME: one test. Failures show what the last `run` left.
result() {
	N=$((N + 1))
	if [ "$1" -eq 0 ]; then
		printf 'ok %d - %s\n' "$N" "$2"
		return 0
	fi
	printf 'not ok %d - %s\n' "$N" "$2"
	[ ! -e "$TMP/status" ] || printf '# status %s\n' "$(cat "$TMP/status")"
	for f in out err; do
		[ ! -s "$TMP/$f" ] || head -c 2000 "$TMP/$f" | tr -c '\n -~' '?' | sed "s/^/# $f: /"
	done
	return 1
}

# check NAME COMMAND...: the test passes if the command succeeds.
check() {
	local name=$1
	shift
	"$@" >/dev/null 2>&1
	result $? "$name"
}

skip() {
	N=$((N + 1))
	printf 'ok %d - %s # SKIP %s\n' "$N" "$1" "$2"
}

skip_all() {
	printf 'ok 1 - %s # SKIP %s\n1..1\n' "$(basename "$0" .sh)" "$1"
	exit 0
}

done_testing() { printf '1..%d\n' "$N"; }

# --- running -------------------------------------------------------------------

# run SECS COMMAND...: with a deadline; leaves status, out and err in $TMP, and
# the milliseconds it took in MS.
run() {
	local secs=$(($1 * SLOW)) start
	shift
	start=$(date +%s%N)
	timeout --kill-after=5 "$secs" "$@" >"$TMP/out" 2>"$TMP/err"
	STATUS=$?
	MS=$((($(date +%s%N) - start) / 1000000))
	printf '%d after %d ms: %s\n' "$STATUS" "$MS" "${*@Q}" | head -c 300 >"$TMP/status"
}

# vmpool SECS ARGS...: like run. A busy machine boots slowly: exec waits longer
# than its default for a VM, unless the arguments say otherwise.
vmpool() {
	local secs=$1
	shift
	case ${1:-} in
	exec | ping | with) set -- "$1" --wait $((180 * SLOW)) "${@:2}" && secs=$((secs + 180)) ;;
	esac
	run "$secs" "$BIN/vmpool" -p "$POOL" "$@"
}

# run_client SECS NAME [ARG]...: a client of the library on this pool, whose tests are ours.
run_client() {
	local line
	run "$1" "${BIN%/bin}/e2e/$2" "$POOL" "${@:3}"
	cp "$TMP/out" "$TMP/calls"
	while read -r line; do
		case $line in
		ok*) result 0 "${line#ok * - }" ;;
		'not ok'*) result 1 "${line#not ok * - }" ;;
		esac
	done <"$TMP/calls"
	[ "$STATUS" -eq 0 ] && [ "$(tail -n 1 "$TMP/calls")" = "1..$(grep -c '^ok' "$TMP/calls")" ]
	result $? "$2 has done all of it"
}

# until_true SECS COMMAND...: try until it succeeds.
until_true() {
	local end=$((SECONDS + $1 * SLOW))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# --- the pool ---------------------------------------------------------------------

# stat_of NAME: a statistic's value. pids_of STATE: worker processes of VMs in it.
stat_of() { "$BIN/vmpool" -p "$POOL" stats 2>/dev/null | awk -v n="$1" '$1 == n { print $2 }'; }
stat_is() { [ "$(stat_of "$1")" = "$2" ]; }
pids_of() { "$BIN/vmpool" -p "$POOL" list 2>/dev/null | awk -v s="$1" '$2 == s { print $3 }'; }
supervisor_pid() { cat "$VMPOOL_RUNDIR/$POOL.pid"; }
children_of() { cat /proc/"$1"/task/*/children 2>/dev/null; }

# Processes of this test's pools that still run.
pool_processes() {
	local dir
	for dir in /proc/[0-9]*; do
		grep -qzxF "$MARK" "$dir/environ" 2>/dev/null && [ "${dir#/proc/}" != "$$" ] &&
			! grep -q '^State:[[:space:]]*Z' "$dir/status" 2>/dev/null && printf '%s\n' "${dir#/proc/}"
	done
}
no_processes() { [ -z "$(pool_processes)" ]; }
no_files() { [ -z "$(ls -A "$VMPOOL_RUNDIR")" ]; }

# pool_start OPTION...: a pool that serves clients, or the end of the test.
pool_start() {
	[ -e "$ROOT/build/guest/current/initramfs" ] || [ -n "${VMPOOL_GUEST:-}" ] ||
		skip_all "the guest image is not built (make guest)"
	[ -z "${VMPOOL_E2E_ACCEL:-}" ] || set -- --accel "$VMPOOL_E2E_ACCEL" "$@"
	run 300 env "$MARK" "$BIN/vmpool" -p "$POOL" start "$@"
	[ "$STATUS" -eq 0 ] && return
	result 1 "the pool starts"
	done_testing
	exit 1
}

pool_is_whole() { # IDLE: so many VMs are idle, and none is in use
	stat_is idle_count "$1" && stat_is in_use_count 0
}

pool_stop() {
	vmpool 60 stop --wait 5
	result "$STATUS" "the pool stops"
	check "no process of the pool is left" until_true 10 no_processes
	check "no file of the pool is left" no_files
}

# Whatever happens, nothing of this test stays.
e2e_end() {
	local pid
	for pid in $(pool_processes); do kill -KILL "$pid" 2>/dev/null; done
	rm -rf "$TMP"
}
trap e2e_end EXIT
trap 'exit 1' INT TERM HUP
