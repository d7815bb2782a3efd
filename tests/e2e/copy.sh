#!/bin/bash
# SPDX-License-Identifier: MIT
#
# copy.sh - end-to-end test of snapshots and forks: what a lease has made of its VM, its
# files, its processes and its memory, is in every VM of a pool that is started from the
# snapshot, and in a fork; each of them is a machine of its own. Files that are not what
# they should be are refused by name and reason.
#
# Usage: tests/e2e/copy.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

SNAP=$TMP/warm.snap
VM="$BIN/vmpool -p $POOL"
# shellcheck disable=SC2016
WHO='cat /proc/sys/kernel/random/boot_id /etc/machine-id; head -c 32 /dev/urandom | od -An -tx1 | tr -d " \n"; echo'

# with SECS SCRIPT: with one VM, run a script on this host in which $VM is vmpool.
with() { run "$1" "$BIN/vmpool" -p "$POOL" with --wait $((180 * SLOW)) -- bash -c "VM='$VM'; $2"; }
out_has() { grep -q -- "$1" "$TMP/out"; }
err_has() { grep -q -- "$1" "$TMP/err"; }
# lines_differ N: the first N lines of the output are all different.
lines_differ() { [ "$(head -n "$1" "$TMP/out" | sort -u | wc -l)" = "$1" ]; }

# refused WORDS ARG...: vmpoold does not start, and says so.
refused() {
	local words=$1
	shift
	run 60 env "$MARK" "$BIN/vmpoold" --name "$POOL" "${ACCEL[@]}" "$@"
	[ "$STATUS" -ne 0 ] && err_has "$words"
}

# altered OFFSET: a copy of the snapshot with one byte changed there.
altered() {
	local byte
	cp "$SNAP" "$TMP/bad.snap"
	byte=$(od -An -tu1 -j "$1" -N 1 "$SNAP")
	# shellcheck disable=SC2059
	printf "\\x$(printf %x $((byte ^ 85)))" |
		dd of="$TMP/bad.snap" bs=1 seek="$1" conv=notrunc status=none
}

[ -e "$ROOT/build/guest/current/initramfs" ] || [ -n "${VMPOOL_GUEST:-}" ] ||
	skip_all "the guest image is not built (make guest)"
ACCEL=(--accel "${VMPOOL_E2E_ACCEL:-auto}")

pool_start --max-total 3 --vcpus "${VMPOOL_E2E_VCPUS:-1}"

# --- snapshot -------------------------------------------------------------------------

# shellcheck disable=SC2016
with 120 '
	$VM exec -- sh -c "echo mine >/root/file; mkdir /srv; mount -t tmpfs none /srv; echo mounted >/srv/file
		setsid sh -c \"while :; do date +%s >/root/beat; sleep 1; done\" </dev/null >/dev/null 2>&1 &" &&
	$VM snapshot '"$SNAP"' && $VM exec -- cat /root/file /srv/file'
result "$STATUS" "a snapshot is taken of a VM in use"
check "the VM goes on" test "$(cat "$TMP/out")" = "mine
mounted"
check "the file is its owner's alone" test "$(stat -c %a "$SNAP")" = 600
check "it is sparse" test "$(($(stat -c %b "$SNAP") * 512))" -lt "$(stat -c %s "$SNAP")"
check "nothing else is left in the folder" test "$(find "$TMP" -name '*.snap*' | wc -l)" = 1
cp "$SNAP" "$TMP/first.snap"

with 60 "\$VM snapshot /nonexistent/x.snap"
check "a folder that does not exist is named" err_has '/nonexistent/x.snap: No such file'
# shellcheck disable=SC2016
with 60 '$VM exec -- sleep 1000 & until $VM exec -- pidof sleep >/dev/null; do :; done; $VM snapshot '"$SNAP"'; s=$?; kill $!; exit $s'
check "not while a command runs" test "$STATUS" -eq 1
check "and the reason is said" err_has 'commands run in the VM'
check "the old file is still there" cmp "$SNAP" "$TMP/first.snap"
run 60 "$BIN/vmpool" -p "$POOL" snapshot "$SNAP"
check "a snapshot needs a lease, and its remedy is named" err_has 'vmpool with'

# --- fork ------------------------------------------------------------------------------

# shellcheck disable=SC2016
with 120 '
	export WHO='"'$WHO'"'
	$VM exec -- sh -c "echo one >/root/file; $WHO"
	$VM fork -- bash -c "$VM exec -- sh -c '\''cat /root/file; echo two >/root/file; '\''\"\$WHO\"; exit 7"
	echo "status $?"
	$VM exec -- cat /root/file'
