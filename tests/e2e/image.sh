#!/bin/bash
# SPDX-License-Identifier: MIT
#
# image.sh - end-to-end test of scripts/guest-kernel and scripts/guest-image:
# same inputs give the same bytes, and only a changed input makes a new image.
#
# Usage: tests/e2e/image.sh     (prints TAP; needs build/guest/cloud)

set -uo pipefail
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
N=0

# check NAME: the verdict on the command before it.
check() {
	local status=$?
	N=$((N + 1))
	if [ $status = 0 ]; then echo "ok $N - $1"; else echo "not ok $N - $1"; fi
}

if [ ! -e "$ROOT/build/guest/cloud/modules.later" ]; then
	echo "1..0 # SKIP the guest kernel is not there (make guest)"
	exit 0
fi

TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT

# checkout DIR: a copy of what the image is made from, with the kernel beside it.
checkout() {
	mkdir -p "$1/kvm" "$1/build/guest/cloud"
	cp -r "$ROOT/scripts" "$1/"
	cp -r "$ROOT/kvm/guest" "$ROOT/kvm/proto.h" "$1/kvm/"
	ln -s "$ROOT/build/guest/cache" "$1/build/guest/cache"
	cp -P "$ROOT"/build/guest/cloud/{vmlinux,bzImage,release,package,modules,modules.later} "$1/build/guest/cloud/"
}
make_image() { "$TMP/$1/scripts/guest-image" 2>>"$TMP/log" || { sed 's/^/# /' "$TMP/log" && false; }; }
image() { printf '%s/build/guest/cloud/initramfs' "$TMP/$1"; }

checkout "$TMP/a"
(umask 022 && TZ=UTC make_image a); check "an image is made"
checkout "$TMP/b/other/place"
find "$TMP/b" -type f -exec touch -d 2001-02-03 {} +
(umask 077 && TZ=Asia/Tokyo LANG=de_DE.UTF-8 make_image b/other/place)
cmp "$(image a)" "$(image b/other/place)"
check "the same bytes at another place, time, zone, locale, umask and file age"
[ "$(readlink "$TMP/a/build/guest/current")" = cloud ]; check "current points to the kernel there is"

before=$(stat -c %i:%y "$(image a)")
make_image a && [ "$(stat -c %i:%y "$(image a)")" = "$before" ]
check "nothing changed, nothing done"
touch "$TMP"/a/kvm/guest/*
make_image a && [ "$(stat -c %i:%y "$(image a)")" = "$before" ]
check "newer files with the same content change nothing"
echo 'static void __attribute__((constructor)) image_test(void) { volatile int x = 1; (void)x; }' >"$TMP/a/kvm/guest/image_test.c"
make_image a && ! cmp -s "$(image a)" "$(image b/other/place)"
check "a changed agent makes a new image"
rm "$TMP/a/kvm/guest/image_test.c"
make_image a && cmp "$(image a)" "$(image b/other/place)"
check "and changed back, the old one"

echo 'int broken(' >"$TMP/a/kvm/guest/broken.c"
! make_image a >/dev/null && cmp "$(image a)" "$(image b/other/place)"
check "an agent that does not compile is an error and leaves the image"
rm "$TMP/a/kvm/guest/broken.c"

# What a guest kernel reads of it.
mkdir "$TMP/root"
(cd "$TMP/root" && busybox cpio -idm <"$(image a)" 2>/dev/null)
[ -x "$TMP/root/init" ] && [ "$(stat -c %a "$TMP/root/tmp")" = 1777 ] &&
	[ "$(stat -c %a "$TMP/root")" = 755 ] &&
	grep -q '^nobody:x:65534:' "$TMP/root/etc/passwd" &&
	"$TMP/root/bin/busybox" test -L "$TMP/root/bin/sh"
check "the archive unpacks to a root with modes, users and applets"
while read -r m; do [ -s "$TMP/root$m" ] || echo "$m"; done \
	< <(cat "$TMP"/root/etc/vmpool/modules{,.later}) | cmp - /dev/null &&
	[ "$(tail -n 1 "$TMP/root/etc/vmpool/modules" | sed 's,.*/,,')" = virtio_console.ko ]
check "every module listed is there, the guest channel's last"

echo "1..$N"
