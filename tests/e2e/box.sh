#!/bin/bash
# SPDX-License-Identifier: MIT
#
# box.sh - end-to-end test of scripts/kvm-box: output, status and files come
# through exactly, and every way in which the box itself fails is loud.
#
# Usage: tests/e2e/box.sh     (prints TAP; about six boots of the box)

set -uo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
BOX=$ROOT/scripts/kvm-box
N=0

# check NAME: the verdict on the command before it.
check() {
	local status=$?
	N=$((N + 1))
	if [ $status = 0 ]; then echo "ok $N - $1"; else echo "not ok $N - $1"; fi
}

is() { [ "$1" = "$2" ] || { printf '# got %q, expected %q\n' "$1" "$2" && return 1; }; }

if ! command -v qemu-system-x86_64 >/dev/null; then
	echo "1..0 # SKIP qemu-system-x86_64 is not installed (scripts/setup)"
	exit 0
fi

TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
cd "$TMP" || exit 1
mkdir run
export TMPDIR=$TMP/run # where the box keeps its files while it starts

# -- one box for all that goes well
head -c 300000 /dev/urandom >data
cat >script <<'END'
grep -q svm /proc/cpuinfo && [ -c /dev/kvm ] && [ -d /sys/module/kvm_amd ] && echo kvm >kvm
for a; do printf '<%s>' "$a"; done >args
printf '%s' "$X" >x
(trap '' TERM; exec setsid sleep 1000) & # keeps stdout open
cat data
cat data >&2
exit 7
END
ODD=("" $'two\nlines' "it's \"quoted\" \$HOME *" $'\xff\xfe' "$(head -c 100000 /dev/zero | tr '\0' x)")
began=$SECONDS
"$BOX" --file script --file data --file /usr/bin/env -e X=$'y\n' --out kvm --out args:args.out --out x \
	-- /usr/bin/env sh script "${ODD[@]}" >out 2>err
is "$?" 7; check "exit status comes through; a host program runs with its libraries"
is "$(cat kvm)" kvm; check "a real /dev/kvm, on SVM"
cmp data out; check "stdout comes through byte for byte"
cmp data err; check "stderr comes through byte for byte, apart from stdout"
printf '<%s>' "${ODD[@]}" | cmp - args.out; check "arguments arrive byte for byte; a file comes out under another name"
printf 'y\n' | cmp - x; check "a variable arrives byte for byte"
[ $((SECONDS - began)) -lt 120 ]; check "what the command left running does not keep the box"

# -- output comes while the command runs
exec 3< <("$BOX" -- sh -c 'echo a; sleep 3; echo b')
read -r -u 3 line
first=$SECONDS
is "$line" a && read -r -u 3 line && is "$line" b && [ $((SECONDS - first)) -ge 2 ]
check "output is live"
exec 3<&-

# -- statuses of commands that fail
"$BOX" -- sh -c 'no-such-program; [ $? = 127 ] || exit 1; /etc/passwd; [ $? = 126 ] || exit 2; kill -9 $$' 2>err
is "$?" 137; check "a signal is 128 + its number"
"$BOX" -- no-such-program 2>err
is "$?" 127 && grep -q no-such-program err; check "a missing program is 127"

# -- the box itself fails
"$BOX" -- sh -c 'echo c >/proc/sysrq-trigger; sleep 100' 2>err
is "$?" 200 && grep -q 'died: Kernel panic' err; check "a panic is status 200, and named"
began=$SECONDS
"$BOX" --timeout 2 -- sh -c 'sleep 1000' 2>err
is "$?" 200 && grep -q 'ended after 2 s' err && [ $((SECONDS - began)) -lt 20 ]
check "a time-out is status 200, in time"
mkdir bin
for tool in bash dirname basename mktemp awk rm; do ln -s "$(command -v $tool)" bin/; done
PATH=$TMP/bin "$BOX" -- true 2>err
is "$?" 200 && grep -q 'qemu-system-x86_64 is not installed' err; check "no QEMU is status 200, and named"
"$BOX" --file no-such-file -- true 2>err
is "$?" 200 && grep -q no-such-file err; check "a missing file is status 200, and named"
"$BOX" --out no-such-file -- true 2>err
is "$?" 200 && grep -q no-such-file err; check "a file that cannot be copied out is status 200, and named"

# -- nothing stays behind, even when the script is killed
mkfifo alive
"$BOX" -- sh -c 'echo up; sleep 1000' >alive 9>&1 2>err &
pid=$!
# QEMU and its timer inherit descriptor 9: the pipe ends with the last of them.
exec 4<alive
read -r -t 120 -u 4 line
kill -9 $pid
wait $pid 2>/dev/null
read -r -t 30 -u 4 _
is "$?" 1 && is "$line" up; check "QEMU dies with its script"
exec 4<&-
is "$(ls -A run)" ""; check "no file stays behind"

echo "1..$N"