check "a fork has what the VM had" out_has '^one$'
check "its end is the program's" out_has '^status 7$'
check "what it writes is its own" test "$(grep -c '^two$' "$TMP/out")" = 0
check "and it is a machine of its own" test "$(grep -Ex '[0-9a-f-]{32,64}' "$TMP/out" | sort -u | wc -l)" = 6
check "forks are ended, not recycled" until_true 30 pool_is_whole "$(stat_of idle_count)"
# shellcheck disable=SC2016
with 120 '$VM fork -- $VM fork -- $VM fork -- true'
check "no more forks than max-total allows" test "$STATUS" = 125
check "and the reason is said" err_has 'max-total'
pool_stop

# --- a pool from the snapshot -----------------------------------------------------------

env "$MARK" "$BIN/vmpoold" --name "$POOL" "${ACCEL[@]}" --snapshot "$SNAP" --min-idle 2 --max-total 4 \
	</dev/null >"$TMP/daemon.log" 2>&1 &
DAEMON=$!
check "a pool starts from it" until_true 60 stat_is idle_count 2
check "it was verified, with the time and the rate" \
	grep -Eq 'snapshot verified: [0-9]+ MiB .* in [0-9.]+ s, [0-9]+ MB/s' "$TMP/daemon.log"
for i in 1 2 3; do
	# The beat goes on: a process that ran when the snapshot was taken runs in each VM.
	vmpool 60 exec -- sh -c "cat /root/file /srv/file; rm /root/beat; until [ -e /root/beat ]; do sleep 0.1; done
		test \$((\$(date +%s) - \$(cat /root/beat))) -le 3 && echo beats; echo other >/root/file; $WHO"
	check "VM $i has its files and mounts" test "$(head -n 3 "$TMP/out" | xargs)" = "mine mounted beats"
	tail -n 3 "$TMP/out" >>"$TMP/who"
done
check "each VM is a machine of its own" test "$(sort -u "$TMP/who" | wc -l)" = 9
vmpool 60 exec -- date +%s
NOW=$(date +%s)
check "the clock is right" test "$((NOW - $(cat "$TMP/out")))" -le $((2 * SLOW))
with 120 "\$VM exec -- sh -c 'cat /root/file; echo again >/root/file' && \$VM snapshot $TMP/second.snap"
check "a snapshot of a VM from a snapshot" test "$(cat "$TMP/out")" = mine
kill "$DAEMON"
wait "$DAEMON"
result "$?" "vmpoold ends"
pool_start --snapshot "$TMP/second.snap"
vmpool 60 exec -- cat /root/file
check "is as good" test "$(cat "$TMP/out")" = again
pool_stop

# --- refusals ------------------------------------------------------------------------------

head -c 100000 /dev/urandom >"$TMP/bad.snap" && chmod 600 "$TMP/bad.snap"
check "a file that is no snapshot is refused" refused 'bad.snap: not a snapshot' --snapshot "$TMP/bad.snap"
check "a missing one" refused 'nowhere.snap: No such file' --snapshot "$TMP/nowhere.snap"
head -c 60000000 "$SNAP" >"$TMP/bad.snap"
check "a truncated one" refused 'bad.snap: truncated' --snapshot "$TMP/bad.snap"
altered 100
check "an altered header" refused 'bad.snap: altered: the header' --snapshot "$TMP/bad.snap"
altered $((20 << 20))
check "altered memory" refused 'bad.snap: altered: the checksum of the memory' --snapshot "$TMP/bad.snap"
altered $(($(stat -c %s "$SNAP") - 10))
check "altered state" refused 'bad.snap: altered: the checksum of the machine state' --snapshot "$TMP/bad.snap"
check "another memory size" refused 'made with another memory size: 128 MiB' --snapshot "$SNAP" --memory 256
check "another number of vCPUs" refused 'made with another number of vCPUs' --snapshot "$SNAP" --vcpus 4
cp "$0" "$TMP/kernel"
check "another kernel" refused 'made with another kernel' --snapshot "$SNAP" --kernel "$TMP/kernel"
check "another image" refused 'made with another image' --snapshot "$SNAP" --image "$TMP/kernel"
chmod 666 "$SNAP"
check "one that others can write" refused 'others may write it' --snapshot "$SNAP"
chmod 600 "$SNAP"
check "a warm-up beside it" refused 'exclude each other' --snapshot "$SNAP" --warmup true
check "no process of the pool is left" until_true 10 no_processes
check "no file of the pool is left" no_files
done_testing
