#!/bin/bash
# SPDX-License-Identifier: MIT
#
# files-cli.sh - end-to-end test of vmpool put, get, cat, ls, stat, exists, rm, mv, mkdir,
# chmod, symlink and readlink on the VM of a lease: what one command leaves there the next one finds, byte for byte.
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
ln "$TMP/tree/one" "$TMP/tree/two"
mkdir -m 700 "$TMP/tree/empty"
touch -hd '2001-02-03 04:05:06.123456789' "$TMP/tree/"{sub,one,link,empty}

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
export print="find . -printf '%p %y %m %n %T@ %l\n' | sort"
with 'vmpool exec -- mkdir /root2 && vmpool exec -- ln -s /etc /root2/out && vmpool put -rp --root /root2 tree /a/b && ! vmpool put -r --root /root2 tree out/x &&
vmpool get -r --root /root2 a/b rooted && ! vmpool get -r --root /root2 out rooted2 && ! vmpool get -r --root /root2 ../etc rooted2 &&
cmp <(cd tree && eval "$print") <(cd rooted && eval "$print") && ls -d rooted*'
check "a tree beneath a root, to the nanosecond, and not beyond it" out_is rooted
with 'vmpool cat /nowhere'
check "what is not there is named" grep -q 'nowhere.*No such file' "$TMP/err"
with 'vmpool put small /z && vmpool stat /z | grep -q 5 && vmpool exec -- chmod 640 /z && vmpool get /z z && stat -c "%a %s" z'
check "mode and size" out_is '640 5'

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
with 'vmpool put small /s && vmpool chmod 4710 /s && vmpool exec -- stat -c %a /s && vmpool symlink "$(printf "a\nb")" /l && vmpool readlink -0 /l | tr "\0" "|" && vmpool symlink -p x /new/dir/l && vmpool readlink --root /new dir/l'
check "chmod, symlink, readlink" out_is '4710
a
b|x'
with '! vmpool readlink /init && ! vmpool chmod --root /etc 644 ../init && ! vmpool symlink x /init && vmpool chmod 9 /x; echo $?'
[ "$(cat "$TMP/out")" = 2 ] && grep -q '"/init": not a symbolic link (EINVAL)' "$TMP/err" &&
	grep -q 'leads out of the root (EXDEV)' "$TMP/err" && grep -q '(EEXIST)' "$TMP/err"
result $? "... and what they refuse"

# Each kind of error, with its status, in the words of the VM's kernel.
with 'vmpool exec -- sh -c "mkdir -p /e/ro; cd /e; echo >file; ln -s loop loop; mount -t tmpfs -o ro none ro"
while read -r what; do vmpool $what </dev/null; echo "$?"; done <<<"cat /e/none
put - /sys/kernel/x
cat /e
put - /e
cat /e/file/x
ls /e/loop/x
put - /e/ro/x
mkdir /e/file
rm /e
rm -r /e/ro
mv /e/ro /x
stat --root /e ../init
stat --root /e /loop/x
exists /e/loop/x
exists /e/none"'
sed 's/.*(\([A-Z]*\))$/\1/' "$TMP/err" | tr '\n' ' ' >"$TMP/names"
[ "$(tr '\n' ' ' <"$TMP/out")" = "1 1 1 1 1 1 1 1 1 1 1 1 1 2 1 " ] &&
	[ "$(cat "$TMP/names")" = 'ENOENT EACCES EISDIR EISDIR ENOTDIR ELOOP EROFS EEXIST ENOTEMPTY EBUSY EBUSY EXDEV ELOOP ELOOP ' ]
result $? "errors are told apart"

# What names may hold, and JSON all the same.
with 'n=$(printf "new\nline\t\377\"\\\\ ")
vmpool put -p small "/o/$n" && vmpool ls -0 /o | cmp - <(printf "%s\0" "$n") && vmpool cat "/o/$n" | cmp - small &&
vmpool get "/o/$n" . && cmp small "$n" && vmpool stat "/o/$n" | grep -q "size:   5" &&
{ vmpool ls --json /o; vmpool stat --json "/o/$n"; } | iconv -f utf-8 -t utf-8 | tr -d "\n" | grep -o "\"name_hex\": \"[^,]*"'
hex=$(printf 'new\nline\t\377"\\ ' | od -An -v -tx1 | tr -d ' \n')
check "a name of odd bytes, in all forms" out_is "\"name_hex\": \"$hex\"
\"name_hex\": \"${hex/6e65/2f6f2f6e65}\""

# Here it has no name until it is whole; the reader is slow, and then dead.
with 'head -c 30000000 /dev/urandom | vmpool put - /huge; mkdir k; vmpool get /huge k/huge & get=$!
writes() { [ "$(sed -n "s/^wchar: //p" /proc/$get/io)" -gt 1000000 ]; }
until writes || ! kill -0 $get; do :; done 2>/dev/null; kill -KILL $get; wait $get; echo $?; ls -A k; vmpool exec -- echo usable'
check "a killed get leaves no half file here" out_is '137
usable'
pool_stop
done_testing
