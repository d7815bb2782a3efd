#!/bin/bash
# SPDX-License-Identifier: MIT
#
# bad-input.sh - end-to-end test of what users get wrong: each mistake is one
# clear line and the right exit status, and leaves nothing behind.
#
# Usage: tests/e2e/bad-input.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

GUEST=${VMPOOL_GUEST:-$ROOT/build/guest/current}
VMPOOLD=(env "$MARK" "$BIN/vmpoold" --foreground --name "$POOL")

# mistake NAME STATUS PATTERN COMMAND...: fails with that status and one line on
# stderr that matches; nothing is left.
mistake() {
	local name=$1 status=$2 pattern=$3
	shift 3
	run 60 "$@"
	[ "$STATUS" -eq "$status" ] && [ "$(wc -l <"$TMP/err")" -eq 1 ] &&
		grep -qE -- "$pattern" "$TMP/err" && until_true 5 no_processes && no_files
	result $? "$name"
}

# start_fails NAME PATTERN COMMAND...: like it, but the line is the last one: what
# a machine said before its end may stand above it.
START=(env "$MARK" "$BIN/vmpool" -p "$POOL" start)
start_fails() {
	local name=$1 pattern=$2
	shift 2
	run 90 "$@"
	[ "$STATUS" -eq 1 ] && tail -n 1 "$TMP/err" | grep -qE -- "$pattern" && until_true 5 no_processes && no_files
	result $? "$name"
}

mistake "vmpool: unknown option" 2 '^vmpool: .*--bogus' "$BIN/vmpool" --bogus
mistake "vmpool: unknown command" 2 '^vmpool: .*bogus' "$BIN/vmpool" bogus
mistake "vmpool: no command" 2 '^vmpool: no command' "$BIN/vmpool"
mistake "vmpool exec: unknown option" 125 '^vmpool: exec: .*--bogus' "$BIN/vmpool" exec --bogus -- true
mistake "vmpool exec: nothing to run" 125 '^vmpool: exec: no command' "$BIN/vmpool" exec --
mistake "vmpool exec: a time-out that is none" 125 'soon.*seconds' "$BIN/vmpool" exec -t soon -- true
mistake "vmpool exec: a variable without a value" 125 'NOVALUE.* is not NAME=VALUE' "$BIN/vmpool" exec -e NOVALUE -- true
mistake "vmpool exec: a umask that is none" 125 '"089" is not an octal umask' "$BIN/vmpool" exec --umask 089 -- true
mistake "vmpool exec: a signal that is none" 125 '"BOOM" is not a signal' "$BIN/vmpool" exec -t 1 --timeout-signal BOOM -- true
mistake "vmpool exec: a signal that is never due" 125 'needs -t' "$BIN/vmpool" exec --timeout-signal TERM -- true
mistake "vmpool exec: a limit that is none" 125 '"some" is not a number' "$BIN/vmpool" exec --memory some -- true
mistake "vmpool with: a variable without a value" 125 'NOVALUE.* is not NAME=VALUE' "$BIN/vmpool" with -e NOVALUE -- true
mistake "vmpool stat-vm: no lease" 1 'inside vmpool with' "$BIN/vmpool" stat-vm
mistake "vmpool shell: an argument" 125 'unexpected argument "ls"' "$BIN/vmpool" shell ls
mistake "vmpool exec: no pool" 125 'no pool "e2e" is running .*vmpool -p e2e start' "$BIN/vmpool" -p "$POOL" exec -- true
mistake "vmpool warm: not a number" 2 'number of VMs' "$BIN/vmpool" warm many
mistake "vmpool: a name that is none" 1 'name' "$BIN/vmpool" -p ../etc list
mistake "vmpoolstat: unknown option" 2 '^vmpoolstat: .*--bogus' "$BIN/vmpoolstat" --bogus
mistake "vmpoolstat: an interval that is none" 2 'interval' "$BIN/vmpoolstat" -- -1
mistake "vmpoolstat: no pool" 1 'no pool "e2e"' "$BIN/vmpoolstat" -p "$POOL"
mistake "vmpool stop: no pool" 1 'no pool "e2e"' "$BIN/vmpool" -p "$POOL" stop
mistake "vmpoold: unknown option" 2 '^vmpoold: .*--bogus' "${VMPOOLD[@]}" --bogus
mistake "vmpoold: min-idle over max-idle" 2 'min-idle' "${VMPOOLD[@]}" --min-idle 3 --max-idle 2
mistake "vmpoold: no such config file" 2 '/no/such' "${VMPOOLD[@]}" --config /no/such
mistake "vmpoold: too little memory" 2 'memory' "${VMPOOLD[@]}" --memory 1
mistake "vmpoold: no such kernel" 1 '/no/such' "${VMPOOLD[@]}" --kernel /no/such
mistake "vmpoold: no such image" 1 '/no/such' "${VMPOOLD[@]}" --image /no/such

long=$TMP/$(printf '%0120d' 0)
mkdir "$long"
mistake "vmpoold: runtime directory too long" 1 'too long|longer than' env VMPOOL_RUNDIR="$long" "${VMPOOLD[@]}"
mistake "vmpool: runtime directory too long" 1 'too long|longer than' env VMPOOL_RUNDIR="$long" "$BIN/vmpool" list

if [ ! -e "$GUEST/initramfs" ]; then
	skip "machines that do not start" "the guest image is not built (make guest)"
	done_testing
	exit 0
fi

head -c 200000 "$GUEST/bzImage" >"$TMP/truncated"
start_fails "vmpoold: a truncated kernel" 'kernel|bzImage|truncated' "${START[@]}" --kernel "$TMP/truncated"
start_fails "vmpoold: a text file as kernel" 'kernel' "${START[@]}" --kernel /etc/passwd
start_fails "vmpoold: an image that is no cpio" 'image|initr|cpio' "${START[@]}" --image /etc/passwd
start_fails "vmpoold: memory too small to boot" 'memory' "${START[@]}" --memory 32

# As somebody who may not open /dev/kvm.
chmod 755 "$TMP"
if [ "$(id -u)" = 0 ] && [ -e /dev/kvm ] && command -v setpriv >/dev/null &&
	chown nobody "$VMPOOL_RUNDIR" && ! setpriv --reuid=nobody --clear-groups test -w /dev/kvm &&
	setpriv --reuid=nobody --clear-groups test -x "$BIN/vmpoold"; then
	start_fails "vmpoold: no permission on /dev/kvm" '/dev/kvm' \
		setpriv --reuid=nobody --clear-groups "${START[@]}" --accel kvm
	chown root "$VMPOOL_RUNDIR"
else
	skip "vmpoold: no permission on /dev/kvm" "needs root, a protected /dev/kvm and a readable build"
fi
mkdir "$TMP/empty"
start_fails "vmpoold: no QEMU installed" '(qemu|QEMU).*install' env PATH="$TMP/empty" "$MARK" \
	"$BIN/vmpool" -p "$POOL" start --accel tcg

pool_start --min-idle 1 --max-total 1
run 60 "${VMPOOLD[@]}"
[ "$STATUS" -eq 1 ] && tail -n 1 "$TMP/err" | grep -q "$POOL.*\(running\|pid\)"
result $? "vmpoold: a second supervisor of the same name"
vmpool 60 start
[ "$STATUS" -eq 0 ] && grep -q "already running" "$TMP/out"
result $? "vmpool start: the pool is running already"
vmpool 20 exec -- echo fine
[ "$STATUS" -eq 0 ]
result $? "... and is none the worse for it"
pool_stop
done_testing
