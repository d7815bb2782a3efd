#!/bin/bash
# SPDX-License-Identifier: MIT
#
# files.sh - end-to-end test of files in a VM: a client that moves 64 MiB in and
# out of one lease, with the times it took; and the commands of vmpool, each on a
# VM of its own. (What they do to files in detail: tests/unit/test_cli_file.c.)
#
# Usage: tests/e2e/files.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

is() { [ "$STATUS" -eq "$1" ]; }
err_has() { grep -q -- "$1" "$TMP/err"; }

# files SECS COMMAND...: like vmpool, for the commands on files.
files() { run $(($1 + 180)) "$BIN/vmpool" -p "$POOL" "$2" --wait $((180 * SLOW)) "${@:3}"; }

pool_start --memory 256 --min-idle 2 --max-idle 2 --max-total 2

run_client 300 filecalls 64

head -c 3000000 /dev/urandom >"$TMP/big"
files 30 put "$TMP/big" /tmp/
is 0
result $? "put takes a file"
files 30 put - /srv/x <"$TMP/big"
is 1 && err_has 'ENOENT'
result $? "put says what is missing"
files 30 put -p - /srv/x <"$TMP/big"
is 0
result $? "put makes what is missing, if asked"
files 30 get /bin/busybox "$TMP/busybox"
is 0 && cmp -s "$TMP/busybox" "$(command -v busybox)" && [ -x "$TMP/busybox" ]
result $? "get brings the image's busybox, byte for byte"
files 30 get --root /etc ../bin/busybox "$TMP/out-of-root"
is 1 && err_has 'leads out of the root' && [ ! -e "$TMP/out-of-root" ]
result $? "get cannot leave its root"
files 30 cat /etc/passwd
is 0 && grep -q '^root:' "$TMP/out"
result $? "cat"
files 30 ls -l /
is 0 && grep -q ' init$' "$TMP/out"
result $? "ls"
files 30 stat --json /init
is 0 && grep -q '"type": "file"' "$TMP/out"
result $? "stat"
files 30 exists /init
is 0
result $? "exists: yes"
files 30 exists /init/x
is 1
result $? "exists: no"
files 30 rm -r /var /nope
is 1 && [ "$(cat "$TMP/err")" = 'vmpool: "/nope": No such file or directory (ENOENT)' ]
result $? "rm"
files 30 mkdir -p /a/b
is 0
result $? "mkdir"
files 30 mv -n /etc/hosts /etc/passwd
is 1 && err_has EEXIST
result $? "mv"

mkdir -p "$TMP/tree/sub/empty"
printf x >"$TMP/tree/sub/$(printf 'new\nline')"
ln -s sub "$TMP/tree/link"
head -c 1000000 /dev/urandom >"$TMP/tree/big"
files 60 put -r -p "$TMP/tree" /srv/tree
is 0
result $? "put -r"
files 60 put -r "$TMP/tree" /etc
is 1 && err_has 'not empty'
result $? "put -r into what is there"
truncate -s 400M "$TMP/tree/huge"
files 60 put -r "$TMP/tree" /tmp/tree
is 0
result $? "put -r keeps holes"
head -c 200000000 /dev/zero | tr '\0' x >"$TMP/tree/huge"
files 60 put -r "$TMP/tree" /tmp/tree
is 1 && [ "$(wc -l <"$TMP/err")" -eq 1 ] && err_has '/huge": No space left on device (ENOSPC)'
result $? "put -r of more than fits"
files 60 get -r /etc "$TMP/etc"
is 0 && grep -q '^root:' "$TMP/etc/passwd" && [ -s "$TMP/etc/vmpool/modules.later" ]
result $? "get -r"
files 60 get -r /dev "$TMP/dev"
is 1 && err_has 'refused: the VM sent' && [ ! -e "$TMP/dev" ]
result $? "get -r takes no devices"

# A bar for what takes more than a second, on a terminal. The bytes come slowly.
slowly() { for _ in 1 2 3 4; do head -c 500000 /dev/zero && sleep 0.5; done; }
if command -v script >/dev/null; then
	mkfifo "$TMP/slow"
	slowly >"$TMP/slow" &
	run 240 script -qec "$BIN/vmpool -p $POOL put --wait 180 $TMP/slow /tmp/x" /dev/null
	is 0 && tr '\r' '\n' <"$TMP/out" | grep -q '^/tmp/x: 1\.9 MiB, .*/s'
	result $? "a long transfer shows its progress on a terminal"
	run 240 script -qec "$BIN/vmpool -p $POOL get --wait 180 /init - |
		{ for i in 1 2 3; do head -c 200000 && sleep 0.5; done; cat; } | cmp - $ROOT/build/guest/agent" /dev/null
	is 0 && tr '\r' '\n' <"$TMP/out" | grep -q '^/init: \[=*>* *\] *[0-9]*% [0-9]* KiB, .*/s'
	result $? "and how much there is to come, where that is known"
	run 240 script -qec "$BIN/vmpool -p $POOL get --wait 180 /init $TMP/init" /dev/null
	is 0 && [ ! -s "$TMP/out" ] && [ -s "$TMP/init" ]
	result $? "a short one does not"
else
	skip "progress on a terminal" "script is not installed"
fi

check "the pool is whole again" until_true 120 pool_is_whole 2
pool_stop
done_testing
