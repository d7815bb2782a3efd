#!/bin/bash
# SPDX-License-Identifier: MIT
#
# files-cli.sh - end-to-end test of vmpool put, get, cat, ls, stat, exists, rm, mv and mkdir
# on the VM of a lease: what one command leaves there the next one finds, byte for byte.
#
# Usage: tests/e2e/files-cli.sh     (prints TAP)

set -uo pipefail
# shellcheck source=tests/lib/e2e.sh
. "$(dirname "$0")/../lib/e2e.sh"

# with SCRIPT: with one VM, run a script on this host in which vmpool is the pool's.
with() { run 120 "$BIN/vmpool" -p "$POOL" with --wait $((180 * SLOW)) -- bash -c "PATH=$BIN:\$PATH; cd $TMP; $1"; }
out_is() { [ "$STATUS" = 0 ] && [ "$(cat "$TMP/out")" = "$1" ]; }

pool_start --max-total 2
head -c 3000000 /dev/urandom >"$TMP/bytes"
printf 'a\0b\nc' >"$TMP/small"
mkdir -p "$TMP/tree/sub"
cp "$TMP/small" "$TMP/tree/sub/small"
printf x >"$TMP/tree/one"
ln -s sub/small "$TMP/tree/link"

with 'vmpool put -p bytes /srv/deep/bytes && vmpool exec -- md5sum /srv/deep/bytes && vmpool get /srv/deep/bytes back && cmp bytes back && echo same'
check "a file goes in, is there, and comes back" out_is "$(md5sum <"$TMP/bytes" | cut -d' ' -f1)  /srv/deep/bytes
same"
with 'vmpool put small /x && vmpool mv /x /y && ! vmpool exists /x && vmpool exists /y && vmpool cat /y | cmp - small && echo moved'
check "moved, looked for, printed" out_is moved
with 'vmpool put - /in <small && vmpool get /in - | cmp - small && vmpool mkdir /d && vmpool put small /d/ && vmpool ls /d && vmpool rm -r /d && ! vmpool exists /d && echo gone'
check "standard input and output, folders" out_is 'small
gone'
with 'vmpool put -r tree /tree && vmpool exec -- readlink /tree/link && vmpool get -r /tree back.tree && diff -r --no-dereference tree back.tree && echo equal'
check "a tree" out_is 'sub/small
equal'
with 'vmpool cat /nowhere'
check "what is not there is named" grep -q 'nowhere.*No such file' "$TMP/err"
with 'vmpool put small /z && vmpool stat /z | grep -q 5 && vmpool exec -- chmod 640 /z && vmpool get /z z && stat -c "%a %s" z'
check "mode and size" out_is '640 5'

# Both are for what goes through vmpool-tree as well.
for tree in '' -r; do
	with "vmpool -p other put $tree tree$([ "$tree" ] || printf /one) /other"
	check "put${tree:+ $tree}: -p cannot contradict the lease" grep -q 'names pool "other"' "$TMP/err"
	run 200 env VMPOOL_LEASE= "$BIN/vmpool" -p "$POOL" put $tree --wait $((180 * SLOW)) "$TMP/tree$([ "$tree" ] || printf /one)" /alone
	check "put${tree:+ $tree}: an empty VMPOOL_LEASE is none" [ "$STATUS" = 0 ]
done
with 'vmpool -p other get -r /etc other'
check "get -r: -p cannot contradict the lease" grep -q 'names pool "other"' "$TMP/err"

# The writer is a joined client: the worker ends its stream, the agent what it has written.
# The feeder opens the pipe for both, so that it ends when it is told to.
with 'mkfifo pipe; exec 3<>pipe; vmpool mkdir /k; vmpool put pipe /k/x & put=$!; head -c 500000 /dev/zero >&3
for _ in {1..200}; do vmpool exec -- ls -A /k | grep -q vmpool- && echo there && break; done
kill -KILL $put; wait $put
for _ in {1..200}; do [ -n "$(vmpool exec -- ls -A /k)" ] || { echo gone; break; }; done'
check "a killed put leaves no half file" out_is 'there
gone'
pool_stop
done_testing
